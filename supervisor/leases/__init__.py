"""Leases: who may run what, over all nodes, and fenced."""
