"""What is done to a run and when, drawn from its seed: the same seed gives the same plan."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

# A lock is given away 15 s after its session's last statement, and this much later somebody holds it.
_LONG_S = (16.5, 19.0)


class Kind(Enum):
    """What can be done."""

    KILL = "kill -9, started again later"
    FREEZE = "SIGSTOP for longer than every timeout, then SIGCONT"
    CUT_OFF = "nothing passes between a node and the server, for longer than every timeout"
    MUTE = "nothing passes from a node to the server, for longer than every timeout"
    DEAFEN = "nothing passes from the server to a node, for longer than every timeout"
    HICCUP = "nothing passes between a node and the server for a while, shorter than the timeouts"
    RESET = "the connections of a node are reset"
    END_LOCK_SESSION = "pg_terminate_backend on the session that holds a node's locks"
    END_WORK_SESSIONS = "pg_terminate_backend on a node's other sessions"
    STOP = "stopped gracefully, started again later"
    RESTART_FAST = "PostgreSQL is shut down fast, and started again later"
    RESTART_IMMEDIATE = "PostgreSQL is shut down without a checkpoint, and started again later"
    RELOAD = "another number of shards in every node's configuration"
    END_WRITERS = "pg_terminate_backend on the writers' sessions"


LONG = (Kind.FREEZE, Kind.CUT_OFF, Kind.MUTE, Kind.DEAFEN)
# How long the others last, from and to.
_LASTS_S = {
    Kind.KILL: (0.0, 3.0),
    Kind.HICCUP: (0.3, 6.0),
    Kind.STOP: (0.0, 2.0),
    Kind.RESTART_FAST: (0.0, 1.5),
    Kind.RESTART_IMMEDIATE: (0.0, 1.5),
}
_OF_ALL = {Kind.RESTART_FAST, Kind.RESTART_IMMEDIATE, Kind.RELOAD, Kind.END_WRITERS}
_TWICE = (Kind.KILL, Kind.STOP, Kind.END_LOCK_SESSION, Kind.END_WORK_SESSIONS, Kind.RELOAD)
_SHARDS = (1, 2, 3, 4)


class Act(NamedTuple):
    """One thing that is done.

    Attributes:
        at_s: Seconds from the start.
        kind: What.
        node: Index of the node that it is done to; None: it concerns all.
        lasts_s: Seconds until it is undone.
        shards: For a reload.
    """

    at_s: float
    kind: Kind
    node: int | None = None
    lasts_s: float = 0.0
    shards: int = 0


def plan(rng: Random, seconds: float, nodes: int) -> list[Act]:
    """Draw what is done in a run, in the order of time; everything is undone by `seconds`.

    One node at least is left alone at any moment, and two while a long disturbance begins. Each kind comes round
    before any comes again, if there is time for it, the long ones first.
    """
    free_from_s = [0.0] * nodes
    acts: list[Act] = []
    bag: list[Kind] = []
    now_s, shards = 1.0, 0
    while now_s < seconds:
        free = [node for node in range(nodes) if free_from_s[node] <= now_s]
        # A second bag where what is left of the first cannot be done now.
        for kind in bag + _bag(rng):
            lasts_s = rng.uniform(*_lasts_s(kind))
            if now_s + lasts_s > seconds or (kind not in _OF_ALL and len(free) <= (2 if kind in LONG else 1)):
                continue
            if kind in _OF_ALL:
                shards = rng.choice([number for number in _SHARDS if number != shards])
                acts.append(Act(now_s, kind, None, lasts_s, shards if kind is Kind.RELOAD else 0))
                now_s += lasts_s
            else:
                node = rng.choice(free)
                # What was undone has a moment to come back before it is disturbed again.
                free_from_s[node] = now_s + lasts_s + 1.0
                acts.append(Act(now_s, kind, node, lasts_s))
            bag = bag if kind in bag else bag + _bag(rng)
            bag.remove(kind)
            break
        now_s += rng.uniform(0.3, 2.0)
    return acts


def _lasts_s(kind: Kind) -> tuple[float, float]:
    return _LONG_S if kind in LONG else _LASTS_S.get(kind, (0.0, 0.0))


def _bag(rng: Random) -> list[Kind]:
    kinds = [*Kind, *_TWICE]
    rng.shuffle(kinds)
    return sorted(kinds, key=lambda kind: kind not in LONG)


def as_text(acts: list[Act]) -> Iterator[str]:
    """Return a line for each act."""
    for act in acts:
        where = "" if act.node is None else f" n{act.node + 1}"
        how = f" for {act.lasts_s:.1f} s" if act.lasts_s else f" {act.shards}" if act.shards else ""
        yield f"{act.at_s:7.1f} s  {act.kind.name}{where}{how}"
