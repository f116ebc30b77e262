"""`projections list/reset/skip/forget`: show each projection's position, change it, delete it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn

import asyncpg

from supervisor.cli.configuration import load_config
from supervisor.cli.database_command import SCHEMA_TOO_OLD, connect_to_schema
from supervisor.cli.output import align, print_out
from supervisor.cli.status import lag
from supervisor.config.model import Projection
from supervisor.daemon.cluster_status import SHARD_LAG_SQL, projection_rows
from supervisor.database.error_class import CONNECTION_ERRORS, ErrorClass, classify, may_be_connection_loss
from supervisor.database.schema.grants import DAEMON_GRANTS, listed
from supervisor.errors import DatabaseAccessDenied, DatabaseUnavailable, SchemaIncompatible, SupervisorError
from supervisor.escaping import message_of
from supervisor.events.shard import like_patterns
from supervisor.exit_status import ExitStatus
from supervisor.suggestions import nearest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from supervisor.config.model import Config

# At most so many positions are read to count a backlog, of all projections together; a longer one is estimated.
_MAX_COUNTED = 1_000_000
_COLUMNS = ("PROJECTION", "SHARD", "POSITION", "LAG", "APPLIED", "DEAD", "STOPPED AT")
_DEAD = "SELECT projection, count(*)::int AS letters FROM supervisor.dead_letter GROUP BY projection"


class _Refused(SupervisorError):
    """What was asked for cannot be done; nothing has been changed."""

    exit_status = ExitStatus.REFUSED


def list_projections(config_path: str | None, *, as_json: bool) -> int:
    """Print every projection and return the exit status."""

    async def act(connection: Any, config: Config) -> str:
        rows = await _rows(connection, config)
        return json.dumps(rows, indent=2) if as_json else _table(rows)

    return asyncio.run(_act(config_path, act))


def reset(config_path: str | None, name: str, *, to: int) -> int:
    """Let a projection start again after position `to` and return the exit status."""

    async def act(connection: Any, config: Config) -> str:
        if not await connection.fetchval("SELECT supervisor.reset_projection($1, $2)", name, to):
            await _unknown_projection(connection, config, name)
        start = "from the start" if to == 0 else f"after position {to}"
        first = await connection.fetchval("SELECT min(position) FROM supervisor.event")
        # The sequence's first number was drawn when the schema was made.
        pruned = "" if first is None or first <= max(to + 1, 2) else f"; the oldest event left is {first}"
        return f"{name} starts again {start}{pruned}"

    return asyncio.run(_act(config_path, act))


def skip(config_path: str | None, name: str) -> int:
    """Skip the events at which a projection has stopped and return the exit status."""

    async def act(connection: Any, config: Config) -> str:
        rows = await connection.fetch("SELECT * FROM supervisor.skip_poison($1) AS position", name)
        if not rows:
            await _unknown_projection(connection, config, name, otherwise=f"{name} has not stopped at any event")
        positions = [str(row["position"]) for row in rows]
        what = f"event {positions[0]}" if len(positions) == 1 else f"events {', '.join(positions)}"
        return f"{name}: skipped {what}, now among its dead letters (supervisor.dead_letter)"

    return asyncio.run(_act(config_path, act))


def forget(config_path: str | None, name: str) -> int:
    """Delete the checkpoint of a projection that no daemon runs any more, and return the exit status."""

    async def act(connection: Any, config: Config) -> str:
        if name in _configured(config):
            raise _Refused(f"{name} is in this configuration: first remove it there and reload")
        if not await connection.fetchval("SELECT supervisor.forget_projection($1)", name):
            await _unknown_projection(connection, config, name)
        also = "with its checkpoint and its dead letters; it no longer keeps events from being pruned"
        return f"{name} is forgotten, {also}"

    return asyncio.run(_act(config_path, act))


async def _act(config_path: str | None, act: Callable[[Any, Config], Awaitable[str]]) -> int:
    config = load_config(config_path)
    async with connect_to_schema(config) as connection:
        try:
            print_out(await act(connection, config))
        except (asyncpg.InvalidParameterValueError, asyncpg.DataError, asyncpg.ObjectInUseError) as error:
            raise _Refused(f"Nothing was changed: {error}") from error
        except CONNECTION_ERRORS as error:
            _raise_database_error(error)
    return ExitStatus.OK


async def _unknown_projection(
    connection: Any, config: Config, name: str, *, otherwise: str | None = None
) -> NoReturn:  # fmt: skip
    known = [row["name"] for row in await connection.fetch("SELECT name FROM supervisor.projection ORDER BY 1")]
    if otherwise is not None and name in known:
        raise _Refused(otherwise)
    if name in _configured(config):
        raise _Refused(f"{name} has never run on this database: there is nothing to change")
    near = nearest(name, [*known, *_configured(config)])
    hint = f"did you mean {near}?" if near else f"there are {', '.join(known)}" if known else "there are no projections"
    raise _Refused(f"there is no projection {name}; {hint}")


async def _rows(connection: Any, config: Config) -> list[dict[str, Any]]:
    """Return one row a projection, of the configuration or of the database."""
    configured = _configured(config)
    known = [row["name"] for row in await connection.fetch("SELECT name FROM supervisor.projection")]
    # The streams of a projection of another daemon are not known here.
    patterns = {name: like_patterns(configured[name].streams if name in configured else ()) for name in known}
    rows_with_shards = projection_rows(await connection.fetch(SHARD_LAG_SQL, json.dumps(patterns), _MAX_COUNTED))
    letters = {row["projection"]: row["letters"] for row in await connection.fetch(_DEAD)}
    rows = [row | {"dead_letters": letters.get(row["name"], 0)} for row in rows_with_shards]
    rows += [{"name": name, "shards": [], "dead_letters": 0} for name in configured if name not in known]
    return sorted((row | {"configured": row["name"] in configured} for row in rows), key=lambda row: str(row["name"]))


def _configured(config: Config) -> Mapping[str, Projection]:
    return {name: spec.kind for name, spec in config.workers.items() if isinstance(spec.kind, Projection)}


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "There are no projections."
    return "\n".join(align([_COLUMNS, *(cells for row in rows for cells in _cells(row))]))


def _cells(row: dict[str, Any]) -> list[tuple[str, ...]]:
    name = str(row["name"])
    if not row["shards"]:
        return [(name, "", "", "", "", "", "never ran here")]
    foreign = "" if row["configured"] else "not in this configuration"
    return [
        (
            name if number == 0 else "",
            f"{number + 1}/{len(row['shards'])}",
            str(shard["position"]),
            lag(shard),
            str(shard["applied"]),
            str(row["dead_letters"]) if number == 0 else "",
            f"{shard['poison']}: {shard['error']}" if shard["poison"] is not None else foreign if number == 0 else "",
        )
        for number, shard in enumerate(row["shards"])
    ]


def _raise_database_error(error: Exception) -> NoReturn:
    reason = message_of(error)
    match classify(error):
        case ErrorClass.ACCESS_DENIED:
            raise DatabaseAccessDenied(
                f"The database denied access: {reason}. The role needs {listed(DAEMON_GRANTS)}."
            ) from error
        case _ if may_be_connection_loss(error):
            raise DatabaseUnavailable(f"The connection was lost: {reason}. Check with `projections list`.") from error
        case _ if isinstance(
            error, (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError)
        ):
            raise SchemaIncompatible(SCHEMA_TOO_OLD) from error
        case _:
            raise DatabaseUnavailable(f"The database reported an error: {reason}") from error
