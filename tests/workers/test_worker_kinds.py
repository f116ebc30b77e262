"""The table of worker kinds: complete against the configuration's table, its schema and its model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from support.clock import FakeClock, MaxJitterRandom
from support.scripted_lease import ScriptedLease
from support.workers import SwitchedDatabase, periodic, projection, service

from supervisor.config import model
from supervisor.config.kinds import KINDS, instances_of, kind_of, needs_lease
from supervisor.config.schema import COMMON
from supervisor.events.append_signal import AppendSignal
from supervisor.workers.kinds import BUILDERS, work_factory
from supervisor.workers.projection.sharding import ShardingClaims

if TYPE_CHECKING:
    from supervisor.config.model import WorkerSpec

SPECS = {kind_of(spec).name: spec for spec in (service(), periodic(), projection(shards=2))}


class Cluster:
    """A node's services that note which leases were asked for."""

    def __init__(self) -> None:
        self.append_signal = AppendSignal()
        self.sharding = ShardingClaims()
        self.leases: list[str] = []

    def lease(self, name: str) -> Any:
        self.leases.append(name)
        return ScriptedLease(name)


async def handler(*_: Any) -> None:
    """Do nothing."""


def build(spec: WorkerSpec, cluster: Cluster, index: int = 0) -> Any:
    """Return the work of an instance."""
    runtime: Any = SimpleNamespace(clock=FakeClock(), rng=MaxJitterRandom())
    factory = work_factory(runtime=runtime, database=SwitchedDatabase(), cluster=lambda: cluster)
    return factory(spec, handler, index)


def test_every_kind_is_in_both_tables() -> None:
    """The model, the configuration's table, its schema, this table and this test name the same kinds."""
    hint: Any = eval(model.WorkerSpec.__annotations__["kind"].__forward_arg__, vars(model))
    assert {kind.settings_type for kind in KINDS.values()} == set(get_args(hint))
    assert BUILDERS.keys() == KINDS.keys() == SPECS.keys()
    assert all(COMMON["kind"].read(name) == name == kind.name for name, kind in KINDS.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_work_is_what_the_kind_promises(kind: str) -> None:
    """Each instance can be built; it has a schedule and a lease if, and only if, its kind's row says so."""
    spec, cluster = SPECS[kind], Cluster()
    for index in range(instances_of(spec)):
        work = build(spec, cluster, index)
        assert (work.schedule is not None) == KINDS[kind].runs_ticks
        assert (work.lease_handle is not None) == needs_lease(spec) == KINDS[kind].always_leased
    assert len(set(cluster.leases)) == (instances_of(spec) if needs_lease(spec) else 0)


@pytest.mark.parametrize("spec", [service(singleton=True), periodic(singleton=True)], ids=["service", "periodic"])
def test_a_singleton_has_the_lease_of_its_name(spec: WorkerSpec) -> None:
    """Also where the kind needs none."""
    cluster = Cluster()
    assert build(spec, cluster).lease_handle.name == spec.name
    assert cluster.leases == [spec.name]


def test_a_shard_has_a_lease_of_its_own() -> None:
    """A projection's leases have the names that the schema gives its shards."""
    cluster = Cluster()
    assert [build(SPECS["projection"], cluster, index).lease_handle.name for index in (0, 1)] == [
        "view/1of2",
        "view/2of2",
    ]
