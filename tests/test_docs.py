"""What the README and docs/ say is true: each configuration, worker, command, key, event, file and link in them."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.config_file import faults_of

from supervisor import __all__ as public_names
from supervisor.cli.main import command_parser
from supervisor.config.schema import TOP, WORKER
from supervisor.daemon import cluster_status
from supervisor.daemon import status as daemon_status
from supervisor.daemon.cluster_status import add_lag, node_rows, projection_rows
from supervisor.daemon.components import database as daemon_database
from supervisor.database.database import Database
from supervisor.exit_status import ExitStatus
from supervisor.journal.events import EVENTS, LEVELS
from supervisor.leases import local_lease
from supervisor.supervision import worker_status
from supervisor.workers.context import Context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.table_reader import Key

CHECKOUT = Path(__file__).parents[1]
README = CHECKOUT / "README.md"
DOCS = CHECKOUT / "docs"
COMMANDS = DOCS / "reference" / "commands.md"
STATUS = DOCS / "reference" / "status-json.md"
API = DOCS / "reference" / "context-and-api.md"
ARCHITECTURE = DOCS / "explanation" / "architecture.md"
PAGES = (README, CHECKOUT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TERMINAL_LINE = re.compile(r"^(?:\^C)?\d\d:\d\d:\d\d\.\d{3} (\w+) +(\S+) +(.*)$", re.MULTILINE)
_JOURNAL_LINE = re.compile(r" pgsupervisor\[\d+\]: (.*)$", re.MULTILINE)


def _blocks(language: str, *pages: Path) -> list[str]:
    found = [_BLOCK.findall(path.read_text("utf-8")) for path in pages or PAGES]
    return [text for blocks in found for kind, text in blocks if kind == language]


def _prose(path: Path) -> str:
    return _BLOCK.sub("", path.read_text("utf-8"))


def _name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


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
    exec(compile(block, "a page", "exec", dont_inherit=True), names)
    functions = [value for value in names.values() if inspect.isfunction(value)]
    (worker,) = (value for value in functions if value.__code__.co_filename == "a page")
    assert inspect.iscoroutinefunction(worker)
    assert list(inspect.signature(worker).parameters) == (["ctx", "events"] if "Event" in names else ["ctx"])
    used = {
        node.attr
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ctx"
    }
    assert used <= set(dir(Context))


@pytest.mark.slow
def test_every_worker_is_typed(tmp_path: Path) -> None:
    """Each block of Python passes `mypy --strict`, as it would in a user's project."""
    for number, block in enumerate(_blocks("python")):
        (tmp_path / f"page_{number}.py").write_text(block, "utf-8")
    # A user knows that a singleton's `ctx.lease` is not None; the type checker does not.
    command = [sys.executable, "-m", "mypy", "--strict", "--disable-error-code=union-attr", "--follow-imports=silent"]
    checked = subprocess.run(
        [*command, f"--cache-dir={CHECKOUT / '.cache' / 'mypy-pages'}", "."],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_commands_are_accepted() -> None:
    """Each command line that is shown is one that the program takes."""
    commands = set(_commands())
    assert len(commands) > 10
    for command in commands:
        command_parser().parse_args(shlex.split(command))


def test_every_command_is_explained() -> None:
    """The reference has every command, and every exit status of `run` its row."""
    (commands,) = (
        action for action in command_parser()._actions if action.dest == "command"
    )  # argparse has no other way
    assert commands.choices is not None
    for name in commands.choices:
        assert f"`pgsupervisor {name}" in COMMANDS.read_text("utf-8")
    for status in ExitStatus:
        assert re.search(rf"^\|.*\b{status.value}\b.*\b{status.name}\b.*\|", COMMANDS.read_text("utf-8"), re.MULTILINE)


def _keys(keys: Mapping[str, Key]) -> Iterator[str]:
    for name, key in keys.items():
        yield name
        if key.inner is not None:
            yield from _keys(key.inner)


def _status_keys() -> dict[str, set[str]]:
    """Return the keys of each dictionary that the functions of `status --json` write out, by function."""
    found = {}
    for part in (daemon_status, daemon_database, worker_status, Database, cluster_status, local_lease):
        for function in ast.walk(ast.parse(inspect.getsource(part))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                dicts = [node for node in ast.walk(function) if isinstance(node, ast.Dict)]
                found[function.name] = {
                    str(key.value) for node in dicts for key in node.keys if isinstance(key, ast.Constant)
                }
    return found


def _status_row(title: str) -> set[str]:
    (row,) = re.findall(rf"^\| {re.escape(title)} \| (`.*`) \|$", STATUS.read_text("utf-8"), re.MULTILINE)
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
    (with_leases,) = add_lag(node_rows([node], 1), projections)
    return with_leases, projections[0]


def test_the_status_has_the_keys_that_the_reference_lists() -> None:
    """The reference's table of `status --json` has every key and no other."""
    written = _status_keys()
    node, projection = _rows_of_nodes()
    assert _status_row("each of `nodes`") == node.keys()
    assert _status_row("each of a node's `leases`") == node["leases"][0].keys()
    assert _status_row("each of `projections`") == projection.keys()
    assert _status_row("each of its `shards`") == projection["shards"][0].keys()
    assert _status_row("`cluster`") | {"nodes", "projections", "cluster"} == written["fetch"]
    assert _status_row("each of a worker's `leases`") == written["describe"]
    assert _status_row("top") | _status_row("`reload`") == written["_status_row"]
    assert _status_row("`database`") == written["_database_row"]
    assert _status_row("its `pool`") == written["pool_counts"]
    assert _status_row("each of `workers`") == written["worker_row"]


def test_every_key_that_is_named_exists() -> None:
    """Each word with an underscore, `key = value`, and variable is one of the configuration, status or schema."""
    keys = {*_keys(TOP), *_keys(WORKER)}
    node, projection = _rows_of_nodes()
    known = keys | {key for of_one in _status_keys().values() for key in of_one} | node.keys() | projection.keys()
    libpq = {"load_balance_hosts", "target_session_attrs", "application_name", "max_connections"}
    server = {"idle_session_timeout", "tcp_user_timeout", "tcp_keepalives_idle", "idle_in_transaction_session_timeout"}
    server |= {"pg_terminate_backend", "pg_signal_backend", "pool_mode", "dead_letter"}
    known |= {name for file in CHECKOUT.glob("supervisor/database/schema/*.sql") for name in _words(file)}
    code = {name for file in CHECKOUT.glob("supervisor/**/*.py") for name in _words(file)}
    wrong = []
    # The page of the benchmarks names figures of its own and files of the kernel.
    for path in (each for each in PAGES if each.name != "benchmarks.md"):
        words = known | libpq | server | (code if path == ARCHITECTURE else set())
        for text in _inline(path):
            if re.fullmatch(r"[a-z]+(_[a-z]+)+", text) and text not in words:
                wrong.append(f"{_name(path)}: {text}")
            if (assigned := re.match(r"([a-z_]+) = ", text)) and assigned[1] not in server:
                tomllib.loads(text)
                assert assigned[1] in keys, f"{_name(path)}: {text}"
            if section := re.match(r"\[([a-z_.]+)\]", text):
                assert set(section[1].split(".")) <= {*keys, "embedded"}, f"{_name(path)}: {text}"
        for variable in re.findall(r"PGSUPERVISOR__([A-Z_]+)=", path.read_text("utf-8")):
            parts = variable.lower().split("__")
            assert {part for part in parts if part not in ("greeter", "pause_s")} <= keys, f"{_name(path)}: {variable}"
    assert wrong == []


def _words(path: Path) -> set[str]:
    return set(re.findall(r"[a-z_]+", path.read_text("utf-8")))


def test_every_event_that_is_named_exists() -> None:
    """Each `noun.what_happened` in prose, filters and output is an event of the table."""
    nouns = {name.partition(".")[0] for name in EVENTS}
    unknown = []
    for path in PAGES:
        text = path.read_text("utf-8")
        named = [
            name for name in _inline(path) if re.fullmatch(r"[a-z]+\.[a-z_]+", name) and name.split(".")[0] in nouns
        ]
        named += re.findall(r"\bEVENT=([a-z]+\.[a-z_]+)", text)
        unknown += [f"{_name(path)}: {name}" for name in sorted({*named} - {*EVENTS, *_keys_with_sections()})]
        ids = {kind.message_id for kind in EVENTS.values()}
        assert set(re.findall(r"MESSAGE_ID=([0-9a-f]{32})", text)) <= ids
    assert unknown == []


def _keys_with_sections() -> set[str]:
    return {f"{section}.{name}" for section, key in TOP.items() for name in key.inner or {}}


def test_the_output_that_is_shown_is_what_is_said() -> None:
    """Each line of output begins as the table's sentence for its event does, at the event's level or louder."""
    # Each line on a terminal and in the journal, with its page: what differs is shown at once, to be written anew.
    shown = [(path, block) for path in PAGES for kind in ("console", "journal") for block in _blocks(kind, path)]
    said = [(path, *line) for path, block in shown for line in _TERMINAL_LINE.findall(block)]
    assert len(said) > 20
    own = {"greeter", "shop", "packer", "report"}
    wrong = []
    for path, level, event, message in said:
        assert level in LEVELS
        if event not in own and not (event in EVENTS and re.match(_beginning(event), message)):
            wrong.append(f"{_name(path)}: {event}: {message}")
    # Two sentences begin with whatever a library or a worker said.
    beginnings = [_beginning(event) for event in EVENTS if event not in ("library.logged", "log.repeated")]
    beginnings += ["Refused, the old configuration runs on", "/etc/pgsupervisor/"]  # what the client of a reload prints
    wrong += [
        f"{_name(path)}: {message}"
        for path, block in shown
        for message in _JOURNAL_LINE.findall(block)
        if not any(re.match(beginning, message) for beginning in beginnings)
    ]
    assert wrong == []


def _beginning(event: str) -> str:
    """Return a pattern for what the event's sentence says before its first optional part, however it is filled."""
    fixed = EVENTS[event].sentence.partition("[")[0].partition("\n")[0]
    return ".+".join(re.escape(part) for part in re.split(r"\{[^}]*\}", fixed))


def test_the_readme_is_short() -> None:
    """A newcomer reads it in a few minutes: everything else is in docs/."""
    assert len(README.read_text("utf-8").splitlines()) <= 200


def test_the_index_has_every_page() -> None:
    """docs/README.md links to each page of docs/."""
    index = DOCS / "README.md"
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)]+)\)", _prose(index))}
    assert {path for path in DOCS.rglob("*.md") if path != index} <= linked


def test_the_reference_has_every_public_name() -> None:
    """The table of public names is `supervisor.__all__`."""
    (table,) = re.findall(r"^## Public names$(.*?)^## ", API.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(public_names) - {"__version__"}


def test_the_reference_has_everything_of_the_context() -> None:
    """The table of the context has each of its public members, and no other."""
    listed = set(re.findall(r"^\| `ctx\.(\w+)[^`]*` \|", API.read_text("utf-8"), re.MULTILINE))
    assert listed == {name for name in vars(Context) if not name.startswith("_")}


def test_the_files_that_the_architecture_names_exist() -> None:
    """Each file of the page on the architecture is one of the tree."""
    files = [f"/{path.relative_to(CHECKOUT)}" for path in (CHECKOUT / "supervisor").rglob("*")]
    named = {text for text in _inline(ARCHITECTURE) if re.fullmatch(r"[\w/]+\.(py|sql)", text)}
    assert len(named) > 20
    assert {name for name in named if not any(file.endswith(f"/{name}") for file in files)} == set()


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_links_lead_somewhere() -> None:
    """Each link to a file or a heading has one at its end."""
    links = [(path, target) for path in PAGES for target in re.findall(r"\]\(([^)]+)\)", _prose(path))]
    inside = [(path, *target.partition("#")) for path, target in links if "://" not in target]
    assert len(inside) > 10
    for path, file, _, anchor in inside:
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {file}"
        assert not anchor or anchor in _anchors(there), f"{path.name}: {file}#{anchor}"
