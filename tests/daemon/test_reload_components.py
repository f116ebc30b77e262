"""What a reload does with the components: all validate, then all apply; what goes wrong is reported as it is."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from support.database_fixture import aside
from support.entries import Entries
from support.inner_daemon import inner_daemon
from support.launching import config
from support.proxy import Proxy

from supervisor.clock import SystemClock
from supervisor.daemon.component import Component, Prepared
from supervisor.database.database import Database
from supervisor.errors import SupervisorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest
    from support.postgres import Postgres

    from supervisor.config.model import Config
    from supervisor.daemon.daemon import Daemon

LIMIT_S = 20.0
SUPERVISOR = 'python_path = ["."]\nstate_dir = "state"\n'
MAIN = '[workers.main]\nrun = "reloaded:work"\n'
OTHER = '[workers.other]\nrun = "reloaded:work"\n'
DEBUG = '[log]\nlevel = "debug"\n'


class Scripted(Component):
    """A component of the test's own; it notes what is asked of it, and fails where it is told to."""

    def __init__(self, name: str, calls: list[str], *, on_validate: Callable[[], object] | None = None) -> None:
        self.name = name
        self.calls = calls
        self.fails_in: set[str] = set()
        self.on_validate = on_validate

    async def start(self) -> None:
        """Start nothing."""

    async def validate(self, old: Config, new: Config) -> Prepared:  # noqa: ARG002 - it has no configuration
        """Note it."""
        await self._do("validate")
        if self.on_validate is not None:
            await aside(self.on_validate)
        return Prepared(
            apply=lambda: self._do("apply"), discard=lambda: self._do("discard"), finish=lambda: self._do("finish")
        )

    async def _do(self, step: str) -> None:
        self.calls.append(f"{step} {self.name}")
        if step in self.fails_in:
            raise SupervisorError(f"{self.name} fails to {step}")


def text(dsn: str, *, workers: str = MAIN, more: str = "") -> str:
    """Return a configuration whose worker the test can import."""
    return config(dsn, supervisor=SUPERVISOR, workers=workers, more=more)


@asynccontextmanager
async def ready(tmp_path: Path, dsn: str) -> AsyncIterator[tuple[Daemon, Entries]]:
    """A daemon in the test's process that has started."""
    (tmp_path / "reloaded.py").write_text("async def work(ctx):\n    await ctx.sleep(3600)\n")
    with Entries() as entries, inner_daemon(tmp_path, text(dsn), clock=SystemClock()) as daemon:
        run = asyncio.ensure_future(daemon.run())
        try:
            async with asyncio.timeout(LIMIT_S):
                await entries.wait_for("daemon.ready")
            gc.unfreeze()
            yield daemon, entries
        finally:
            daemon.signals._on_stop("the test ends")
            async with asyncio.timeout(LIMIT_S):
                assert await run == 0
        assert "daemon.failed" not in entries.events


async def reload(daemon: Daemon, tmp_path: Path, config_text: str) -> str:
    """Write the configuration, reload, and return the outcome."""
    (tmp_path / "app.toml").write_text(config_text)
    async with asyncio.timeout(LIMIT_S):
        return (await daemon.reloader.request()).outcome


def names(daemon: Daemon) -> set[str]:
    """Return the workers that there really are."""
    return set(daemon.workers._specs())


async def test_a_refusal_discards_everything(tmp_path: Path, database: str) -> None:
    """When one component refuses, those before it discard, the last first, and nothing has changed."""
    calls: list[str] = []
    first, second, third = (Scripted(name, calls) for name in ("first", "second", "third"))
    async with ready(tmp_path, database) as (daemon, entries):
        daemon.components[:0] = [first]
        daemon.components += [second, third]
        third.fails_in = {"validate"}
        before = daemon.state.config
        assert await reload(daemon, tmp_path, text(database, workers=MAIN + OTHER, more=DEBUG)) == "rejected"
        assert calls == ["validate first", "validate second", "validate third", "discard second", "discard first"]
        assert daemon.state.config is before
        assert names(daemon) == {"main"}
        assert daemon.status.degraded() == []
        assert "third fails to validate" in entries.of("reload.rejected")[0].fields["faults"]
        third.fails_in, calls[:] = set(), []
        assert await reload(daemon, tmp_path, text(database, workers=MAIN + OTHER)) == "applied"
        steps = [f"{step} {name}" for step in ("validate", "apply") for name in ("first", "second", "third")]
        assert calls == [*steps, "finish third", "finish second", "finish first"]


async def test_a_refusal_leaves_no_connection(tmp_path: Path, database: str, shared_postgres: Postgres) -> None:
    """The connection that was made to another database is closed when a component behind it refuses."""
    new = f"{database.rpartition('/')[2]}_next"
    await aside(shared_postgres.execute, f"create database {new}")
    try:
        async with ready(tmp_path, database) as (daemon, _):
            last = Scripted("last", [])
            daemon.components.append(last)
            last.fails_in = {"validate"}
            before = {task.get_name() for task in asyncio.all_tasks()}
            assert await reload(daemon, tmp_path, text(shared_postgres.dsn(dbname=new))) == "rejected"
            assert daemon.database.candidate is None
            assert daemon.database.database.monitor.server.dsn == daemon.state.config.database.target.dsn  # type: ignore[union-attr]
            async with asyncio.timeout(LIMIT_S):
                while await aside(shared_postgres.sessions, f"datname = '{new}'"):  # noqa: ASYNC110 - no notification
                    await asyncio.sleep(0.01)
            assert {task.get_name() for task in asyncio.all_tasks()} <= before
            last.fails_in = set()
            assert await reload(daemon, tmp_path, text(shared_postgres.dsn(dbname=new))) == "applied"
            assert daemon.status.condition().value == "running"
    finally:
        await aside(shared_postgres.execute, f"drop database {new} with (force)")


async def test_a_failure_half_way_is_reported_and_healed(tmp_path: Path, database: str) -> None:
    """What was applied stays in force, the rest is discarded; the daemon is degraded until a reload applies."""
    calls: list[str] = []
    broken, last = Scripted("broken", calls), Scripted("last", calls)
    async with ready(tmp_path, database) as (daemon, entries):
        daemon.components.insert(daemon.components.index(daemon.workers), broken)
        daemon.components.append(last)
        broken.fails_in = {"apply"}
        wanted = text(database, workers=MAIN + OTHER, more=DEBUG)
        assert await reload(daemon, tmp_path, wanted) == "incomplete"
        assert calls == ["validate broken", "validate last", "apply broken", "discard last"]
        fields = entries.of("reload.incomplete")[0].fields
        assert (fields["part"], fields["applied"], fields["kept"]) == ("broken", "journal, handlers", "workers, last")
        assert fields["reason"] == "broken fails to apply"
        # The configuration in force is what the components run by.
        assert daemon.state.config.log.level == "debug"
        assert set(daemon.state.config.workers) == names(daemon) == {"main"}
        assert daemon.status.condition().value == "degraded"
        assert "applied in part: broken could not be changed: broken fails to apply" in daemon.status.line()
        whole = await daemon.status.whole()
        assert whole["state"] == "degraded"
        assert "broken" in whole["reload"]["incomplete"]
        # A refused one in between changes nothing of that.
        assert await reload(daemon, tmp_path, text(database, workers=MAIN + MAIN)) == "rejected"
        assert daemon.status.condition().value == "degraded"
        broken.fails_in = set()
        assert await reload(daemon, tmp_path, wanted) == "applied"
        assert entries.of("reload.applied")[0].fields["added"] == "other"
        assert names(daemon) == {"main", "other"}
        assert daemon.status.condition().value == "running"
        assert (await daemon.status.whole())["reload"]["incomplete"] is None
        assert await reload(daemon, tmp_path, wanted) == "applied"
        assert "added" not in entries.of("reload.applied")[1].fields


async def test_a_client_is_told_of_a_failure_half_way(tmp_path: Path, database: str) -> None:
    """`reload` exits with 1, and does not claim that the old configuration still runs."""
    broken = Scripted("broken", [])
    async with ready(tmp_path, database) as (daemon, _):
        daemon.components.append(broken)
        broken.fails_in = {"apply"}
        (tmp_path / "app.toml").write_text(text(database, workers=MAIN + OTHER))
        done = await aside(_run_reload, tmp_path)
        assert done.returncode == 1
        assert "Applied in part" in done.stderr
        assert "broken could not be changed: broken fails to apply" in done.stderr
        assert "in force for: handlers, workers" in done.stderr
        assert "the old configuration runs on" not in done.stderr
        broken.fails_in = set()
        assert (await aside(_run_reload, tmp_path)).returncode == 0


def _run_reload(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisor", "reload", "-c", str(folder / "app.toml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


async def test_workers_that_failed_to_change_are_changed_by_the_next_reload(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they run as configured is not known: the configuration of before restarts them all the same."""
    async with ready(tmp_path, database) as (daemon, entries):
        supervisor = daemon.workers._supervisor
        assert supervisor is not None
        changed = MAIN + "settings = { size = 3 }\n"

        async def fail(*_: object, **__: object) -> None:
            raise ValueError("no")

        with monkeypatch.context() as patch:
            patch.setattr(supervisor, "apply", fail)
            assert await reload(daemon, tmp_path, text(database, workers=changed + OTHER)) == "incomplete"
        fields = entries.of("reload.incomplete")[0].fields
        assert (fields["part"], fields["reason"]) == ("workers", "ValueError: no")
        assert names(daemon) == {"main"}
        # Back to the configuration before: it differs in nothing from what there is, and is applied all the same.
        assert await reload(daemon, tmp_path, text(database)) == "applied"
        assert entries.of("reload.applied")[0].fields["changed"] == "main"
        assert await reload(daemon, tmp_path, text(database, workers=changed + OTHER)) == "applied"
        assert entries.of("reload.applied")[1].fields["added"] == "other"
        assert daemon.status.condition().value == "running"


async def test_a_database_that_goes_before_it_is_in_force(
    tmp_path: Path, database: str, shared_postgres: Postgres
) -> None:
    """A new database that is lost between the validation and its turn is reported; the old one stays in force."""
    new = f"{database.rpartition('/')[2]}_next"
    await aside(shared_postgres.execute, f"create database {new}")
    try:
        with Proxy(shared_postgres.port) as proxy:
            async with ready(tmp_path, database) as (daemon, entries):

                def cut() -> None:
                    proxy.refuse()
                    proxy.cut()

                daemon.components.append(Scripted("saboteur", [], on_validate=cut))
                wanted = text(shared_postgres.dsn(dbname=new, port=proxy.port), more=DEBUG)
                assert await reload(daemon, tmp_path, wanted) == "incomplete"
                fields = entries.of("reload.incomplete")[0].fields
                assert (fields["part"], fields["applied"]) == ("database", "journal")
                assert "lost before it was in force" in fields["reason"]
                assert daemon.database.database.is_up
                assert str(daemon.database.database.monitor.server.dsn).endswith(database.rpartition("/")[2])
                assert daemon.status.condition().value == "degraded"
                proxy.forward()
                daemon.components.pop()
                assert await reload(daemon, tmp_path, wanted) == "applied"
                assert entries.of("reload.applied")[0].fields["changed"] == "the database connection"
                assert daemon.status.condition().value == "running"
    finally:
        await aside(shared_postgres.execute, f"drop database {new} with (force)")


async def test_a_dry_run_asks_no_component_to_change(tmp_path: Path, database: str) -> None:
    """It compares and imports; no component prepares anything, connects or applies."""
    calls: list[str] = []
    async with ready(tmp_path, database) as (daemon, entries):
        daemon.components.append(Scripted("last", calls))
        (tmp_path / "app.toml").write_text(text(database, workers=MAIN + OTHER, more=DEBUG))
        result = await daemon.reloader.preview()
        assert result.outcome == "applied"
        assert any("other" in line for line in result.lines)
        assert calls == []
        assert names(daemon) == {"main"}
        assert "reload.started" not in entries.events


async def test_a_stop_during_the_validation_discards(tmp_path: Path, database: str) -> None:
    """A stop that overtakes a reload discards what was prepared, and nothing is applied."""
    calls: list[str] = []
    async with ready(tmp_path, database) as (daemon, _):
        waits = asyncio.Event()

        class Hanging(Scripted):
            async def validate(self, old: Config, new: Config) -> Prepared:  # noqa: ARG002 - it never returns
                """Hang."""
                waits.set()
                await asyncio.Event().wait()
                raise AssertionError

        daemon.components += [Scripted("before", calls), Hanging("hanging", calls)]
        daemon.reloader.request()
        async with asyncio.timeout(LIMIT_S):
            await waits.wait()
    assert calls == ["validate before", "discard before"]


async def test_a_switch_that_fails_names_the_workers_that_it_has_stopped(
    tmp_path: Path, database: str, shared_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named in the outcome and in the status; no order claims to start them; the next reload does."""
    new = f"{database.rpartition('/')[2]}_next"
    await aside(shared_postgres.execute, f"create database {new}")
    single = '[workers.single]\nrun = "reloaded:work"\nsingleton = true\n'
    text_before, text_after = (text(dsn, workers=MAIN + single) for dsn in (database, shared_postgres.dsn(dbname=new)))

    async def fail(*_: object, **__: object) -> None:
        raise OSError("too many open files")

    try:
        async with ready(tmp_path, database) as (daemon, entries):
            assert await reload(daemon, tmp_path, text_before) == "applied"
            with monkeypatch.context() as patch:
                patch.setattr(Database, "switch_to", fail)
                (tmp_path / "app.toml").write_text(text_after)
                result = await daemon.reloader.request()
            assert result.outcome == "incomplete"
            stopped = "these workers are stopped until a reload is applied: single"
            assert stopped in entries.of("reload.incomplete")[0].fields["reason"]
            assert stopped in result.lines[0]
            assert daemon.status.condition().value == "degraded"
            assert "Running 1 of 2 workers; stopped until a reload: single" in daemon.status.line()
            for command in ("restart", "resume"):
                answer = await daemon.control._handler({"command": command, "worker": "single"})
                assert not answer["ok"]
                assert "the next reload starts it" in answer["error"]
            (tmp_path / "app.toml").write_text(text_before)
            preview = await daemon.reloader.preview()
            assert preview.lines == ("~ worker single: is started anew", "= 1 worker untouched")
            assert (await daemon.reloader.request()).lines == ("changed: single",)
            assert daemon.status.line().startswith("Running 2 workers on ")
            assert daemon.status.condition().value == "running"
    finally:
        await aside(shared_postgres.execute, f"drop database {new} with (force)")
