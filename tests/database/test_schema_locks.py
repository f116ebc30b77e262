"""The numbers of the advisory locks: one list, and nothing beside it."""

from __future__ import annotations

import re
from pathlib import Path

from supervisor.database.schema.locks import LockSpace
from supervisor.database.schema.version import migration_files

PACKAGE = Path(__file__).parents[2] / "supervisor"
NUMBER = re.compile(r"\b18858278\d\d\b")


def test_the_sql_header_lists_every_lock() -> None:
    """The header of the first file has the numbers of the list, in order, each with its kind and key."""
    header = migration_files()[0].sql.partition("\nCREATE ")[0]
    listed = re.findall(
        r"^--   (\d+)  [a-z ]+ \((session|transaction), (shared|exclusive); key: .+\)$", header, re.MULTILINE
    )
    assert [int(number) for number, _, _ in listed] == list(LockSpace)


def test_the_sql_takes_no_other_lock() -> None:
    """Each call that takes or reads an advisory lock names a number of the list."""
    for file in migration_files():
        assert {int(number) for number in NUMBER.findall(file.sql)} <= set(LockSpace)
        calls = re.findall(r"pg_(?:try_)?advisory_\w+\(([^,)]+)", file.sql)
        assert calls
        assert [call for call in calls if not NUMBER.fullmatch(call)] == []
        for compared in re.findall(r"classid\s*(?:=|IN)\s*\(?([\d, ]+)", file.sql):
            assert all(NUMBER.fullmatch(number) for number in compared.strip().split(", "))


def test_the_code_names_its_locks() -> None:
    """No module but the list has a number, and none takes a lock outside of the list."""
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "locks.py":
            assert NUMBER.findall(text) == [], path
        for first_key in re.findall(r"pg_(?:try_)?advisory_\w+\(([^,)]*)", text):
            assert re.fullmatch(r"\{LockSpace\.\w+:d\}", first_key), path


def test_a_lock_is_used() -> None:
    """Each number of the list is one that the SQL or the code uses."""
    sql = "\n".join(file.sql for file in migration_files())
    code = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    for space in LockSpace:
        assert sql.count(str(space.value)) > 1 or f"LockSpace.{space.name}" in code, space
