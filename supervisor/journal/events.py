"""The table of the daemon's journal events: name, MESSAGE_ID, level, sentence, and what makes two entries equal.

A new event is one row here and one text in `explanations.py`; `make docs` writes the systemd catalog and the reference
page from both. A MESSAGE_ID is random, made once and never changed, also when the event is renamed: people filter by
it. Sentences use the small language of `templates.py`.

Two entries are equal, so that the second may be folded (see `dedup.py`), when they have the same event, level and
`fold_by` fields. What an entry is about belongs there: the worker, shard, lease, signal, file, event position, host or
reason. Durations and counts belong into `varies`. Where an instance ends for good, the instance belongs to `fold_by`,
too; failures of two replicas are equal.

With `place` in `fold_by`, the exception's whole path through the user's code is compared, and so are its causes. With
`error` in `varies`, the first eight messages are shown each.
"""

from __future__ import annotations

from typing import NamedTuple

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "critical": CRITICAL}
LEVEL_NAMES = {number: name for name, number in LEVELS.items()}

# Repeats of these are folded only while they come faster than the first window: each is a change of state.
_STATE_CHANGES = ("daemon.", "config.", "database.", "reload.", "workers.", "store.", "lease.", "node.", "schema.")
# Each entry answers a request, or tells a change of state that no fast stream of entries can have.
_NEVER_FOLDED = ("reload.", "schema.applied", "store.started", "store.stopped", "store.unlocked", "database.recovered")
_LONG_FIELDS = frozenset({"error", "faults", "reason", "stack", "text"})


class EventType(NamedTuple):
    """One event of the table.

    Attributes:
        name: `noun.what_happened`, the field EVENT.
        message_id: 128 bits as 32 hexadecimal digits, never changed.
        level: One of the five numbers above; `log_event` may override it.
        fold_by: The fields that make two entries equal.
        varies: The fields that may differ between equal entries.
        sentence: What an operator reads, in the language of `templates.py`.
        never_folded: Every entry is shown: it answers a request, or happens once.
        keeps_short_window: Each entry is a change of the daemon's state: a slow stream of them is shown in full.
        folds_by_text: `fold_by` has fields that may be long.
        folds_by_path: `fold_by` has the place of an exception.
        has_variants: The message of an error may differ between equal entries.
    """

    name: str
    message_id: str
    level: int
    fold_by: tuple[str, ...]
    varies: tuple[str, ...]
    sentence: str
    never_folded: bool
    keeps_short_window: bool
    folds_by_text: bool
    folds_by_path: bool
    has_variants: bool


# fmt: off
# Name, MESSAGE_ID, level, fold_by, varies, sentence.
_TABLE = (
    ("daemon.starting", "0203c923765c14fcfd2a85d6e93fd411", INFO, "version config", "",
     "pgsupervisor {version} is starting[ from {config}]."),
    ("daemon.ready", "3c4ba581d211698c0f4e610920200d66", INFO, "", "took_s workers instances",
     "Ready[ after {took_s}][: {workers|worker}][ ({instances|instance})]."),
    ("daemon.stopping", "b05ab3d973187ee535911aa9e8bcb045", INFO, "reason", "",
     "Stopping[: {reason}]."),
    ("daemon.stopped", "9982d3326bbe44139913de355d75c50e", INFO, "status reason", "took_s",
     "Stopped[ with status {status}][ after {took_s}]."),
    ("daemon.failed", "51ba121461d780cc2f9c633c6571a2cd", CRITICAL, "task worker error_type place error", "",
     "The daemon failed because of a bug of its own: {error}."),
    ("config.invalid", "f1abac06b1f0c35b235d1459f44daf3a", ERROR, "faults", "count",
     "The configuration is invalid:\n{faults}"),
    ("reload.started", "a58a0036356b744f8054ddfaabccfd6e", INFO, "", "",
     "Reloading the configuration."),
    ("reload.applied", "5ccf7e78f7b9badf12e456a5591750c9", INFO, "added changed removed", "took_s",
     "The new configuration runs[: added {added}][, changed {changed}][, removed {removed}][ ({took_s})]."),
    ("reload.rejected", "b49154150b6149ac6e0affe9a9644d24", ERROR, "faults error_type place", "",
     "The new configuration was refused, the old one still runs:\n{faults}"),
    ("reload.incomplete", "a0630ef912da1ac145fc098f7c652274", ERROR,
     "part reason applied kept error_type place", "error",
     ("The new configuration is in force only in part: {part} could not be changed: {reason}."
     "[ New: {applied}.][ Old: {kept}.] Correct it and reload again.")),
    ("database.connecting", "b7e186a757e5e00a7cc49b6f4de941ed", INFO,
     "address reason error_class", "next_try_s attempts down_s flaps dsn",
     "Connecting to the database[ at {address}][: {reason}][. Next try in {next_try_s}]."),
    ("database.connected", "4beb980d457917ee14a903febf0bf629", INFO, "address server_version", "took_s attempts",
     "Connected to the database[ at {address}][, PostgreSQL {server_version}][, after {took_s}]."),
    ("database.lost", "e5da9880ef8fe20650aed81e071c9921", WARNING, "address reason error_class", "",
     "Lost the database: {reason}."),
    ("database.still_down", "1b9281bb7ab51d9aec38b4d7ec00bc42", WARNING,
     "address reason error_class", "down_s attempts next_try_s flaps",
     ("The database is still unreachable[ after {down_s}][ and {attempts|attempt}]: {reason}"
     "[. Next try in {next_try_s}].")),
    ("database.recovered", "65c8c94baeb5492901c66cca47a6c235", INFO, "address", "downtime_s attempts flaps",
     "The database is back[ after {downtime_s}][ and {attempts|attempt}]."),
    ("database.reconnected", "d58969cd054c8d4ab8251492b97d2382", DEBUG, "address reason", "",
     "The daemon replaced one of its connections[: {reason}]."),
    ("database.gave_up", "3ff0d398f9ac64e3311935c464610720", CRITICAL, "address reason error_class", "attempts",
     "Gave up connecting to the database[ after {attempts|attempt}]: {reason}."),
    ("store.starting", "ed37c8512b66b4be7e6152c87cb57bf1", INFO, "path", "",
     "Starting the embedded PostgreSQL[ in {path}]."),
    ("store.started", "a4ecaafc428b1979225d66c323c3f822", INFO, "path", "took_s",
     "The embedded PostgreSQL runs[ in {path}][, after {took_s}]."),
    ("store.stopped", "7b4391d6e097e03ded575b87e1e40240", INFO, "", "took_s",
     "The embedded PostgreSQL has stopped[ after {took_s}]."),
    ("store.failed", "676f015b4509ec6b53eaaf0d96864119", ERROR, "path reason", "",
     "The embedded PostgreSQL failed: {reason}."),
    ("store.locked", "9e4434fb518734cfaa5358755e6efb4f", WARNING,
     "path holder_pid holder_host holder_since", "waited_s",
     ("The state directory[ {path}] is in use[ by process {holder_pid}][ on {holder_host}]"
     "[ since {holder_since}]. Waiting for it.")),
    ("store.unlocked", "aceb6a207e84b8bc476f7cdd8f0c5545", INFO, "path", "waited_s",
     "The state directory is free[ after {waited_s}]."),
    ("worker.started", "4da163be946877adc47b0e379f3c348c", INFO, "worker shard instance replicas shards", "",
     "Worker {worker} runs[ ({replicas|replica})][ ({shards|shard})]."),
    ("worker.stopped", "b2e35fb61c8f387286e3d650ffb0a001", INFO,
     "worker shard instance replicas shards reason", "cancelled_after_s",
     ("Worker {worker} has stopped[ ({replicas|replica})][ ({shards|shard})][: {reason}]"
     "[; its work was cancelled after {cancelled_after_s}].")),
    ("worker.failed", "9ea0c16871ad768943221921f6517d76", ERROR,
     "worker shard error_type sqlstate place", "error instance",
     "Worker {worker} failed[ in {place}]: {error_type}: {error}"),
    ("worker.ended", "590bca6e5d4eaa3dfeb3455825c79537", WARNING, "worker shard instance reason", "",
     "Worker {worker} ended by itself[: {reason}]."),
    ("worker.restarting", "9c75cb001c92d3b26003f9c5a8a8743b", INFO, "worker", "shard instance delay_s restarts",
     "Worker {worker} starts again[ in {delay_s}][ ({restarts|restart} in its window)]."),
    ("worker.exhausted", "aabcc6c433e38769ac44536ddae4db57", ERROR, "worker shard instance", "restarts window_s",
     ("Worker {worker} used up its restarts[: {restarts} within {window_s}]. Fix it, then: "
     "pgsupervisor restart {worker}")),
    ("worker.stalled", "62395a6da127f6445541a646605b4dc2", WARNING, "worker shard instance stack", "limit_s",
     "Worker {worker} took longer than {limit_s} and was cancelled."),
    ("worker.abandoned", "131e33b18bfa5f8c14eaf5936c883101", ERROR, "worker shard instance stack", "limit_s",
     "Worker {worker} did not stop[ within {limit_s}] and was abandoned."),
    ("worker.paused", "87dd6fe250fe64ad982035415704b954", INFO, "worker shard instance replicas shards", "",
     "Worker {worker} is paused[ ({replicas|replica})][ ({shards|shard})]."),
    ("worker.unpaused", "8e95c5e5d9ea642c5b31d9be28018f9c", INFO, "worker shard instance replicas shards", "",
     "Worker {worker} is resumed[ ({replicas|replica})][ ({shards|shard})]."),
    ("workers.parked", "1e0c509944656565251878033627e6ea", WARNING, "workers instances", "",
     "{workers|worker}[ ({instances|instance})] {workers?waits:wait} for the database."),
    ("workers.resumed", "954c2562205fe2371d49ea8ef1624feb", INFO, "workers instances", "",
     "Resumed {workers|worker}[ ({instances|instance})]."),
    ("loop.blocked", "57f17cfe3e68d28f166d37d8ebbebd14", WARNING, "worker place reason", "blocked_s stack",
     ("The event loop has been blocked for {blocked_s}[ by {worker}][: {reason}]."
     "[ The code is at {place}, its stack is in this entry. Move that work to a thread.]")),
    ("process.suspended", "a9a62e89e1b615d44c80a8d3576628df", WARNING, "", "suspended_s",
     "The process did not run for {suspended_s} (suspended, or overloaded host)."),
    ("control.failed", "30898e68089a8eebe1a8baa555ecbeb2", WARNING, "path reason error_type place", "",
     "The control socket[ {path}] failed: {reason}. The commands cannot reach this daemon."),
    ("notify.failed", "93a5efad55c0a32e560afef6a52caa57", WARNING, "reason", "",
     "A message to systemd could not be sent: {reason}. The daemon continues."),
    ("library.logged", "5013289c6a8621f9342e4a523560039d", INFO, "logger worker text place error_type", "error",
     "{logger}: {text}"),
    ("log.repeated", "9971f7d20d63169e2a7f73c8baeb73bf", INFO, "of_event same worker", "count over_s latest",
     "{of_event}[ ({same})] was logged {count|more time} in {over_s}[; the last one: {latest}]."),
    ("log.dropped", "295768e5b430ac5bcdbf622f397f3bb9", WARNING, "reason", "count",
     "{count|journal entry} lost: {reason}."),
    ("daemon.unhealthy", "3a071276d4e7986e1fa8f80f30a047f3", ERROR, "part reason", "",
     "A background task of the daemon is stuck[: {part}]; systemd will restart the process."),
    ("loop.responsive", "eac187a765bce847366267a5c03b6147", WARNING, "", "blocked_s",
     "The event loop was blocked for {blocked_s} and is responsive again."),
    ("loop.interrupted", "cb9d0d36d80e0d3fb9b849b4903dfbf8", ERROR, "error_type place", "error",
     "A task of a worker raised {error_type}, which would end the process; the daemon continues."),
    ("pool.exhausted", "d8f942b06a44edc9968b0c9b274c25f7", WARNING, "reason error_class", "error error_type place",
     "Connection pool exhausted: {reason}. Waiting calls continue when a connection is free."),
    ("signal.handler_replaced", "38d98361bc088101c0d9b858caa95397", WARNING, "signal", "",
     "Code in this process replaced the {signal} handler; the daemon restored its own."),
    ("lease.acquired", "e506f0473572e49b9d217d2f956e2c92", INFO, "lease leases epoch reason", "",
     "This node holds {leases|lease}[: {lease}][, epoch {epoch}]."),
    ("lease.lost", "3d9b5fc8a1c25dd5749d0311e1903f4e", WARNING, "lease leases epoch reason", "",
     "Lost {leases|lease}[: {lease}][, epoch {epoch}]: {reason}. The work under it was cancelled."),
    ("lease.released", "3234f5c7914b4eed61abe91a3bf78453", INFO, "lease leases epoch reason", "",
     "Released {leases|lease}[: {lease}][ ({reason})]."),
    ("lease.waiting", "9c8231666b9d6cb7034a996c640afb2e", INFO,
     "lease leases holder holder_host holder_pid since", "",
     ("Standing by for {leases|lease}[: {lease}][, held by {holder}][ on {holder_host}]"
     "[ (process {holder_pid})][ since {since}].")),
    ("lease.blocked", "a8eb8399530948a8b59d8f8f5d025afe", WARNING, "reason", "",
     "This node cannot hold leases: {reason}. Retrying."),
    ("lease.unblocked", "2c07c4845d0042feb6668517b176f3c1", INFO, "", "after_s",
     "This node can hold leases again[, after {after_s}]."),
    ("lease.overrun", "ec4a7648ff164a6ba5c19675863330e6", CRITICAL, "worker", "",
     "Worker {worker} did not stop after losing its lease. Exiting (70) so that no two nodes run it."),
    ("node.joined", "b331bf85e0e0666db796ece1fda37571", INFO, "node others nodes", "",
     "Joined as node {node}[ with {nodes|other node}][: {others}]."),
    ("node.members_changed", "3886b427eef918cec77ad1b6a3858d4a", INFO, "came went nodes", "",
     "{nodes|node} on this database now[; joined: {came}][; left: {went}]."),
    ("projection.poison", "01cf4610bdec414a33b5679ce1391347", ERROR,
     "worker shard position stream event_type error_type place consequence", "error",
     ("Projection {worker}[ (shard {shard})] cannot apply event {position}[ of {stream}][ ({event_type})]"
     ": {error_type}: {error}[. {consequence}].")),
    ("projection.lagging", "d6d9020e00b6f099370d4c4eaa794098", WARNING, "worker shard", "events lag_s",
     "Projection {worker}[ (shard {shard})] lags behind[ by {events|event}][, {lag_s}]."),
    ("projection.caught_up", "f571360bd699c72f00376188ba1c11ab", INFO, "worker shard", "took_s",
     "Projection {worker}[ (shard {shard})] has caught up[ after {took_s}]."),
    ("projection.moved", "c4863f5eca1ff0195b3f805f58b8d33d", INFO, "worker shard position", "",
     ("The checkpoint of projection {worker}[ (shard {shard})] was moved from outside[ to {position}]"
     "; it continues from there.")),
    ("projection.resharded", "419d771f639937a2b93de072c3724146", INFO, "worker shards", "",
     "Projection {worker} now has {shards|shard}."),
    ("projection.waiting", "d81c70bfc3c58ce8092f906f7b6986f0", WARNING, "worker shards reason", "",
     "Projection {worker} cannot change to {shards|shard} yet[: {reason}]. Retrying."),
    ("projection.sharding_conflict", "563a2b98b7e4d66560bf1ac29ef6d695", ERROR, "worker shard own shards", "",
     ("Projection {worker}[ (shard {shard})] is not running here: configured with {own|shard}, "
     "but a node with a newer configuration uses {shards}.")),
    ("projection.restarted_from_zero", "6d0f3f4e0b5c4a1f9a2e7c83d51b96e4", WARNING, "worker shard", "",
     ("The checkpoint of projection {worker}[ (shard {shard})] is gone from the database"
     ". A new one was made: every event is applied again from the beginning.")),
    ("projection.batch_failed", "8acd2a91ef0c14743f90de2bcb06f195", WARNING,
     "worker shard position error_type place", "error events delay_s",
     ("Projection {worker}[ (shard {shard})] could not apply[ {events|event}][ from position {position}]"
     ": {error_type}: {error}. Retrying[ in {delay_s}].")),
    ("events.pruned", "5bf81908408a48139e2b948887d6da21", DEBUG, "", "events",
     "Pruned {events|event} that every projection has passed."),
    ("events.prune_failed", "558ac29be6c04d42a1dc873c6757c475", WARNING, "reason", "",
     "Old events could not be pruned: {reason}. Retrying in a minute."),
    ("schema.applied", "a93f150b9a6ad98cc2125ae04b8af453", INFO, "version former", "took_s",
     "The SQL schema now has version {version}[, before: {former}][ ({took_s})]."),
    ("schema.newer", "1464409206964d9d80103f779a11fcb6", INFO, "version daemon", "",
     "The SQL schema has version {version}, newer than version {daemon} of this daemon, and lets it run."),
    ("schema.absent", "d718d0e91d5693b367692c6f82a8e31e", INFO, "reason", "",
     "The SQL schema cannot be used: {reason}. No worker of this configuration needs it."),
    ("schema.waiting", "f87c6279f52c41d98f86df9495321443", WARNING, "reason", "",
     "{reason}. A worker needs it. Retrying."),
    ("stop.timed_out", "027aa6abfa177ce2977d69417c87e92c", ERROR, "part", "limit_s stack",
     "Shutdown: closing the {part} took longer than {limit_s}; continuing without it."),
)
# fmt: on


def _event_type(row: tuple[str, str, int, str, str, str]) -> EventType:
    name, message_id, level, fold_by, varies, sentence = row
    fields, varying = tuple(fold_by.split()), tuple(varies.split())
    return EventType(
        name, message_id, level, fields, varying, sentence,
        never_folded=name.startswith(_NEVER_FOLDED),
        keeps_short_window=name.startswith(_STATE_CHANGES),
        folds_by_text=not _LONG_FIELDS.isdisjoint(fields),
        folds_by_path="place" in fields,
        has_variants="error" in varying,
    )  # fmt: skip


EVENTS = {row[0]: _event_type(row) for row in _TABLE}
