"""The plan of a run."""

from __future__ import annotations

from random import Random

import pytest
from torture.plan import LONG, Kind, as_text, plan

SEEDS = range(50)


def test_a_seed_repeats_its_plan() -> None:
    """The same seed gives the same plan, another one another."""
    first, again, other = (list(as_text(plan(Random(seed), 60.0, 4))) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", SEEDS)
def test_somebody_is_always_left_alone(seed: int) -> None:
    """One node is undisturbed at every moment, none is disturbed twice at once, and all is undone in time."""
    acts = plan(Random(seed), 60.0, 4)
    assert acts == sorted(acts, key=lambda act: act.at_s)
    assert all(act.at_s + act.lasts_s <= 60.0 for act in acts)
    for act in acts:
        under_way = [a.node for a in acts if a.node is not None and a.at_s <= act.at_s < a.at_s + a.lasts_s]
        assert len(under_way) == len(set(under_way)) < 4


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_comes_round(seed: int) -> None:
    """Two minutes have every kind of disturbance in them, and the long ones outlast every timeout."""
    acts = plan(Random(seed), 120.0, 4)
    assert {act.kind for act in acts} == set(Kind)
    assert all(act.lasts_s > 16 for act in acts if act.kind in LONG)
