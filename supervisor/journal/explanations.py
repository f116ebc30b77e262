"""What `journalctl -x` says of each event: a subject, what happened, and what to do.

The daemon never imports this module. The systemd catalog and docs/reference/journal.md are made from it and from the
table of events; `@NAME@` stands for a field of the entry.
"""

from __future__ import annotations

from typing import NamedTuple

from supervisor.journal.events import EVENTS

_HEAD = """\
# What each MESSAGE_ID of pgsupervisor means, for journalctl -x. Install in /usr/lib/systemd/catalog/, then: \
journalctl --update-catalog
# Generated from supervisor/journal/events.py and explanations.py: run `make docs`.
"""


class Explanation(NamedTuple):
    """The paragraph of one event.

    Attributes:
        subject: One line.
        body: What happened, an empty line, what to do.
    """

    subject: str
    body: str


def catalog() -> str:
    """Return the message catalog for systemd."""
    parts = [_HEAD]
    for event_type in EVENTS.values():
        subject, body = EXPLANATIONS[event_type.name]
        header = f"# {event_type.name}\n-- {event_type.message_id}\nSubject: {subject}\nDefined-By: pgsupervisor\n"
        parts.append(f"{header}\n{body}\n")
    return "\n".join(parts)


_TEXTS = {
    "daemon.starting": """
pgsupervisor @VERSION@ is starting

The daemon reads its configuration (@CONFIG@), imports the workers' code and connects to the
database. `systemctl status` shows the current step.

No action is needed. If daemon.ready does not follow, the entries in between say what it waits for.
""",
    "daemon.ready": """
pgsupervisor is ready

The database is connected, the workers run, and systemd has been notified.

No action is needed.
""",
    "daemon.stopping": """
pgsupervisor is stopping

The daemon takes no new work. Work in flight may finish within stop_timeout, then it is cancelled;
connections are closed.

No action is needed. A second SIGTERM cancels at once, a third ends the process at once.
""",
    "daemon.stopped": """
pgsupervisor has stopped

The daemon ended with exit status @STATUS@: 0 as asked, 69 no database at the start, 70 a worker or
the daemon itself failed, 75 the state directory is in use by another daemon, 77 login or privilege
refused, 78 invalid configuration.

For any status but 0 the entries before this one say why.
""",
    "daemon.failed": """
pgsupervisor failed because of a bug of its own

@ERROR_TYPE@: @ERROR@. The daemon ends with status 70 and systemd starts it again.

This is a bug of pgsupervisor, not of a worker. Please report it with the field TRACEBACK:
journalctl -o verbose EVENT=daemon.failed
""",
    "config.invalid": """
The configuration is invalid

@FAULTS@

The daemon does not start, and systemd does not try again (exit status 78).

Correct every key named above, check the file with `pgsupervisor check`, then start the unit.
""",
    "reload.started": """
The configuration is reloaded

A SIGHUP or `pgsupervisor reload` asked for it. Everything is checked before anything changes.

No action is needed. reload.applied or reload.rejected follows.
""",
    "reload.applied": """
The new configuration runs

Added: @ADDED@. Changed: @CHANGED@. Removed: @REMOVED@. Workers that are not named here were not
interrupted.

No action is needed. Code that Python has imported is not imported again: new code needs a restart.
""",
    "reload.rejected": """
The new configuration was refused

@FAULTS@

The old configuration still runs, unchanged.

Correct what is named above and reload again. `pgsupervisor reload --dry-run` shows what would
change.
""",
    "reload.incomplete": """
The new configuration is in force only in part

@PART@ could not be changed: @REASON@

The new configuration is in force for: @APPLIED@. The old one is in force for: @KEPT@. The daemon is
degraded until a reload applies.

Correct the cause and reload again: the next reload compares with what is really in force. A restart
of the daemon puts the whole file in force, too.
""",
    "database.connecting": """
Connecting to the database

The daemon tries to reach @ADDRESS@, with growing delays between the attempts, and asks systemd for
more time meanwhile.

If it lasts, check that the server runs, listens on that address and can be reached from this
machine.
""",
    "database.connected": """
Connected to the database

The daemon has its first connection to @ADDRESS@.

No action is needed.
""",
    "database.lost": """
The database was lost

@REASON@

Workers wait at their next use of the database; the outage does not count as their failure or
restart. The daemon checks about once a second and continues by itself when the server is back.

Check the server at @ADDRESS@. The daemon needs no action.
""",
    "database.still_down": """
The database is still unreachable

It has been unreachable for @DOWN_S@ seconds and @ATTEMPTS@ attempts: @REASON@. The daemon keeps
trying; this entry is repeated at growing intervals.

Check the server, the network in between and, for a refused login, the password and pg_hba.conf.
""",
    "database.recovered": """
The database is back

It was unreachable for @DOWNTIME_S@ seconds. Everything that waited for it continues.

No action is needed.
""",
    "database.reconnected": """
The daemon replaced one of its connections

One connection was lost while the server was available.

No action is needed, unless it happens often: then something between daemon and server cuts
connections.
""",
    "database.gave_up": """
Gave up connecting to the database

@REASON@

The start used up its attempts, or the server refused the login. The daemon ends with status 69 or
77; systemd starts it again after RestartSec.

Check the server and the dsn. `pgsupervisor check --connect` tries to connect once. With
[database.startup] attempts = 0 the daemon waits for ever.
""",
    "store.starting": """
The embedded PostgreSQL is starting

The daemon starts a PostgreSQL of its own in @PATH@; the first time it creates the folder.

No action is needed.
""",
    "store.started": """
The embedded PostgreSQL runs

Its data is in @PATH@. It listens only on a socket in the state directory.

No action is needed.
""",
    "store.stopped": """
The embedded PostgreSQL has stopped

It was shut down cleanly.

No action is needed.
""",
    "store.failed": """
The embedded PostgreSQL failed

@REASON@

The daemon treats it like any outage: the workers wait while it tries to start the server again.

Read the server's own log in the state directory; a full disk and wrong permissions are the usual
causes.
""",
    "store.locked": """
The state directory is in use

Process @HOLDER_PID@ on @HOLDER_HOST@ has used @PATH@, the place of the embedded PostgreSQL, since
@HOLDER_SINCE@. This daemon waits and takes over within milliseconds of its release; after a while
it gives up with status 75.

If that process is an earlier daemon that is stopping, no action is needed. If it should not run,
stop it. Never delete the lock file.
""",
    "store.unlocked": """
The state directory is free

The other process released it, and this daemon took over.

No action is needed.
""",
    "worker.started": """
Worker @WORKER@ runs

It was started.

No action is needed.
""",
    "worker.stopped": """
Worker @WORKER@ has stopped

It was asked to stop and has stopped. If its work was cancelled, the entry says after how long.

No action is needed.
""",
    "worker.failed": """
Worker @WORKER@ failed

@ERROR_TYPE@: @ERROR@ (@PLACE@). Other workers are not affected. The worker's restart policy decides
what happens next: worker.restarting or worker.exhausted.

The field TRACEBACK has the details: journalctl -o verbose WORKER=@WORKER@ EVENT=worker.failed
""",
    "worker.ended": """
Worker @WORKER@ ended by itself

A service is expected to run until it is cancelled. Its restart policy decides whether it starts
again.

If it is meant to end, set restart = "never" or "on-failure" for it.
""",
    "worker.restarting": """
Worker @WORKER@ starts again

It starts again in @DELAY_S@ seconds; the delay grows while it keeps failing.

No action is needed, unless it continues: then see worker.failed.
""",
    "worker.exhausted": """
Worker @WORKER@ used up its restarts

It failed more often than max_restarts within its window and stays stopped; the daemon is degraded
(with exhausted = "exit" it ends with status 70).

Fix the cause (worker.failed), then run: pgsupervisor restart @WORKER@
""",
    "worker.stalled": """
A call of worker @WORKER@ took too long

One call took longer than its stall_timeout of @LIMIT_S@ seconds and was cancelled. The field STACK
shows what it was doing.

Find out what it waited for, or raise stall_timeout.
""",
    "worker.abandoned": """
Worker @WORKER@ did not stop

It was cancelled and still runs after its deadline. The daemon no longer waits for it; the field
STACK shows what it is doing.

Look there for code that catches CancelledError, or that blocks. Only a restart of the daemon
certainly ends it.
""",
    "worker.paused": """
Worker @WORKER@ is paused

An operator ran the command `pause`. It stays paused over a reload, but not over a restart of the
daemon.

To resume it: pgsupervisor resume @WORKER@
""",
    "worker.unpaused": """
Worker @WORKER@ is resumed

An operator ran the command `resume`.

No action is needed.
""",
    "workers.parked": """
The workers wait for the database

The outage concerns @WORKERS@ workers. They continue by themselves when the database is back.

See database.lost for the cause.
""",
    "workers.resumed": """
The workers continue

The database is back, and @WORKERS@ workers continue.

No action is needed.
""",
    "loop.blocked": """
The event loop is blocked

Code in this process has kept the event loop for @BLOCKED_S@ seconds without awaiting. No worker of
this daemon can run meanwhile; if it lasts, systemd's watchdog ends the process.

The field STACK shows the code: journalctl -o verbose EVENT=loop.blocked. Move that work to a thread
(asyncio.to_thread) or make it asynchronous. If REASON names the interpreter's lock, a C extension
holds it: then a thread does not help, another process does.
""",
    "process.suspended": """
The process did not run

No thread of the process ran for @SUSPENDED_S@ seconds: it was stopped (SIGSTOP, a debugger, a frozen
cgroup), its machine was suspended, or the host was overloaded.

No code of a worker is to blame. Leases may have passed to another node meanwhile. If it happens
again, check the load of the host, and the hypervisor.
""",
    "control.failed": """
The control socket failed

@REASON@

The workers run, but `pgsupervisor status`, `reload`, `pause` and the other commands cannot reach
this daemon.

Check that the socket's folder exists and that the daemon may write to it. SIGHUP and SIGTERM still
work.
""",
    "notify.failed": """
A message to systemd could not be sent

@REASON@

The daemon continues without it, but a start that waits for READY=1 will time out.

Check that NOTIFY_SOCKET was not inherited from another unit and that the unit has NotifyAccess=main.
""",
    "library.logged": """
@LOGGER@ logged a message

A library that the daemon or a worker uses logged: @TEXT@

What to do depends on the library. The field PLACE names the line that logged it.
""",
    "log.repeated": """
Equal entries were left out

@OF_EVENT@ was logged @COUNT@ more times in @OVER_S@ seconds. The first one was shown in full. The
entries that were left out have the same values of: @SAME@. Entries with other values are never left
out.

See the first entry: journalctl EVENT=@OF_EVENT@
""",
    "log.dropped": """
Journal entries were lost

@COUNT@ entries could not be kept: @REASON@. The daemon never waits for its journal: it drops what
does not fit into memory.

Check that journald runs, that the disk is not full and that something reads the daemon's stderr. If
a worker logs too much, raise [log] level.
""",
    "daemon.unhealthy": """
A background task of the daemon is stuck

@PART@ has not made progress for too long. The daemon no longer answers the watchdog, so that
systemd ends and restarts it.

This is a bug of pgsupervisor. Please report it with the entries before this one.
""",
    "loop.responsive": """
The event loop is responsive again

It was blocked for @BLOCKED_S@ seconds. Everything that waited continues.

The entry loop.blocked before this one has the stack of the code that blocked it. Move that work to
a thread: asyncio.to_thread.
""",
    "loop.interrupted": """
A task of a worker tried to end the process

A task that a worker had started by itself raised @ERROR_TYPE@. The daemon caught it and continues.

The field TRACEBACK shows the place. A worker ends by returning or raising, not by sys.exit().
""",
    "pool.exhausted": """
The connection pool is exhausted

@REASON@

The database is available, and the open connections still serve. Workers that ask for another
connection wait until one is free.

Too many connections: lower database.pool_max or raise the server's max_connections. A refused login:
change the dsn, then reload. A worker that keeps its connections: make it release each one.
""",
    "signal.handler_replaced": """
A signal handler was replaced

Code in this process, for example a library, installed its own handler for @SIGNAL@. The daemon
restored its own.

Configure that library so that it leaves the signals alone: its handler is not called.
""",
    "stop.timed_out": """
A part of the daemon did not stop in time

@PART@ had not stopped after @LIMIT_S@ seconds; the shutdown continues without it.

Either a server or proxy did not answer, or it is a bug of pgsupervisor.
""",
    "lease.acquired": """
This node holds a lease

@LEASE@

The worker of this lease runs here now, and on no other node. Its transactions carry epoch @EPOCH@.

No action is needed.
""",
    "lease.lost": """
A lease was lost

@REASON@

The worker was cancelled here; nothing can be written any more under the old epoch. Another node
takes over, or this one does again.

If it happens often, find out what ends the node's session: a proxy, a firewall, an overloaded
machine.
""",
    "lease.released": """
A lease was released

@REASON@

The worker has stopped here; another node takes over within milliseconds.

No action is needed.
""",
    "lease.waiting": """
This node is on standby

The lease is held by @HOLDER@ on @HOLDER_HOST@, process @HOLDER_PID@, since @SINCE@. This node takes
over when that one stops, dies or cannot reach the database.

No action is needed.
""",
    "lease.blocked": """
This node cannot hold leases

@REASON@

This has lasted for some seconds. What this node already holds continues to run; what it waits for
runs on another node, if one can take it, or nowhere. The node retries at least every 15 s.

If the pool has no free connection, workers keep all of them: find the one that does not release its
connections, or raise database.pool_max. If a privilege or a function is missing, run
`pgsupervisor migrate`, or grant the role the documented privileges. If a transaction keeps a row
locked, find it in pg_stat_activity.
""",
    "lease.unblocked": """
This node can hold leases again

The problem of the last lease.blocked is over, or no lease is affected any more.

No action is needed.
""",
    "lease.overrun": """
A worker did not stop after losing its lease

It ignores its cancellation, or blocks the event loop. While it runs its lease cannot be released,
and once the lease has expired another node runs the same worker beside it. So the process exits at
once, with status 70, and the other nodes take over.

The entry worker.abandoned just before this one shows what the worker was doing.
""",
    "node.joined": """
This daemon joined the cluster as a node

Daemons on the same database share the singletons and projections among them. This one is @NODE@.

No action is needed.
""",
    "node.members_changed": """
The nodes on the database changed

Joined: @CAME@. Left: @WENT@. The leases are distributed again. A node that was not stopped cleanly
is named by its last known name.

If a node left and was not stopped by an operator, read its journal.
""",
    "projection.poison": """
A projection cannot apply an event

The event @POSITION@ of stream @STREAM@ failed alone, again and again: @ERROR@

@CONSEQUENCE@

Fix the handler and restart the worker, or leave the event out: pgsupervisor projections skip @WORKER@
""",
    "projection.lagging": """
A projection lags behind

@EVENTS@ events have not been applied yet; the oldest is @LAG_S@ seconds old.

During a rebuild no action is needed. Otherwise events arrive faster than the handler applies them:
configure more shards, or write in batches.
""",
    "projection.caught_up": """
A projection has caught up

Its lag is below lag_warning again.

No action is needed.
""",
    "projection.moved": """
A checkpoint was moved from outside

An operator reset the projection or skipped an event, or its number of shards changed. The position is
now @POSITION@.

No action is needed.
""",
    "projection.resharded": """
A projection has a new number of shards

Every event is still applied exactly once: each new shard leaves out what an earlier one applied.

Reload the other nodes with the same number; until then they do not run this projection.
""",
    "projection.waiting": """
A projection cannot change its number of shards yet

A transaction of the former shards is still running: @REASON@

The daemon retries. If it lasts, find out in pg_stat_activity what the handler on another node does.
""",
    "projection.sharding_conflict": """
A projection is not running here

A node that was started or reloaded later uses another number of shards for it, and the newest
configuration wins.

Reload this node with the same number. If its own is the right one: pgsupervisor restart @WORKER@.
When the other node changes to this number, this node continues by itself.
""",
    "projection.restarted_from_zero": """
A checkpoint is gone, and its projection starts again

A row of supervisor.checkpoint or supervisor.projection was deleted, or this is another database.

What the shard's handler wrote before may still be there and is written again: check that the handler
allows it. To start from another position: pgsupervisor projections reset @WORKER@ --to POSITION
""",
    "projection.batch_failed": """
A projection could not apply a batch

The batch was rolled back: @ERROR_TYPE@: @ERROR@

The daemon retries, with fewer events if the handler failed, until the event that fails is alone. If
it lasts, fix the handler: the field TRACEBACK shows the place.
""",
    "events.pruned": """
Old events were deleted

They were older than [events] keep, and every projection had passed them.

No action is needed.
""",
    "events.prune_failed": """
Old events could not be deleted

@REASON@

Only the size of the table supervisor.event depends on it. If it lasts, remove the cause named above.
""",
    "schema.applied": """
The SQL schema was created or upgraded

The schema "supervisor" of the database has version @VERSION@. Running daemons continue.

No action is needed.
""",
    "schema.newer": """
The SQL schema is newer than this daemon

A daemon of a later release has upgraded the schema. This daemon runs on it, because the schema
names version @DAEMON@ or an earlier one as the oldest that may.

No action is needed. Install the later release here too when convenient.
""",
    "schema.absent": """
The SQL schema is missing, or cannot be used

@REASON@

Services and periodic workers run without it. Singletons, projections and supervisor.append need it.

To create it, run `pgsupervisor migrate` as a role that may create a schema.
""",
    "schema.waiting": """
The SQL schema is not usable yet

@REASON@

A worker needs it, and [database.startup] retry_refused = true: the daemon retries with growing
delays, as often as [database.startup] attempts says.

To create it, run `pgsupervisor migrate` as a role that may create a schema; or grant the daemon's
role what the reason names.
""",
}


def _explanation(text: str) -> Explanation:
    subject, _, body = text.strip().partition("\n\n")
    return Explanation(subject, body)


EXPLANATIONS = {name: _explanation(text) for name, text in _TEXTS.items()}
