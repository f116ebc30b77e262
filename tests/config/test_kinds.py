"""The table of worker kinds is complete, and decides what a worker needs."""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING

import pytest
from support.config_file import DATABASE, config_of, faults_of

from supervisor.config.kinds import (
    DEFAULT_KIND,
    KINDS,
    LATER_KINDS,
    instances_of,
    kind_of,
    needs_lease,
    needs_node,
    needs_schema,
)
from supervisor.config.model import Cron, Every, Periodic, Projection, Service, WorkerSpec
from supervisor.config.partial_read import readable_workers
from supervisor.config.schema import COMMON

if TYPE_CHECKING:
    from pathlib import Path


def test_the_table_has_a_row_for_each_type_of_settings() -> None:
    """Every member of the union `WorkerSpec.kind` is the settings of one row."""
    union = typing.get_type_hints(WorkerSpec, localns={"Mapping": dict})["kind"]
    assert {kind.settings_type for kind in KINDS.values()} == set(typing.get_args(union))
    assert all(type(kind.fallback) is kind.settings_type for kind in KINDS.values())
    assert all(kind_of(WorkerSpec("x", "m:x", kind.fallback)) is kind for kind in KINDS.values())


def test_a_key_belongs_to_one_kind() -> None:
    """No key of a kind is one of another, or one of all: a wrong one is refused by the name of its kind."""
    names = [name for kind in KINDS.values() for name in kind.keys]
    names += [name for keys in LATER_KINDS.values() for name in keys]
    assert len({*names, *COMMON}) == len(names) + len(COMMON)
    assert not KINDS.keys() & LATER_KINDS.keys()


@pytest.mark.parametrize(
    ("settings", "singleton", "instances", "lease"),
    [
        (Service(3), False, 3, False),
        (Service(), True, 1, True),
        (Periodic(Every(1)), False, 1, False),
        (Periodic(Every(1)), True, 1, True),
        (Projection(shards=4), True, 4, True),
        (Projection(), False, 1, True),
    ],
)
def test_what_a_worker_needs(
    tmp_path: Path, settings: Service | Periodic | Projection, singleton: bool, instances: int, lease: bool
) -> None:
    """Instances and lease come from the kind; a lease needs a node and the schema."""
    spec = WorkerSpec("x", "m:x", settings, singleton=singleton)
    assert (instances_of(spec), needs_lease(spec)) == (instances, lease)
    config = config_of(tmp_path, f"{DATABASE}[workers.a]\nrun = 'm:a'\n")
    assert not needs_node(config)
    config = config._replace(workers={"x": spec})
    assert (needs_node(config), needs_schema(config)) == (lease, lease)


@pytest.mark.parametrize(
    ("settings", "summary"),
    [
        (Service(), "service"),
        (Service(2), "service with 2 replicas"),
        (Periodic(Every(90)), "periodic, every 1m 30s"),
        (Periodic(Every(1), immediate=False), "periodic, every 1s, not at once"),
        (Periodic(Cron("0 3 * * *"), immediate=False), 'periodic, cron "0 3 * * *"'),
        (Periodic(Cron("0 3 * * *"), immediate=True), 'periodic, cron "0 3 * * *", at once too'),
        (Projection(), "projection of all streams"),
        (Projection(("a*", "b"), shards=2), "projection of a*, b, 2 shards"),
    ],
)
def test_settings_are_summed_up_in_a_line(settings: Service | Periodic | Projection, summary: str) -> None:
    """What is the default is left out."""
    assert kind_of(WorkerSpec("x", "m:x", settings)).summary(settings) == summary


@pytest.mark.parametrize("key", ["queue", "concurrency", "attempts", "retry", "transactional"])
def test_a_key_of_a_kind_of_a_later_version_is_named_so(tmp_path: Path, key: str) -> None:
    """A worker of this version does not have it."""
    (fault,) = faults_of(tmp_path, f"{DATABASE}[workers.a]\nrun = 'm:a'\n{key} = 1\n")
    assert 'is for workers of kind "jobs", which this version does not have yet' in fault


def test_one_worker_with_a_lease_is_enough(tmp_path: Path) -> None:
    """Singletons and projections need a lease, and the daemon needs a node and the schema for one of them."""
    worker = "[workers.mail]\nrun = 'm:mail'\n"
    single = "[workers.single]\nrun = 'm:single'\nsingleton = true\n"
    view = "[workers.view]\nkind = 'projection'\nrun = 'm:view'\n"
    config = config_of(tmp_path, DATABASE + worker + single + view)
    leased = {name: needs_lease(spec) for name, spec in config.workers.items()}
    assert leased == {"mail": False, "single": True, "view": True}
    assert (needs_node(config), needs_schema(config)) == (True, True)


@pytest.mark.parametrize("other", ["singleton = true\n", "kind = 'projection'\n"])
def test_either_lease_is_enough_beside_workers_without_one(tmp_path: Path, other: str) -> None:
    """A singleton or a projection alone, among services, makes the daemon a node with the schema."""
    config = config_of(tmp_path, f"{DATABASE}[workers.mail]\nrun = 'm:mail'\n[workers.x]\nrun = 'm:x'\n{other}")
    assert (needs_node(config), needs_schema(config)) == (True, True)
    without = config._replace(workers={})
    assert (needs_node(without), needs_schema(without)) == (False, False)


@pytest.mark.parametrize("kind", [*KINDS, *LATER_KINDS, "other", "", 5])
def test_a_handler_is_checked_by_its_kind_even_when_its_keys_are_wrong(tmp_path: Path, kind: object) -> None:
    """A wrong configuration still says what to import, and for which kind."""
    path = tmp_path / "app.toml"
    path.write_text(f"[workers.x]\nrun = 'm:x'\nkind = {kind!r}\nnonsense = true\n")
    ((spec,), folders) = readable_workers(path, {})
    assert (spec.name, spec.run, folders) == ("x", "m:x", [])
    assert kind_of(spec) is (KINDS.get(kind, DEFAULT_KIND) if isinstance(kind, str) else DEFAULT_KIND)
