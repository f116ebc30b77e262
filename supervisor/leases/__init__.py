"""Leases: who may run what, over all nodes, and fenced.

A lease is a session advisory lock, which says who holds it now, and a row with an epoch, which says whose writes count.
The lock is on the gate's connection, the node's session (`database/session.py`): it goes when that ends, whoever ends
it. The epoch grows with each acquisition, and every transaction under a lease begins by looking whether it is still
the newest (`fence.py`): however late a former holder hears of its loss, it cannot commit.

```text
   look ──▶ decide ─────────┬─▶ take: the lock on the session, then the epoch on a connection of the pool
    ▲      (plan, share)    ├─▶ ask a holder for what is ours by fair shares
    │                       ├─▶ recall what another asks for rightly; give it back once its worker has ended
    └── 0.5 s, 5 s, a call ─┘
```

The rest of the daemon sees `node`. Decisions, all pure: `plan` (what follows from a look), `share` (fair shares),
`stand` (the machine of one lease), `trust` (for how long). The loop: `routine`, and `judgement` (when to decide anew).
Effects: `custody` and `taking` (locks and epochs), `trustee` (the end of what may not run any more), `membership`,
`joining`, `beginning` and `pooling` (the node's row and session, and whether it is a session at all), `roster`,
`listening` and `lease_entries` (the others, what they say, and what the journal hears).

What never happens: a lock given back, or a session ended, while something runs under it (RECALLED and LOST last until
the worker has ended, and a worker that outlives them ends the process); a wait for a lock (it would pin a snapshot); a
lease pushed onto a node (it asks, so a frozen one gets nothing).

A session that was given up stays open until its workers have ended: the server, which may hear us though we do not
hear it, would give the locks away at once. And one that just began takes for a moment only what nobody else will come
back for: after a restart of the server every node finds everything free.
"""
