"""A projection: each event once and in order, in the transaction that moves the checkpoint.

```text
   claim the sharding
          ▼
   load the checkpoint ◀──────────────────────────────┐ failed: retry, smaller batch or poison (failure_policy),
          ▼                                           │ or the checkpoint was moved from outside
   refresh the horizon ──▶ read a page ──▶ apply a batch: BEGIN + fence, handler, checkpoint + COMMIT
          ▲                                           │
          └────────────── wait for an append ◀────────┘ nothing left
```

Effects in the database are exactly once: they commit together with the checkpoint, under the lease's fence, and the
checkpoint only moves from the revision that was read. After every failure the checkpoint is read again.

`run.py` is the loop. `checkpoint_writer.py` owns the transaction and `guarded_connection.py` what the handler may use
of it; `sharding.py` sets the number of shards; `stall_watch.py` and `lag_monitor.py` watch a run. `shard_context.py` is
what all of them are given.
"""
