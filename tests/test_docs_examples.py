"""What the README and docs/ show does what they say, in a real daemon on a real PostgreSQL."""

from __future__ import annotations

import re
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.daemon import Daemon
from support.schema import make_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import Postgres

CHECKOUT = Path(__file__).parents[1]
PAGES = (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md")))
# Pages whose files are one program: a tutorial goes on where the one before it has stopped.
PROGRAMS = (
    ("README.md",),
    ("docs/tutorial/first-worker.md",),
    ("docs/tutorial/projection.md",),
    ("docs/tutorial/projection.md", "docs/tutorial/second-node.md"),
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^`([\w-]+\.(?:py|toml))`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPEN = "select string_agg(id || ' ' || article, ', ' order by id) from open_order"


def _blocks(language: str, *pages: Path) -> list[str]:
    found = [_BLOCK.findall(path.read_text("utf-8")) for path in pages or PAGES]
    return [text for blocks in found for kind, text in blocks if kind == language]


def _block(language: str, part: str) -> str:
    """Return the block in a language that has `part` in it; a page may show another one's again."""
    (found,) = {text for text in _blocks(language) if part in text}
    return found


def _file(name: str) -> str:
    (found,) = {text for path in PAGES for file, text in _FILE.findall(path.read_text("utf-8")) if file == name}
    return str(found)


def _tables(*pages: Path) -> list[str]:
    return [text for text in _blocks("sql", *pages) if text.startswith("create table")]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


@pytest.fixture
def shop(postgres: Postgres, tmp_path: Path) -> Iterator[Daemon]:
    """The tutorials' shop, not started yet: its projection, its singleton, and one call of the worker that appends."""
    for tables in _tables():
        postgres.execute(tables)
    config = _file("shop.toml") + _block("toml", 'run = "books:report"')
    daemon = Daemon(tmp_path / "app", _at(config, postgres))
    for name in ("views.py", "shop.py", "books.py"):
        (daemon.folder / name).write_text(_file(name))
    assert daemon.run_command("migrate").returncode == 0
    postgres.execute(_block("sql", "with placed as"))
    yield daemon
    daemon.kill()


def _at(config: str, postgres: Postgres) -> str:
    """Return a configuration with the test's database; what the test's daemon sets itself is left out."""
    return re.sub(r"^dsn = .*$", f'dsn = "{postgres.dsn()}"', config, flags=re.MULTILINE).replace(
        'python_path = ["."]\n', ""
    )


@pytest.mark.parametrize("pages", PROGRAMS, ids=lambda pages: pages[-1])
def test_the_files_of_a_page_are_a_program(pages: tuple[str, ...], postgres: Postgres, tmp_path: Path) -> None:
    """The files that a page names, with its SQL and its further workers, run as a daemon without a failure."""
    paths = [CHECKOUT / page for page in pages]
    files = dict(file for path in paths for file in _FILE.findall(path.read_text("utf-8")))
    (config,) = (text for name, text in files.items() if name.endswith(".toml"))
    more = [text for text in _blocks("toml", *paths) if text not in files.values()]
    daemon = Daemon(tmp_path / "app", _at("\n".join((config, *more)), postgres))
    for name, text in files.items():
        if name.endswith(".py"):
            (daemon.folder / name).write_text(text)
    try:
        assert daemon.run_command("migrate").returncode == 0
        for statement in _blocks("sql", *paths):
            postgres.execute(statement)
        checked = daemon.run_command("check", "--connect")
        assert checked.returncode == 0, checked.stdout + checked.stderr
        daemon.start().wait_for("daemon.ready")
        for worker in tomllib.loads(daemon.config.read_text("utf-8"))["workers"]:
            _until(lambda: _has_run(daemon, worker), f"{worker} did not run")  # noqa: B023 - called at once
        assert daemon.said("worker.failed") == daemon.said("worker.restarting") == []
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def _has_run(daemon: Daemon, name: str) -> bool:
    (row,) = (row for row in daemon.status()["workers"] if row["name"] == name)
    return row["last_started"] is not None or row["state"] == "scheduled"


@pytest.mark.parametrize(
    "page", [path for path in PAGES if _blocks("sql", path)], ids=lambda path: str(path.relative_to(CHECKOUT))
)
async def test_the_sql_of_a_page_runs(page: Path, postgres: Postgres) -> None:
    """Each block of SQL is one that the server takes, with the schema, the tutorials' tables and the roles there."""
    await make_schema(postgres.dsn())
    postgres.execute("create role app login; create role web login")
    for tables in _tables():
        if tables not in _tables(page):
            postgres.execute(tables)
    for statement in _blocks("sql", page):
        postgres.execute(statement)


async def test_the_reference_has_the_schema(postgres: Postgres) -> None:
    """The page on SQL has each table with its columns, each view and each function."""
    await make_schema(postgres.dsn())
    page = (CHECKOUT / "docs" / "reference" / "sql.md").read_text("utf-8")
    for row in postgres.execute(_COLUMNS).splitlines():
        table, columns = row.split("|")
        (listed,) = re.findall(rf"^\| `supervisor\.{table}` \|.*\| (.*) \|$", page, re.MULTILINE) or [""]
        assert not listed or set(re.findall(r"`(\w+)`", listed)) == set(columns.split()), table
        assert f"`supervisor.{table}`" in page
    functions = postgres.execute("select proname from pg_proc where pronamespace = 'supervisor'::regnamespace")
    assert {name for name in functions.split() if not re.search(rf"`(supervisor\.)?{name}[`(]", page)} == set()


_COLUMNS = """
    select table_name, string_agg(column_name, ' ') from information_schema.columns
    where table_schema = 'supervisor' group by 1
"""


def test_the_projection_shows_what_the_readme_shows(shop: Daemon, postgres: Postgres) -> None:
    """Appended in SQL, in Python and from a shell, events make the table that is printed; a rebuild does too."""
    shop.start()
    _until(lambda: postgres.execute(OPEN) == "order-1 tea, order-2 bread", "the orders are not there")
    shell = _block("console", "pgsupervisor append")
    ((arguments, position),) = re.findall(r"^\$ pgsupervisor (append .*)\n(\d+)$", shell, re.MULTILINE)
    appended = shop.run_command(*arguments.split())
    assert (appended.returncode, appended.stdout.strip()) == (0, position)
    _until(lambda: postgres.execute(OPEN) == "order-2 bread", "the order is still open")
    assert "order-2 | bread" in shell
    postgres.execute(_block("sql", "reset_projection"))
    shop.wait_for("projection.moved", worker="open-orders")
    _until(lambda: postgres.execute(OPEN) == "order-2 bread", "it was not rebuilt")
    shop.wait_for("reported", epoch=1)
    assert int(postgres.execute("select count(*) from report")) > 0
    assert postgres.execute(_block("sql", "from pg_locks")) == ""
    assert shop.stop() == 0


def test_an_event_without_what_the_handler_needs_stops_it_as_shown(shop: Daemon) -> None:
    """The entry and the answers of `projections` are those of the tutorial, positions and all."""
    shop.start()
    shop.wait_for("worker.started", worker="open-orders")
    shop.run_command("append", "order-1", "shipped")
    shop.run_command("append", "order-3", "placed", '{"item": "tea"}')
    told = shop.wait_for("projection.poison")
    assert any(f" {told['message']}\n" in shown for shown in _blocks("journal"))
    shown = _block("console", "projections skip open-orders")
    _until(lambda: "KeyError" in shop.run_command("projections", "list").stdout, "it does not stand still")
    stopped = shop.run_command("projections", "list").stdout.splitlines()
    assert re.sub(r"1 event, \S+ +", "", stopped[1]) in re.sub(r"1 event, \S+ +", "", shown)
    assert shop.run_command("projections", "skip", "open-orders").stdout in shown
    _until(lambda: shop.run_command("projections", "list").stdout in shown, "it does not go on as shown")


async def test_the_grants_are_enough(postgres: Postgres, tmp_path: Path) -> None:
    """A daemon whose role has the documented grants runs, and so does an application that appends."""
    await make_schema(postgres.dsn())
    postgres.execute("create role app login; create role web login")
    postgres.execute(_block("sql", "GRANT SELECT ON ALL TABLES"))
    postgres.execute(_block("sql", "GRANT EXECUTE ON FUNCTION supervisor.append"))
    assert postgres.execute("set role web; select supervisor.append('order-1', 'placed')") == "2"
    postgres.set_hba("host all all 127.0.0.1/32 trust")
    views = "async def view(ctx, events): ..."
    view = '[workers.view]\nkind = "projection"\nrun = "workers:view"\n'
    daemon = Daemon(tmp_path / "app", f'[database]\ndsn = "{postgres.dsn(user="app")}"\n\n{view}', views)
    try:
        daemon.start().wait_for("lease.acquired", lease="view")
        _until(
            lambda: postgres.execute("select position from supervisor.checkpoint") == "2", "the event was not applied"
        )
        assert daemon.stop() == 0
    finally:
        daemon.kill()
