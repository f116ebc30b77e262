"""Leases: which node may run which worker.

A lease is held by at most one node at a time. What runs under it on other nodes, late or by mistake, cannot commit.

What the database decides
-------------------------

- Which node holds a lease now: the node whose session holds the advisory lock of the lease's row. The lock ends with
  the session, whatever ends the session, so a dead node holds nothing.
- Which node is alive: the node whose session holds the advisory lock of the node's row.
- Whose writes count: the row of a lease has an epoch, which grows by one at each acquisition. Every transaction under
  a lease begins by comparing its epoch with the row's, and locks the row until its end (`fence.py`). A former holder
  fails there, however late it hears of its loss. An open transaction of a former holder delays the next acquisition,
  and is terminated if it stays open.

What the process decides
------------------------

- How long it trusts a lease without news: time is the process's own, and it only ever makes the process stop earlier.
  Trust lasts `TRUST_S` from when the last answered statement was *sent*, so a slow answer does not extend it
  (`timing.py`). It is over before the server ends a silent session and frees its locks.
- Which leases it acquires, requests and revokes. No node leads: every node computes the same shares from the same
  snapshot (`assignment.py`, `plan.py`). A node requests what another one holds, and the holder checks the request
  before it revokes the lease. A frozen node requests nothing, and so gets nothing.

The loop of a node (`node.py`)
------------------------------

```text
   register ──▶ release ──▶ publish what ──▶ take a ──▶ make a ──▶ revoke, release, try locks, request
      ▲            ▲        it wants         snapshot     plan                    │
      │            └── every 5 s, every 0.5 s while a lease is waited for, ◀──────┘
   new session         or at once: a notification, a change of a lease
```

The statements run on the node's session, one after the other. None of them waits for the lock of a lease: a waiting
statement would hold a snapshot of the database and delay VACUUM. Only the new epochs are written beside it, on pooled
connections (`acquisition.py`), because a commit may wait for a synchronous standby.

The states of a lease on one node (`local_lease.py`)
----------------------------------------------------

```text
                TRY             ACQUIRED           REVOKE            WORKER_ENDED
   NOT_HELD ─────────▶ ACQUIRING ───────▶ HELD ───────────▶ REVOKING ────────────▶ RELEASING
      ▲                 │     │            │                   │                    ▲  ▲  │
      │  REFUSED, LOST  │     │            └─LOST─▶ LOST ◀─LOST┘                    │  │  │
      ├─────────────────┘     │                      └─────────── WORKER_ENDED ─────┘  │  │
      │                       └─────────────────────────── REVOKE ─────────────────────┘  │
      └─────────────────────────────── RELEASED, LOST ────────────────────────────────────┘
```

A worker runs in HELD, ends in REVOKING as it does at a stop, and is cancelled in LOST. It sees NOT_HELD in the three
other states. Why the edges are as they are:

- REVOKING and LOST last until the worker has ended: a lock must not be released while something runs under it. A
  worker that does not end in time ends the process (`expiry.py`), and the lock goes with the session.
- LOST leads to RELEASING and not to NOT_HELD: where the fence found the loss, the session may still hold the lock.
- ACQUIRING leads to RELEASING when the lease is not wanted any more: the lock may be held by then, and no worker has
  heard of it.
- HELD ignores WORKER_ENDED: a worker that waits for its next run keeps its lease.
- An event that comes late, or twice, changes nothing.

When the session ends
---------------------

Every lease of the session is LOST at once. The process may only believe that the session has ended, and the server may
not have noticed: closing the connection would free the locks while the workers still end. So the connection stays open
until they have ended, and the new session terminates the previous one before it registers as the same node.

After a restart of the server every lease is free, and the first node to come back could acquire everything. For
`RECLAIM_WINDOW_S` a node acquires only what it held last and what no node held.

Three things watch a lease: the loop, with each snapshot; the task of `LeaseExpiry`, when the loop waits for an answer
that does not come; and its thread, when the event loop is blocked.
"""
