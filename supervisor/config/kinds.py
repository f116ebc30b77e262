"""The kinds of worker, one row each: everything that differs between kinds and is no code of its own.

`workers/kinds.py` has the other half: what a kind runs. A test holds the two complete against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supervisor.config.model import Periodic, Projection, Service
from supervisor.config.schema import PERIODIC, PROJECTION, SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from supervisor.config.model import Config, WorkerSpec
    from supervisor.config.table_reader import Key


@dataclass(frozen=True, slots=True)
class WorkerKind:
    """What is special about one kind of worker.

    Attributes:
        name: The value of `kind`.
        settings_type: The type of `WorkerSpec.kind`.
        keys: The keys of the configuration that only this kind has.
        handler_parameters: What the user's function is called with, by name.
        instances: From the kind's settings: how many instances a worker has on this node.
        runs_ticks: Whether each run is one scheduled tick, and returning means "until the next one".
        has_stall_timeout: Whether the worker is called again and again, so that one call's length can be limited.
        always_leased: Whether it runs only under a lease, also without `singleton`.
        needs_node: Whether the process has to be a node of the cluster for it, also without a lease.
        needs_schema: Whether it cannot run without the SQL schema, also without a lease.
    """

    name: str
    settings_type: type
    keys: Mapping[str, Key]
    handler_parameters: tuple[str, ...]
    instances: Callable[[Any], int]
    runs_ticks: bool = False
    has_stall_timeout: bool = False
    always_leased: bool = False
    needs_node: bool = False
    needs_schema: bool = False


def _one(_: object) -> int:
    return 1


def _replicas(kind: Service) -> int:
    return kind.replicas


def _shards(kind: Projection) -> int:
    return kind.shards


KINDS: Mapping[str, WorkerKind] = {
    kind.name: kind
    for kind in (
        WorkerKind("service", Service, SERVICE, ("ctx",), _replicas),
        WorkerKind("periodic", Periodic, PERIODIC, ("ctx",), _one, runs_ticks=True, has_stall_timeout=True),
        WorkerKind(
            "projection",
            Projection,
            PROJECTION,
            ("ctx", "events"),
            _shards,
            has_stall_timeout=True,
            always_leased=True,
            needs_node=True,
            needs_schema=True,
        ),
    )
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
    return any(needs_lease(spec) or kind_of(spec).needs_node for spec in config.workers.values())


def needs_schema(config: Config) -> bool:
    """Whether a worker cannot run without the SQL schema."""
    return any(needs_lease(spec) or kind_of(spec).needs_schema for spec in config.workers.values())
