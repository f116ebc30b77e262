"""The difference between two configurations for people: the lines of `reload --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.config.difference import diff_configs, is_same_target, name_of_target
from supervisor.config.model import Cron, EmbeddedStore, Periodic, Projection, Service
from supervisor.config.schema import BACKOFF, COMMON, CONNECT, DATABASE, EVENTS, LOG, PROJECTION, SUPERVISOR
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.model import Config, Server, WorkerSpec
    from supervisor.config.table import Key

_NOT_COMPARED_SINGLY = ("dsn", "dsn_file", "startup", "runtime", "kind", "backoff", "singleton", "settings")


def diff_text(old: Config, new: Config) -> list[str]:
    """Return a line for each thing that a reload from `old` to `new` changes; never with a secret in it."""
    found = diff_configs(old, new)
    lines = [f"! {fault.key}: {fault.problem}" for fault in found.needs_restart]
    lines += [f"~ {change}" for change in _changes_of_daemon(old, new)]
    lines += [f"+ worker {name}: {_kind(new.workers[name])}, {new.workers[name].run}" for name in found.added]
    lines += [f"- worker {name}" for name in found.removed]
    for name in found.changed:
        changes = "; ".join(_changes_of_worker(old.workers[name], new.workers[name]))
        goes_on = " (runs on)" if name in found.policy_only else ""
        lines.append(f"~ worker {name}{goes_on}: {changes}")
    if found.untouched:
        lines.append(f"= {len(found.untouched)} worker{'s' if len(found.untouched) > 1 else ''} untouched")
    return lines if not found.is_empty() else ["nothing changes"]


def _changes_of_daemon(old: Config, new: Config) -> Iterator[str]:
    for name, key in SUPERVISOR.items():
        if name not in ("state_dir", "control"):
            yield from _change(f"supervisor.{name}", key, old.daemon, new.daemon)
    for name, key in LOG.items():
        yield from _change(f"log.{name}", key, old.log, new.log)
    yield from _changes("events.", EVENTS, old.events, new.events)
    yield from _change_of_dsn(old.database.target, new.database.target)
    yield from _changes("database.", DATABASE, old.database, new.database)
    for policy in ("startup", "runtime"):
        before, after = getattr(old.database, policy), getattr(new.database, policy)
        yield from _changes(
            f"database.{policy}.", {k: v for k, v in CONNECT.items() if k not in BACKOFF}, before, after
        )
        yield from _changes(f"database.{policy}.", BACKOFF, before.backoff, after.backoff)


def _change_of_dsn(old: Server | EmbeddedStore, new: Server | EmbeddedStore) -> Iterator[str]:
    if is_same_target(old, new) or isinstance(old, EmbeddedStore) or isinstance(new, EmbeddedStore):
        return
    before, after = name_of_target(old), name_of_target(new)
    if before == after:
        yield f"database.dsn: only the password, or another part that is not shown, is new ({after})"
    else:
        yield f"database.dsn: {before} -> {after}"


def _changes_of_worker(old: WorkerSpec, new: WorkerSpec) -> Iterator[str]:
    if isinstance(old.kind, Projection) and isinstance(new.kind, Projection):
        yield from _changes("", PROJECTION, old.kind, new.kind)
    elif old.kind != new.kind:
        yield f"{_kind(old)} -> {_kind(new)}"
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
        if name not in _NOT_COMPARED_SINGLY:
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


def _kind(spec: WorkerSpec) -> str:
    match spec.kind:
        case Service(replicas):
            kind = "service" if replicas == 1 else f"service with {replicas} replicas"
        case Periodic():
            kind = _periodic(spec.kind)
        case Projection(streams, shards=shards):
            split = f", {shards} shards" if shards > 1 else ""
            return f"projection of {', '.join(streams) or 'all streams'}{split}"
    return f"{kind}, singleton" if spec.singleton else kind


def _periodic(kind: Periodic) -> str:
    schedule = kind.schedule
    when = (
        f'cron "{schedule.expression}"'
        if isinstance(schedule, Cron)
        else f"every {format_duration(schedule.interval_s)}"
    )
    usual = kind.immediate != isinstance(schedule, Cron)
    return f"periodic, {when}" if usual else f"periodic, {when}, {'at once too' if kind.immediate else 'not at once'}"
