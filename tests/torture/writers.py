"""Clients that append events from many concurrent transactions, and remember what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
from torture.history import POISON, Attempt, Outcome

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

APPLICATION = "torture writer"
STREAMS = (*(f"orders-{number}" for number in range(12)), *(f"mail-{number}" for number in range(4)))
# The driver takes a connection that ends in the wrong moment for a fault of its own.
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
_APPEND = "select supervisor.append($1, $2, $3)"
_APPEND_MANY = "select supervisor.append($1, $2, item) from unnest($3::jsonb[]) as item"


class Script(NamedTuple):
    """What one transaction does.

    Attributes:
        stream: Where it appends.
        sizes: How many events it appends at a time.
        pauses_s: How long it waits after each.
        inner: Whether each lies in a savepoint: `None` none, else whether that is rolled back.
        ending: How it ends; `vanish`: the connection is closed without a word.
    """

    stream: str
    sizes: list[int]
    pauses_s: list[float]
    inner: list[bool | None]
    ending: str


def script(rng: Random) -> Script:
    """Draw a transaction: most are short, some are long, some are rolled back as a whole or in part."""
    steps = rng.choice((1, 1, 1, 2, 3))
    sizes = [rng.choice((1, 1, 1, 2, 30)) for _ in range(steps)]
    pauses_s = [rng.choice((0.0, 0.0, 0.0, rng.uniform(0.0, 0.1))) for _ in range(steps)]
    if rng.random() < 0.04:
        pauses_s[rng.randrange(steps)] = rng.uniform(0.5, 4.0)
    inner = [rng.choice((None, None, None, False, True)) for _ in range(steps)]
    ending = rng.choices(("commit", "roll back", "vanish"), (85, 13, 2))[0]
    return Script(rng.choice(STREAMS), sizes, pauses_s, inner, ending)


class Writers:
    """Concurrent writers in a loop and a thread of their own, on connections straight to the server.

    Attributes:
        attempts: What they did so far.
    """

    def __init__(self, dsn: str, *, count: int, seed: int) -> None:
        self.attempts: list[Attempt] = []
        self._dsn = dsn
        self._count, self._seed = count, seed
        self._is_over = False
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._work, name="writers", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, limit_s: float = 30.0) -> None:
        """Have each end its transaction, and wait for it; what one of them raised is raised here."""
        self._is_over = True
        self._thread.join(limit_s)
        assert not self._thread.is_alive(), "the writers did not end"
        self.verify()

    def verify(self) -> None:
        """Raise what one of them raised, if one did: then none of them writes any more."""
        if self._failures:
            raise self._failures[0]

    def _work(self) -> None:
        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    group.create_task(self._write(f"w{number}", Random(f"{self._seed}-{number}")))

        try:
            asyncio.run(all_of_them())
        except BaseException as failure:  # noqa: BLE001 - told by stop()
            self._failures.append(failure)

    async def _write(self, name: str, rng: Random) -> None:
        connection: asyncpg.Connection[Any] | None = None
        count = 0
        while not self._is_over:
            if connection is None or connection.is_closed():
                connection = await self._connect()
                continue
            count += 1
            transaction = _Transaction(f"{name}-{count}", script(rng), rng)
            await transaction.run(connection)
            self.attempts += transaction.attempts()
            await asyncio.sleep(rng.uniform(0.0, 0.3))
        if connection is not None:
            await _bounded(connection.close(timeout=2))

    async def _connect(self) -> asyncpg.Connection[Any] | None:
        with contextlib.suppress(*_LOST):
            return await asyncpg.connect(
                self._dsn, timeout=5, command_timeout=20, server_settings={"application_name": APPLICATION}
            )
        await asyncio.sleep(0.1)
        return None


class _Transaction:
    """One transaction, and which of its events share which fate."""

    def __init__(self, name: str, what: Script, rng: Random) -> None:
        self._name, self._script, self._rng = name, what, rng
        self._outer: list[str] = []
        self._dropped: list[str] = []
        self._outcome = Outcome.ROLLED_BACK
        self._count = 0

    async def run(self, connection: asyncpg.Connection[Any]) -> None:
        """Do it; a connection that is lost meanwhile is closed afterwards."""
        transaction = connection.transaction()
        try:
            await transaction.start()
            for step in range(len(self._script.sizes)):
                await self._step(connection, step)
            match self._script.ending:
                case "roll back":
                    await transaction.rollback()
                case "vanish":
                    connection.terminate()
                case _:
                    # From here on it may have happened, whatever the client sees.
                    self._outcome = Outcome.UNKNOWN
                    await transaction.commit()
                    self._outcome = Outcome.COMMITTED
        except _LOST:
            connection.terminate()

    async def _step(self, connection: asyncpg.Connection[Any], step: int) -> None:
        inner = self._script.inner[step]
        if inner is None:
            await self._append(connection, self._script.sizes[step], self._outer)
        else:
            savepoint = connection.transaction()
            await savepoint.start()
            await self._append(connection, self._script.sizes[step], self._dropped if inner else self._outer)
            await (savepoint.rollback() if inner else savepoint.commit())
        await asyncio.sleep(self._script.pauses_s[step])

    async def _append(self, connection: asyncpg.Connection[Any], size: int, uids: list[str]) -> None:
        new = [f"{self._name}-{self._count + number}" for number in range(size)]
        self._count += size
        uids += new
        stream = self._script.stream
        # One at a time: each costs its projection some seconds of trying again.
        is_poison = size == 1 and stream.startswith("mail-") and self._rng.random() < 0.004
        type_ = POISON if is_poison else "placed"
        data = [json.dumps({"uid": uid}) for uid in new]
        if size == 1:
            await connection.execute(_APPEND, stream, type_, data[0])
        else:
            await connection.execute(_APPEND_MANY, stream, type_, data)

    def attempts(self) -> list[Attempt]:
        """Return what is known of its events."""
        attempts = [Attempt(tuple(self._outer), self._outcome), Attempt(tuple(self._dropped), Outcome.ROLLED_BACK)]
        return [attempt for attempt in attempts if attempt.uids]


async def _bounded(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(*_LOST):
        await work
