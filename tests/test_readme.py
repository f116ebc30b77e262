"""What the README and docs/ say is so: each configuration, worker, command, key, event and link in them."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.config_file import faults_of
from support.event_pages import page

from supervisor.cli.parser import parser_of_commands
from supervisor.config.schema import TOP, WORKER
from supervisor.daemon import cluster
from supervisor.daemon import status as daemon_status
from supervisor.daemon.cluster_rows import node_rows, projection_rows, with_lag
from supervisor.database.database import Database
from supervisor.exit_status import ExitStatus
from supervisor.journal.events import EVENTS, LEVELS
from supervisor.leases import stand
from supervisor.supervision import worker_status
from supervisor.workers.context import Context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.table import Key

CHECKOUT = Path(__file__).parents[1]
README = CHECKOUT / "README.md"
PAGES = (README, CHECKOUT / "CHANGELOG.md", *sorted((CHECKOUT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TERMINAL_LINE = re.compile(r"^(?:\^C)?\d\d:\d\d:\d\d\.\d{3} (\w+) +(\S+) +(.*)$", re.MULTILINE)
_JOURNAL_LINE = re.compile(r" pgsupervisor\[\d+\]: (.*)$", re.MULTILINE)


def _blocks(language: str, *pages: Path) -> list[str]:
    found = [_BLOCK.findall(path.read_text("utf-8")) for path in pages or PAGES]
    return [text for blocks in found for kind, text in blocks if kind == language]


def _prose(path: Path) -> str:
    return _BLOCK.sub("", path.read_text("utf-8"))


def _inline(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", _prose(path))


def _commands() -> Iterator[str]:
    """Yield every command line of pgsupervisor, as its arguments."""
    lines = [line for kind in ("sh", "console") for block in _blocks(kind) for line in block.splitlines()]
    lines += [text for path in PAGES for text in _inline(path) if text.count(" ")]
    for line in lines:
        # After the prompt, variables and a path; up to what belongs to the shell.
        match = re.match(r"(?:\w*\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?pgsupervisor (?!\W|NAME\b)([^;|>#&]*)", line)
        if match is not None:
            yield match[1].strip()


@pytest.mark.parametrize("block", _blocks("toml"))
def test_every_configuration_is_right(tmp_path: Path, block: str) -> None:
    """Each block of TOML, with a dsn where it shows none, is a configuration without a fault."""
    whole = block if "[database]" in block else f'[database]\ndsn = "embedded:"\n\n{block}'
    assert faults_of(tmp_path, whole) == []


@pytest.mark.parametrize("block", _blocks("python"))
def test_every_worker_is_one(block: str) -> None:
    """Each block of Python runs as it stands and defines an async function of what its kind is given."""
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec", dont_inherit=True), names)
    functions = [value for value in names.values() if inspect.isfunction(value)]
    (worker,) = (value for value in functions if value.__code__.co_filename == "README.md")
    assert inspect.iscoroutinefunction(worker)
    assert list(inspect.signature(worker).parameters) == (["ctx", "events"] if "Event" in names else ["ctx"])
    used = {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ctx"
    }
    assert used <= set(dir(Context))


def test_the_commands_are_accepted() -> None:
    """Each command line that is shown is one that the program takes."""
    commands = set(_commands())
    assert len(commands) > 10
    for command in commands:
        parser_of_commands().parse_args(shlex.split(command))


def test_every_command_is_explained() -> None:
    """The README's table has every command, and every exit status of `run` its row."""
    (commands,) = (
        action for action in parser_of_commands()._actions if action.dest == "command"
    )  # argparse has no other way
    assert commands.choices is not None
    for name in commands.choices:
        assert f"| `pgsupervisor {name}" in README.read_text("utf-8")
    for status in ExitStatus:
        assert f"| {status.value} | {status.name} |" in README.read_text("utf-8")


def _keys(keys: Mapping[str, Key]) -> Iterator[str]:
    for name, key in keys.items():
        yield name
        if key.inner is not None:
            yield from _keys(key.inner)


def _status_keys() -> dict[str, set[str]]:
    """Return the keys of each dictionary that the functions of `status --json` write out, by function."""
    found = {}
    for part in (daemon_status, worker_status, Database, cluster, stand):
        for function in ast.walk(ast.parse(inspect.getsource(part))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                dicts = [node for node in ast.walk(function) if isinstance(node, ast.Dict)]
                found[function.name] = {
                    str(key.value) for node in dicts for key in node.keys if isinstance(key, ast.Constant)
                }
    return found


def _status_row(title: str) -> set[str]:
    (row,) = re.findall(rf"^\| {re.escape(title)} \| (`.*`) \|$", README.read_text("utf-8"), re.MULTILINE)
    return set(row.strip("`").split("` `"))


def _rows_of_nodes() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a row of a node and one of a projection, as `status` makes them."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    names = (
        "id",
        "name",
        "host",
        "pid",
        "version",
        "started_at",
        "joined_at",
        "wants",
        "lease",
        "epoch",
        "acquired_at",
    )
    values = (1, "shop@app1:7", "app1", 7, "0.1", now, now, 1, "view", 1, now)
    node: Any = dict(zip(names, values, strict=True))
    shard: Any = {"projection": "view", "lease": "view", "shard": 0, "shards": 1, "position": 1, "applied": 1}
    shard |= {"poison": None, "error": None, "head": 1, "start": 0, "most": 9, "events": 1, "age_s": 1.0}
    projections = projection_rows([shard])
    (with_leases,) = with_lag(node_rows([node], 1), projections)
    return with_leases, projections[0]


def test_the_status_has_the_keys_that_the_readme_lists() -> None:
    """The README's table of `status --json` has every key and no other."""
    written = _status_keys()
    node, projection = _rows_of_nodes()
    assert _status_row("each of `nodes`") == node.keys()
    assert _status_row("each of a node's `leases`") == node["leases"][0].keys()
    assert _status_row("each of `projections`") == projection.keys()
    assert _status_row("each of its `shards`") == projection["shards"][0].keys()
    assert _status_row("`cluster`") | {"nodes", "projections", "cluster"} == written["look"]
    assert _status_row("each of a worker's `leases`") == written["describe"]
    assert _status_row("top") | _status_row("`reload`") == written["status_of"]
    assert _status_row("`database`") == written["_database"]
    assert _status_row("its `pool`") == written["pool_counts"]
    assert _status_row("each of `workers`") == written["row_of"]


def test_every_key_that_is_named_exists() -> None:
    """Each word with an underscore, `key = value`, and variable is a key of the configuration or of the status."""
    keys = {*_keys(TOP), *_keys(WORKER)}
    node, projection = _rows_of_nodes()
    known = keys | {key for of_one in _status_keys().values() for key in of_one} | node.keys() | projection.keys()
    libpq = {"load_balance_hosts", "target_session_attrs", "application_name", "max_connections"}
    server = {"idle_session_timeout", "tcp_user_timeout", "tcp_keepalives_idle", "idle_in_transaction_session_timeout"}
    server |= {"pg_terminate_backend", "pg_signal_backend", "pool_mode", "dead_letter"}
    # The page of the benchmarks names figures of its own and files of the kernel.
    for path in (each for each in PAGES if each.name != "benchmarks.md"):
        for text in _inline(path):
            if re.fullmatch(r"[a-z]+(_[a-z]+)+", text):
                assert text in known | libpq | server, f"{path.name}: {text}"
            if (assigned := re.match(r"([a-z_]+) = ", text)) and assigned[1] not in server:
                tomllib.loads(text)
                assert assigned[1] in keys, f"{path.name}: {text}"
            if section := re.match(r"\[([a-z_.]+)\]", text):
                assert set(section[1].split(".")) <= {*keys, "embedded"}, f"{path.name}: {text}"
        for variable in re.findall(r"PGSUPERVISOR__([A-Z_]+)=", path.read_text("utf-8")):
            parts = variable.lower().split("__")
            assert {part for part in parts if part not in ("greeter", "pause_s")} <= keys, f"{path.name}: {variable}"


def test_every_event_that_is_named_exists() -> None:
    """Each `noun.what_happened` in prose, filters and output is an event of the table."""
    nouns = {name.partition(".")[0] for name in EVENTS}
    for path in PAGES:
        text = path.read_text("utf-8")
        named = [
            name for name in _inline(path) if re.fullmatch(r"[a-z]+\.[a-z_]+", name) and name.split(".")[0] in nouns
        ]
        named += re.findall(r"\bEVENT=([a-z]+\.[a-z_]+)", text)
        assert set(named) <= {*EVENTS, *_keys_with_sections()}, path.name
        ids = {kind.message_id for kind in EVENTS.values()}
        assert set(re.findall(r"MESSAGE_ID=([0-9a-f]{32})", text)) <= ids


def _keys_with_sections() -> set[str]:
    return {f"{section}.{name}" for section, key in TOP.items() for name in key.inner or {}}


def test_the_output_that_is_shown_is_what_is_said() -> None:
    """Each line of output begins as the table's sentence for its event does, at the event's level or louder."""
    said = _TERMINAL_LINE.findall(README.read_text("utf-8"))
    assert len(said) > 20
    own = {"greeter", "shop", "packer", "report"}
    for level, event, message in said:
        assert level in LEVELS
        if event not in own:
            assert re.match(_beginning(event), message), message
    # Two sentences begin with whatever a library or a worker said.
    beginnings = [_beginning(event) for event in EVENTS if event not in ("library.logged", "log.repeated")]
    beginnings += ["Refused, the old configuration runs on", "/etc/pgsupervisor/"]  # what the client of a reload prints
    for message in _JOURNAL_LINE.findall(README.read_text("utf-8")):
        assert any(re.match(beginning, message) for beginning in beginnings), message


def _beginning(event: str) -> str:
    """Return a pattern for what the event's sentence says before its first optional part, however it is filled."""
    fixed = EVENTS[event].sentence.partition("[")[0].partition("\n")[0]
    return ".+".join(re.escape(part) for part in re.split(r"\{[^}]*\}", fixed))


def test_the_page_of_events_is_made_from_the_table() -> None:
    """docs/journal.md is what the table of events and the catalog give."""
    remedy = "write it anew: PYTHONPATH=tests:. .venv/bin/python -m support.event_pages"
    assert (CHECKOUT / "docs" / "journal.md").read_text("utf-8") == page(), remedy


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_links_lead_somewhere(path: Path) -> None:
    """Each link to a file or a heading has one at its end."""
    for target in re.findall(r"\]\(([^)]+)\)", _prose(path)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), target
