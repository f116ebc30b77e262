"""A measured figure beside its floor and its target, and how it is shown."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table.

    Attributes:
        what: What was measured.
        value: Ours.
        unit: Of the value, the floor and the target.
        floor: The least that the same work costs without supervision, measured in the same run.
        floor_is: What the floor was.
        target: What the value must not exceed; None: for information only.
        samples: How many measurements stand behind the value.
        more: Everything else that was seen, for the JSON lines and the note below the row.
    """

    what: str
    value: float
    unit: str
    floor: float | None = None
    floor_is: str = ""
    target: float | None = None
    samples: int = 1
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None when there is none."""
        return None if self.target is None else self.value <= self.target

    def as_json(self, name: str) -> str:
        """Return one JSON object on one line; `name` is the benchmark's."""
        return json.dumps({"benchmark": name, **asdict(self), "met": self.is_met}, default=str)

    def as_text(self) -> str:
        """Return the row for people, with a line for what else was seen."""
        verdict = {None: "", True: "met", False: "NOT MET"}[self.is_met]
        ours, floor, target = (_number(n, self.unit) for n in (self.value, self.floor, self.target))
        row = f"{self.what:<62} {ours:>12} {floor:>12} {target:>12}  {verdict}"
        notes = [f"floor: {self.floor_is}"] if self.floor_is else []
        notes += [f"{self.samples} samples"] if self.samples > 1 else []
        notes += [f"{key} {_brief(value)}" for key, value in self.more.items()]
        return f"{row.rstrip()}\n    {'; '.join(notes)}" if notes else row.rstrip()


HEADER = f"{'':<62} {'ours':>12} {'floor':>12} {'target':>12}"


def spread(samples: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return the least, the median and the greatest of some samples."""
    named = {"min": min(samples), "median": statistics.median(samples), "max": max(samples)}
    return {key: round(value, digits) for key, value in named.items()}


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = 0 if float(value).is_integer() else 3 if abs(value) < 10 else 1
    return f"{value:.{digits}f} {unit}".rstrip()


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_brief(inner)}" for key, inner in value.items()) + ")"
    return str(value)
