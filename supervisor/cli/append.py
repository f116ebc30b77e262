"""`append`: one event, from a shell."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import asyncpg

from supervisor.cli.output import show
from supervisor.cli.own_connection import carry_out, configuration, connected
from supervisor.database.error_class import ErrorClass, classify, may_be_connection_loss
from supervisor.database.schema.grants import APPEND_GRANTS, listed
from supervisor.errors import DatabaseAccessDenied, DatabaseUnavailable, InvalidEvent, SchemaIncompatible
from supervisor.events.append import append_text, check_name, encode


def append(config_path: str | None, stream: str, type: str, text: str) -> int:  # noqa: A002 - the contract's name
    """Append an event, print its position and return the exit status.

    Args:
        config_path: What `-c` says.
        stream: What the event concerns.
        type: What happened.
        text: Its data, as JSON.
    """
    return carry_out(_append(config_path, stream, type, text))


async def _append(config_path: str | None, stream: str, type: str, text: str) -> int:  # noqa: A002 - as above
    data = _object(text)
    check_name("stream", stream)
    check_name("type", type)
    encode(data)  # what is wrong with it is told before anything is connected to
    config = configuration(config_path)
    async with connected(config) as connection:
        try:
            position = await append_text(connection, stream, type, text)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            _explain(error)
    show(str(position))
    return 0


def _object(text: str) -> Any:
    """Return what the text says, its numbers as they are written: PostgreSQL keeps more of them than a float does."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=str, parse_float=str)
    except RecursionError:
        raise InvalidEvent("the event's data are nested too deep") from None
    except ValueError as error:
        raise InvalidEvent(f'the event\'s data are no JSON: {error}; quote them: \'{{"key": "value"}}\'') from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in it")


def _explain(error: Exception) -> NoReturn:
    says = " ".join(str(error).split())
    match classify(error):
        case ErrorClass.ACCESS_DENIED:
            raise DatabaseAccessDenied(
                f"The event was not appended: {says}. The role needs {listed(APPEND_GRANTS)}."
            ) from error
        case ErrorClass.READ_ONLY:
            raise DatabaseUnavailable(f"The event was not appended: {says}.") from error
        case _ if may_be_connection_loss(error):
            raise DatabaseUnavailable(f"Whether the event was appended is not known: {says}.") from error
        case _ if isinstance(error, (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError)):
            raise SchemaIncompatible("The SQL schema is not there, or too old: run `pgsupervisor migrate`.") from error
        case _:
            raise InvalidEvent(f"The event was not appended: {says}") from error
