"""What a node makes of the rows that it reads about all nodes."""

from __future__ import annotations

import pytest

from supervisor.leases.snapshot import ClusterSnapshot, NodeInfo

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


def test_a_node_is_read_from_its_row() -> None:
    """The order of the leases that it wants means nothing."""
    row = {"id": 1, "name": "app@h:5", "host": "h", "pid": 5, "wanted_leases": [5, 4, 3]}
    assert NodeInfo.from_row(row) == NodeInfo(1, "app@h:5", "h", 5, frozenset({3, 4, 5}))
