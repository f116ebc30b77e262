"""The kinds of worker, one row each: keys, how they are read, and everything else in which kinds differ.

`workers/kinds.py` has the other half: what a kind runs. A test holds the two complete against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from supervisor.config.model import Cron, Every, Periodic, Projection, Service
from supervisor.config.table_reader import Key
from supervisor.config.validators import Choice, Duration, Integer, boolean, cron, globs
from supervisor.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.config.model import Config, WorkerSpec
    from supervisor.config.table_reader import FaultCollector

    KeyPath = tuple[str, ...]


class WorkerKind(NamedTuple):
    """What is special about one kind of worker.

    Attributes:
        name: The value of `kind`.
        doc: What such a worker is, in one sentence.
        settings_type: The type of `WorkerSpec.kind`.
        keys: The keys of the configuration that only this kind has.
        read: Makes the settings of the values of the kind's own keys; also gets the values of the other keys, the
            worker's key path and the collector for what is wrong. None: not possible, and the fault is collected.
        summary: Says the settings for people, without the word singleton.
        fallback: Settings for checking the handler of a worker whose own keys are wrong.
        handler_parameters: What the user's function is called with, by name.
        instances: From the kind's settings: how many instances a worker has on this node.
        runs_ticks: Whether each run is one scheduled tick, and returning means "until the next one".
        has_stall_timeout: Whether the worker is called again and again, so that one call's length can be limited.
        always_leased: Whether it runs only under a lease, also without `singleton`.
        needs_node: Whether the process has to be a node of the cluster for it, also without a lease.
        needs_schema: Whether it cannot run without the SQL schema, also without a lease.
        is_compared_by_key: Whether `reload --dry-run` names the keys that differ, and not both summaries.
    """

    name: str
    doc: str
    settings_type: type
    keys: Mapping[str, Key]
    read: Callable[[dict[str, Any], Mapping[str, Any], KeyPath, FaultCollector], Any]
    summary: Callable[[Any], str]
    fallback: Any
    handler_parameters: tuple[str, ...]
    instances: Callable[[Any], int] = lambda _: 1
    runs_ticks: bool = False
    has_stall_timeout: bool = False
    always_leased: bool = False
    needs_node: bool = False
    needs_schema: bool = False
    is_compared_by_key: bool = False


def _read_service(own: dict[str, Any], other: Mapping[str, Any], where: KeyPath, faults: FaultCollector) -> Service:
    service = Service(**own)
    if other.get("singleton") and service.replicas > 1:
        problem = f"a singleton runs once over all nodes, and replicas is {service.replicas}; keep one of the two"
        faults.add((*where, "singleton"), problem)
    return service


def _service_summary(kind: Service) -> str:
    return "service" if kind.replicas == 1 else f"service with {kind.replicas} replicas"


def _service_instances(kind: Service) -> int:
    return kind.replicas


_SERVICE = WorkerKind(
    name="service",
    doc="Runs until it is stopped.",
    settings_type=Service,
    keys={
        "replicas": Key("replicas", Integer(1, 100_000), "replace", "How many instances run at the same time."),
    },
    read=_read_service,
    summary=_service_summary,
    fallback=Service(),
    handler_parameters=("ctx",),
    instances=_service_instances,
)


def _read_periodic(
    own: dict[str, Any], _: Mapping[str, Any], where: KeyPath, faults: FaultCollector
) -> Periodic | None:  # fmt: skip
    has_every = "every_s" in own or faults.has_fault_at(*where, "every")
    has_cron = "cron" in own or faults.has_fault_at(*where, "cron")
    if has_every and has_cron:
        faults.add((*where, "cron"), "every is given too; keep one of the two")
    elif not has_every and not has_cron:
        problem = 'a periodic worker needs a schedule; write every = "30s" or cron = "*/5 * * * *"'
        faults.add(where, problem)
    schedule: Every | Cron
    if "every_s" in own:
        schedule = Every(own["every_s"])
    elif "cron" in own:
        schedule = Cron(own["cron"])
    else:
        return None
    # What is due at a time of day must not run at every restart of the daemon as well.
    return Periodic(schedule, own.get("immediate", isinstance(schedule, Every)))


def _periodic_summary(kind: Periodic) -> str:
    match kind.schedule:
        case Every(interval_s):
            when, immediate_by_default = f"every {format_duration(interval_s)}", True
        case Cron(expression):
            when, immediate_by_default = f'cron "{expression}"', False
    if kind.immediate == immediate_by_default:
        return f"periodic, {when}"
    return f"periodic, {when}, {'at once too' if kind.immediate else 'not at once'}"


_PERIODIC = WorkerKind(
    name="periodic",
    doc="Is called again and again, at an interval or by a cron expression.",
    settings_type=Periodic,
    keys={
        "every": Key(
            "every_s",
            Duration(),
            "replace",
            "The time from the start of one tick to the start of the next.",
            default="`every` or `cron` is required",
        ),
        "cron": Key(
            "cron",
            cron,
            "replace",
            "A cron expression of five fields, in the machine's time zone, that says when ticks are due.",
            default="`every` or `cron` is required",
        ),
        "immediate": Key(
            "immediate",
            boolean,
            "replace",
            "Whether the first tick runs at once.",
            default="`true` with `every`, `false` with `cron`",
        ),
    },
    read=_read_periodic,
    summary=_periodic_summary,
    fallback=Periodic(Every(1.0)),
    handler_parameters=("ctx",),
    runs_ticks=True,
    has_stall_timeout=True,
)


def _read_projection(own: dict[str, Any], *_: object) -> Projection:
    return Projection(**own)


def _projection_summary(kind: Projection) -> str:
    shards = f", {kind.shards} shards" if kind.shards > 1 else ""
    return f"projection of {', '.join(kind.streams) or 'all streams'}{shards}"


def _projection_instances(kind: Projection) -> int:
    return kind.shards


_PROJECTION = WorkerKind(
    name="projection",
    doc="Gets every event once and in order, a batch at a time, in the transaction that moves its checkpoint.",
    settings_type=Projection,
    keys={
        "streams": Key(
            "streams",
            globs,
            "replace",
            "The streams whose events it gets: `*` matches any letters, `?` one.",
            default='`["*"]`',
        ),
        "batch": Key("batch", Integer(1, 100_000), "replace", "The most events of one call."),
        "shards": Key(
            "shards",
            Integer(1, 1000),
            "replace",
            "How many parts, by stream, the projection is split into; all daemons on the database share them.",
        ),
        "poison": Key(
            "poison",
            Choice("stop", "dead-letter"),
            "replace",
            "What happens at an event that cannot be applied: the projection stops there, or the event becomes a dead"
            " letter and the projection continues.",
        ),
        "lag_warning": Key(
            "lag_warning_s",
            Duration(zero=True),
            "replace",
            "The lag from which on the journal says that the projection lags; 0: never.",
        ),
    },
    read=_read_projection,
    summary=_projection_summary,
    fallback=Projection(),
    handler_parameters=("ctx", "events"),
    instances=_projection_instances,
    has_stall_timeout=True,
    always_leased=True,
    needs_node=True,
    needs_schema=True,
    is_compared_by_key=True,
)

KINDS: Mapping[str, WorkerKind] = {kind.name: kind for kind in (_SERVICE, _PERIODIC, _PROJECTION)}
DEFAULT_KIND = _SERVICE
# The kinds of later versions, and their keys: only named, to say so.
LATER_KINDS: Mapping[str, tuple[str, ...]] = {
    "jobs": ("queue", "concurrency", "attempts", "retry", "transactional", "keep"),
}
_BY_TYPE = {kind.settings_type: kind for kind in KINDS.values()}


def kind_of(spec: WorkerSpec) -> WorkerKind:
    """Return the row of a worker's kind."""
    return _BY_TYPE[type(spec.kind)]


def instances_of(spec: WorkerSpec) -> int:
    """Return how many instances a worker has on this node: replicas, or the shards that it wants leases of."""
    return kind_of(spec).instances(spec.kind)


def needs_lease(spec: WorkerSpec) -> bool:
    """Whether a worker runs only where its lease is held."""
    return spec.singleton or kind_of(spec).always_leased


def needs_node(config: Config) -> bool:
    """Whether the process has to be a node of the cluster: for a lease, or for what a kind needs beside one."""
    return _any_lease(config) or any(kind.needs_node for kind in _kinds_in(config))


def needs_schema(config: Config) -> bool:
    """Whether a worker cannot run without the SQL schema."""
    return _any_lease(config) or any(kind.needs_schema for kind in _kinds_in(config))


def _any_lease(config: Config) -> bool:
    is_kind_leased = any(kind.always_leased for kind in _kinds_in(config))
    return is_kind_leased or any(spec.singleton for spec in config.workers.values())


def _kinds_in(config: Config) -> list[WorkerKind]:
    """Return the rows in use: a reload asks several times, and ten thousand workers have a handful of kinds."""
    return [_BY_TYPE[settings] for settings in {type(spec.kind) for spec in config.workers.values()}]
