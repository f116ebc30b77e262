"""The event log: appending events, reading them up to the horizon, waking readers, pruning.

A position is drawn when an event is appended, not when it commits, so events become visible out of order. Every
reader therefore stops at the horizon: up to there each event is committed or gone for good.

`shard.py` and `lag.py` decide (pure), `reader.py` reads, `append_signal.py` says when there may be more.
"""
