"""What a node knows of all nodes without asking: who lived at its last look, and who has what it holds or waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

_HELD = ("held", "recalled")


def remembered_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row a node, as far as they are known.

    Args:
        summary: What `Node.describe()` says.
    """
    me, stands = summary["node"], summary["leases"]
    nodes = sorted(summary["nodes"], key=lambda node: (node["name"], node["id"]))
    return [
        {
            "name": node["name"],
            "id": node["id"],
            "host": node["host"],
            "pid": node["pid"],
            "version": None,
            "this": node["name"] == me,
            "started": _iso(node["started"]),
            "since": None,
            "wants": node["wants"],
            "leases": _own(stands) if node["name"] == me else _of(node["name"], stands),
        }
        for node in nodes
    ]


def _own(stands: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    held = [stand for stand in stands if stand["standing"] in _HELD]
    return [{"name": stand["lease"], "epoch": stand["epoch"], "since": None} for stand in held]


def _of(node: str, stands: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    waited_for = [stand for stand in stands if stand["holder"] is not None and stand["holder"]["name"] == node]
    return [{"name": stand["lease"], "epoch": None, "since": _iso(stand["holder"]["since"])} for stand in waited_for]


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="milliseconds")
