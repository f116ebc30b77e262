"""A projection: each event once and in order, in the transaction that moves the checkpoint.

```text
                                                    ┌─ nothing left: wait for an append ◀─┐
                                                    ▼                                     │
   claim the sharding ─▶ load the checkpoint ─▶ log position ─▶ read a page ─▶ batch: BEGIN + fence, handler,
                                 ▲              (horizon)                      checkpoint + COMMIT
                                 │                                                 │ fails, or the checkpoint
                                 └── retry, smaller batch, poison ◀────────────────┘ has been moved
                                     (failure_policy, pure)
```

Effects in the database are exactly once: they commit together with the checkpoint, under the lease's fence, and the
checkpoint only moves from the revision that was read. After every failure the checkpoint is read again.
"""
