"""The difference between two configurations as text: the lines of `reload --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.diff import diff_configs, is_same_target, target_name
from supervisor.config.kinds import kind_of
from supervisor.config.model import EmbeddedStore
from supervisor.config.schema import BACKOFF, COMMON, CONNECT, DATABASE, EVENTS, LOG, SUPERVISOR
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from supervisor.config.model import Config, Server, WorkerSpec
    from supervisor.config.table_reader import Key

_CONNECT_ONLY = {name: key for name, key in CONNECT.items() if name not in BACKOFF}
_COMPARED_APART = ("dsn", "dsn_file", "startup", "runtime", "kind", "backoff", "singleton", "settings")


def changed_keys(old: Config, new: Config) -> list[str]:
    """Return the keys outside of `[workers]` that have another value, without the connection string."""
    changes = (*_changes_of_process(old, new), *_changes_of_database(old, new))
    return [change.partition(":")[0] for change in changes]


def diff_text(old: Config, new: Config, *, restarted: Collection[str] = ()) -> list[str]:
    """Return a line for each thing that a reload from `old` to `new` changes; never with a secret in it.

    Args:
        old: The configuration in force.
        new: The one that is asked for.
        restarted: Workers that the reload starts anew although their configuration may be the same.
    """
    diff = diff_configs(old, new)
    lines = [f"! {fault.key}: {fault.problem}" for fault in diff.needs_restart]
    lines += [f"~ {change}" for change in _changes_of_process(old, new)]
    lines += [f"~ {change}" for change in _change_of_dsn(old.database.target, new.database.target)]
    lines += [f"~ {change}" for change in _changes_of_database(old, new)]
    lines += [f"+ worker {name}: {_summary(new.workers[name])}, {new.workers[name].run}" for name in diff.added]
    lines += [f"- worker {name}" for name in diff.removed]
    for name in diff.changed:
        changes = "; ".join(_changes_of_worker(old.workers[name], new.workers[name]))
        continues = " (runs on)" if name in diff.policy_only else ""
        lines.append(f"~ worker {name}{continues}: {changes}")
    lines += [f"~ worker {name}: is started anew" for name in restarted if name in diff.untouched]
    if untouched := len(set(diff.untouched).difference(restarted)):
        lines.append(f"= {untouched} worker{'s' if untouched > 1 else ''} untouched")
    return lines if restarted or not diff.is_empty() else ["nothing changes"]


def _changes_of_process(old: Config, new: Config) -> Iterator[str]:
    for name, key in SUPERVISOR.items():
        if key.on_reload != "restart":
            yield from _change(f"supervisor.{name}", key, old.daemon, new.daemon)
    for name, key in LOG.items():
        yield from _change(f"log.{name}", key, old.log, new.log)
    yield from _changes("events.", EVENTS, old.events, new.events)


def _changes_of_database(old: Config, new: Config) -> Iterator[str]:
    yield from _changes("database.", DATABASE, old.database, new.database)
    for policy in ("startup", "runtime"):
        before, after = getattr(old.database, policy), getattr(new.database, policy)
        yield from _changes(f"database.{policy}.", _CONNECT_ONLY, before, after)
        yield from _changes(f"database.{policy}.", BACKOFF, before.backoff, after.backoff)


def _change_of_dsn(old: Server | EmbeddedStore, new: Server | EmbeddedStore) -> Iterator[str]:
    if is_same_target(old, new) or isinstance(old, EmbeddedStore) or isinstance(new, EmbeddedStore):
        return
    before, after = target_name(old), target_name(new)
    if before == after:
        yield f"database.dsn: only the password, or another part that is not shown, is new ({after})"
    else:
        yield f"database.dsn: {before} -> {after}"


def _changes_of_worker(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    kind = kind_of(new)
    if kind.is_compared_by_key and kind_of(old) is kind:
        yield from _changes("", kind.keys, old.kind, new.kind)
    elif old.kind != new.kind:
        yield f"{_summary(old)} -> {_summary(new)}"
    else:
        yield from _change("singleton", COMMON["singleton"], old, new)
    yield from _changes("", COMMON, old, new)
    yield from _changes("backoff.", BACKOFF, old.backoff, new.backoff)
    # Only the names: a worker's settings may well be secrets.
    names = [*old.settings, *(name for name in new.settings if name not in old.settings)]
    differing = [name for name in names if repr(old.settings.get(name)) != repr(new.settings.get(name))]
    if differing:
        yield f"settings: {', '.join(differing)}"
    elif repr(old.settings) != repr(new.settings):
        yield "settings: another order"


def _changes(prefix: str, keys: Mapping[str, Key], old: object, new: object) -> Iterator[str]:
    for name, key in keys.items():
        if name not in _COMPARED_APART:
            yield from _change(prefix + name, key, old, new)


def _change(path: str, key: Key, old: object, new: object) -> Iterator[str]:
    before, after = getattr(old, key.field), getattr(new, key.field)
    if before != after:
        yield f"{path}: {_shown(key, before)} -> {_shown(key, after)}"


def _shown(key: Key, value: Any) -> str:
    if key.field.endswith("_s"):
        return format_duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _summary(spec: WorkerSpec) -> str:
    kind = kind_of(spec)
    text = kind.summary(spec.kind)
    return f"{text}, singleton" if spec.singleton and not kind.always_leased else text
