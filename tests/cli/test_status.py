"""The nodes in `status`, as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from supervisor.cli.status import holders, lag, node_lines, table

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAID = SINCE.astimezone().strftime("%Y-%m-%d %H:%M")
NO_LAG: dict[str, Any] = {"lag_events": None, "lag_exact": None, "lag_s": None}


def node(name: str, *leases: str, this: bool = False, since: datetime = SINCE, **lag: Any) -> dict[str, Any]:
    """A row of `nodes`."""
    return {
        "name": f"{name}@box:4711",
        "id": 1,
        "host": "box",
        "pid": 4711,
        "version": "1",
        "this": this,
        "started": since.isoformat(),
        "since": since.isoformat(),
        "wants": 3,
        "leases": [{"name": lease, "epoch": 1, "since": since.isoformat()} for lease in leases],
    } | (NO_LAG | lag)


def status(
    *nodes: dict[str, Any], problem: str | None = None, age_s: float | None = 0.0, trouble: str | None = None
) -> dict[str, Any]:
    """The parts of a status that are about nodes."""
    return {
        "nodes": list(nodes),
        "projections": [],
        "cluster": {"age_s": age_s, "problem": problem, "trouble": trouble},
    }


def whole(**parts: Any) -> dict[str, Any]:
    """A whole status."""
    worker = {
        "name": "mail", "kind": "service", "state": "standby", "running": 0, "replicas": 1, "restarts": 0,
        "failures": 0, "next_run": None, "last_error": None,
    }  # fmt: skip
    return {
        "name": "app", "status": "Running", "version": "1", "pid": 1, "uptime_s": 1.0, "config": "app.toml",
        "database": {"state": "up"}, "journal": {}, "workers": [worker],
    } | parts  # fmt: skip


def test_every_node_is_a_line() -> None:
    """Each row has a node's host, start, leases and lag; the node that answers is marked."""
    ours = node("shop", "mail", "view/1of2", this=True, lag_events=12, lag_exact=True, lag_s=0.42)
    lines = node_lines(status(ours, node("till")))
    assert [line.split() for line in lines] == [
        [],
        ["NODE", "HOST", "PID", "SINCE", "LEASES", "LAG"],
        ["shop", "(this)", "box", "4711", *SAID.split(), "2:", "mail,", "view/1of2", "12", "events,", "400ms"],
        ["till", "box", "4711", *SAID.split(), "0"],
    ]


def test_a_thousand_leases_are_one_readable_line() -> None:
    """Of many leases the number is shown and the first few names."""
    lines = node_lines(status(node("shop", *(f"view/{n}of1000" for n in range(1, 1001)))))
    assert "1000: view/1of1000, view/2of1000, view/3of1000, view/4of1000, …" in lines[2]
    assert len(lines[2]) < 120


@pytest.mark.parametrize(
    ("age_s", "said"),
    [
        (None, "the database is unreachable; the nodes are not known"),
        (72.0, "the database is unreachable; shown as of 1m 12s ago"),
    ],
    ids=["never", "once"],
)
def test_rows_that_are_not_fresh_say_so(age_s: float | None, said: str) -> None:
    """While the database does not answer, the table says why and how old it is."""
    assert node_lines(status(problem="the database is unreachable", age_s=age_s))[-1].strip() == said


def test_a_daemon_that_is_no_node_shows_none() -> None:
    """Where no worker needs a lease, the status is what it was."""
    text = table(whole())
    assert "NODE" not in text
    assert "HELD" not in text
    assert "LAG" not in text


def test_a_worker_in_standby_shows_who_has_its_lease() -> None:
    """The row of a worker says where its lease is held, and since when."""
    other = node("shop", "mail", "mailer")
    text = table(whole(**status(other)))
    assert f"shop on box, pid 4711, since {SAID}" in text.splitlines()[5]


def test_a_time_of_today_has_no_date() -> None:
    """What has just happened is shown by the clock alone."""
    now = datetime.now(UTC)
    assert (
        holders(status(node("shop", "mail", this=True, since=now)))["mail"] == f"here since {now.astimezone():%H:%M:%S}"
    )


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], ""),
        ([node("shop", "mailer")], ""),
        ([node("shop", "mail", this=True)], f"here since {SAID}"),
        ([node("shop", "mail/1of3", "mail/2of3", this=True), node("till", "mail/3of3")], "2 here, 1 elsewhere"),
    ],
    ids=["nobody", "another-worker", "here", "shards"],
)
def test_who_holds_a_worker(nodes: list[dict[str, Any]], said: str) -> None:
    """A lease is a worker's by its whole name, or as one of its shards."""
    assert holders(status(*nodes)).get("mail", "") == said


def test_what_was_held_is_in_doubt_during_an_outage() -> None:
    """While the database does not answer, the last known holder has a question mark."""
    seen = status(node("shop", "mail", this=True), problem="the database is unreachable", age_s=3.0)
    assert holders(seen) == {"mail": f"here since {SAID}?"}


def test_a_worker_that_waits_for_a_lease_of_nobody_says_so() -> None:
    """In standby with no holder anywhere."""
    assert "by nobody" in table(whole(**status())).splitlines()[5]


def test_during_an_outage_nobody_is_said_to_hold_nothing() -> None:
    """While the database does not answer, a worker in standby shows no holder."""
    assert "by nobody" not in table(whole(**status(problem="the database is unreachable", age_s=None)))


def worker(*leases: dict[str, Any]) -> dict[str, Any]:
    """A worker's row with what this node knows of its leases."""
    row: dict[str, Any] = whole()["workers"][0]
    return row | {"leases": list(leases)}


def lease_row(standing: str, holder: str | None = None) -> dict[str, Any]:
    """What this node knows of a lease."""
    known = None if holder is None else {"name": holder, "host": "box", "pid": 7, "since": str(SINCE)}
    return {"lease": "mail", "standing": standing, "epoch": 1, "offered": True, "holder": known}


@pytest.mark.parametrize(
    ("leases", "said"),
    [
        ([lease_row("held")], "here"),
        ([lease_row("absent", "till@box:7")], f"till on box, pid 7, since {SAID}"),
        ([lease_row("absent", "")], "by a session that is no node's"),
        ([lease_row("held"), lease_row("recalled"), lease_row("absent", "till@box:7")], "2 here, 1 elsewhere"),
        ([lease_row("absent")], ""),
    ],
    ids=["here", "elsewhere", "no-node", "shards", "unknown"],
)
def test_the_last_known_holder_is_shown(leases: list[dict[str, Any]], said: str) -> None:
    """While the database does not answer, the holders are shown as this node last knew them."""
    text = table(whole(workers=[worker(*leases)], **status(problem="the database did not answer", age_s=None)))
    titles, row = text.splitlines()[4:6]
    assert row[titles.index("HELD") : titles.index("LAST ERROR")].strip() == said


def test_rows_from_memory_are_marked() -> None:
    """Of other nodes only those leases are known that this node waits for: the rest is unknown, not none."""
    nodes = [node("shop", "mail", this=True), node("till", "view"), node("bank")]
    lines = node_lines(status(*(row | {"since": None} for row in nodes), problem="it did not answer", age_s=None))
    assert [line.split()[-2:] for line in lines[2:4]] == [["1:", "mail"], ["view,", "…"]]
    assert lines[4].split()[-1] == "?"
    assert lines[5] == "  it did not answer; shown as this node last knew"


def test_the_lease_problem_of_this_node_is_shown() -> None:
    """A node that cannot hold leases has the reason below the table."""
    assert node_lines(status(trouble="permission denied"))[-1] == "  this node: permission denied"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (None, ""),
        (NO_LAG, ""),
        ({"lag_events": 0, "lag_exact": True, "lag_s": 0.0}, "0"),
        ({"lag_events": 1, "lag_exact": True, "lag_s": 0.04}, "1 event, 0ms"),
        ({"lag_events": 2, "lag_exact": True, "lag_s": 184.0}, "2 events, 3m 4s"),
        ({"lag_events": 500000, "lag_exact": False, "lag_s": 7200.0}, "~500000 events, 2h"),
        ({"lag_events": 0, "lag_exact": False, "lag_s": None}, "~0 events"),
    ],
)
def test_lag_for_people(row: dict[str, Any] | None, said: str) -> None:
    """Events and the age of the oldest; an estimate looks like one."""
    assert lag(row) == said


def test_a_projection_shows_its_lag() -> None:
    """The lag of a projection is in the row of its worker, whichever node runs it."""
    row = {"name": "mail", "shards": [], "lag_events": 3, "lag_exact": True, "lag_s": 1.5}
    text = table(whole(**status() | {"projections": [row]}))
    assert "3 events, 1.5s" in text.splitlines()[5]
