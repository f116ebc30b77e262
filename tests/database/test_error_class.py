"""What an error says about the database."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import asyncpg
import pytest
from asyncpg.exceptions import TargetServerAttributeNotMatched
from asyncpg.exceptions._base import DataError as WrongArgument  # the public name is the server's error
from hypothesis import given
from hypothesis import strategies as st

from supervisor.database.error_class import (
    ErrorClass,
    Failure,
    classify,
    connect_failure,
    may_be_connection_loss,
    most_recoverable,
)

SAID_BY_THE_SERVER = [
    (asyncpg.AdminShutdownError, "57P01", ErrorClass.STARTING_UP),
    (asyncpg.CrashShutdownError, "57P02", ErrorClass.STARTING_UP),
    (asyncpg.CannotConnectNowError, "57P03", ErrorClass.STARTING_UP),
    (asyncpg.DatabaseDroppedError, "57P04", ErrorClass.ACCESS_DENIED),
    (asyncpg.IdleSessionTimeoutError, "57P05", ErrorClass.DROPPED),
    (asyncpg.IdleInTransactionSessionTimeoutError, "25P03", ErrorClass.DROPPED),
    (asyncpg.TransactionTimeoutError, "25P04", ErrorClass.DROPPED),
    (asyncpg.ReadOnlySQLTransactionError, "25006", ErrorClass.READ_ONLY),
    (asyncpg.TooManyConnectionsError, "53300", ErrorClass.TOO_MANY_CONNECTIONS),
    (asyncpg.InsufficientPrivilegeError, "42501", ErrorClass.ACCESS_DENIED),
    (asyncpg.InvalidCatalogNameError, "3D000", ErrorClass.ACCESS_DENIED),
    (asyncpg.InvalidPasswordError, "28P01", ErrorClass.ACCESS_DENIED),
    (asyncpg.InvalidAuthorizationSpecificationError, "28000", ErrorClass.ACCESS_DENIED),
    (asyncpg.ConnectionRejectionError, "08004", ErrorClass.ACCESS_DENIED),
    (asyncpg.ProtocolViolationError, "08P01", ErrorClass.NOT_POSTGRES),
    (asyncpg.PostgresConnectionError, "08000", ErrorClass.DROPPED),
    (asyncpg.ConnectionDoesNotExistError, "08003", ErrorClass.DROPPED),
    (asyncpg.ConnectionFailureError, "08006", ErrorClass.DROPPED),
    (asyncpg.QueryCanceledError, "57014", ErrorClass.UNRELATED),
    (asyncpg.UniqueViolationError, "23505", ErrorClass.UNRELATED),
    (asyncpg.SerializationError, "40001", ErrorClass.UNRELATED),
    (asyncpg.UndefinedTableError, "42P01", ErrorClass.UNRELATED),
    (asyncpg.OutOfMemoryError, "53200", ErrorClass.UNRELATED),
]
SAID_BY_THE_DRIVER = [
    (asyncpg.ClientConfigurationError("no such sslmode"), ErrorClass.MISCONFIGURED),
    (TargetServerAttributeNotMatched("none is a primary"), ErrorClass.READ_ONLY),
    (asyncpg.ProtocolError("unexpected message"), ErrorClass.NOT_POSTGRES),
    (asyncpg.InterfaceError("connection is closed"), ErrorClass.DROPPED),
    (asyncpg.InternalClientError("got result for unknown protocol state"), ErrorClass.DROPPED),
    (WrongArgument("invalid input for query argument $1"), ErrorClass.UNRELATED),
]
SAID_BY_THE_SYSTEM = [
    (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ErrorClass.NOT_LISTENING),
    (FileNotFoundError(errno.ENOENT, "no socket"), ErrorClass.NOT_LISTENING),
    (OSError(errno.EHOSTUNREACH, "no route"), ErrorClass.NOT_LISTENING),
    (OSError(errno.ENETUNREACH, "no network"), ErrorClass.NOT_LISTENING),
    (OSError(errno.ENETDOWN, "the network is down"), ErrorClass.NOT_LISTENING),
    (OSError(errno.EHOSTDOWN, "the host is down"), ErrorClass.NOT_LISTENING),
    (OSError(errno.EADDRNOTAVAIL, "no such address here"), ErrorClass.NOT_LISTENING),
    (socket.gaierror(socket.EAI_NONAME, "no such host"), ErrorClass.NOT_LISTENING),
    (socket.gaierror(socket.EAI_AGAIN, "resolver away"), ErrorClass.NOT_LISTENING),
    (TimeoutError(), ErrorClass.TIMED_OUT),
    (TimeoutError(errno.ETIMEDOUT, "timed out"), ErrorClass.TIMED_OUT),
    (ConnectionResetError(errno.ECONNRESET, "reset"), ErrorClass.DROPPED),
    (BrokenPipeError(errno.EPIPE, "pipe"), ErrorClass.DROPPED),
    (ConnectionError("unexpected connection_lost() call"), ErrorClass.DROPPED),
    (ConnectionError('PostgreSQL server at "h:1" rejected SSL upgrade'), ErrorClass.NOT_POSTGRES),
    (ssl.SSLCertVerificationError("self-signed"), ErrorClass.NOT_POSTGRES),
    (PermissionError(errno.EACCES, "the socket's folder"), ErrorClass.ACCESS_DENIED),
    (OSError(errno.EMFILE, "too many open files"), ErrorClass.NOT_POSTGRES),
    (ValueError("a worker's own"), ErrorClass.UNRELATED),
    (KeyError("a worker's own"), ErrorClass.UNRELATED),
]


@pytest.mark.parametrize(("kind", "sqlstate", "expected"), SAID_BY_THE_SERVER)
def test_the_servers_errors(kind: type[asyncpg.PostgresError], sqlstate: str, expected: ErrorClass) -> None:
    """Each SQLSTATE that means something for the connection has its class, and no other does."""
    assert kind.sqlstate == sqlstate
    assert classify(kind("message")) is expected


@pytest.mark.parametrize(("error", "expected"), SAID_BY_THE_DRIVER)
def test_the_drivers_errors(error: Exception, expected: ErrorClass) -> None:
    """Errors of asyncpg itself have no SQLSTATE; their types decide."""
    assert classify(error) is expected


@pytest.mark.parametrize(("error", "expected"), SAID_BY_THE_SYSTEM)
def test_the_systems_errors(error: Exception, expected: ErrorClass) -> None:
    """An error of the operating system is told apart by its type and errno."""
    assert classify(error) is expected


@pytest.mark.parametrize("sqlstate", ["28P02", "28ABC"])
def test_an_unknown_code_of_a_known_class_is_read_by_its_class(sqlstate: str) -> None:
    """A server newer than this table is understood by the first two letters."""
    assert classify(_coded(sqlstate)) is ErrorClass.ACCESS_DENIED


def test_a_class_of_the_same_name_elsewhere_is_not_asyncpgs() -> None:
    """A worker's own InterfaceError says nothing about the connection."""
    assert classify(type("InterfaceError", (Exception,), {})("mine")) is ErrorClass.UNRELATED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.AdminShutdownError("ended"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), True),
        (asyncpg.ProtocolError("unexpected message"), True),
        (asyncpg.TooManyConnectionsError("backpressure"), False),
        (asyncpg.InvalidPasswordError("refused"), False),
        (asyncpg.UniqueViolationError("twice"), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_makes_the_monitor_check(error: Exception, expected: bool) -> None:
    """Only what could mean a lost connection is a suspicion; backpressure and a worker's bug are none."""
    assert may_be_connection_loss(error) is expected


def test_groups_and_causes_are_looked_through() -> None:
    """Workers wrap what they catch."""
    wrapped = ValueError("while saving")
    wrapped.__cause__ = ConnectionResetError()
    during = KeyError("while handling")
    during.__context__ = asyncpg.InterfaceError("closed")
    group = ExceptionGroup("two", [ValueError(), ExceptionGroup("one", [TypeError(), BrokenPipeError()])])
    assert all(may_be_connection_loss(error) for error in (wrapped, during, group))
    assert not may_be_connection_loss(ExceptionGroup("two", [ValueError(), KeyError()]))


def test_an_error_in_a_large_group_is_found() -> None:
    """A task group of many workers' calls hides nothing, wherever the error stands."""
    others: list[Exception] = [ValueError() for _ in range(100)]
    for place in (0, 50, 100):
        errors = [*others[:place], ConnectionResetError(), *others[place:]]
        assert may_be_connection_loss(ExceptionGroup("many", errors))


def test_a_circle_of_causes_ends() -> None:
    """Nothing a worker raises can hang the judgement."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert not may_be_connection_loss(first)


def test_an_error_that_is_met_twice_hides_no_other() -> None:
    """The search goes on behind an error that was seen before."""
    twice = ValueError()
    assert may_be_connection_loss(ExceptionGroup("several", [ConnectionResetError(), twice, twice]))


@pytest.mark.parametrize(("others", "expected"), [(9_999, True), (10_000, False)])
def test_the_search_ends_after_ten_thousand_errors(others: int, expected: bool) -> None:
    """Nothing that a worker raises can keep the loop for long."""
    error: BaseException = ConnectionResetError()
    for _ in range(others):
        outer = ValueError()
        outer.__cause__ = error
        error = outer
    assert may_be_connection_loss(error) is expected


def _coded(sqlstate: object) -> Exception:
    error = Exception("from some driver")
    error.sqlstate = sqlstate  # type: ignore[attr-defined]
    return error


def _hostile() -> Exception:
    class Hostile(Exception):
        @property
        def sqlstate(self) -> str:
            raise RuntimeError("no")

        def __str__(self) -> str:
            raise RuntimeError("no")

    return Hostile()


errors = st.one_of(
    st.builds(_coded, st.one_of(st.text(max_size=6), st.none(), st.integers(), st.binary(max_size=5))),
    st.builds(OSError, st.integers(0, 200), st.text(max_size=20)),
    st.builds(ConnectionError, st.text(max_size=20)),
    st.sampled_from([error for error, _ in SAID_BY_THE_DRIVER + SAID_BY_THE_SYSTEM]),
    st.sampled_from([KeyboardInterrupt(), SystemExit(1), GeneratorExit()]),
    st.builds(_hostile),
)


@given(errors)
def test_no_error_breaks_the_judgement(error: BaseException) -> None:
    """Whatever is raised, by a hostile class too, has a class and a reason."""
    assert isinstance(classify(error), ErrorClass)
    assert isinstance(may_be_connection_loss(error), bool)
    assert connect_failure(error, address="db:5432", limit_s=5.0).reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "db:5432 did not answer within 5s"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "db:5432 refuses connections"),
        (FileNotFoundError(errno.ENOENT, "x"), "db:5432 has no server (no such socket)"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "db:5432 cannot be reached (No route to host)"),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), "db:5432 cannot be reached (no such name)"),
        (socket.gaierror("no such name"), "db:5432 cannot be reached (no such name)"),
        (asyncpg.ConnectionDoesNotExistError("lost"), "db:5432 accepted and then dropped the connection"),
        (asyncpg.ConnectionFailureError("lost"), "db:5432 accepted and then dropped the connection"),
        (_coded("08001"), "db:5432 accepted and then dropped the connection"),
        (asyncpg.IdleSessionTimeoutError("idle"), "db:5432 says: idle (57P05)"),
        (
            TargetServerAttributeNotMatched("none"),
            "db:5432 is not the primary that target_session_attrs asks for",
        ),
        (asyncpg.ReadOnlySQLTransactionError("read-only"), "db:5432 says: read-only (25006)"),
        (ConnectionResetError(), "db:5432 accepted and then dropped the connection"),
        (ValueError("weird bytes"), "what answers at db:5432 does not speak PostgreSQL"),
        (asyncpg.CannotConnectNowError("starting\nup"), "db:5432 says: starting up (57P03)"),
        (
            asyncpg.InterfaceError("unsupported authentication method"),
            "the connection to db:5432 failed: unsupported authentication method (InterfaceError)",
        ),
        (
            asyncpg.InterfaceError("connection is closed"),
            "the connection to db:5432 failed: connection is closed (InterfaceError)",
        ),
    ],
)
def test_the_reason_is_a_sentence_for_an_operator(error: Exception, expected: str) -> None:
    """It names the address and says in one line what happened there."""
    assert connect_failure(error, address="db:5432", limit_s=5.0).reason == expected


def test_whatever_goes_wrong_while_connecting_is_about_the_connection() -> None:
    """An attempt that fails with an error of no class is unusable, not unrelated."""
    assert connect_failure(ValueError(), address="db", limit_s=1.0).error_class is ErrorClass.NOT_POSTGRES


@pytest.mark.parametrize(
    ("answers", "decides"),
    [
        ([ErrorClass.ACCESS_DENIED, ErrorClass.NOT_LISTENING], ErrorClass.NOT_LISTENING),
        ([ErrorClass.ACCESS_DENIED, ErrorClass.ACCESS_DENIED], ErrorClass.ACCESS_DENIED),
        ([ErrorClass.TIMED_OUT, ErrorClass.STARTING_UP, ErrorClass.ACCESS_DENIED], ErrorClass.STARTING_UP),
        ([ErrorClass.READ_ONLY, ErrorClass.NOT_LISTENING], ErrorClass.READ_ONLY),
        ([ErrorClass.TOO_MANY_CONNECTIONS, ErrorClass.NOT_POSTGRES], ErrorClass.TOO_MANY_CONNECTIONS),
    ],
)
def test_the_most_hopeful_host_decides(answers: list[ErrorClass], decides: ErrorClass) -> None:
    """A host that says that it is coming is worth waiting for; a refusal counts only when every host refuses."""
    assert most_recoverable([_failure(answer) for answer in answers]).error_class is decides


def _failure(error_class: ErrorClass, **changes: Any) -> Failure:
    return Failure(error_class, "reason", "db:5432", None, ValueError(), **changes)
