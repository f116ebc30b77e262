"""What the daemon says, as a real journald keeps and shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.container_python import CHECKOUT
from support.unit import Unit

from supervisor.journal.events import EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres
    from support.systemd_container import SystemdContainer

pytestmark = pytest.mark.systemd

_TALKER = """
    runs = 0

    async def work(ctx):
        global runs
        runs += 1
        if runs == 1:
            print("said by print")
            odd = {"strange-name": "é…", "_UID": 3, "priority": 0, "message": "no", "1st": "x" * 3}
            ctx.log.warning("odd", text="a\\0b\\x1b[2J\\nPRIORITY=0", raw=b"\\xff\\0", **odd)
            ctx.log.info("large", **{f"part{number:02}": chr(97 + number) * 48_000 for number in range(24)})
            await ctx.db.fetch("select 1/0")
        ctx.log.info("again")
        while not ctx.stopping:
            await ctx.sleep(3600)
"""


@pytest.fixture(scope="module")
def talker(shared_container: SystemdContainer, shared_postgres: Postgres) -> Iterator[Unit]:
    """A daemon whose worker has said everything and failed once."""
    with Unit(shared_container, shared_postgres.dsn(), _TALKER) as unit:
        unit.start()
        unit.wait_for("EVENT=again")
        yield unit


def _entry(unit: Unit, *matches: str) -> dict[str, Any]:
    (entry,) = unit.journal(*matches)
    return entry


def test_a_failure_has_its_fields(talker: Unit) -> None:
    """A worker's failure is one entry with every promised field, under the unit that said it."""
    entry = _entry(talker, "EVENT=worker.failed")
    wanted = {
        "WORKER": "main",
        "ERROR_TYPE": "asyncpg.exceptions.DivisionByZeroError",
        "ERROR": "division by zero",
        "SQLSTATE": "22012",
        "PRIORITY": "3",
        "MESSAGE_ID": EVENTS["worker.failed"].message_id,
        "SYSLOG_IDENTIFIER": "pgsupervisor",
        "_SYSTEMD_UNIT": talker.unit,
        "_TRANSPORT": "journal",
        "_PID": str(talker.pid),
    }
    assert {name: entry.get(name) for name in wanted} == wanted
    assert "division by zero" in entry["MESSAGE"]
    lines = entry["TRACEBACK"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "asyncpg.exceptions.DivisionByZeroError: division by zero"
    assert any("workers.py" in line for line in lines)


def test_is_found_by_its_fields(talker: Unit) -> None:
    """The daemon's entries are found by event, by worker and by priority, as the documents promise."""
    worker = talker.journal("WORKER=main", "-p", "warning")
    assert [entry["EVENT"] for entry in worker] == ["odd", "worker.failed"]
    assert _entry(talker, "EVENT=daemon.ready")["PRIORITY"] == "6"
    assert talker.journal(f"MESSAGE_ID={EVENTS['worker.started'].message_id}", "WORKER=other") == []


def test_odd_values_are_logged_whole(talker: Unit) -> None:
    """Control characters, bytes and names that journald would drop arrive readable, and forge nothing."""
    entry = _entry(talker, "EVENT=odd")
    shown = {
        "TEXT": "a\\x00b\\x1b[2J\nPRIORITY=0",
        "RAW": "b'\\xff\\x00'",
        "STRANGE_NAME": "é…",
        "UID": "3",
        "FIELD_1ST": "xxx",
        "PRIORITY": "4",
        "PRIORITY_": "0",
        "MESSAGE_": "no",
    }
    assert {name: entry.get(name) for name in shown} == shown


def test_an_entry_of_a_mebibyte_arrives(talker: Unit) -> None:
    """What is too large for a datagram reaches journald in a memory file, from inside the hardened unit."""
    entry = _entry(talker, "EVENT=large", "--all")
    # Only with --all does journalctl show fields of this size.
    assert sum(len(value) for name, value in entry.items() if name.startswith("PART")) == 24 * 48_000
    assert entry["PART23"] == "x" * 48_000
    assert entry["_SYSTEMD_UNIT"] == talker.unit


def test_what_a_worker_prints_arrives(talker: Unit) -> None:
    """A worker's print() is in the journal at once, not when some buffer is full."""
    entry = talker.wait_for("_TRANSPORT=stdout", limit_s=5)
    assert (entry["MESSAGE"], entry["SYSLOG_IDENTIFIER"]) == ("said by print", "pgsupervisor")


def test_the_catalog_explains_entries(talker: Unit) -> None:
    """With the shipped catalog installed `journalctl -x` explains an entry, with its own values."""
    catalog = CHECKOUT / "systemd" / "pgsupervisor.catalog"
    talker.container.write("/usr/lib/systemd/catalog/pgsupervisor.catalog", catalog.read_text())
    updated = talker.container.run("journalctl", "--update-catalog")
    assert "pgsupervisor" not in updated.stderr
    shown = talker.container.run("journalctl", "-x", "-u", talker.unit, "EVENT=daemon.starting").stdout
    assert f"reads its configuration ({talker.config})" in " ".join(shown.replace("░░", "").split())
    listed = talker.container.run("journalctl", "--list-catalog", *(kind.message_id for kind in EVENTS.values())).stdout
    assert len(listed.splitlines()) == len(EVENTS)


def test_a_journal_that_is_not_stderrs_is_left_alone(shared_container: SystemdContainer, database: str) -> None:
    """JOURNAL_STREAM that speaks of stdout alone is no reason to leave a stderr that goes to a file."""
    with Unit(shared_container, database, drop_in="StandardError=append:/var/log/daemon.log") as unit:
        unit.start()
        unit.systemctl("stop")
        lines = shared_container.path("/var/log/daemon.log").read_text().splitlines()
        events = [json.loads(line)["event"] for line in lines]
        assert (events[0], events[-1]) == ("daemon.starting", "daemon.stopped")
        assert unit.events() == []
