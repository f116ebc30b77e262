"""What a reload has to do: the difference between the running configuration and a new one, decided purely.

What a change of one key means is in `Key.on_reload`; a test holds that every field of the model
belongs to a key.

Every worker of either configuration is in exactly one of `added`, `removed`, `changed` and
`untouched`. `policy_only` are those of `changed` that go on running: only how they are judged and
stopped is new (restart policy, backoff, stop timeout), so that a new `supervisor.stop_timeout`,
which all workers inherit, restarts none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from supervisor.config.model import EmbeddedStore
from supervisor.config.schema import COMMON, DATABASE, EVENTS, LOG, SUPERVISOR
from supervisor.errors import ConfigFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.model import Config, Server, WorkerSpec
    from supervisor.config.table_reader import Key, OnReload

# Together they are the field `target`, which is compared by what it means.
_TARGET_KEYS = ("dsn", "dsn_file")


class ConfigDiff(NamedTuple):
    """What differs between two configurations.

    Attributes:
        added: Workers that are new, in the order of the new file.
        removed: Workers that are gone, in the order of the old file.
        changed: Workers that are drained and started anew, except for those in `policy_only`.
        policy_only: Workers of `changed` that run on under their new policy.
        untouched: Workers that must not notice.
        database_changed: New connections are needed: another server, password, pool size or timeout.
        policy_changed: How the database is tried and probed is new; its connections stay.
        log_changed: Level or format.
        events_changed: How long events are kept.
        daemon_changed: What the process applies at once: stop_timeout, stall_warning, python_path.
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
    reconnects = _differs(DATABASE, "reconnect", old.database, new.database)
    return ConfigDiff(
        added=tuple(name for name in new.workers if name not in old.workers),
        removed=tuple(name for name in old.workers if name not in new.workers),
        changed=changed,
        policy_only=tuple(name for name in changed if _is_policy_only(old.workers[name], new.workers[name])),
        untouched=tuple(name for name in both if name not in differing),
        database_changed=reconnects or not is_same_target(old.database.target, new.database.target),
        policy_changed=_differs(DATABASE, "live", old.database, new.database),
        log_changed=_differs(LOG, "live", old.log, new.log),
        events_changed=_differs(EVENTS, "live", old.events, new.events),
        daemon_changed=_differs(SUPERVISOR, "live", old.daemon, new.daemon),
        needs_restart=tuple(_needs_restart(old, new)),
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


def target_name(target: Server | EmbeddedStore) -> str:
    """Return a target for people, without secrets."""
    if not isinstance(target, EmbeddedStore):
        return str(target.dsn)
    if target.ephemeral:
        return "ephemeral:"
    return f"embedded:{target.path}" if target.path else "embedded:"


def _differs(keys: Mapping[str, Key], on_reload: OnReload, old: object, new: object) -> bool:
    """Whether a key with this effect has another value."""
    return any(True for _ in _differing(keys, on_reload, old, new))


def _differing(keys: Mapping[str, Key], on_reload: OnReload, old: object, new: object) -> Iterator[tuple[str, Key]]:
    for name, key in keys.items():
        if key.on_reload != on_reload or name in _TARGET_KEYS:
            continue
        if getattr(old, key.field) != getattr(new, key.field):
            yield name, key


def _is_policy_only(old: WorkerSpec, new: WorkerSpec) -> bool:
    live = {key.field: getattr(new, key.field) for key in COMMON.values() if key.on_reload == "live"}
    return is_same_worker(old._replace(**live), new)


def _needs_restart(old: Config, new: Config) -> Iterator[ConfigFault]:
    for name, key in _differing(SUPERVISOR, "restart", old.daemon, new.daemon):
        before, after = getattr(old.daemon, key.field), getattr(new.daemon, key.field)
        yield ConfigFault(str(new.path), f"supervisor.{name}", f"moving from {before} to {after} needs a restart")
    stores = isinstance(old.database.target, EmbeddedStore) or isinstance(new.database.target, EmbeddedStore)
    if stores and not is_same_target(old.database.target, new.database.target):
        before, after = target_name(old.database.target), target_name(new.database.target)
        yield ConfigFault(str(new.path), "database.dsn", f"moving from {before} to {after} needs a restart")
