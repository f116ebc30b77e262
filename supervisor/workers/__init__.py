"""The work of each kind of worker, and what a worker sees of the daemon.

`kinds.py` is the table: it builds the work of an instance from its kind. A service's run and a periodic worker's tick
are one call of the user's function (`function_work.py`, `schedules.py`); a projection has a package of its own.
`handlers.py` imports the users' functions, `context.py` is their `ctx`, and `fenced_transaction.py` is
`ctx.transaction()` under a lease.
"""
