"""The released versions of the SQL schema, saved as dumps in `tests/schemas/`. `make schemas` saves the present one."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from support.postgres import make_template, run_tool, running_postgres, server_home
from support.schema import KNOWN, connection, make_schema

if TYPE_CHECKING:
    from support.postgres import Postgres

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "schemas"
COMMAND = "make schemas"
_HEADER = "-- The SQL schema, version {version}, as commit {commit} makes it. Saved by `" + COMMAND + "`.\n\n"
# Comments, and what belongs to a server's version, to pg_dump's or to one dump.
_NOISE = re.compile(r"^(--.*|SET .*|\\(un)?restrict .*|SELECT pg_catalog\.set_config\('search_path'.*)\n", re.MULTILINE)


def path_of(version: int) -> Path:
    """Return the file of a saved version."""
    return FOLDER / f"{version:03}.sql"


def saved(version: int) -> str:
    """Return the statements of a saved version, without its header; empty when it was not saved."""
    path = path_of(version)
    return path.read_text("utf-8").partition("\n\n")[2] if path.exists() else ""


def saved_versions() -> list[int]:
    """Return the saved versions."""
    return sorted(int(path.stem) for path in FOLDER.glob("*.sql"))


async def dump(server: Postgres, dbname: str = "postgres") -> str:
    """Return the statements that make the schema that a migration makes in an empty database: no time is in them."""
    dsn = server.dsn(dbname=dbname)
    await make_schema(dsn)
    async with connection(dsn) as connected:
        await connected.execute("update supervisor.migration set applied_at = '2000-01-01 00:00+00'")
    options = ("--schema=supervisor", "--no-owner", "--column-inserts")
    text = await asyncio.to_thread(run_tool, "pg_dump", "-d", server.dsn(host="socket", dbname=dbname), *options)
    return re.sub(r"\n{2,}", "\n\n", _NOISE.sub("", f"{text}\n")).strip("\n") + "\n"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def save(*, replace: bool) -> int:
    """Save the present version, if it is a new one or differs; return the exit status."""
    with server_home() as home, running_postgres(make_template(home)) as server:
        text = asyncio.run(dump(server))
    path = path_of(KNOWN)
    if saved(KNOWN) == text:
        print(f"{path.relative_to(ROOT)} is up to date.")
        return 0
    if path.exists() and not replace:
        print(
            f"{path.relative_to(ROOT)} differs. A released version must not change: write a new migration file. If it"
            f" has not been released, save it anew: {COMMAND} ARGS=--replace",
            file=sys.stderr,
        )
        return 1
    if _git("status", "--porcelain", "supervisor/database/schema"):
        print("Commit supervisor/database/schema first: the dump names the commit it belongs to.", file=sys.stderr)
        return 1
    path.write_text(_HEADER.format(version=KNOWN, commit=_git("rev-parse", "HEAD")) + text, "utf-8")
    print(f"{path.relative_to(ROOT)} is saved.")
    return 0


if __name__ == "__main__":
    sys.exit(save(replace="--replace" in sys.argv[1:]))
