"""What a reload has to do: the difference between the running configuration and a new one, decided purely.

Every worker of either configuration is in exactly one of `added`, `removed`, `changed` and
`untouched`. `retuned` are those of `changed` that go on running: only how they are judged and
stopped is new (restart policy, backoff, stop timeout), so that a new `supervisor.stop_timeout`,
which all workers inherit, restarts none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.config.model import EmbeddedStore
from supervisor.errors import ConfigFault

if TYPE_CHECKING:
    from supervisor.config.model import Config, DaemonConfig, DatabaseConfig, Server, WorkerSpec


class ConfigDiff(NamedTuple):
    """What differs between two configurations.

    Attributes:
        added: Workers that are new, in the order of the new file.
        removed: Workers that are gone, in the order of the old file.
        changed: Workers that are drained and started anew, except for those in `retuned`.
        retuned: Workers of `changed` that run on under their new policy.
        untouched: Workers that must not notice.
        database_changed: New connections are needed: another server, password, pool size or timeout.
        policy_changed: How the database is tried and probed is new; its connections stay.
        log_changed: Level or format.
        events_changed: How long events are kept.
        daemon_changed: What the process heeds at once: stop_timeout, stall_warning, python_path.
        needs_restart: What a reload cannot do; with any of these it is refused as a whole.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    policy_only: tuple[str, ...]
    untouched: tuple[str, ...]
    database_changed: bool
    policy_changed: bool
    log_changed: bool
    events_changed: bool
    daemon_changed: bool
    needs_restart: tuple[ConfigFault, ...]

    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        workers = self.added or self.removed or self.changed
        values = self.database_changed or self.policy_changed or self.log_changed
        return not (workers or values or self.events_changed or self.daemon_changed or self.needs_restart)


def diff_configs(old: Config, new: Config) -> ConfigDiff:
    """Return what a reload from `old` to `new` has to do."""
    both = [name for name in new.workers if name in old.workers]
    changed = tuple(name for name in both if not is_same_worker(old.workers[name], new.workers[name]))
    differing = frozenset(changed)
    return ConfigDiff(
        added=tuple(name for name in new.workers if name not in old.workers),
        removed=tuple(name for name in old.workers if name not in new.workers),
        changed=changed,
        policy_only=tuple(name for name in changed if _is_retuned(old.workers[name], new.workers[name])),
        untouched=tuple(name for name in both if name not in differing),
        database_changed=_connections(old.database) != _connections(new.database),
        policy_changed=_policy(old.database) != _policy(new.database),
        log_changed=old.log != new.log,
        events_changed=old.events != new.events,
        daemon_changed=_live(old.daemon) != _live(new.daemon),
        needs_restart=_needs_restart(old, new),
    )


def is_same_worker(old: WorkerSpec, new: WorkerSpec) -> bool:
    """Whether two specifications are the same to the worker."""
    if not old.settings and not new.settings:
        return old == new
    # By their text: in Python 1 equals true and 1.0, and nan does not equal itself.
    without = old._replace(settings={}) == new._replace(settings={})
    return without and repr(old.settings) == repr(new.settings)


def is_same_target(old: Server | EmbeddedStore, new: Server | EmbeddedStore) -> bool:
    """Whether two targets are the same database with the same credentials, wherever the dsn was found."""
    if isinstance(old, EmbeddedStore) or isinstance(new, EmbeddedStore):
        return old == new
    return old.dsn == new.dsn


def _is_retuned(old: WorkerSpec, new: WorkerSpec) -> bool:
    tuned = old._replace(
        restart=new.restart,
        max_restarts=new.max_restarts,
        window_s=new.window_s,
        exhausted=new.exhausted,
        backoff=new.backoff,
        stop_timeout_s=new.stop_timeout_s,
    )
    return is_same_worker(tuned, new)


def _connections(database: DatabaseConfig) -> tuple[object, ...]:
    target = database.target
    place = target if isinstance(target, EmbeddedStore) else target.dsn
    sizes = (database.pool_min, database.pool_max)
    return (place, *sizes, database.connect_timeout_s, database.command_timeout_s)


def _policy(database: DatabaseConfig) -> tuple[object, ...]:
    return (database.migrate, database.probe_interval_s, database.startup, database.runtime)


def _live(daemon: DaemonConfig) -> tuple[object, ...]:
    return (daemon.stop_timeout_s, daemon.stall_warning_s, daemon.python_path)


def _needs_restart(old: Config, new: Config) -> tuple[ConfigFault, ...]:
    found = []
    for key, before, after in (
        ("supervisor.state_dir", old.daemon.state_dir, new.daemon.state_dir),
        ("supervisor.control", old.daemon.control, new.daemon.control),
    ):
        if before != after:
            found.append((key, f"moving from {before} to {after} needs a restart"))
    stores = isinstance(old.database.target, EmbeddedStore) or isinstance(new.database.target, EmbeddedStore)
    if stores and not is_same_target(old.database.target, new.database.target):
        before_text, after_text = name_of_target(old.database.target), name_of_target(new.database.target)
        found.append(("database.dsn", f"moving from {before_text} to {after_text} needs a restart"))
    return tuple(ConfigFault(str(new.path), key, problem) for key, problem in found)


def name_of_target(target: Server | EmbeddedStore) -> str:
    """Return a target for people, without secrets."""
    if not isinstance(target, EmbeddedStore):
        return str(target.dsn)
    if target.ephemeral:
        return "ephemeral:"
    return f"embedded:{target.path}" if target.path else "embedded:"
