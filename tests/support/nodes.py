"""Several daemons on one PostgreSQL, each a process behind a proxy of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from support.daemon import Daemon
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.postgres import Postgres

T = TypeVar("T")

LIMIT_S = 30.0


class Node:
    """One daemon and the network between it and the server.

    Args:
        name: The daemon's name, its configuration file's stem and its folder.
        text: The configuration with `{dsn}` where the connection string goes.
    """

    def __init__(self, name: str, folder: Path, postgres: Postgres, text: str, workers: str) -> None:
        self.name = name
        self.postgres = postgres
        self.proxy = Proxy(postgres.port)
        self._dsn = postgres.dsn(port=self.proxy.port)
        self.daemon = Daemon(folder / name, self._filled(text), workers, name)

    @property
    def identity(self) -> str:
        """What the product calls this node, in `supervisor.lease.node`; another one after each start."""
        return f"{self.name}@{socket.gethostname()}:{self.daemon.pid}"

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, stopped or not."""
        return self.daemon.process is not None and self.daemon.process.poll() is None

    def write(self, text: str) -> None:
        """Write another configuration; it counts after a reload or a start."""
        self.daemon.write(self._filled(text))

    @property
    def exit_status(self) -> int:
        """How the process ended, negative for a signal; ask when it has."""
        return self.daemon.wait()

    def start(self) -> None:
        """Start the process, as its unit would; nothing is waited for."""
        self.daemon.kill()  # closes what is left of the one before, if there was one
        self.daemon.start("/usr/bin/env", "--block-signal=HUP", sys.executable, "-m", "supervisor")

    def reload(self) -> None:
        """Have it read its configuration again; nothing is waited for."""
        self.daemon.signal(signal.SIGHUP)

    def ask_to_stop(self) -> None:
        """Have it stop gracefully; nothing is waited for."""
        self.daemon.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self.daemon.kill()

    def stop(self) -> int:
        """Stop it gracefully, and return the exit status."""
        return self.daemon.stop()

    def freeze(self) -> None:
        """Stop the process where it stands; its kernel goes on acknowledging."""
        self.daemon.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self.daemon.signal(signal.SIGCONT)

    def cut_off(self, direction: Literal["both", "to_server", "to_client"] = "both") -> None:
        """Let nothing pass between it and the server any more, not even a connection's end."""
        self.proxy.freeze(direction)

    def rejoin(self) -> None:
        """Let everything pass again, what was held back first."""
        self.proxy.thaw()

    def reset(self) -> bool:
        """Reset its connections, for both ends; false: there are none."""
        return self.proxy.cut() > 0

    def end_lock_session(self) -> bool:
        """Have the server end the session that holds its locks; false: there is none."""
        return self._end(f"pid in ({self._lock_session()})") > 0

    def end_work_sessions(self) -> bool:
        """Have the server end all its other sessions; false: there are none."""
        condition = f"application_name = 'pgsupervisor {self.name}' and pid not in ({self._lock_session()})"
        return self._end(condition) > 0

    def _lock_session(self) -> str:
        return (
            "select h.pid from supervisor.lock_holders h join supervisor.node n on n.id = h.id and h.kind = 'node' "
            f"where n.pid = {self.daemon.pid}"
        )

    def _end(self, condition: str) -> int:
        return self.postgres.terminate(condition)

    def _filled(self, text: str) -> str:
        return text.replace("{dsn}", self._dsn)


class Holder(NamedTuple):
    """Who holds a lease by its row, and under which epoch."""

    node: str
    epoch: int


class Nodes(list[Node]):
    """The daemons of a test: n1, n2, and so on."""

    def __init__(self, postgres: Postgres, nodes: list[Node]) -> None:
        super().__init__(nodes)
        self.postgres = postgres

    def start(self) -> None:
        """Start all of them in the same instant, and wait until all are ready."""
        for node in self:
            node.start()
        for node in self:
            node.daemon.wait_for("daemon.ready")

    def holder(self, lease: str) -> Holder | None:
        """Return who holds a lease: the node whose session has its lock, and whose name stands in its row."""
        return self.holders().get(lease)

    def holders(self) -> dict[str, Holder]:
        """Return the holder of each lease that is held, all at one moment."""
        found = self.postgres.execute(
            "select l.name, l.node, l.epoch from supervisor.lease l "
            "join supervisor.lock_holders k on k.kind = 'lease' and k.id = l.id "
            "join supervisor.lock_holders s on s.kind = 'node' and s.id = l.node_id and s.pid = k.pid"
        )
        rows = (line.split("|") for line in found.splitlines())
        return {lease: Holder(node, int(epoch)) for lease, node, epoch in rows}

    def wait_for_holder(self, lease: str, among: list[Node] | None = None, *, limit_s: float = LIMIT_S) -> Node:
        """Wait until one of `among` (default: any) holds a lease, and return it."""
        wanted = {node.identity: node for node in among or self if node.is_alive}

        def held() -> Node | None:
            holder = self.holder(lease)
            return None if holder is None else wanted.get(holder.node)

        return self.wait_until(held, f"{lease} is not held by {list(wanted)}", limit_s=limit_s)

    def transcript(self) -> str:
        """Return everything that they said, for a failed test."""
        return "\n".join(f"{node.name}:\n{node.daemon.transcript()}" for node in self)

    def wait_until(self, find: Callable[[], T | None], complaint: str, *, limit_s: float = LIMIT_S) -> T:
        """Return what `find` finds, asked for again and again."""
        deadline_s = time.monotonic() + limit_s
        while not (found := find()):
            assert time.monotonic() < deadline_s, f"{complaint}; they said\n{self.transcript()}"
            time.sleep(0.02)
        return found


@contextlib.contextmanager
def several_nodes(
    folder: Path, postgres: Postgres, count: int, text: str, workers: str = "", *, environ: dict[str, str] | None = None
) -> Iterator[Nodes]:
    """Prepare daemons n1, n2, …; none is started yet, and all are ended at the end.

    Args:
        folder: Where each has its folder.
        postgres: Their server.
        count: How many.
        text: The configuration of each, with `{dsn}` where the connection string goes.
        workers: The text of the module `workers`.
        environ: Variables for all of them.
    """
    nodes = [Node(f"n{number}", folder, postgres, text, workers) for number in range(1, count + 1)]
    with contextlib.ExitStack() as stack:
        for node in nodes:
            node.daemon.environ.update(environ or {})
            stack.enter_context(node.proxy)
            stack.callback(node.daemon.kill)
        yield Nodes(postgres, nodes)
