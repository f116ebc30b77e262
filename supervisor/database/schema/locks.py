"""The numbers of all advisory locks that this project takes."""

from __future__ import annotations

from enum import IntEnum


class LockSpace(IntEnum):
    """The first of a lock's two keys: the letters "pgs" and a number. Each description names the second key.

    The header of `001_events.sql` has the same list.
    """

    NODE_ALIVE = 1885827841
    """A node is alive (session, exclusive; key: node.id)."""
    LEASE_HELD = 1885827842
    """A lease is held (session, exclusive; key: lease.id)."""
    FENCED_TRANSACTION = 1885827843
    """A fenced transaction is open (transaction, shared; key: lease.id)."""
    APPEND = 1885827844
    """A transaction has appended events (transaction, shared; key: low 32 bits of a position)."""
    MIGRATION = 1885827845
    """The schema is being changed (transaction, exclusive; key: 0)."""
    PRUNING = 1885827846
    """Old events are being deleted (transaction, exclusive; key: 0)."""
