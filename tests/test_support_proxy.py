"""The tests' own proxy and stand-ins do what their names say."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg
import pytest
from support.fake_server import http_server, refusing_postgres
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres


@pytest.fixture
def proxy(shared_postgres: Postgres) -> Iterator[Proxy]:
    """A proxy before the shared server."""
    with Proxy(shared_postgres.port) as proxy:
        yield proxy


async def connect(server: Postgres, proxy: Proxy, timeout_s: float = 5.0) -> asyncpg.Connection:
    """Connect through the proxy."""
    return await asyncpg.connect(server.dsn(port=proxy.port), timeout=timeout_s)


async def test_forwards(shared_postgres: Postgres, proxy: Proxy) -> None:
    """Queries pass, big ones too, and connections are counted."""
    connection = await connect(shared_postgres, proxy)
    assert await connection.fetchval("select repeat('x', 3000000)") == "x" * 3000000
    assert (proxy.connections, proxy.attempts) == (1, 1)
    await connection.close()


async def test_refuses(shared_postgres: Postgres, proxy: Proxy) -> None:
    """A refused connection fails at once, one that is open lives on, and forwarding can be taken up again."""
    old = await connect(shared_postgres, proxy)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(shared_postgres, proxy)
    assert await old.fetchval("select 1") == 1
    proxy.forward()
    new = await connect(shared_postgres, proxy)
    await old.close()
    await new.close()


@pytest.mark.parametrize("mode", ["reset", "accept_then_close"])
async def test_ends_after_accepting(shared_postgres: Postgres, proxy: Proxy, mode: str) -> None:
    """A connection that is accepted and then ended is an error, and counts as an attempt."""
    getattr(proxy, mode)()
    with pytest.raises((ConnectionError, asyncpg.ConnectionDoesNotExistError)):
        await connect(shared_postgres, proxy)
    assert proxy.attempts >= 1


@pytest.mark.parametrize("mode", ["mute", "black_hole"])
async def test_never_answers(shared_postgres: Postgres, proxy: Proxy, mode: str) -> None:
    """A mute server and a black hole both time out; only the mute one accepts."""
    getattr(proxy, mode)()
    with pytest.raises(TimeoutError):
        await connect(shared_postgres, proxy, timeout_s=0.3)
    opened = asyncio.open_connection("127.0.0.1", proxy.port)
    if mode == "mute":
        _, writer = await opened
        writer.close()
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(opened, 0.3)
    assert (proxy.attempts > 0) == (mode == "mute")


async def test_freezes(shared_postgres: Postgres, proxy: Proxy) -> None:
    """Nothing passes while frozen, and everything does after the thaw."""
    connection = await connect(shared_postgres, proxy)
    proxy.freeze()
    query = asyncio.ensure_future(connection.fetchval("select 1"))
    done, _ = await asyncio.wait([query], timeout=0.2)
    assert not done
    assert proxy.connections == 1
    proxy.thaw()
    assert await query == 1
    await connection.close()


@pytest.mark.parametrize(("direction", "is_run"), [("to_server", False), ("to_client", True)])
async def test_freezes_one_way(shared_postgres: Postgres, proxy: Proxy, direction: str, is_run: bool) -> None:
    """One way frozen, a statement does not reach the server; the other way, it runs and only its answer is lost."""
    connection = await connect(shared_postgres, proxy)
    shared_postgres.execute("drop sequence if exists frozen; create sequence frozen")
    proxy.freeze(direction)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await connection.execute("select nextval('frozen')", timeout=0.3)
    assert (shared_postgres.execute("select is_called from frozen") == "t") == is_run
    connection.terminate()


async def test_hides_the_end_of_a_peer_while_frozen(postgres: Postgres) -> None:
    """A server that dies behind a frozen proxy sends its client nothing, until the thaw."""
    with Proxy(postgres.port) as proxy:
        connection = await connect(postgres, proxy)
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        proxy.freeze()
        postgres.stop("immediate")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.2)
        proxy.thaw()
        await asyncio.wait_for(ended.wait(), 5)


async def test_cuts(shared_postgres: Postgres, proxy: Proxy) -> None:
    """A cut connection ends at once, on both sides."""
    connection = await connect(shared_postgres, proxy)
    pid = connection.get_server_pid()
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    assert proxy.cut() == 1
    await asyncio.wait_for(ended.wait(), 5)
    while shared_postgres.sessions(f"pid = {pid}"):  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(0.01)
    assert proxy.connections == 0


async def test_slows(shared_postgres: Postgres, proxy: Proxy) -> None:
    """Latency delays each way, and what was sent stays in order."""
    connection = await connect(shared_postgres, proxy)
    proxy.slow(latency_s=0.05)
    started_s = time.monotonic()
    assert await connection.fetchval("select repeat('x', 300000)") == "x" * 300000
    assert time.monotonic() - started_s >= 0.1
    proxy.slow()
    await connection.close()


async def test_limits_the_bandwidth(shared_postgres: Postgres, proxy: Proxy) -> None:
    """A narrow link takes as long as its bytes need."""
    connection = await connect(shared_postgres, proxy)
    proxy.slow(bytes_per_s=100_000)
    started_s = time.monotonic()
    await connection.fetchval("select repeat('x', 30000)")
    assert time.monotonic() - started_s >= 0.3
    connection.terminate()


async def test_drops_after_the_handshake(shared_postgres: Postgres, proxy: Proxy) -> None:
    """The login succeeds and the first statement does not."""
    proxy.drop_after_handshake()
    with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):  # noqa: PT012
        connection = await connect(shared_postgres, proxy)
        assert proxy.attempts == 1
        await connection.fetchval("select 1")
    assert proxy.attempts == 1


async def test_closes_when_the_server_is_down(postgres: Postgres) -> None:
    """With the server down a connection is accepted and then closed."""
    with Proxy(postgres.port) as proxy:
        postgres.stop()
        with pytest.raises((ConnectionError, asyncpg.ConnectionDoesNotExistError)):
            await connect(postgres, proxy)
        assert proxy.attempts >= 1
        postgres.start()
        connection = await connect(postgres, proxy)
        await connection.close()


@pytest.mark.parametrize("sqlstate", ["57P03", "53300", "28P01", "3D000", "08P01"])
async def test_refusing_postgres_says_its_sqlstate(sqlstate: str) -> None:
    """Asyncpg reads the stand-in's refusal as PostgreSQL's own."""
    with refusing_postgres(sqlstate, "not now") as fake_server:
        with pytest.raises(asyncpg.PostgresError, match="not now") as caught:
            await asyncpg.connect(f"postgresql://u@127.0.0.1:{fake_server.port}/d", timeout=5)
        assert caught.value.sqlstate == sqlstate
        assert fake_server.attempts >= 1


async def test_http_server_is_no_postgres() -> None:
    """Asyncpg gives up on a server that answers in HTTP."""
    with http_server() as fake_server, pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await asyncpg.connect(f"postgresql://u@127.0.0.1:{fake_server.port}/d", timeout=5)
