"""What an error says about the database, decided from its SQLSTATE and its type alone.

This is the one place that classifies asyncpg's, the operating system's and PostgreSQL's errors.
SQLSTATEs: PostgreSQL's appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

import errno
import socket
import ssl
from enum import Enum
from typing import NamedTuple

import asyncpg

from supervisor.escaping import exception_chain, message_of, sqlstate_of

# What asyncpg raises when a statement fails or its connection is gone; nothing else comes out of a database call.
CONNECTION_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class ErrorClass(Enum):
    """How the connection monitor reacts to an error; one member for each reaction.

    The order matters: with several hosts, the failure that is most likely to pass decides the delay.
    """

    STARTING_UP = "coming"
    """The server says that it starts up or shuts down: try again soon and steadily."""
    READ_ONLY = "read-only"
    """The server is no primary (a standby, or a demoted one): useless although alive; try again soon."""
    DROPPED = "dropped"
    """It accepts and then drops the connection: a proxy before a dead server."""
    NOT_LISTENING = "absent"
    """Nothing listens there: cheap to find out, so probe often."""
    TIMED_OUT = "timed out"
    """No answer within the deadline: a black hole or a frozen peer."""
    TOO_MANY_CONNECTIONS = "crowded"
    """Too many connections: a quick retry would make it worse."""
    NOT_POSTGRES = "unusable"
    """The peer cannot be used: no PostgreSQL, a failed TLS handshake, an internal error."""
    ACCESS_DENIED = "refused"
    """The server refused the login, the database or a privilege."""
    MISCONFIGURED = "misconfigured"
    """The connection string cannot work, whatever the server does."""
    UNRELATED = "unrelated"
    """No error of the connection: the statement or the worker is at fault."""


_RANK = {error_class: rank for rank, error_class in enumerate(ErrorClass)}

_BY_SQLSTATE = {
    "57P01": ErrorClass.STARTING_UP,  # admin_shutdown
    "57P02": ErrorClass.STARTING_UP,  # crash_shutdown
    "57P03": ErrorClass.STARTING_UP,  # cannot_connect_now
    "57P05": ErrorClass.DROPPED,  # idle_session_timeout
    "25P03": ErrorClass.DROPPED,  # idle_in_transaction_session_timeout
    "25P04": ErrorClass.DROPPED,  # transaction_timeout: ends the session too
    "25006": ErrorClass.READ_ONLY,  # read_only_sql_transaction
    "53300": ErrorClass.TOO_MANY_CONNECTIONS,  # too_many_connections
    "42501": ErrorClass.ACCESS_DENIED,  # insufficient_privilege
    "3D000": ErrorClass.ACCESS_DENIED,  # invalid_catalog_name: no such database
    "57P04": ErrorClass.ACCESS_DENIED,  # database_dropped
    "08P01": ErrorClass.NOT_POSTGRES,  # protocol_violation
    "08004": ErrorClass.ACCESS_DENIED,  # sqlserver_rejected_establishment_of_sqlconnection
}
_BY_SQLSTATE_CLASS = {
    "08": ErrorClass.DROPPED,  # connection exception
    "28": ErrorClass.ACCESS_DENIED,  # invalid authorization specification
}
# asyncpg's own classes, by name: the deciding modules import no driver.
_BY_NAME = {
    "ClientConfigurationError": ErrorClass.MISCONFIGURED,
    "DataError": ErrorClass.UNRELATED,
    "TargetServerAttributeNotMatched": ErrorClass.READ_ONLY,
    "ProtocolError": ErrorClass.NOT_POSTGRES,
    "InterfaceError": ErrorClass.DROPPED,
    "InternalClientError": ErrorClass.DROPPED,
}
_NOWHERE = {
    errno.ENOENT,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
}
# asyncpg raises plain ConnectionErrors while it negotiates TLS; only the text distinguishes another protocol from a
# dropped connection.
_NO_POSTGRES = "rejected SSL upgrade"


def classify(error: BaseException) -> ErrorClass:
    """Return what `error` says about the connection it came from."""
    sqlstate = sqlstate_of(error)
    if sqlstate is not None:
        by_code = _BY_SQLSTATE.get(sqlstate) or _BY_SQLSTATE_CLASS.get(sqlstate[:2])
        return by_code or ErrorClass.UNRELATED
    for ancestor in type(error).__mro__:
        if (by_name := _BY_NAME.get(ancestor.__name__)) and ancestor.__module__.startswith("asyncpg"):
            return by_name
    return _classify_os_error(error) if isinstance(error, OSError) else ErrorClass.UNRELATED


def _classify_os_error(error: OSError) -> ErrorClass:
    match error:
        case TimeoutError():
            return ErrorClass.TIMED_OUT
        case socket.gaierror():
            return ErrorClass.NOT_LISTENING
        case ssl.SSLError():
            return ErrorClass.NOT_POSTGRES
        case PermissionError():
            return ErrorClass.ACCESS_DENIED
        case _ if error.errno in _NOWHERE:
            return ErrorClass.NOT_LISTENING
        case ConnectionError():
            return ErrorClass.NOT_POSTGRES if _NO_POSTGRES in str(error) else ErrorClass.DROPPED
        case _:
            return ErrorClass.NOT_POSTGRES


_CONNECTION_LOSS = {
    ErrorClass.STARTING_UP,
    ErrorClass.READ_ONLY,
    ErrorClass.DROPPED,
    ErrorClass.NOT_LISTENING,
    ErrorClass.TIMED_OUT,
    ErrorClass.NOT_POSTGRES,
}


def may_be_connection_loss(error: BaseException) -> bool:
    """Whether a worker's error could mean that the database is gone.

    Only a check can tell: a worker's own HTTP call raises OSErrors too. Groups and causes count, because workers wrap
    the errors that they catch.
    """
    return any(classify(link) in _CONNECTION_LOSS for link in exception_chain(error))


class Failure(NamedTuple):
    """A failed attempt to connect, as a value.

    Attributes:
        error_class: How to react.
        reason: A clause for an operator: which host, and what happened.
        address: Which host; empty when the connection string names none.
        sqlstate: PostgreSQL's code, when PostgreSQL said it.
        error: What was raised.
    """

    error_class: ErrorClass
    reason: str
    address: str
    sqlstate: str | None
    error: BaseException


def connect_failure(error: BaseException, *, address: str, limit_s: float) -> Failure:
    """Return the failure that `error` means for an attempt on `address`.

    Args:
        error: What the attempt raised.
        address: Where it went.
        limit_s: The attempt's deadline, for the sentence.
    """
    error_class = classify(error)
    if error_class is ErrorClass.UNRELATED:
        error_class = ErrorClass.NOT_POSTGRES  # while connecting, whatever goes wrong is about the connection
    return Failure(error_class, _reason(error, error_class, address, limit_s), address, sqlstate_of(error), error)


def most_recoverable(failures: list[Failure]) -> Failure:
    """Return the failure that decides what to do when every host failed.

    One host that is starting up is worth waiting for, whatever the others say; a refusal counts only when every host
    refuses.
    """
    return min(failures, key=lambda failure: _RANK[failure.error_class])


def _reason(error: BaseException, error_class: ErrorClass, address: str, limit_s: float) -> str:
    code = sqlstate_of(error)
    message = message_of(error)
    match error_class:
        case ErrorClass.TIMED_OUT:
            return f"{address} did not answer within {limit_s:g}s"
        case ErrorClass.NOT_LISTENING if isinstance(error, ConnectionRefusedError):
            return f"{address} refuses connections"
        case ErrorClass.NOT_LISTENING if isinstance(error, FileNotFoundError):
            return f"{address} has no server (no such socket)"
        case ErrorClass.NOT_LISTENING:
            return (
                f"{address} cannot be reached ({(error.strerror if isinstance(error, OSError) else None) or message})"
            )
        case ErrorClass.DROPPED if code in ("08003", "08006", "08001") or isinstance(error, OSError):
            return f"{address} accepted and then dropped the connection"
        case ErrorClass.NOT_POSTGRES if _NO_POSTGRES in message:
            return f"what answers at {address} does not speak PostgreSQL, or not the TLS that sslmode asks for"
        case ErrorClass.NOT_POSTGRES if isinstance(error, (ValueError, EOFError)):
            return f"what answers at {address} does not speak PostgreSQL"
        case ErrorClass.MISCONFIGURED:
            return f"the connection string cannot work: {message}"
        case ErrorClass.READ_ONLY if code is None:
            return f"{address} is not the primary that target_session_attrs asks for"
        case _:
            # Only what has an SQLSTATE was said by the server; the rest is the driver's own.
            failed = f"the connection to {address} failed: {message} ({type(error).__name__})"
            return f"{address} says: {message} ({code})" if code else failed
