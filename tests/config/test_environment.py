"""The environment laid over the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.config_file import DATABASE, WORKER, config_of, faults_of

from supervisor.config.model import EmbeddedStore, Every, Periodic, Server, Service
from supervisor.config.table_reader import toml_value

if TYPE_CHECKING:
    from pathlib import Path

P = "PGSUPERVISOR__"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("5.5", 5.5),
        ("true", True),
        ('"5"', "5"),
        ("30s", "30s"),
        ("", ""),
        ("postgresql://u:p@h/db?sslmode=require", "postgresql://u:p@h/db?sslmode=require"),
        ('["a", "b"]', ["a", "b"]),
        ('{ initial = "1s" }', {"initial": "1s"}),
        ("[“a”]", "[“a”]"),
        ("5\nother = 6", "5\nother = 6"),
        ("{}\n[value.x]\ny = 1", "{}\n[value.x]\ny = 1"),
        ("5\n[other]\nx = 1", "5\n[other]\nx = 1"),
        ("[" * 5000, "[" * 5000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_toml_where_it_parses_as_such(text: str, value: object) -> None:
    """A variable's text is TOML if it is one TOML value, else the text itself; it cannot add other keys."""
    assert toml_value(text) == value


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    """Keys at every depth are overridden, and a worker's dashes are underscores."""
    text = f'{DATABASE}[database.startup]\ninitial = "2s"\n[workers.a-b]\nrun = "a:b"\nreplicas = 1\n'
    config = config_of(
        tmp_path,
        text,
        **{
            f"{P}LOG__LEVEL": "debug",
            f"{P}DATABASE__POOL_MAX": "20",
            f"{P}DATABASE__STARTUP__INITIAL": "3s",
            f"{P}SUPERVISOR__PYTHON_PATH": '["lib"]',
            f"{P}WORKERS__A_B__REPLICAS": "4",
            f"{P}WORKERS__A_B__BACKOFF__MAX": "2m",
        },
    )
    assert config.log.level == "debug"
    assert (config.database.pool_max, config.database.startup.backoff.initial_s) == (20, 3)
    assert config.daemon.python_path == (tmp_path / "lib",)
    assert config.workers["a-b"].kind == Service(4)
    assert config.workers["a-b"].backoff.max_s == 120


def test_the_dsn_of_the_environment_comes_first(tmp_path: Path) -> None:
    """A dsn in the environment beats the file's dsn and dsn_file, and says where it came from."""
    for line in ('dsn = "postgresql://file/app"', 'dsn_file = "none"'):
        variable = f"{P}DATABASE__DSN"
        config = config_of(tmp_path, f"[database]\n{line}\n{WORKER}", **{variable: "postgresql://u:p@env/app\n"})
        target = config.database.target
        assert isinstance(target, Server)
        assert (target.dsn.secret_value(), target.source) == ("postgresql://u:p@env/app", variable)


def test_a_worker_may_be_wholly_of_the_environment(tmp_path: Path) -> None:
    """Several variables, or one table, make a worker that the file does not have."""
    environ = {
        f"{P}WORKERS__CLEANER__RUN": "a:clean",
        f"{P}WORKERS__CLEANER__KIND": "periodic",
        f"{P}WORKERS__CLEANER__EVERY": "5s",
        f"{P}WORKERS__OTHER": '{ run = "a:other" }',
        f"{P}WORKERS__OTHER__REPLICAS": "2",
    }
    workers = config_of(tmp_path, DATABASE, **environ).workers
    assert workers["cleaner"].kind == Periodic(Every(5))
    assert workers["other"].kind == Service(2)


def test_settings_take_the_name_of_the_file(tmp_path: Path) -> None:
    """A setting keeps the file's spelling, a new one is in lower case, and tables nest."""
    text = f'{DATABASE}{WORKER}settings = {{ smtp-Host = "a", deep = {{ Port = 1 }} }}\n'
    environ = {
        f"{P}WORKERS__MAIL__SETTINGS__SMTP_HOST": "b",
        f"{P}WORKERS__MAIL__SETTINGS__DEEP__PORT": "2",
        f"{P}WORKERS__MAIL__SETTINGS__NEW_ONE": "true",
    }
    assert config_of(tmp_path, text, **environ).workers["mail"].settings == {
        "smtp-Host": "b",
        "deep": {"Port": 2},
        "new_one": True,
    }


def test_two_underscores_in_a_name_are_understood(tmp_path: Path) -> None:
    """A worker whose name has two underscores is found beside one that has only its beginning."""
    text = f'{DATABASE}[workers.a]\nrun = "a:b"\n[workers.a__b]\nrun = "a:b"\n'
    workers = config_of(tmp_path, text, **{f"{P}WORKERS__A__B__REPLICAS": "3", f"{P}WORKERS__A__REPLICAS": "2"}).workers
    assert (workers["a"].kind, workers["a__b"].kind) == (Service(2), Service(3))


def test_what_is_no_override_is_left_alone(tmp_path: Path) -> None:
    """PGSUPERVISOR_CONFIG and other programs' variables mean nothing here."""
    config = config_of(tmp_path, DATABASE + WORKER, PGSUPERVISOR_CONFIG="/x", PGSUPERVISORX__A="1")
    assert config == config_of(tmp_path, DATABASE + WORKER)


FITS_NOTHING = [
    ("DATABSE__DSN", f"fits no key; did you mean {P}DATABASE__DSN?"),
    ("DATABASE_DSN", f"fits no key; did you mean {P}DATABASE__DSN?"),
    ("database__dsn", f"fits no key; did you mean {P}DATABASE__DSN?"),
    ("DATABASE__STARTUP__ATEMPTS", f"fits no key; did you mean {P}DATABASE__STARTUP__ATTEMPTS?"),
    ("DATABASE__DSN__X", f"fits no key; did you mean {P}DATABASE__DSN?"),
    ("WORKERS", f"names no worker; write {P}WORKERS__NAME__RUN, with the worker's name in upper case"),
    ("WORKERS__MAIL__REPLICSA", f"fits no key; did you mean {P}WORKERS__MAIL__REPLICAS?"),
    ("WORKERS__MIAL__REPLICSA", f"fits no key; did you mean {P}WORKERS__MIAL__REPLICAS?"),
    ("WORKERS____RUN", "names no worker: the names are upper case here, with _ for -"),
    ("WORKERS__mail__RUN", "names no worker: the names are upper case here, with _ for -"),
    ("QQQQ", "fits no key of the configuration"),
    ("", "fits no key of the configuration"),
]


@pytest.mark.parametrize(("name", "problem"), FITS_NOTHING)
def test_a_variable_that_fits_nothing_is_a_fault(tmp_path: Path, name: str, problem: str) -> None:
    """A typo in a variable's name is named with the nearest name that exists."""
    assert faults_of(tmp_path, DATABASE + WORKER, {f"{P}{name}": "x"}) == [f"{P}{name}: {problem}"]


def test_names_that_become_equal_are_ambiguous(tmp_path: Path) -> None:
    """A variable that may mean two workers changes neither."""
    text = f'{DATABASE}[workers.a-b]\nrun = "a:b"\n[workers.a_b]\nrun = "a:b"\n'
    variable = f"{P}WORKERS__A_B__REPLICAS"
    expected = f'{variable}: may mean any of the workers "a-b" and "a_b"; write it into the file'
    assert faults_of(tmp_path, text, {variable: "2"}) == [expected]


def test_a_typo_in_a_workers_name_is_noticed(tmp_path: Path) -> None:
    """A variable for a worker that does not exist, and is not made by it, names the nearest worker."""
    variable = f"{P}WORKERS__MIAL__REPLICAS"
    expected = (
        f"{variable}: workers.mial.run: the file has no such worker, so the environment has to say what it runs;"
        ' did you mean the worker "mail"?'
    )
    assert faults_of(tmp_path, DATABASE + WORKER, {variable: "2"}) == [expected]


def test_a_wrong_value_names_the_variable(tmp_path: Path) -> None:
    """A fault of a value says which variable has it, also inside a table."""
    environ = {f"{P}DATABASE__POOL_MAX": "ten", f"{P}WORKERS__MAIL__BACKOFF": "{ factor = 0 }"}
    assert faults_of(tmp_path, DATABASE + WORKER, environ) == [
        f'{P}DATABASE__POOL_MAX: database.pool_max: expected a whole number, found "ten"',
        f"{P}WORKERS__MAIL__BACKOFF: workers.mail.backoff.factor: expected a number from 1 to 1000, found the number 0",
    ]


@pytest.mark.parametrize("workers", ["workers = 3", "workers = []", "workers = { mail = 3 }"])
def test_a_file_of_the_wrong_shape_stays_a_fault(tmp_path: Path, workers: str) -> None:
    """Variables for a key that the file wrongly has as another type do not hide that fault."""
    faults = faults_of(tmp_path, f"{workers}\n{DATABASE}", {f"{P}WORKERS__MAIL__REPLICAS": "2"})
    assert any("expected a table" in fault for fault in faults)


def test_a_whole_section_can_be_given(tmp_path: Path) -> None:
    """A table in a variable replaces the section, and single keys are laid over it."""
    environ = {f"{P}DATABASE": '{ dsn = "embedded:", pool_max = 3 }', f"{P}DATABASE__POOL_MAX": "4"}
    database = config_of(tmp_path, DATABASE + WORKER, **environ).database
    assert (database.target, database.pool_max) == (EmbeddedStore(), 4)


_PARTS = st.sampled_from(
    ["WORKERS", "MAIL", "A_B", "SETTINGS", "DATABASE", "DSN", "LOG", "LEVEL", "RUN", "BACKOFF", "", "x", "É"]
)
_NAMES = st.lists(_PARTS, max_size=5).map("__".join) | st.text(max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(environ=st.dictionaries(_NAMES.map(lambda name: P + name), st.text(max_size=40), max_size=4))
def test_no_environment_ends_in_another_exception(tmp_path: Path, environ: dict[str, str]) -> None:
    """Whatever the environment holds, there is a configuration or a ConfigError with printable faults."""
    faults = faults_of(tmp_path, f'{DATABASE}{WORKER}[workers.a-b]\nrun = "a:b"\n', environ)
    assert all(fault.isprintable() for fault in faults)


@given(value=st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_categories=["C"])))
def test_a_value_survives_the_environment(value: bool | int | str) -> None:
    """What is written as TOML into a variable is read back as it was."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    text = f'"{escaped}"' if isinstance(value, str) else str(value).lower()
    assert toml_value(text) == value
    assert type(toml_value(text)) is type(value)
