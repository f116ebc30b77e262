"""Which SQL texts would begin or end a transaction."""

from __future__ import annotations

import pytest

from supervisor.workers.projection.statement import transaction_command


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        ("commit", "COMMIT"),
        ("COMMIT;", "COMMIT"),
        ("  \n\t Commit And Chain", "COMMIT"),
        ("rollback", "ROLLBACK"),
        ("rollback work", "ROLLBACK"),
        ("rollback prepared 'x'", "ROLLBACK"),
        ("end", "END"),
        ("abort", "ABORT"),
        ("begin", "BEGIN"),
        ("begin;insert into t values (1)", "BEGIN"),
        ("start transaction", "START"),
        ("prepare transaction 'x'", "PREPARE TRANSACTION"),
        ("prepare/**/transaction 'x'", "PREPARE TRANSACTION"),
        (";; commit", "COMMIT"),
        (";commit", "COMMIT"),
        ("-- rollback to a\ncommit", "COMMIT"),
        ("/* select */commit", "COMMIT"),
        ("/* a /* b */ c */ -- d\n /**/ commit", "COMMIT"),
        ("commit--", "COMMIT"),
        ("rollback to savepoint a", None),
        ("rollback to a", None),
        ("ROLLBACK WORK TO SAVEPOINT a", None),
        ("rollback transaction to a", None),
        ("rollback /* x */ to a", None),
        ("savepoint a", None),
        ("release savepoint a", None),
        ("prepare commit as select 1", None),
        ("execute commit", None),
        ("select 'commit'", None),
        ("commits", None),
        ("X commit", None),
        ("prepare X transaction", None),
        ("commit_all()", None),
        ("beginning", None),
        ("call commit()", None),
        ("do $$ begin commit; end $$", None),
        ("with x as (select 1) select * from x", None),
        ("(select 1)", None),
        ("", None),
        (";", None),
        ("/* never closed commit", None),
        ("-- commit", None),
    ],
)
def test_only_commands_that_begin_or_end_a_transaction_are_named(sql: str, command: str | None) -> None:
    """Only the first statement counts, whatever comments, blanks and semicolons come before it."""
    assert transaction_command(sql) == command
