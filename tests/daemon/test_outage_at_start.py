"""The start of the daemon as a process, while its database is not there, or will not have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fake_server import refusing_postgres
from support.launching import config, worker_row
from support.notify_socket import NotifySocket
from support.pace import process_slack_s
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.launching import Launcher
    from support.postgres import Postgres

QUICK = """
probe_interval = "50ms"
startup = { attempts = 2, initial = "50ms", max = "200ms" }
runtime = { initial = "50ms", max = "200ms" }
"""


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[NotifySocket]:
    """What systemd hears."""
    with NotifySocket(tmp_path / "notify") as socket:
        yield socket


def test_a_server_that_starts_up_is_waited_for(
    launch: Launcher, shared_postgres: Postgres, systemd: NotifySocket
) -> None:
    """57P03 may last longer than all attempts: the start time is extended, READY comes once, then it runs."""
    with refusing_postgres("57P03", "the database system is starting up") as coming, Proxy(coming.port) as proxy:
        text = config(shared_postgres.dsn(port=proxy.port), database=QUICK)
        daemon = launch(text, environ=systemd.environ)
        daemon.wait_for("database.connecting", sqlstate="57P03")
        said = systemd.wait_for("STATUS", "attempt 6")
        assert "the database system is starting up" in systemd.messages[said]["STATUS"]
        assert systemd.all_of("EXTEND_TIMEOUT_USEC")
        assert systemd.essence() == []
        proxy.aim(shared_postgres.port)
        daemon.wait_for("daemon.ready")
        assert daemon.stop() == 0
    assert systemd.essence() == ["READY", "STOPPING"]
    assert len(daemon.said("database.connected")) == 1
    assert len(daemon.said("database.connecting")) == 2  # the beginning, and the reason once


def test_a_black_hole_is_given_up_after_its_attempts(launch: Launcher, shared_postgres: Postgres) -> None:
    """Each attempt ends by its own deadline, and the limit ends the start with 69."""
    with Proxy(shared_postgres.port) as proxy:
        proxy.black_hole()
        database = 'connect_timeout = "200ms"\n' + QUICK
        daemon = launch(config(shared_postgres.dsn(port=proxy.port), database=database))
        assert daemon.wait() == 69
    (gave_up,) = daemon.said("database.gave_up")
    assert (gave_up["attempts"], gave_up["reason"].endswith("did not answer within 0.2s")) == (2, True)


def test_sigterm_during_an_attempt_ends_at_once(launch: Launcher, shared_postgres: Postgres) -> None:
    """Not even the deadline of the attempt under way is waited for."""
    with Proxy(shared_postgres.port) as proxy:
        proxy.mute()
        database = 'connect_timeout = "1h"'
        daemon = launch(config(shared_postgres.dsn(port=proxy.port), database=database))
        daemon.wait_for("database.connecting")
        assert daemon.stop() == 0
    (stopped,) = daemon.said("daemon.stopped")
    assert stopped["took_s"] < 1 + process_slack_s()


def test_a_dsn_is_mended_by_a_reload_while_it_connects(launch: Launcher, database: str) -> None:
    """With `ready = "started"` a daemon that still connects takes over a mended dsn and starts its workers."""
    supervisor = 'ready = "started"'
    startup = "startup = { attempts = 0 }"
    daemon = launch.ready(config("postgresql://x@127.0.0.1:1/x", supervisor=supervisor, database=startup))
    daemon.wait_for("database.connecting")
    daemon.write(config(database, supervisor=supervisor, database=startup))
    done = daemon.run_command("reload")
    assert (done.returncode, done.stdout) == (0, "changed: the database connection\n")
    daemon.wait_for("worker.started", worker="main")
    assert worker_row(daemon)["state"] == "running"
    assert daemon.stop() == 0
    assert not daemon.said("database.gave_up")


def test_a_hung_first_host_is_passed_over(launch: Launcher, shared_postgres: Postgres) -> None:
    """The second is connected to long before the first one's deadline."""
    with Proxy(shared_postgres.port) as proxy:
        proxy.mute()
        dsn = f"postgresql://postgres@127.0.0.1:{proxy.port},127.0.0.1:{shared_postgres.port}/postgres"
        daemon = launch.ready(config(dsn, database='connect_timeout = "1h"'))
        (connected,) = daemon.said("database.connected")
        assert (connected["address"], connected["attempts"]) == (f"127.0.0.1:{shared_postgres.port}", 1)


@pytest.mark.parametrize("cause", ["password", "database", "privilege", "both hosts"])
def test_a_refusal_ends_with_77_and_one_clear_message(launch: Launcher, postgres: Postgres, cause: str) -> None:
    """No useless retries: a person has to change something, and is told what."""
    postgres.add_user("app", "right")
    postgres.execute("create database closed")
    postgres.execute("revoke connect on database closed from public")
    app = postgres.dsn(user="app", password="right")
    dsn, says = {
        "password": (postgres.dsn(user="app", password="wr0ng"), 'password authentication failed for user "app"'),
        "database": (app.replace("/postgres", "/nowhere"), 'database "nowhere" does not exist'),
        "privilege": (app.replace("/postgres", "/closed"), 'permission denied for database "closed"'),
        "both hosts": (
            app.replace("right@", f"wr0ng@127.0.0.1:{postgres.port},"),
            'password authentication failed for user "app"',
        ),
    }[cause]
    daemon = launch(config(dsn))
    assert daemon.wait() == 77
    (gave_up,) = daemon.said("database.gave_up")
    assert says in gave_up["reason"]
    assert len(daemon.said("database.connecting")) == 1
    assert len([entry for entry in daemon.entries if entry["level"] in ("error", "critical")]) <= 2
    assert "wr0ng" not in daemon.transcript()
