"""`migrate` and `append`: what they do, what they say, and exit statuses that scripts can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.launching import config
from support.pgbouncer import pgbouncer
from support.postgres import free_port

from supervisor.database.schema.version import migration_files

if TYPE_CHECKING:
    import subprocess

    from support.daemon import Daemon
    from support.launching import Launcher
    from support.postgres import Postgres

KNOWN = len(migration_files())


@pytest.fixture
def command(launch: Launcher) -> Any:
    """A maker of a daemon's folder, for its commands; the daemon is not started."""

    def prepare(dsn: str, **sections: str) -> Daemon:
        return launch.prepare(config(dsn, **sections))

    return prepare


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the exit status and what was printed; an error is on stderr, and nothing else is."""
    assert (done.stdout == "") is (done.returncode != 0), (done.stdout, done.stderr)
    assert (done.stderr == "") is (done.returncode == 0), (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).removesuffix("\n")


def test_migrate_makes_the_schema_and_says_so(command: Any, database: str) -> None:
    """The first call makes it, the second finds it made, and `migrate = "check"` is for the daemon alone."""
    daemon = command(database, database='migrate = "check"')
    assert outcome(daemon.run_command("migrate")) == (0, f"The SQL schema went from nothing to version {KNOWN}.")
    assert outcome(daemon.run_command("migrate")) == (0, f"The SQL schema has version {KNOWN} already.")


def test_append_prints_the_position(command: Any, database: str) -> None:
    """One event, with data or without, and the positions grow."""
    daemon = command(database)
    assert outcome(daemon.run_command("migrate"))[0] == 0
    assert outcome(daemon.run_command("append", "orders-1", "placed")) == (0, "2")
    assert outcome(daemon.run_command("append", "orders-1", "placed", '{"sum": 12, "who": "é"}')) == (0, "3")


def test_append_keeps_numbers_as_they_are(command: Any, database: str, shared_postgres: Postgres) -> None:
    """JSON is stored as it was given, without the limits of Python's float and int."""
    daemon = command(database)
    daemon.run_command("migrate")
    name = database.rpartition("/")[2]
    for text in (
        '{"price": 12345678901234567.89}', '{"p": 0.1000000000000000000001}', '{"p": 1.10}', f'{{"n": {"7" * 5_000}}}',
    ):  # fmt: skip
        assert daemon.run_command("append", "s", "t", text).returncode == 0
        said = "select data::text from supervisor.event order by position desc limit 1"
        assert shared_postgres.execute(said, dbname=name) == text
    assert daemon.run_command("append", "s", "t", '{"a":1e400}').returncode == 0
    status, text = outcome(daemon.run_command("append", "s", "t", '{"a":1e200000}'))
    assert (status, "value overflows numeric format" in text) == (64, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a", "b", '{"x":'), "not JSON: Expecting value"),
        (("a", "b", "[1]"), "data is a dict, this is of type list"),
        (("a", "b", "null"), "data is a dict, this is None"),
        (("a", "b", '{"x": NaN}'), "NaN"),
        (("a", "b", '{"x": "\\u0000"}'), "data.x contains the character NUL"),
        (("a", "b", "[" * 50_000), "nested too deep"),
        (("a" * 10_000, "b"), "stream has 1 to 500 characters, this one has 10000"),
        (("a", ""), "type has 1 to 500 characters, this one has 0"),
        (("a",), "the following arguments are required: TYPE"),
    ],
    ids=["cut", "array", "null", "NaN", "NUL", "deep", "long", "empty", "missing"],
)
def test_append_refuses_what_cannot_be_stored(command: Any, arguments: tuple[str, ...], said: str) -> None:
    """A wrong argument is one clear error and 64, before a connection is made."""
    daemon = command(f"postgresql://x@127.0.0.1:{free_port()}/x")
    status, text = outcome(daemon.run_command("append", *arguments))
    assert status == 64
    assert said in text


def test_a_proxy_that_pools_transactions_is_fine(command: Any, postgres: Postgres) -> None:
    """Commands work behind such a proxy, repeatedly, whatever statements other clients have prepared."""
    with pgbouncer(postgres, "transaction") as dsn:
        daemon = command(dsn)
        assert daemon.run_command("check", "--connect").returncode == 0
        assert outcome(daemon.run_command("migrate"))[0] == 0
        assert outcome(daemon.run_command("migrate"))[0] == 0
        for position in (2, 3):
            assert outcome(daemon.run_command("append", "orders-1", "placed")) == (0, str(position))
        for _ in range(2):
            assert outcome(daemon.run_command("projections", "list")) == (0, "There are no projections.")


def test_append_without_the_schema_says_what_to_run(command: Any, database: str) -> None:
    """A database without the schema, or with an older one, ends with 78 and the remedy."""
    status, text = outcome(command(database).run_command("append", "a", "b"))
    assert (status, text) == (78, "The SQL schema is missing or too old: run `pgsupervisor migrate`.")


def test_a_role_without_privileges_ends_with_77(command: Any, postgres: Postgres) -> None:
    """Both commands say which GRANTs are missing."""
    postgres.add_user("app", "pw")
    daemon = command(postgres.dsn(user="app", password="pw"))
    status, text = outcome(daemon.run_command("migrate"))
    assert (status, "GRANT USAGE ON SCHEMA supervisor" in text) == (77, True)
    assert outcome(command(postgres.dsn()).run_command("migrate"))[0] == 0
    daemon = command(postgres.dsn(user="app", password="pw"))
    status, text = outcome(daemon.run_command("append", "a", "b"))
    assert (status, "GRANT EXECUTE ON FUNCTION supervisor.append" in text) == (77, True)
    postgres.execute("grant usage on schema supervisor to app; grant execute on function supervisor.append to app")
    assert outcome(daemon.run_command("append", "a", "b")) == (0, "2")


@pytest.mark.parametrize("arguments", [("migrate",), ("append", "a", "b")], ids=" ".join)
def test_what_keeps_them_from_the_database(command: Any, postgres: Postgres, arguments: tuple[str, ...]) -> None:
    """Not reachable is 69, a refused login or database 77, a wrong configuration 78: as `run` has it."""
    assert outcome(command(f"postgresql://x@127.0.0.1:{free_port()}/x").run_command(*arguments))[0] == 69
    assert outcome(command(postgres.dsn(dbname="absent")).run_command(*arguments))[0] == 77
    postgres.add_user("app", "pw")
    status, text = outcome(command(postgres.dsn(user="app", password="wrong")).run_command(*arguments))
    assert status == 77
    assert "wrong" not in text
    assert outcome(command("mysql://x").run_command(*arguments))[0] == 78
    assert outcome(command(postgres.dsn(), more="[wrong]").run_command(*arguments))[0] == 78


def test_a_newer_schema_ends_with_78(command: Any, database: str, shared_postgres: Postgres) -> None:
    """`migrate` of an older version touches nothing and names both versions."""
    daemon = command(database)
    daemon.run_command("migrate")
    name = database.rpartition("/")[2]
    shared_postgres.execute("insert into supervisor.migration values (99, now(), 99, '')", dbname=name)
    status, text = outcome(daemon.run_command("migrate"))
    assert status == 78
    assert "version 99" in text
    assert f"up to {KNOWN}" in text


def test_a_read_only_server_is_reported(command: Any, postgres: Postgres) -> None:
    """A server that cannot be written to is 77 for `migrate` and 69 for `append`, which may try again later."""
    daemon = command(postgres.dsn())
    postgres.set_read_only()
    status, text = outcome(daemon.run_command("migrate"))
    assert (status, "on the primary" in text) == (77, True)
    postgres.set_read_only(False)
    assert outcome(daemon.run_command("migrate"))[0] == 0
    postgres.set_read_only()
    status, text = outcome(daemon.run_command("append", "a", "b"))
    assert (status, "was not appended" in text) == (69, True)


@pytest.mark.parametrize(
    ("dsn", "arguments", "status", "said"),
    [
        ("embedded:", ("migrate",), 0, "which migrates it at its start; there is nothing to do"),
        ("ephemeral:", ("append", "a", "b"), 69, "only its daemon's workers can reach an ephemeral store"),
        ("embedded:", ("append", "a", "b"), 69, "it runs only while its daemon does"),
    ],
)
def test_an_embedded_store_is_its_daemons(
    command: Any, dsn: str, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """A store that does not run is neither started nor migrated from a shell; the commands say why."""
    daemon = command(dsn)
    found, text = outcome(daemon.run_command(*arguments))
    assert (found, said in text) == (status, True), text
    assert not (daemon.folder / "state").exists()


def test_an_embedded_store_that_is_only_to_be_looked_at_is_a_contradiction(command: Any) -> None:
    """With `migrate = "check"` the schema would never be migrated; the command names the key to change."""
    status, text = outcome(command("embedded:", database='migrate = "check"').run_command("migrate"))
    assert status == 78
    assert 'set database.migrate = "auto"' in text


@pytest.mark.parametrize("name", ["migrate", "append"])
def test_they_have_a_help(command: Any, name: str) -> None:
    """`--help` lists the actions."""
    done = command("postgresql:///x").run_command(name, "--help")
    assert done.returncode == 0
    assert "--config FILE" in done.stdout
