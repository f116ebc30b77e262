"""Does to a run what its plan says, undoes it in time, and starts again what ended."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple

from torture.history import Drop, Resumption
from torture.plan import Act, Kind
from torture.writers import APPLICATION

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.nodes import Node, Nodes
    from support.postgres import Postgres

# As systemd would after RestartSec=.
_RESTART_S = 1.0
_STOP_LIMIT_S = 20.0
# What a node does whose worker outlives its lease, rather than let two run.
_OUTLIVED = 70
_WAYS: dict[Kind, Literal["both", "to_server", "to_client"]] = {
    Kind.CUT_OFF: "both",
    Kind.HICCUP: "both",
    Kind.MUTE: "to_server",
    Kind.DEAFEN: "to_client",
}


class Due(NamedTuple):
    """Something to do at a time; among equals, in the order in which it was planned."""

    at_s: float
    number: int
    do: Callable[[], None]


class Nemesis:
    """Disturbs nodes, network and server.

    Attributes:
        drops: When the server let go of locks by itself.
        resumptions: When a stopped process was continued.
        ends: Nodes that ended by themselves, with their exit status.
        complaints: What a node did that it must not do, apart from the history.
    """

    def __init__(self, nodes: Nodes, postgres: Postgres, *, configure: Callable[[int], str]) -> None:
        self.drops: list[Drop] = []
        self.resumptions: list[Resumption] = []
        self.ends: list[tuple[str, int]] = []
        self.complaints: list[str] = []
        self._nodes, self._postgres, self._configure = nodes, postgres, configure
        self._due: list[Due] = []
        self._numbers = itertools.count()
        self._begun_s = 0.0
        self._late_s = 0.0
        self._down: set[str] = set()

    def run(self, acts: list[Act], seconds: float, say: Callable[[str], None]) -> None:
        """Carry the plan out for as long as the run is to last; nothing of it is left at the end.

        An act that comes late or takes long delays all later acts by as much. What the plan undoes before an act is
        therefore undone before it: a server that is still down is not stopped again.
        """
        self._begun_s = time.monotonic()
        planned = deque(acts)
        while planned or self._due or self._now_s() < seconds:
            while self._due and self._due[0].at_s <= self._now_s():
                heapq.heappop(self._due).do()
            if planned and planned[0].at_s + self._late_s <= self._now_s():
                act = planned.popleft()
                self._act(act, say)
                self._late_s = self._now_s() - act.at_s
            self._revive()
            time.sleep(0.02)

    def _now_s(self) -> float:
        return time.monotonic() - self._begun_s

    def _later(self, delay_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, Due(self._now_s() + delay_s, next(self._numbers), do))

    def _act(self, act: Act, say: Callable[[str], None]) -> None:
        node = None if act.node is None else self._nodes[act.node]
        done = self._of_all(act) if node is None else self._of_node(act, node)
        name = "" if node is None else f" {node.name}"
        say(f"{self._now_s():7.1f} s  {act.kind.name.lower()}{name}{'' if done else ': there was nothing to disturb'}")

    def _of_all(self, act: Act) -> bool:
        match act.kind:
            case Kind.RESTART_FAST | Kind.RESTART_IMMEDIATE:
                begun_s = time.monotonic()
                self._postgres.stop("fast" if act.kind is Kind.RESTART_FAST else "immediate")
                self.drops.append(Drop(None, begun_s, time.monotonic()))
                self._later(act.lasts_s, self._postgres.start)
            case Kind.RELOAD:
                for node in self._nodes:
                    node.write(self._configure(act.shards))
                    if node.is_alive:
                        node.reload()
            case _:
                return self._postgres.is_running and self._postgres.terminate(f"application_name = '{APPLICATION}'") > 0
        return True

    def _of_node(self, act: Act, node: Node) -> bool:
        # A node that is stopping may take longer than planned.
        if not node.is_alive or node.name in self._down:
            return False
        match act.kind:
            case Kind.KILL:
                self._down.add(node.name)
                node.kill()
                self._later(act.lasts_s, lambda: self._start(node))
            case Kind.STOP:
                self._down.add(node.name)
                node.ask_to_stop()
                self._later(0.0, lambda: self._after_stop(node, act.lasts_s, self._now_s() + _STOP_LIMIT_S))
            case Kind.FREEZE:
                node.freeze()
                self._later(act.lasts_s, lambda: self._thaw(node))
            case Kind.RESET | Kind.END_LOCK_SESSION | Kind.END_WORK_SESSIONS:
                return self._postgres.is_running and self._end_sessions(act.kind, node)
            case _:
                node.cut_off(_WAYS[act.kind])
                self._later(act.lasts_s, node.rejoin)
        return True

    def _end_sessions(self, kind: Kind, node: Node) -> bool:
        if kind is Kind.END_WORK_SESSIONS:
            return node.end_work_sessions()
        begun_s, identity = time.monotonic(), node.identity
        done = node.reset() if kind is Kind.RESET else node.end_lock_session()
        self.drops.append(Drop(identity, begun_s, time.monotonic()))
        return done

    def _start(self, node: Node) -> None:
        self._down.discard(node.name)
        node.start()

    def _thaw(self, node: Node) -> None:
        # Noted before: it may run on before this process does.
        self.resumptions.append(Resumption(node.identity, time.monotonic()))
        node.thaw()

    def _after_stop(self, node: Node, rest_s: float, deadline_s: float) -> None:
        if not node.is_alive:
            if (status := node.exit_status) != 0:
                self.complaints.append(f"{node.name} was stopped and ended with {status}")
            self._later(rest_s, lambda: self._start(node))
        elif self._now_s() < deadline_s:
            self._later(0.02, lambda: self._after_stop(node, rest_s, deadline_s))
        else:
            self.complaints.append(f"{node.name} did not stop within {_STOP_LIMIT_S:.0f} s")
            node.kill()
            self._later(rest_s, lambda: self._start(node))

    def _revive(self) -> None:
        for node in self._nodes:
            if node.name not in self._down and not node.is_alive:
                self.ends.append((node.name, node.exit_status))
                if node.exit_status != _OUTLIVED:
                    last = " | ".join(node.daemon.transcript().splitlines()[-3:])
                    self.complaints.append(f"{node.name} ended by itself with {node.exit_status}: {last}")
                self._down.add(node.name)
                self._later(_RESTART_S, lambda node=node: self._start(node))  # type: ignore[misc]
