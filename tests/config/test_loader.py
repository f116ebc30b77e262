"""What the reader accepts and what it says about the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.config_file import DATABASE, DSN, WORKER, config_of, faults_of

from supervisor.backoff import Backoff
from supervisor.config.kinds import KINDS, needs_lease
from supervisor.config.loader import read_config
from supervisor.config.model import Cron, EventsConfig, Every, Periodic, Projection, Server, Service
from supervisor.config.validators import word_list
from supervisor.errors import ConfigError


def test_a_dsn_and_a_worker_are_enough(tmp_path: Path) -> None:
    """The smallest configuration has every default of the model."""
    config = config_of(tmp_path, DATABASE + WORKER)
    assert config.name == "app"
    assert config.path == tmp_path / "app.toml"
    assert isinstance(config.database.target, Server)
    assert config.database.target.dsn.secret_value() == "postgresql://app@db.example/app"
    assert config.database.target.source == f"{tmp_path / 'app.toml'}: database.dsn"
    assert config.workers["mail"].kind == Service(replicas=1)
    assert config.workers["mail"].backoff == Backoff()


def test_every_key_is_read(tmp_path: Path) -> None:
    """Each key ends up in its field, durations in seconds, paths relative to the file."""
    config = config_of(
        tmp_path,
        """
        [supervisor]
        ready = "started"
        stop_timeout = "10s"
        stall_warning = "500ms"
        state_dir = "state"
        control = "/run/x.sock"
        python_path = [".", "/opt/app"]
        [log]
        level = "debug"
        format = "json"
        [database]
        dsn = "postgresql://a,b/app"
        pool_min = 2
        pool_max = 3
        connect_timeout = "1s"
        command_timeout = "2s"
        migrate = "check"
        probe_interval = "3s"
        startup = { attempts = 0, initial = "1s", factor = 3, max = "4s", jitter = "none", retry_refused = true }
        [workers.a-b_c]
        kind = "periodic"
        run = "app.x:tick"
        every = "1m"
        immediate = false
        restart = "never"
        max_restarts = 0
        window = "1m"
        exhausted = "exit"
        backoff = { initial = "2s", max = "3s" }
        stop_timeout = "0s"
        stall_timeout = "7s"
        singleton = true
        settings = { any = { thing = 1 } }
        [workers.view]
        kind = "projection"
        run = "app.x:view"
        streams = ["orders-*", "stock-?"]
        batch = 7
        shards = 3
        poison = "dead-letter"
        lag_warning = "0s"
        stall_timeout = "1m"
        [events]
        keep = "90d"
        """,
    )
    assert config.daemon.state_dir == tmp_path / "state"
    assert config.daemon.python_path == (tmp_path, Path("/opt/app"))
    assert (config.daemon.ready, config.daemon.stop_timeout_s, config.daemon.stall_warning_s) == ("started", 10, 0.5)
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert (config.database.pool_min, config.database.pool_max, config.database.migrate) == (2, 3, "check")
    assert (config.database.connect_timeout_s, config.database.command_timeout_s) == (1, 2)
    assert config.database.startup.backoff == Backoff(1, 3, 4, "none")
    assert (config.database.startup.attempts, config.database.startup.retry_refused) == (0, True)
    worker = config.workers["a-b_c"]
    assert worker.kind == Periodic(Every(60), immediate=False)
    assert (worker.restart, worker.max_restarts, worker.window_s, worker.exhausted) == ("never", 0, 60, "exit")
    assert worker.backoff == Backoff(2, 2, 3)
    assert (worker.stop_timeout_s, worker.stall_timeout_s) == (0, 7)
    assert worker.settings == {"any": {"thing": 1}}
    assert worker.singleton
    view = config.workers["view"]
    assert view.kind == Projection(("orders-*", "stock-?"), 7, 3, "dead-letter", 0)
    assert (view.stall_timeout_s, needs_lease(view)) == (60, True)
    assert config.events == EventsConfig(keep_s=90 * 86400.0)


def test_a_worker_inherits_the_stop_timeout(tmp_path: Path) -> None:
    """A worker without a stop_timeout has the supervisor's."""
    config = config_of(tmp_path, f'[supervisor]\nstop_timeout = "7s"\n{DATABASE}{WORKER}')
    assert config.workers["mail"].stop_timeout_s == 7


@pytest.mark.parametrize(("schedule", "immediate"), [('every = "5s"', True), ('cron = "0 3 * * *"', False)])
def test_only_a_distance_ticks_at_once(tmp_path: Path, schedule: str, immediate: bool) -> None:
    """A tick comes at once by default with `every`, and not with `cron`."""
    config = config_of(tmp_path, f'{DATABASE}{WORKER}kind = "periodic"\n{schedule}\n')
    kind = config.workers["mail"].kind
    assert isinstance(kind, Periodic)
    assert kind.immediate is immediate


def test_a_cron_expression_is_kept_as_it_is(tmp_path: Path) -> None:
    """The expression is in the model as the user wrote it."""
    config = config_of(tmp_path, f'{DATABASE}{WORKER}kind = "periodic"\ncron = "*/5 * * * MON-FRI"\nimmediate = true\n')
    assert config.workers["mail"].kind == Periodic(Cron("*/5 * * * MON-FRI"), immediate=True)


@pytest.mark.parametrize("line", ["", "streams = ['*']\n", "streams = ['orders-*', '*']\n"])
def test_a_projection_of_all_streams_names_none(tmp_path: Path, line: str) -> None:
    """No `streams` and all streams are the same."""
    config = config_of(tmp_path, f"{DATABASE}{WORKER}kind = 'projection'\nsingleton = true\n{line}")
    assert config.workers["mail"].kind == Projection()
    assert config.workers["mail"].singleton


def test_the_environment_reaches_a_projection(tmp_path: Path) -> None:
    """A projection's keys and those of [events] can be overridden like all others."""
    text = f"{DATABASE}{WORKER}kind = 'projection'\n"
    environ = {
        "PGSUPERVISOR__WORKERS__MAIL__SHARDS": "4",
        "PGSUPERVISOR__WORKERS__MAIL__STREAMS": "['a-*']",
        "PGSUPERVISOR__EVENTS__KEEP": "1h",
    }
    config = config_of(tmp_path, text, **environ)
    assert config.workers["mail"].kind == Projection(("a-*",), shards=4)
    assert config.events.keep_s == 3600


SUPERVISOR_FAULTS = [
    ("stop_timout = '3s'", 'stop_timout: there is no such key; did you mean "stop_timeout"?'),
    ("stop_timeout = 30", 'stop_timeout: expected a duration with its unit, found the number 30; write "30s"'),
    ("stop_timeout = 1.5", 'stop_timeout: expected a duration with its unit, found the number 1.5; write "1.5s"'),
    ("stop_timeout = -3", "stop_timeout: expected a duration with its unit, found the number -3"),
    ("stop_timeout = nan", "stop_timeout: expected a duration with its unit, found the number nan"),
    ("stop_timeout = true", 'stop_timeout: expected a duration such as "30s", found true'),
    ("stop_timeout = []", 'stop_timeout: expected a duration such as "30s", found a list'),
    ("stop_timeout = 2026-01-01", 'stop_timeout: expected a duration such as "30s", found a date or time'),
    ("stop_timeout = '-3s'", 'stop_timeout: expected a duration such as "250ms", "5s", "2m" or "1h", found "-3s"'),
    ("stop_timeout = '9999d'", 'stop_timeout: expected at most 3650d, found "9999d"'),
    ("stall_warning = '0s'", 'stall_warning: expected a duration above zero, found "0s"'),
    ("ready = 'startd'", 'ready: expected "connected" or "started", found "startd"'),
    ("ready = []", 'ready: expected "connected" or "started", found a list'),
    ("state_dir = ''", "state_dir: expected a text, found an empty one"),
    ("state_dir = 5", "state_dir: expected a text in quotes, found the number 5"),
    ("state_dir = '~/x'", 'state_dir: "~" has no meaning in a configuration file; write the path in full'),
    ('state_dir = "a\\u0000b"', "state_dir: expected a path, found one with a zero byte in it"),
    ("python_path = 'x'", 'python_path: expected a list of paths such as ["."], found "x"'),
    ("python_path = [5]", "python_path: expected a text in quotes, found the number 5"),
]


@pytest.mark.parametrize(("line", "fault"), SUPERVISOR_FAULTS)
def test_a_fault_of_the_supervisor_is_a_sentence(tmp_path: Path, line: str, fault: str) -> None:
    """A wrong line of [supervisor] is named with its key, what was expected and what was found."""
    assert faults_of(tmp_path, f"[supervisor]\n{line}\n{DATABASE}{WORKER}") == [f"FILE: supervisor.{fault}"]


DATABASE_FAULTS = [
    ("pool_max = 0", "pool_max: expected a whole number from 1 to 10000, found the number 0"),
    ("pool_max = true", "pool_max: expected a whole number, found true"),
    ("pool_max = 1.0", "pool_max: expected a whole number, found the number 1.0"),
    ("pool_max = 'ten'", 'pool_max: expected a whole number, found "ten"'),
    (
        f"pool_max = 0x{'f' * 5000}",
        "pool_max: expected a whole number from 1 to 10000, found the number that is far too large",
    ),
    ("pool_min = -1", "pool_min: expected a whole number from 0 to 10000, found the number -1"),
    ("pool_min = 11", "pool_min: 11 is more than pool_max, which is 10"),
    ("connect_timeout = '0s'", 'connect_timeout: expected a duration above zero, found "0s"'),
    ("command_timeout = '0ms'", 'command_timeout: expected a duration above zero, found "0ms"'),
    ("probe_interval = '0s'", 'probe_interval: expected a duration above zero, found "0s"'),
    ("migrate = 'no'", 'migrate: expected "auto" or "check", found "no"'),
    ("startup = 3", "startup: expected a table, found the number 3"),
    ("startup = { attempts = -1 }", "startup.attempts: expected a whole number from 0 to 1000000, found the number -1"),
    ("startup = { initial = '0s' }", 'startup.initial: expected a duration above zero, found "0s"'),
    ("startup = { initial = '1m' }", "startup.initial: 1m is more than max, which is 30s"),
    ("runtime = { max = '100ms' }", "runtime.max: 100ms is less than initial, which is 250ms"),
    ("runtime = { factor = 0.5 }", "runtime.factor: expected a number from 1 to 1000, found the number 0.5"),
    ("runtime = { factor = nan }", "runtime.factor: expected a number from 1 to 1000, found the number nan"),
    ("runtime = { factor = inf }", "runtime.factor: expected a number from 1 to 1000, found the number inf"),
    ("runtime = { factor = '2' }", 'runtime.factor: expected a number such as 2.0, found "2"'),
    ("runtime = { jitter = true }", 'runtime.jitter: expected "full" or "none", found true'),
    (
        "runtime = { retry_refused = 'yes' }",
        'runtime.retry_refused: expected true or false, without quotes, found "yes"',
    ),
    ("runtime = { atempts = 1 }", 'runtime.atempts: there is no such key; did you mean "attempts"?'),
]


@pytest.mark.parametrize(("line", "fault"), DATABASE_FAULTS)
def test_a_fault_of_the_database_is_a_sentence(tmp_path: Path, line: str, fault: str) -> None:
    """A wrong line of [database] is named with its key, what was expected and what was found."""
    assert faults_of(tmp_path, f"{DATABASE}{line}\n{WORKER}") == [f"FILE: database.{fault}"]


STALLING = [name for name, kind in KINDS.items() if kind.has_stall_timeout]
WORKER_FAULTS = [
    ("replicas = 0", "replicas: expected a whole number from 1 to 100000, found the number 0"),
    ("replicas = true", "replicas: expected a whole number, found true"),
    ("every = '3s'", 'every: is for workers of kind "periodic"; this worker\'s kind is "service", the default'),
    (
        "queue = 'q'",
        (
            'queue: is for workers of kind "jobs", which this version does not have yet;'
            ' this worker\'s kind is "service", the default'
        ),
    ),
    (
        "stall_timeout = '3s'",
        (
            "stall_timeout: a service has no single call whose length could be limited;"
            f" this is for workers of kind {word_list(STALLING, 'and')}"
        ),
    ),
    ("singleton = 1", "singleton: expected true or false, without quotes, found the number 1"),
    (
        "singleton = true\nreplicas = 2",
        "singleton: a singleton runs once over all nodes, and replicas is 2; keep one of the two",
    ),
    ("max_restarts = -1", "max_restarts: expected a whole number from 0 to 1000000, found the number -1"),
    ("window = '0s'", 'window: expected a duration above zero, found "0s"'),
    ("restart = 'on_failure'", 'restart: expected "always", "on-failure" or "never", found "on_failure"'),
    ("settings = 3", "settings: expected a table, found the number 3"),
    ("backoff = { max = '1ms' }", "backoff.max: 1ms is less than initial, which is 1s"),
    (
        "kind = 'jobs'\nqueue = 'q'\nconcurrency = 3",
        f'kind: this version does not have workers of kind "jobs" yet; it has {word_list([*KINDS], "and")}',
    ),
    (
        "kind = 'periodc'",
        f'kind: expected {word_list([*KINDS])}, found "periodc"; did you mean "periodic"?',
    ),
    ("kind = []", f"kind: expected {word_list([*KINDS])}, found a list"),
    ("kind = 'periodic'\nevery = '0s'", 'every: expected a duration above zero, found "0s"'),
    ("kind = 'periodic'\nevery = '3s'\ncron = '* * * * *'", "cron: every is given too; keep one of the two"),
    (
        "kind = 'periodic'\nevery = '3s'\nreplicas = 2",
        'replicas: is for workers of kind "service"; this worker\'s kind is "periodic"',
    ),
    (
        "kind = 'periodic'\ncron = '61 * * * *'",
        'cron: expected a cron expression such as "*/5 * * * *", found "61 * * * *": bad minute',
    ),
    (
        "kind = 'periodic'\ncron = 'daily'",
        'cron: expected a cron expression such as "*/5 * * * *", found "daily": wrong number of fields',
    ),
    ("kind = 'periodic'\ncron = 5", "cron: expected a text in quotes, found the number 5"),
    (
        "batch = 5",
        'batch: is for workers of kind "projection"; this worker\'s kind is "service", the default',
    ),
    (
        "kind = 'projection'\nreplicas = 2",
        'replicas: is for workers of kind "service"; this worker\'s kind is "projection"',
    ),
    ("kind = 'projection'\nsingleton = false", "singleton: a projection is always one; leave it out"),
    ("kind = 'projection'\nbatch = 0", "batch: expected a whole number from 1 to 100000, found the number 0"),
    ("kind = 'projection'\nshards = 0", "shards: expected a whole number from 1 to 1000, found the number 0"),
    ("kind = 'projection'\npoison = 'skip'", 'poison: expected "stop" or "dead-letter", found "skip"'),
    (
        "kind = 'projection'\nlag_warning = 60",
        'lag_warning: expected a duration with its unit, found the number 60; write "60s"',
    ),
    (
        "kind = 'projection'\nstreams = 'orders-*'",
        'streams: expected a list of streams such as ["orders-*"], found "orders-*"',
    ),
    (
        "kind = 'projection'\nstreams = []",
        'streams: expected at least one stream, found none; write ["*"] for all of them',
    ),
    ("kind = 'projection'\nstreams = ['']", "streams: expected a text, found an empty one"),
    ("kind = 'projection'\nstreams = [5]", "streams: expected a text in quotes, found the number 5"),
    (
        "kind = 'projection'\nstreams = ['orders-[ab]']",
        'streams: only * and ? stand for something in a stream\'s name, found "orders-[ab]"; "?" fits a "[" too',
    ),
    (
        'kind = "projection"\nstreams = ["a\\u0000"]',
        "streams: expected a stream's name, found one with a zero byte in it",
    ),
    (
        f"kind = 'projection'\nstreams = ['{'x' * 501}']",
        f'streams: a stream\'s name has at most 500 letters, found "{"x" * 60}…"',
    ),
]


@pytest.mark.parametrize(("line", "fault"), WORKER_FAULTS)
def test_a_fault_of_a_worker_is_a_sentence(tmp_path: Path, line: str, fault: str) -> None:
    """A wrong line of a worker is named with its key, what was expected and what was found."""
    assert faults_of(tmp_path, f"{DATABASE}{WORKER}{line}\n") == [f"FILE: workers.mail.{fault}"]


@pytest.mark.parametrize(
    "run", ["app.mail", "app.mail:", ":send", "app mail:send", "app..mail:send", "1app:send", "a:b:c", "a:b()"]
)
def test_an_address_needs_module_and_function(tmp_path: Path, run: str) -> None:
    """What to run is written as package.module:function."""
    text = f'{DATABASE}[workers.mail]\nrun = "{run}"\n'
    expected = f'FILE: workers.mail.run: expected "package.module:function", found "{run}"'
    assert faults_of(tmp_path, text) == [expected]


WHOLE_FILES = [
    (
        DATABASE,
        ['FILE: workers: there is no worker; add a table such as [workers.mail] with run = "package.module:function"'],
    ),
    (
        f"{DATABASE}[workers]\n",
        ['FILE: workers: there is no worker; add a table such as [workers.mail] with run = "package.module:function"'],
    ),
    (f"workers = 3\n{DATABASE}", ["FILE: workers: expected a table, found the number 3"]),
    (f"{DATABASE}[[workers]]\n", ["FILE: workers: expected a table, found a list"]),
    (
        f"{DATABASE}[workers]\nmail = 3\n",
        ["FILE: workers.mail: expected a table such as [workers.mail], found the number 3"],
    ),
    (
        f"{DATABASE}[workers.mail]\n",
        ['FILE: workers.mail.run: the worker has nothing to run; write run = "package.module:function"'],
    ),
    (f"log = 'info'\n{DATABASE}{WORKER}", ['FILE: log: expected a table, found "info"']),
    *(
        (
            f"{DATABASE}{WORKER}[{name}]\nx = 'x'\n",
            [f"FILE: {name}: this version does not have [{name}] yet; leave the section out"],
        )
        for name in ("http", "jobs", "alert")
    ),
    *(
        (
            f"database.dsn = 'postgresql://h/d'\n{key} = 5\n{WORKER}",
            [f"FILE: {key}: this version does not have this key yet; leave it out"],
        )
        for key in ("supervisor.lifespan", "log.levels", "database.binaries", "database.statement_cache")
    ),
    (
        f"{DATABASE}{WORKER}[events]\nkeep = 7\n",
        ['FILE: events.keep: expected a duration with its unit, found the number 7; write "7s"'],
    ),
    (f"{DATABASE}{WORKER}[worker.x]\n", ['FILE: worker: there is no such key; did you mean "workers"?']),
    (
        f"{DATABASE}{WORKER}[xyzzy]\n",
        ["FILE: xyzzy: there is no such key here; the keys are supervisor, log, database, events, workers"],
    ),
    (
        f'{DATABASE}{WORKER}[workers.x]\nkind = "periodic"\nrun = "a:b"\n',
        ['FILE: workers.x: a periodic worker needs a schedule; write every = "30s" or cron = "*/5 * * * *"'],
    ),
]


@pytest.mark.parametrize(("text", "faults"), WHOLE_FILES)
def test_a_fault_of_the_whole_is_a_sentence(tmp_path: Path, text: str, faults: list[str]) -> None:
    """A table that is missing, of the wrong type or of a later version is one fault each."""
    assert faults_of(tmp_path, text) == faults


@pytest.mark.parametrize(
    ("name", "shown"),
    [("Mail", "Mail"), ("-mail", "-mail"), ('"a b"', '"a b"'), ('"é"', '"é"'), ('""', '""'), ('"a\\nb"', r'"a\nb"')],
)
def test_a_worker_has_a_plain_name(tmp_path: Path, name: str, shown: str) -> None:
    """A name that is invalid in a variable, a file or a journal field is refused, and shown in printable letters."""
    text = f'{DATABASE}[workers.{name}]\nrun = "a:b"\n'
    expected = f"FILE: workers.{shown}: a worker's name has lower-case letters, digits, _ and - only"
    assert [fault.partition(", and begins")[0] for fault in faults_of(tmp_path, text)] == [expected]


def test_everything_is_said_at_once(tmp_path: Path) -> None:
    """One reading names every fault of every section."""
    top = "[supervisor]\nready = 1\nx = 1\n[log]\nlevel = 'loud'\n"
    text = f"{top}[database]\n{DSN}\npool_max = 0\n{WORKER}replicas = 0\n"
    keys = [fault.split(": ")[1] for fault in faults_of(tmp_path, text)]
    assert keys == ["supervisor.ready", "supervisor.x", "log.level", "database.pool_max", "workers.mail.replicas"]


def test_a_wrong_value_is_not_judged_twice(tmp_path: Path) -> None:
    """Where pool_max is wrong itself, pool_min is not compared with its default."""
    text = f"{DATABASE}pool_min = 20\npool_max = 'x'\n{WORKER}"
    assert faults_of(tmp_path, text) == ['FILE: database.pool_max: expected a whole number, found "x"']


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "[database\n",
            "FILE: is not valid TOML: expected ']' at the end of a table declaration (at line 1, column 10)",
        ),
        ("a = 1\na = 2\n", "FILE: is not valid TOML: cannot overwrite a value (at line 2, column 6)"),
        ("a = " + "[" * 5000, "FILE: is not valid TOML: a number or a nesting is too large"),
        ("a = " + "9" * 5000, "FILE: is not valid TOML: a number or a nesting is too large"),
    ],
)
def test_what_is_no_toml_is_named_with_its_place(tmp_path: Path, text: str, fault: str) -> None:
    """A syntax error has its line and column, and no input ends in another exception."""
    assert faults_of(tmp_path, text) == [fault]


def _problem(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(path, {})
    (fault,) = caught.value.faults
    assert fault.source == str(path)
    return fault.problem


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a directory, a pipe and bytes that are not text have a sentence each."""
    assert _problem(tmp_path / "none.toml") == "does not exist"
    assert _problem(tmp_path) == "is a directory, not a file"
    os.mkfifo(tmp_path / "pipe")
    assert _problem(tmp_path / "pipe") == "is not a regular file"
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'\n")
    assert _problem(tmp_path / "latin.toml") == "is not UTF-8 text (byte 6)"
    (tmp_path / "file").touch()
    assert _problem(tmp_path / "file" / "x.toml") == "cannot be read: Not a directory"


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """A file saved by an editor that marks UTF-8 is read."""
    path = tmp_path / "app.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (DATABASE + WORKER).encode())
    assert read_config(path, {}).workers.keys() == {"mail"}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    [
        "dsn",
        "dsn_file",
        "pool_min",
        "pool_max",
        "startup",
        "runtime",
        "initial",
        "factor",
        "max",
        "kind",
        "run",
        "cron",
        "every",
        "backoff",
        "x",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=st.dictionaries(
        st.sampled_from(["supervisor", "log", "database", "workers", "y"]), _VALUES | st.dictionaries(_NAMES, _VALUES)
    )
)
def test_no_tables_end_in_another_exception(tmp_path: Path, tables: dict[str, Any]) -> None:
    """Whatever TOML can hold is a configuration or a ConfigError."""
    assert all(fault.isprintable() for fault in faults_of(tmp_path, _toml(tables)))


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{_text(key)} = {_inline(inner)}" for key, inner in value.items() if inner is not None)
    raise AssertionError(value)


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)} = {_inline(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(element) for element in value if element is not None) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    letters = (
        c if c.isascii() and c.isalnum() else "?" if 0xD800 <= ord(c) < 0xE000 else f"\\U{ord(c):08x}" for c in value
    )
    return '"' + "".join(letters) + '"'
