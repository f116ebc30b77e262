"""What a node makes of the rows that it reads about all nodes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from supervisor.leases.snapshot import ClusterSnapshot, NodeInfo

STARTED = datetime(2024, 1, 1, tzinfo=UTC)
ROW = {
    "backend": 99,
    "is_registered": True,
    "nodes": [1, 2],
    "nodes_version": 7,
    "leases": [3, 4],
    "holders": [2, 0],
    "head": 500,
    "is_standby": False,
}
SEEN = ClusterSnapshot(1.5, 99, True, [1, 2], 7, [3, 4], [2, 0], 500, False)


def test_a_snapshot_has_every_column_of_its_row() -> None:
    """And the time at which its statement was sent."""
    assert ClusterSnapshot.from_row(ROW, 1.5) == SEEN


def test_a_snapshot_says_who_holds_what() -> None:
    """Node 0 is a session that is not a node's."""
    assert SEEN.holder_by_lease() == {3: 2, 4: 0}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"sent_s": 9.0}, True),
        ({"head": 501}, True),
        ({"is_standby": True}, True),
        ({"backend": 100}, False),
        ({"is_registered": False}, False),
        ({"nodes": [1]}, False),
        ({"nodes_version": 8}, False),
        ({"leases": [3, 5]}, False),
        ({"holders": [2, 1]}, False),
    ],
)
def test_a_plan_depends_on_nodes_and_holders(change: dict[str, object], same: bool) -> None:
    """A snapshot that differs in nothing else needs no new plan, and the first one does."""
    assert SEEN.equals(SEEN._replace(**change)) is same  # type: ignore[arg-type]
    assert not SEEN.equals(None)


def test_a_node_is_described_by_its_row() -> None:
    """Its status shows how many leases it wants, and not which."""
    row = {"id": 1, "name": "app@h:5", "host": "h", "pid": 5, "started_at": STARTED, "wanted_leases": [3, 4, 5]}
    node = NodeInfo.from_row(row)
    assert node == NodeInfo(1, "app@h:5", "h", 5, STARTED, frozenset({3, 4, 5}))
    assert node.describe() == {
        "id": 1, "name": "app@h:5", "host": "h", "pid": 5, "started": STARTED, "wants": 3,
    }  # fmt: skip
