"""What a reload has to do, decided purely."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.backoff import Backoff
from supervisor.config.diff import ConfigDiff, diff_configs
from supervisor.config.diff_text import diff_text
from supervisor.config.dsn import redact
from supervisor.config.kinds import KINDS
from supervisor.config.model import (
    Config,
    ConnectPolicy,
    Cron,
    DaemonConfig,
    DatabaseConfig,
    Dsn,
    EmbeddedStore,
    EventsConfig,
    Every,
    LogConfig,
    Periodic,
    Projection,
    Server,
    Service,
    WorkerSpec,
)
from supervisor.config.schema import BACKOFF, COMMON, CONNECT, DATABASE, EVENTS, LOG, SUPERVISOR, TOP
from supervisor.config.validators import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supervisor.config.table_reader import Key, OnReload


def _server(text: str, came_from: str = "database.dsn") -> Server:
    return Server(Dsn(text, redacted=redact(text)), came_from)


BASE = Config(
    path=Path("/etc/app.toml"),
    name="app",
    daemon=DaemonConfig(state_dir=Path("/s"), control=Path("/s/control.sock")),
    log=LogConfig(),
    database=DatabaseConfig(_server("postgresql://u:old@h/app")),
    workers={"a": WorkerSpec("a", "m:a", Service()), "b": WorkerSpec("b", "m:b", Periodic(Every(5)))},
)


def _with(**workers: WorkerSpec) -> Config:
    return BASE._replace(workers=workers)


def _changed_worker(**fields: object) -> Config:
    return _with(a=BASE.workers["a"]._replace(**fields), b=BASE.workers["b"])  # type: ignore[arg-type]


_SPECS = st.builds(
    WorkerSpec,
    name=st.just("x"),
    run=st.sampled_from(["m:a", "m:b"]),
    kind=st.sampled_from([Service(), Service(2), Periodic(Every(1)), Periodic(Cron("* * * * *"), immediate=False)]),
    max_restarts=st.integers(0, 2),
    backoff=st.sampled_from([Backoff(), Backoff(2)]),
    stop_timeout_s=st.sampled_from([1.0, 2.0]),
    settings=st.dictionaries(
        st.sampled_from(["k", "l"]), st.sampled_from([1, 1.0, True, "1", float("nan")]), max_size=2
    ),
)
_WORKERS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), _SPECS)


@given(old=_WORKERS, new=_WORKERS)
def test_applying_the_difference_gives_the_new_workers(old: dict[str, WorkerSpec], new: dict[str, WorkerSpec]) -> None:
    """Removing, adding and changing workers as the difference says turns the old set into the new one."""
    found = diff_configs(BASE._replace(workers=old), BASE._replace(workers=new))
    applied = {name: spec for name, spec in old.items() if name not in found.removed}
    applied |= {name: new[name] for name in (*found.added, *found.changed)}
    assert {name: repr(spec) for name, spec in applied.items()} == {name: repr(spec) for name, spec in new.items()}
    groups = (*found.added, *found.removed, *found.changed, *found.untouched)
    assert sorted(groups) == sorted(old.keys() | new.keys())
    assert set(found.policy_only) <= set(found.changed)
    for name in found.policy_only:
        assert (old[name].run, old[name].kind) == (new[name].run, new[name].kind)


@given(workers=_WORKERS)
def test_nothing_differs_from_itself(workers: dict[str, WorkerSpec]) -> None:
    """A configuration that was read twice has no difference, not even with nan in its settings."""
    again = {name: spec._replace(settings={**spec.settings}) for name, spec in workers.items()}
    old, new = BASE._replace(workers=workers), BASE._replace(workers=again)
    assert diff_configs(old, new).is_empty()
    assert diff_text(old, new) == ["nothing changes"]


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), ("1", 1)])
def test_values_that_only_python_holds_equal_differ(before: object, after: object) -> None:
    """1, 1.0 and true are different settings."""
    old, new = _changed_worker(settings={"k": before}), _changed_worker(settings={"k": after})
    assert diff_configs(old, new).changed == ("a",)


def test_policy_alone_does_not_restart_a_worker() -> None:
    """A worker whose restart policy or stop timeout changed runs on; one whose function changed does not."""
    assert diff_configs(BASE, _changed_worker(stop_timeout_s=1.0, max_restarts=1)).policy_only == ("a",)
    found = diff_configs(BASE, _changed_worker(stop_timeout_s=1.0, run="m:other"))
    assert (found.changed, found.policy_only) == (("a",), ())


def _database(**fields: object) -> Config:
    return BASE._replace(database=BASE.database._replace(**fields))  # type: ignore[arg-type]


def _daemon(**fields: object) -> Config:
    return BASE._replace(daemon=BASE.daemon._replace(**fields))  # type: ignore[arg-type]


PLACES = [
    (_database(target=_server("postgresql://u:new@h/app")), "database_changed"),
    (_database(pool_max=20), "database_changed"),
    (_database(command_timeout_s=1.0), "database_changed"),
    (_database(probe_interval_s=2.0), "policy_changed"),
    (_database(runtime=ConnectPolicy(attempts=3)), "policy_changed"),
    (BASE._replace(log=LogConfig(level="debug")), "log_changed"),
    (BASE._replace(events=EventsConfig(keep_s=60.0)), "events_changed"),
    (_daemon(stop_timeout_s=1.0), "daemon_changed"),
    (_daemon(python_path=(Path("/x"),)), "daemon_changed"),
]


@pytest.mark.parametrize(("new", "claim"), PLACES)
def test_each_change_makes_its_own_claim(new: Config, claim: str) -> None:
    """A change outside of the workers is in one claim, and leaves the workers untouched."""
    found = diff_configs(BASE, new)
    claims = [name for name in ConfigDiff._fields if name.endswith("_changed") and getattr(found, name)]
    assert claims == [claim]
    assert found.untouched == ("a", "b")
    assert not found.is_empty()


def test_where_a_dsn_was_found_does_not_matter() -> None:
    """The same connection string from another place is the same database."""
    elsewhere = _server("postgresql://u:old@h/app", "/run/dsn")
    louder = BASE._replace(log=LogConfig(level="debug"), database=BASE.database._replace(target=elsewhere))
    assert diff_text(BASE, louder) == ["~ log.level: info -> debug", "= 2 workers untouched"]
    assert diff_configs(BASE, _database(target=_server("postgresql://u:old@h/app", "/run/dsn"))).is_empty()


RESTARTS = [
    (BASE, _daemon(state_dir=Path("/t")), "supervisor.state_dir: moving from /s to /t needs a restart"),
    (BASE, _daemon(control=Path("/c")), "supervisor.control: moving from /s/control.sock to /c needs a restart"),
    (
        BASE,
        _database(target=EmbeddedStore()),
        "database.dsn: moving from postgresql://u@h/app to embedded: needs a restart",
    ),
    (
        _database(target=EmbeddedStore(Path("/d"))),
        _database(target=EmbeddedStore(ephemeral=True)),
        "database.dsn: moving from embedded:/d to ephemeral: needs a restart",
    ),
]


@pytest.mark.parametrize(("old", "new", "fault"), RESTARTS)
def test_what_a_reload_cannot_do_is_a_sentence(old: Config, new: Config, fault: str) -> None:
    """Moving state, socket or an embedded store asks for a restart."""
    assert [str(one) for one in diff_configs(old, new).needs_restart] == [f"/etc/app.toml: {fault}"]
    assert diff_text(old, new)[0] == f"! {fault}"


def test_the_description_names_each_change() -> None:
    """The lines of reload --dry-run show what is added, removed and changed, from what to what."""
    new = BASE._replace(
        log=LogConfig(level="debug"),
        daemon=BASE.daemon._replace(stop_timeout_s=10.0),
        database=DatabaseConfig(_server("postgresql://u:new@i/app"), pool_max=20, startup=ConnectPolicy(attempts=3)),
        workers={
            "a": BASE.workers["a"]._replace(kind=Service(3), settings={"token": "secret"}),
            "c": WorkerSpec("c", "m:c", Periodic(Cron("0 3 * * *"), immediate=True)),
        },
    )
    assert diff_text(BASE, new) == [
        "~ supervisor.stop_timeout: 30s -> 10s",
        "~ log.level: info -> debug",
        "~ database.dsn: postgresql://u@h/app -> postgresql://u@i/app",
        "~ database.pool_max: 10 -> 20",
        "~ database.startup.attempts: 10 -> 3",
        "~ database.startup.retry_refused: false -> true",
        '+ worker c: periodic, cron "0 3 * * *", at once too, m:c',
        "- worker b",
        "~ worker a: service -> service with 3 replicas; settings: token",
    ]


def test_a_new_password_is_said_and_not_shown() -> None:
    """When nothing that may be shown differs, the description says so."""
    new = _database(target=_server("postgresql://u:new@h/app"))
    assert diff_text(BASE, new) == [
        "~ database.dsn: only the password, or another part that is not shown, is new (postgresql://u@h/app)",
        "= 2 workers untouched",
    ]


def test_a_worker_with_a_new_policy_is_said_to_run_on() -> None:
    """The description tells a new policy from a restart."""
    assert diff_text(BASE, _changed_worker(max_restarts=3, backoff=Backoff(2.0))) == [
        "~ worker a (runs on): max_restarts: 10 -> 3; backoff.initial: 1s -> 2s",
        "= 1 worker untouched",
    ]


def test_what_is_new_in_a_projection_is_said_by_its_keys() -> None:
    """A changed projection is described by what changed in it, an added one by what it reads."""
    old = _with(a=WorkerSpec("a", "m:a", Projection(), singleton=True))
    new = _with(
        a=WorkerSpec("a", "m:a", Projection(("x-*",), shards=4, lag_warning_s=5.0), singleton=True),
        b=WorkerSpec("b", "m:b", Projection(("x-*", "y"), shards=2), singleton=True),
    )
    assert diff_text(old, new._replace(events=EventsConfig(keep_s=3600.0))) == [
        "~ events.keep: 0ms -> 1h",
        "+ worker b: projection of x-*, y, 2 shards, m:b",
        "~ worker a: streams: [] -> [x-*]; shards: 1 -> 4; lag_warning: 1m -> 5s",
    ]


def test_becoming_a_singleton_is_a_change_of_its_own() -> None:
    """A worker that becomes a singleton is started anew, and the description says why."""
    new = _changed_worker(singleton=True)
    assert diff_configs(BASE, new).policy_only == ()
    assert diff_text(BASE, new) == ["~ worker a: singleton: false -> true", "= 1 worker untouched"]
    added = _with(**BASE.workers, c=WorkerSpec("c", "m:c", Service(), singleton=True))
    assert diff_text(BASE, added)[0] == "+ worker c: service, singleton, m:c"
    moved = _changed_worker(kind=Periodic(Every(5)), singleton=True)
    assert diff_text(BASE, moved)[0] == "~ worker a: service -> periodic, every 5s, singleton"


class Section(NamedTuple):
    """A section of the configuration, and what the difference may claim of it."""

    field: str
    keys: Mapping[str, Key]
    claims: Mapping[OnReload, str | None]


SECTIONS = {
    "supervisor": Section("daemon", SUPERVISOR, {"live": "daemon_changed", "start": None, "restart": "needs_restart"}),
    "log": Section("log", LOG, {"live": "log_changed"}),
    "database": Section("database", DATABASE, {"live": "policy_changed", "reconnect": "database_changed"}),
    "events": Section("events", EVENTS, {"live": "events_changed"}),
}
_TARGET = {"dsn": "target", "dsn_file": "target"}


def _fields(keys: Mapping[str, Key]) -> set[str]:
    return {_TARGET.get(name, key.field) for name, key in keys.items()}


def test_every_section_is_compared() -> None:
    """Each section of the model is one of the schema, and the difference knows it."""
    assert set(SECTIONS) | {"workers"} == set(TOP)
    fields = {section.field for section in SECTIONS.values()}
    assert fields | {"path", "name", "workers"} == set(Config._fields)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        *((type(getattr(BASE, each.field)), _fields(each.keys)) for each in SECTIONS.values()),
        (ConnectPolicy, _fields(CONNECT) - _fields(BACKOFF) | {"backoff"}),
        (Backoff, _fields(BACKOFF)),
        (WorkerSpec, _fields(COMMON) | {"name"}),
    ],
)
def test_every_field_belongs_to_a_key(model: Any, fields: set[str]) -> None:
    """A field of the model without a key would be forgotten by the difference, as its key says what a reload does."""
    assert fields == set(model._fields)


@pytest.mark.parametrize(("section", "name"), [(each, name) for each in SECTIONS for name in SECTIONS[each].keys])
def test_each_key_makes_its_claim(section: str, name: str) -> None:
    """Another value of any one key is claimed as the key says, and nowhere else."""
    place, keys, claims = SECTIONS[section]
    key = keys[name]
    old = getattr(BASE, place)
    new = BASE._replace(**{place: old._replace(**_changed(name, key, old))})
    found = diff_configs(BASE, new)
    claimed = [claim for claim in ConfigDiff._fields if claim.endswith("_changed") and getattr(found, claim)]
    claimed += ["needs_restart"] if found.needs_restart else []
    expected = claims[key.on_reload]
    assert claimed == ([] if expected is None else [expected])
    assert found.is_empty() == (expected is None)


def _changed(name: str, key: Key, old: Any) -> dict[str, Any]:
    """Return a field with another value than in `old`."""
    if name in _TARGET:
        return {"target": _server("postgresql://other/app")}
    value = getattr(old, key.field)
    match value:
        case bool():
            return {key.field: not value}
        case int() | float():
            return {key.field: value + 1}
        case str():
            assert isinstance(key.read, Choice)
            return {key.field: next(word for word in key.read.words if word != value)}
        case ConnectPolicy():
            return {key.field: value._replace(attempts=value.attempts + 1)}
        case Path():
            return {key.field: value / "other"}
        case tuple():
            return {key.field: (*value, Path("/other"))}
        case _:
            raise AssertionError(f"{name}: give it another value here")


def test_a_key_of_a_worker_replaces_it_or_changes_its_policy() -> None:
    """The difference compares a worker's kind as a whole, so no key of a kind may claim less."""
    assert {key.on_reload for key in COMMON.values()} == {"live", "replace"}
    assert {key.on_reload for kind in KINDS.values() for key in kind.keys.values()} == {"replace"}
    assert {key.on_reload for key in (*CONNECT.values(), *BACKOFF.values(), *TOP.values())} == {"parent"}
