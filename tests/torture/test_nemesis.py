"""The harness carries its plan out in order, however long a single act takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.nodes import Nodes
from torture.nemesis import Nemesis
from torture.plan import Act, Kind

if TYPE_CHECKING:
    from support.postgres import Postgres


def test_a_server_is_up_again_before_it_is_stopped_again(postgres: Postgres) -> None:
    """A stop takes some time, and the next stop of the plan still comes after the start between them."""
    acts = [Act(0.21 * number, Kind.RESTART_FAST, lasts_s=0.2) for number in range(3)]
    nemesis = Nemesis(Nodes(postgres, []), postgres, configure=str)
    said: list[str] = []
    nemesis.run(acts, 0.0, said.append)
    assert postgres.execute("select 1") == "1"
    assert len(nemesis.drops) == len(said) == 3
    assert not [line for line in said if "nothing to disturb" in line]
