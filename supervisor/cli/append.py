"""`append`: one event, from a shell."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

import asyncpg

from supervisor.cli.configuration import load_config
from supervisor.cli.database_command import SCHEMA_TOO_OLD, connect_to_schema
from supervisor.cli.output import print_out
from supervisor.database.error_class import CONNECTION_ERRORS, ErrorClass, classify, may_be_connection_loss
from supervisor.database.schema.grants import APPEND_GRANTS, listed
from supervisor.errors import DatabaseAccessDenied, DatabaseUnavailable, InvalidEvent, SchemaIncompatible
from supervisor.escaping import message_of
from supervisor.events.append import append_text, check_name, encode
from supervisor.exit_status import ExitStatus


def append(config_path: str | None, stream: str, type: str, text: str) -> int:  # noqa: A002 - the contract's name
    """Append an event, print its position and return the exit status.

    Args:
        config_path: What `-c` says.
        stream: What the event concerns.
        type: What happened.
        text: Its data, as JSON.
    """
    return asyncio.run(_append(config_path, stream, type, text))


async def _append(config_path: str | None, stream: str, type: str, text: str) -> int:  # noqa: A002 - as above
    data = _object(text)
    check_name("stream", stream)
    check_name("type", type)
    encode(data)  # wrong data are reported before a connection is made
    config = load_config(config_path)
    async with connect_to_schema(config) as connection:
        try:
            position = await append_text(connection, stream, type, text)
        except CONNECTION_ERRORS as error:
            _raise_append_error(error)
    print_out(str(position))
    return ExitStatus.OK


def _object(text: str) -> Any:
    """Return what the text says, its numbers as they are written: PostgreSQL keeps more of them than a float does."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=str, parse_float=str)
    except RecursionError:
        raise InvalidEvent("the event's data are nested too deeply") from None
    except ValueError as error:
        raise InvalidEvent(f'the event\'s data are not JSON: {error}; quote them: \'{{"key": "value"}}\'') from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in it")


def _raise_append_error(error: Exception) -> NoReturn:
    reason = message_of(error)
    match classify(error):
        case ErrorClass.ACCESS_DENIED:
            raise DatabaseAccessDenied(
                f"The event was not appended: {reason}. The role needs {listed(APPEND_GRANTS)}."
            ) from error
        case ErrorClass.READ_ONLY:
            raise DatabaseUnavailable(f"The event was not appended: {reason}.") from error
        case _ if may_be_connection_loss(error):
            raise DatabaseUnavailable(f"It is not known whether the event was appended: {reason}.") from error
        case _ if isinstance(error, (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError)):
            raise SchemaIncompatible(SCHEMA_TOO_OLD) from error
        case _:
            raise InvalidEvent(f"The event was not appended: {reason}") from error
