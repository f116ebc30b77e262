"""The monitor's connection as a node's session: one statement at a time, each with a limit; in doubt it is ended."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from support.database_fixture import aside, database_fixture
from support.proxy import Proxy

from supervisor.database.session import Session, SessionEnded, SessionHolder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.database_fixture import DatabaseFixture
    from support.postgres import Postgres


class Tenant:
    """The owner of a session on a monitor's connection; it terminates the connection when the session ends."""

    def __init__(self, house: DatabaseFixture) -> None:
        self.begun = 0
        self.ended: list[str] = []
        self.residence = SessionHolder(
            house.database, clock=house.database._clock, on_begin=self._begin, on_end=self._end
        )

    @property
    def session(self) -> Session:
        assert self.residence.session is not None
        return self.residence.session

    def _begin(self) -> None:
        self.begun += 1

    def _end(self, session: Session, reason: str) -> None:
        self.ended.append(reason)
        session.terminate()


@asynccontextmanager
async def tenant(dsn: str, **config: Any) -> AsyncIterator[tuple[DatabaseFixture, Tenant]]:
    async with database_fixture(dsn, **config) as house:
        yield house, Tenant(house)


async def test_statements_take_turns(postgres: Postgres) -> None:
    """Many statements at once, and the monitor's own checks among them, are sent one after the other."""
    async with tenant(postgres.dsn()) as (house, them):
        asked = [them.session.fetch("select $1::int as n from pg_sleep(0.005)", number) for number in range(20)]
        answers, is_up = await asyncio.gather(asyncio.gather(*asked), house.monitor.check_now())
        assert [row["n"] for [row] in answers] == list(range(20))
        assert is_up
        assert not them.ended


async def test_an_error_of_a_statement_is_its_own(postgres: Postgres) -> None:
    """A statement that the server refuses raises, and the session goes on."""
    async with tenant(postgres.dsn()) as (house, them):
        backend = house.backend()
        for wrong in ("select * from nothing", "select 1/0", "select pg_cancel_backend(pg_backend_pid())"):
            with pytest.raises(asyncpg.PostgresError):
                await them.session.fetch(wrong)
        assert len(await them.session.fetch("select 1")) == 1
        assert house.backend() == backend


async def test_only_the_monitor_decides_about_a_read_only_server(postgres: Postgres) -> None:
    """A write that a read-only transaction refuses does not end a session that nobody wanted to write."""
    async with tenant(postgres.dsn()) as (house, them):
        session = them.session
        await session.execute_script("set default_transaction_read_only = on")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await session.fetch("create table t ()")
        assert await house.monitor.check_now()
        assert them.session is session


async def test_a_statement_that_is_not_answered_ends_the_session(postgres: Postgres) -> None:
    """A statement that outlasts its limit gives the connection up, and the next session begins."""
    async with tenant(postgres.dsn(), connect_timeout_s=0.5) as (house, them):
        former = them.session
        with pytest.raises(SessionEnded):
            await former.fetch("select pg_sleep(30)")
        await house.until(lambda: them.begun == 2)
        assert "did not answer within 0.5s" in them.ended[0]
        with pytest.raises(SessionEnded):
            await former.fetch("select 1")
        assert len(await them.session.fetch("select 1")) == 1


async def test_a_statement_that_is_cancelled_ends_the_session(postgres: Postgres) -> None:
    """Nobody knows what a cancelled statement did, so its connection is given up."""
    async with tenant(postgres.dsn()) as (house, them):
        statement = asyncio.ensure_future(them.session.fetch("select pg_sleep(30)"))
        await asyncio.sleep(0.1)
        statement.cancel()
        with pytest.raises(asyncio.CancelledError):
            await statement
        await house.until(lambda: them.begun == 2)
        assert len(await them.session.fetch("select 1")) == 1


async def test_a_routine_check_is_answered_by_a_fresh_statement(postgres: Postgres) -> None:
    """What was just asked is a heartbeat too; a suspicion is always verified by a statement sent after it."""
    async with tenant(postgres.dsn()) as (house, them):
        await them.session.fetch("select 1")
        said: list[str] = []
        house.monitor.connected.connection.add_query_logger(lambda record: said.append(record.query))
        assert await them.session.check(is_routine=True) is None
        assert not said
        assert await house.monitor.check_now()
        assert len(said) == 1


@pytest.mark.parametrize("is_asked", [True, False])
async def test_the_server_has_the_last_word(postgres: Postgres, is_asked: bool) -> None:
    """A session that the server ends says why in the server's own words, whether something is asked then or not."""
    async with tenant(postgres.dsn()) as (house, them):
        session = them.session
        backend = house.backend()
        if is_asked:
            asyncio.get_running_loop().call_later(0.1, postgres.execute, f"select pg_terminate_backend({backend})")
            with pytest.raises(SessionEnded):
                await session.fetch("select pg_sleep(3)")
        else:
            await aside(postgres.execute, f"select pg_terminate_backend({backend})")
        await house.until(lambda: them.ended)
        assert "says: terminating connection due to administrator command (57P01)" in them.ended[0]
        await house.until(lambda: them.begun == 2)
        await them.session.execute_script("set idle_session_timeout = '100ms'")
        await house.until(lambda: len(them.ended) == 2)
        assert "says: terminating connection due to idle-session timeout (57P05)" in them.ended[1]


async def test_what_arrives_between_the_last_word_and_the_end_is_not_asyncpgs_inside(postgres: Postgres) -> None:
    """A statement that is sent when the server has said goodbye, but not hung up yet, does not hide what it said."""
    async with tenant(postgres.dsn()) as (house, them):
        session = them.session
        goodbye = b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0"
        protocol: Any = session.connected.connection._transport.get_protocol()  # type: ignore[attr-defined]
        protocol.data_received(b"E" + (len(goodbye) + 4).to_bytes(4, "big") + goodbye)
        with pytest.raises(SessionEnded):
            await session.fetch("select 1")
        await house.until(lambda: them.ended)
        assert them.ended[0].endswith("says: going down (57P01))")


async def test_an_end_is_heard_of_at_once(postgres: Postgres) -> None:
    """A session that the server ends is over at once, and the next one begins."""
    async with tenant(postgres.dsn()) as (house, them):
        await aside(postgres.execute, f"select pg_terminate_backend({house.backend()})")
        await house.until(lambda: them.begun == 2)
        assert len(them.ended) == 1


async def test_a_connection_that_is_given_up_stays_until_it_is_hung_up(postgres: Postgres) -> None:
    """The server keeps a session's locks until whoever holds them has had its workers end."""
    with Proxy(postgres.port) as proxy:
        async with tenant(postgres.dsn(port=proxy.port), connect_timeout_s=0.5) as (house, them):
            kept: list[Session] = []
            them.residence._on_end = lambda session, _: kept.append(session)
            backend = house.backend()
            await aside(proxy.freeze, "to_client")
            with pytest.raises(SessionEnded):
                await them.session.fetch("select 1")
            await house.until(lambda: kept)
            await asyncio.sleep(0.3)
            assert await aside(postgres.sessions, f"pid = {backend}") == 1
            kept[0].terminate()
            async with asyncio.timeout(30):
                while await aside(postgres.sessions, f"pid = {backend}"):  # noqa: ASYNC110 - nobody tells of it
                    await asyncio.sleep(0.02)
            await aside(proxy.thaw)
