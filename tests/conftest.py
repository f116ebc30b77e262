"""PostgreSQL servers for the tests of every package."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from support.postgres import Postgres, make_template, running_postgres, server_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Properties are judged by what they say, never by how long the machine took. On a fresh checkout the table of all
# letters is built inside the first draw, which takes longer than hypothesis likes.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_database_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[Path]:
    """A data directory to copy servers from."""
    with server_home() as home:
        yield make_template(home)


@pytest.fixture
def postgres(postgres_template: Path) -> Iterator[Postgres]:
    """A fresh, running server of the test's own, to be disturbed at will."""
    with running_postgres(postgres_template) as server:
        yield server


@pytest.fixture
def make_postgres(postgres_template: Path) -> Iterator[Callable[[], Postgres]]:
    """A maker of further fresh, running servers."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(running_postgres(postgres_template))


@pytest.fixture
def standby(postgres: Postgres) -> Iterator[Postgres]:
    """A running streaming standby of `postgres`."""
    with server_home() as home:
        server = Postgres.standby_of(postgres, home)
        server.start()
        try:
            yield server
        finally:
            server.remove()


@pytest.fixture(scope="session")
def shared_postgres(postgres_template: Path) -> Iterator[Postgres]:
    """One server for the whole session; a test that uses it does not disturb it."""
    with running_postgres(postgres_template) as server:
        yield server


@pytest.fixture
def database(shared_postgres: Postgres) -> Iterator[str]:
    """The connection string of a fresh database on the shared server."""
    name = f"test_{next(_database_numbers)}"
    shared_postgres.execute(f"create database {name} template template0 strategy file_copy")
    yield shared_postgres.dsn(dbname=name)
    shared_postgres.execute(f"drop database {name} with (force)")
