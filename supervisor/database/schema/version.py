"""The version of the SQL schema: the files that make it, what was applied, and whether the two fit this daemon."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg

from supervisor.errors import SchemaIncompatible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    Mode = Literal["auto", "check"]

FOLDER = Path(__file__).parent
_HEADER = re.compile(r"^-- oldest daemon: (\d+)$", re.MULTILINE)
_APPLIED_SQL = "SELECT version, oldest_daemon, digest FROM supervisor.migration ORDER BY version"
_READ_TIMEOUT_S = 5.0


class MigrationFile(NamedTuple):
    """One file of the schema.

    Attributes:
        version: The schema version after this file.
        oldest_daemon: The schema version of the oldest daemon that may run on this version.
        digest: SHA-256 of the statements, without lines that are comments.
        sql: The statements.
    """

    version: int
    oldest_daemon: int
    digest: str
    sql: str


class AppliedMigration(NamedTuple):
    """One row of `supervisor.migration`; the fields are those of the file that was applied."""

    version: int
    oldest_daemon: int
    digest: str


def migration_files(folder: Path = FOLDER) -> Sequence[MigrationFile]:
    """Return the files that make the schema, in their order.

    Raises:
        ValueError: A file does not say its oldest daemon, or names an impossible one.
    """
    files: list[MigrationFile] = []
    for version, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        sql = path.read_text("utf-8")
        oldest = [int(number) for number in _HEADER.findall(sql)]
        # A rising number, so that the last row decides for all.
        if len(oldest) != 1 or not (files[-1].oldest_daemon if files else 1) <= oldest[0] <= version:
            raise ValueError(
                f"{path} has to say its oldest daemon once: `-- oldest daemon: N`, N from its predecessor's on"
            )
        files.append(MigrationFile(version, oldest[0], _digest(sql), sql))
    return files


def _digest(sql: str) -> str:
    lines = (line.strip() for line in sql.splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line and not line.startswith("--")).encode()).hexdigest()


async def applied_migrations(connection: Any) -> Sequence[AppliedMigration]:
    """Return what was applied to the schema behind a connection, in order; nothing where there is no schema.

    Raises:
        asyncpg.PostgresError: `supervisor.migration` cannot be read, or is another program's table.
    """
    received = bytearray()

    async def receive(data: bytes) -> None:
        received.extend(data)

    try:
        # COPY returns rows in one round trip and without a prepared statement, which a transaction pooler might lose.
        await connection.copy_from_query(_APPLIED_SQL, output=receive, timeout=_READ_TIMEOUT_S)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return []
    rows = (line.split("\t") for line in received.decode().splitlines())
    return [AppliedMigration(int(version), int(oldest), digest) for version, oldest, digest in rows]


def version_of(applied: Sequence[AppliedMigration]) -> int:
    """Return the schema version, 0 when there is no schema."""
    return applied[-1].version if applied else 0


def needs_upgrade(applied: Sequence[AppliedMigration], files: Sequence[MigrationFile], mode: Mode) -> bool:
    """Whether the schema has to be upgraded before this daemon can use it.

    Raises:
        SchemaIncompatible: The schema is newer and excludes this daemon, or is older and must not be changed, or was
            made by files that were never released.
    """
    found, known = version_of(applied), len(files)
    digests = {file.version: file.digest for file in files}
    if changed := [row.version for row in applied if digests.get(row.version, row.digest) != row.digest]:
        raise SchemaIncompatible(unreleased_text(f"migration {changed[0]} differs from the one of this pgsupervisor"))
    if found > known and applied[-1].oldest_daemon > known:
        raise SchemaIncompatible(
            f"The SQL schema has version {found}, and this pgsupervisor knows versions up to {known}: a newer one has"
            f" upgraded it, for daemons that know version {applied[-1].oldest_daemon} or later. Install that version of"
            " pgsupervisor here too."
        )
    if found < known and mode == "check":
        what = f"has version {found}" if found else "is not there"
        raise SchemaIncompatible(
            f'The SQL schema {what}, version {known} is needed, and migrate = "check" changes nothing:'
            " run `pgsupervisor migrate`."
        )
    return found < known


def unreleased_text(reason: str) -> str:
    """Return the sentence about a schema that a checkout made before the first release, with its remedy."""
    return (
        f"The SQL schema was made by a pgsupervisor that was never released, and cannot be upgraded: {reason}. Save"
        " what you need of it (`pg_dump --schema=supervisor`), run `DROP SCHEMA supervisor CASCADE` in this"
        " database, then `pgsupervisor migrate`."
    )
