"""`unit`: a hardened systemd unit for one configuration."""

from __future__ import annotations


def print_unit(config):
    raise NotImplementedError
