"""The README's projection, singleton, rebuild and GRANTs do what it says, in a real daemon on a real PostgreSQL."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.daemon import Daemon
from support.schema import make_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.postgres import Postgres

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
OPEN = "select string_agg(id || ' ' || article, ', ' order by id) from open_order"


def _block(language: str, part: str) -> str:
    """Return the one block in a language that has `part` in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if part in text)
    return str(found)


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


@pytest.fixture
def shop(postgres: Postgres, tmp_path: Path) -> Iterator[Daemon]:
    """The README's shop, not started yet: its projection, its singleton, and one call of the worker that appends."""
    tables, *statements = _block("sql", "create table open_order").split("\n\n")
    postgres.execute(f"{tables}; create table report (at timestamptz, waiting bigint)")
    asked = _block("toml", 'kind = "projection"') + _block("toml", 'run = "shop:report"')
    order = '[workers.shop]\nrun = "shop:take_order"\nrestart = "never"\n'
    daemon = Daemon(tmp_path / "app", f'[database]\ndsn = "{postgres.dsn()}"\n\n{asked}\n{order}')
    (daemon.folder / "views.py").write_text(_block("python", "async def open_orders"))
    workers = _block("python", "async def take_order(") + _block("python", "async def report")
    (daemon.folder / "shop.py").write_text(workers)
    assert daemon.run_command("migrate").returncode == 0
    for statement in statements:
        postgres.execute(statement)
    yield daemon
    daemon.kill()


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
    """The entry and the answers of `projections` are those of the README, positions and all."""
    shop.start()
    shop.wait_for("worker.started", worker="open-orders")
    shop.run_command("append", "order-1", "shipped")
    shop.run_command("append", "order-3", "placed", '{"item": "tea"}')
    told = shop.wait_for("projection.poison")
    assert f" {told['message']}\n" in _block("text", "projection.poison")
    shown = _block("console", "projections list")
    _until(lambda: "KeyError" in shop.run_command("projections", "list").stdout, "it does not stand still")
    stopped = shop.run_command("projections", "list").stdout.splitlines()
    assert re.sub(r"1 event, \S+ +", "", stopped[1]) in re.sub(r"1 event, \S+ +", "", shown)
    assert shop.run_command("projections", "skip", "open-orders").stdout in shown
    _until(lambda: shop.run_command("projections", "list").stdout in shown, "it does not go on as shown")


async def test_the_grants_are_enough_also_for_what_a_later_version_adds(postgres: Postgres, tmp_path: Path) -> None:
    """A daemon whose role has the README's grants runs; tables and functions made afterwards are within its reach."""
    await make_schema(postgres.dsn())
    postgres.execute("create role app login; create role web login")
    postgres.execute(_block("sql", "GRANT SELECT ON ALL TABLES"))
    postgres.execute(_block("sql", "GRANT EXECUTE ON FUNCTION supervisor.append"))
    postgres.execute("create table supervisor.later (number int)")
    postgres.execute("create function supervisor.later() returns int language sql as 'select 7'")
    assert postgres.execute("set role app; table supervisor.later; select supervisor.later()") == "7"
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
