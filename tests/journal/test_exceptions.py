"""An exception as fields of an entry: its place is in the user's code."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from supervisor.clock import SystemClock
from supervisor.journal import log_event, open_journal
from supervisor.journal.exceptions import describe_exception, one_line
from supervisor.threads import run_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


async def raised_by(call: Callable[..., Awaitable[object]], *args: object) -> BaseException:
    try:
        await call(*args)
    except BaseException as exc:  # noqa: BLE001 - whatever it is
        return exc
    raise AssertionError("nothing was raised")


def place_of(exc: BaseException) -> str:
    return str(describe_exception(exc)[0]["place"])


def key_of(exc: BaseException) -> int:
    return describe_exception(exc)[1]


async def first_bug(connection: Any) -> None:
    await connection.execute("SELECT * FROM no_such_table")


async def second_bug(connection: Any) -> None:
    await connection.fetch("SELECT * FROM another_missing_table")


async def wrapping(connection: Any) -> None:
    try:
        await first_bug(connection)
    except asyncpg.PostgresError as error:
        raise RuntimeError("the order could not be stored") from error


async def grouped(connection: Any) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(never())
        group.create_task(second_bug(connection))


async def test_sql_errors_are_placed_in_the_workers_code(database: str) -> None:
    """Errors of asyncpg at two lines of one worker have two places, the worker's own."""
    connection = await asyncpg.connect(database)
    try:
        first, second = await raised_by(first_bug, connection), await raised_by(second_bug, connection)
        wrapped, of_a_group = await raised_by(wrapping, connection), await raised_by(grouped, connection)
    finally:
        await connection.close()
    assert type(first) is type(second) is asyncpg.UndefinedTableError
    assert place_of(first).endswith(" first_bug")
    assert place_of(second).endswith(" second_bug")
    assert place_of(wrapped).endswith(" wrapping")
    assert place_of(of_a_group).endswith(" second_bug")
    assert all(__file__ in place_of(exc) for exc in (first, second, wrapped, of_a_group))


async def test_the_second_bug_of_a_worker_is_shown(database: str, capfd: pytest.CaptureFixture[str]) -> None:
    """While one SQL error of a worker is repeated and folded, another one of the same type is shown."""
    connection = await asyncpg.connect(database)
    journal = open_journal(level="info", format="json", clock=SystemClock(), environ={})
    try:
        for bug in (first_bug, first_bug, second_bug, first_bug):
            log_event("worker.failed", worker="mail", exc=await raised_by(bug, connection))
    finally:
        await connection.close()
        assert journal.close(5)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    shown = [line["error"] for line in lines if line["event"] == "worker.failed"]
    assert shown == ['relation "no_such_table" does not exist', 'relation "another_missing_table" does not exist']
    assert [line["count"] for line in lines if line["event"] == "log.repeated"] == [2]


async def query(connection: Any, sql: str) -> None:
    await connection.execute(sql)


async def asks_for_orders(connection: Any) -> None:
    await query(connection, "SELECT * FROM no_such_table")


async def asks_for_payments(connection: Any) -> None:
    await query(connection, "SELECT * FROM no_such_table")


async def test_two_callers_of_one_helper_are_two_failures(database: str) -> None:
    """The place is the helper's for both, the key is not, and the same failure has the same key."""
    connection = await asyncpg.connect(database)
    try:
        orders, again, payments = [
            await raised_by(call, connection) for call in (asks_for_orders, asks_for_orders, asks_for_payments)
        ]
    finally:
        await connection.close()
    assert place_of(orders) == place_of(payments)
    assert key_of(orders) == key_of(again) != key_of(payments)


async def wraps(failing: Callable[[], object], *, hides: bool = False) -> None:
    try:
        failing()
    except Exception as error:
        if hides:
            raise RuntimeError("wrapped") from None
        raise RuntimeError("wrapped") from error


async def fails_while_handling(failing: Callable[[], object]) -> None:
    try:
        failing()
    except Exception:  # noqa: BLE001 - the context of the next one
        raise RuntimeError("wrapped")  # noqa: B904 - without a cause on purpose


async def groups(*failing: Callable[[], object]) -> None:
    async def call(function: Callable[[], object]) -> None:
        function()

    async with asyncio.TaskGroup() as group:
        for function in failing:
            group.create_task(call(function))


def no_number() -> None:
    int("x")


def no_member() -> None:
    raise KeyError("y")


def another_member() -> None:
    raise KeyError("y")


@pytest.mark.parametrize("call", [wraps, fails_while_handling, groups])
async def test_causes_contexts_and_members_belong_to_the_key(call: Callable[..., Awaitable[object]]) -> None:
    """An exception with another cause, context or member is another failure, with an equal one it is the same."""
    keys = [key_of(await raised_by(call, failing)) for failing in (no_number, no_member, another_member, no_number)]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]


async def test_a_context_that_is_not_shown_does_not_count() -> None:
    """After `raise … from None` only the exception itself makes the key."""
    first, second = [await raised_by(partial(wraps, failing, hides=True)) for failing in (no_number, no_member)]
    assert key_of(first) == key_of(second)


async def test_the_order_of_a_groups_members_does_not_count() -> None:
    """Tasks that fail in another order are the same failure."""
    first, second = [await raised_by(groups, *pair) for pair in ((no_number, no_member), (no_member, no_number))]
    assert key_of(first) == key_of(second)


async def test_a_chain_that_grows_stays_the_same_failure() -> None:
    """A loop that raises in its own handler has few keys, however long the chain is."""
    keys, former = set(), None
    for _ in range(50):
        failure = await raised_by(wraps, no_number)
        assert failure.__cause__ is not None
        failure.__cause__.__context__, former = former, failure
        keys.add(key_of(failure))
    assert len(keys) == 1


def test_a_recursion_has_few_keys() -> None:
    """A bug that a recursion meets at any depth and by any branch is one failure."""

    def visit(turns: list[bool]) -> None:
        if not turns:
            raise ValueError("leaf")
        if turns[0]:
            visit(turns[1:])
        else:
            visit(turns[1:])

    keys = set()
    for number in range(200):
        with pytest.raises(ValueError, match="leaf") as raised:
            visit([bit == "1" for bit in f"{number:b}"])
        keys.add(key_of(raised.value))
    assert len(keys) <= 3


async def test_an_exception_that_the_daemon_wrapped() -> None:
    """An exception raised by the daemon's own code has the place of the user's code behind it."""

    async def work() -> None:
        int("x")

    cause = await raised_by(work)
    assert isinstance(cause, ValueError)
    # Without a line of user code in its own traceback, as if the daemon had raised it.
    wrapped = TimeoutError("stalled")
    wrapped.__cause__ = cause
    assert place_of(wrapped).endswith(" work")
    assert place_of(ExceptionGroup("two", [cause, wrapped])) == place_of(cause)


def test_without_user_code_the_innermost_frame_counts() -> None:
    """A failure in which no user code takes part keeps the place where it was raised."""
    namespace: dict[str, Any] = {}
    exec(compile("def generated():\n    raise KeyError('x')", "<string>", "exec"), namespace)
    with pytest.raises(KeyError) as raised:
        namespace["generated"]()
    inside = raised.value.with_traceback(raised.tb.tb_next)
    assert place_of(inside) == "<string>:2 generated"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker's package and a library, both installed in site-packages."""
    site = tmp_path / "lib" / "site-packages"
    (site / "acme_mailer").mkdir(parents=True)
    (site / "acme_mailer" / "__init__.py").write_text(
        "import acme_driver\n\n\ndef run():\n    helper()\n\n\ndef helper():\n    acme_driver.query()\n"
    )
    (site / "acme_driver.py").write_text("def query():\n    raise LookupError('no rows')\n")
    monkeypatch.syspath_prepend(site)
    import acme_mailer  # type: ignore[import-not-found]

    yield acme_mailer
    for name in ("acme_mailer", "acme_driver"):
        del sys.modules[name]


async def test_an_installed_worker_is_user_code(installed: Any) -> None:
    """A package in site-packages that the daemon calls is the user's, a library that it calls is not."""

    async def call(function: Callable[[], object]) -> None:
        await run_in_thread(function, what="worker", timeout_s=10, clock=SystemClock())

    assert place_of(await raised_by(call, installed.run)).endswith("acme_mailer/__init__.py:9 helper")


async def test_a_library_called_by_the_users_code_is_not(installed: Any) -> None:
    """The same package, called by code outside of site-packages, is a library."""

    async def use() -> None:
        installed.run()

    assert place_of(await raised_by(use)).endswith(" use")


def test_one_line() -> None:
    """An exception as one line: its type and message, without line breaks, secrets and control characters."""
    assert one_line(ValueError("a\nb \x1b[2J")) == "ValueError: a b \\x1b[2J"
    assert one_line(ValueError("postgresql://u:geheim@host/db")) == "ValueError: postgresql://u:***@host/db"
    assert one_line(ExceptionGroup("group", [KeyError("k")])) == "KeyError: 'k'"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 1000))) == 300


def test_one_line_of_a_broken_exception() -> None:
    """An exception whose message raises is named all the same."""

    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError("odd")

    assert one_line(OddError()).endswith("OddError: (message could not be formatted)")
