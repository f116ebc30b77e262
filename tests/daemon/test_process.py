"""The end of the process: in order, in time, whatever the workers left behind, and with the right status."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.launching import config, request, status
from support.pace import process_slack_s

if TYPE_CHECKING:
    from pathlib import Path

    from support.launching import Launcher
    from support.postgres import Postgres

_DRAINS = """
    import asyncio, pathlib
    async def work(ctx):
        ctx.log.info("begun")
        while not ctx.stopping:
            await ctx.sleep(0.01)
        ctx.log.info("draining")
        try:
            await asyncio.sleep(3600)
        finally:
            ctx.log.info("cancelled")
"""

_SWALLOWS = """
    import asyncio
    async def work(ctx):
        ctx.log.info("begun")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ctx.log.info("swallowed")
"""


def test_work_in_flight_gets_its_time(launch: Launcher, database: str) -> None:
    """After SIGTERM a worker may end what it does; only then the daemon is gone."""
    work = """
        import asyncio
        async def work(ctx):
            ctx.log.info("begun")
            while not ctx.stopping:
                await ctx.sleep(0.01)
            await asyncio.sleep(0.3)
            await ctx.db.execute("create table proof (id int)")
            ctx.log.info("finished")
    """
    daemon = launch(config(database), work)
    daemon.wait_for("begun")
    assert daemon.stop() == 0
    events = [entry["event"] for entry in daemon.entries]
    assert events[-4:] == ["daemon.stopping", "finished", "worker.stopped", "daemon.stopped"]


def test_the_second_sigterm_cancels(launch: Launcher, database: str) -> None:
    """A second SIGTERM cancels what the first one left time for."""
    daemon = launch(config(database), _DRAINS)
    daemon.wait_for("begun")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("draining")
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert daemon.said("worker.stopped")
    assert daemon.said("daemon.stopped")[0]["took_s"] < 20


def test_the_third_sigterm_exits_at_once(launch: Launcher, database: str) -> None:
    """A third signal ends the process without waiting for anything more."""
    daemon = launch(config(database), _DRAINS)
    daemon.wait_for("begun")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("draining")
    # Stopped, it finds the second and the third at the same time: no end that is fast enough lies between them.
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        daemon.signal(number)
    assert daemon.wait() == 0
    assert daemon.said("daemon.stopped")[-1]["reason"] == "ended at once, as asked"


def test_a_worker_that_swallows_its_cancellation_is_named_and_left(launch: Launcher, database: str) -> None:
    """A worker that ignores its stop does not hold up the exit; the journal says who and where."""
    daemon = launch(config(database, supervisor='stop_timeout = "100ms"'), _SWALLOWS)
    daemon.wait_for("begun")
    assert daemon.stop() == 0
    assert "asyncio.sleep(3600)" in daemon.said("worker.abandoned")[0]["stack"]


def test_sighup_during_the_stop_is_ignored(launch: Launcher, database: str) -> None:
    """Once the stop has begun no reload begins, and a client is told so."""
    daemon = launch(config(database), _DRAINS)
    daemon.wait_for("begun")
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("draining")
    for _ in range(20):
        daemon.signal(signal.SIGHUP)
    answer = request(daemon, "reload")
    assert answer == {"ok": False, "error": "the daemon is stopping"}
    assert status(daemon)["state"] == "stopping"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not daemon.said("reload.started")


_LEFTOVERS = {
    "a thread that never ends": """
        import threading, time
        def hang():
            time.sleep(3600)
        async def work(ctx):
            threading.Thread(target=hang, name="left behind").start()
            ctx.log.info("begun")
            await ctx.sleep(3600)
    """,
    "a call that hangs in asyncio's executor": """
        import asyncio, time
        async def work(ctx):
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
            ctx.log.info("begun")
            await ctx.sleep(3600)
    """,
    "a call that hangs in an executor of its own": """
        import asyncio, time
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor()
        async def work(ctx):
            pool.submit(time.sleep, 3600)
            ctx.log.info("begun")
            await ctx.sleep(3600)
    """,
    "a thread awaited": """
        import asyncio, time
        async def work(ctx):
            ctx.log.info("begun")
            await asyncio.to_thread(time.sleep, 3600)
    """,
    "an exit handler that hangs": """
        import atexit, time
        async def work(ctx):
            atexit.register(time.sleep, 3600)
            ctx.log.info("begun")
            await ctx.sleep(3600)
    """,
    "a task of its own that swallows": """
        import asyncio
        async def swallow():
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass
        async def work(ctx):
            work.task = asyncio.create_task(swallow())
            ctx.log.info("begun")
            await ctx.sleep(3600)
    """,
}


@pytest.mark.parametrize("leftover", _LEFTOVERS.values(), ids=list(_LEFTOVERS))
def test_the_exit_is_prompt_whatever_workers_left_behind(launch: Launcher, database: str, leftover: str) -> None:
    """Nothing that a worker leaves running, in any thread, keeps the process from ending."""
    daemon = launch(config(database), leftover)
    daemon.wait_for("begun")
    before = time.monotonic()
    assert daemon.stop(limit_s=60) == 0
    assert time.monotonic() - before < 10 + process_slack_s()
    assert daemon.said("daemon.stopped")


def test_what_holds_up_the_exit_is_named(launch: Launcher, database: str) -> None:
    """The journal names the thread for which the exit did not wait, and where it stands."""
    daemon = launch(config(database), _LEFTOVERS["a thread that never ends"])
    daemon.wait_for("begun")
    assert daemon.stop() == 0
    told = daemon.said("stop.timed_out")[0]
    assert "left behind" in told["part"]
    assert "time.sleep(3600)" in told["stack"]


def test_exit_handlers_run_although_workers_used_threads(launch: Launcher, database: str) -> None:
    """A normal stop runs Python's exit handlers, also when a worker has used asyncio's threads or its own."""
    work = """
        import asyncio, atexit, pathlib
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor()
        async def work(ctx):
            atexit.register(pathlib.Path(__file__).with_name("exited").touch)
            await asyncio.to_thread(int)
            pool.submit(int)
            ctx.log.info("begun")
            await ctx.sleep(3600)
    """
    daemon = launch(config(database), work)
    daemon.wait_for("begun")
    assert daemon.stop() == 0
    assert (daemon.folder / "exited").exists()
    assert not daemon.said("stop.timed_out")


def test_exit_handlers_run_and_keep_the_exit_status(launch: Launcher, database: str) -> None:
    """An end with an error runs the workers' exit handlers too, in their order, and ends with its own status."""
    work = """
        import atexit, pathlib
        order = pathlib.Path(__file__).with_name("order")
        def note(what):
            with order.open("a") as file:
                file.write(what)
        atexit.register(note, "first registered, ")
        async def work(ctx):
            atexit.register(note, "last registered, ")
            raise ValueError("broken")
    """
    workers = '[workers.main]\nrun = "workers:work"\nexhausted = "exit"\nmax_restarts = 0\n'
    daemon = launch(config(database, workers=workers), work)
    assert daemon.wait() == 70
    assert (daemon.folder / "order").read_text() == "last registered, first registered, "
    assert not daemon.said("stop.timed_out")


def test_garbage_is_collected_again_after_the_start(launch: Launcher, database: str) -> None:
    """The collector, put off while the daemon starts, works when the workers do."""
    work = """
        import gc
        async def work(ctx):
            ctx.log.info("collector", enabled=gc.isenabled())
            await ctx.sleep(3600)
    """
    daemon = launch(config(database), work)
    assert daemon.wait_for("collector")["enabled"] in {True, "True"}


_INTERRUPTS = {
    "SystemExit": "raise SystemExit(3)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "sys.exit in a callback": "asyncio.get_running_loop().call_soon(sys.exit, 5)",
    "loop.stop": "asyncio.get_running_loop().stop()",
}


@pytest.mark.parametrize("interrupt", _INTERRUPTS.values(), ids=list(_INTERRUPTS))
def test_a_workers_own_task_cannot_end_the_daemon(launch: Launcher, database: str, interrupt: str) -> None:
    """What interrupts the event loop itself is told as `loop.interrupted`, and the daemon and its workers go on."""
    work = f"""
        import asyncio, sys
        async def ruin():
            {interrupt}
        async def work(ctx):
            work.task = asyncio.create_task(ruin())
            while not ctx.stopping:
                await ctx.sleep(0.01)
            ctx.log.info("in order")
    """
    daemon = launch(config(database), work)
    daemon.wait_for("loop.interrupted")
    assert status(daemon)["state"] == "running"
    assert daemon.stop() == 0
    assert daemon.said("in order")
    assert not daemon.said("daemon.failed")


_TAKEOVERS = {
    "ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "default": "signal.signal(signal.SIGTERM, signal.SIG_DFL)",
    "handled": "signal.signal(signal.SIGTERM, lambda *_: None)",
    "behind Python's back": "ctypes.CDLL(None).signal(int(signal.SIGTERM), ctypes.c_void_p(1))",
    "by the loop": "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)",
}


@pytest.mark.parametrize("takeover", _TAKEOVERS.values(), ids=list(_TAKEOVERS))
def test_a_signal_that_a_worker_takes_is_taken_back(
    launch: Launcher, database: str, tmp_path: Path, takeover: str
) -> None:
    """A handler that a worker puts in place of the daemon's is noticed while it runs, told, and replaced."""
    # With systemd's watchdog the daemon looks around more often, which saves the test seconds.
    environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    work = f"""
        import asyncio, ctypes, signal
        async def work(ctx):
            {takeover}
            await ctx.sleep(3600)
    """
    daemon = launch(config(database), work, environ=environ)
    assert daemon.wait_for("signal.handler_replaced")["signal"] == "SIGTERM"
    assert daemon.stop() == 0
    assert daemon.said("daemon.stopped")


def test_a_signal_taken_by_an_import_is_back_before_ready(launch: Launcher, database: str) -> None:
    """What a library does to a signal while it is imported is undone before READY."""
    work = """
        import ctypes, signal
        ctypes.CDLL(None).signal(int(signal.SIGHUP), ctypes.c_void_p(0))
        async def work(ctx):
            await ctx.sleep(3600)
    """
    daemon = launch.ready(config(database), work)
    events = [entry["event"] for entry in daemon.entries]
    assert events.index("signal.handler_replaced") < events.index("daemon.ready")
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("reload.applied")
    assert daemon.stop() == 0


def test_exhausted_with_exit_ends_with_70(launch: Launcher, database: str) -> None:
    """A worker that used up its restarts ends the daemon with 70 when its configuration says so."""
    workers = (
        '[workers.main]\nrun = "workers:work"\nexhausted = "exit"\nmax_restarts = 1\nbackoff = { initial = "1ms" }\n'
    )
    daemon = launch(config(database, workers=workers), "async def work(ctx):\n    raise ValueError('broken')\n")
    assert daemon.wait() == 70
    assert "main" in daemon.said("daemon.stopping")[0]["reason"]


def test_giving_up_ends_with_69(launch: Launcher) -> None:
    """A start that used up its attempts says so and ends with 69."""
    startup = 'startup = { attempts = 2, initial = "1ms" }'
    daemon = launch(config("postgresql://x@127.0.0.1:1/x", database=startup))
    assert daemon.wait() == 69
    assert len(daemon.said("database.gave_up")) == 1


def test_a_refused_login_ends_with_77(launch: Launcher, shared_postgres: Postgres) -> None:
    """A wrong password ends the start at once with 77, and does not show the password."""
    shared_postgres.execute("drop role if exists somebody")
    shared_postgres.add_user("somebody", "right-secret")
    daemon = launch(config(shared_postgres.dsn(user="somebody", password="wrong-secret")))
    assert daemon.wait() == 77
    assert len(daemon.said("database.gave_up")) == 1
    assert "wrong-secret" not in daemon.transcript()


def test_a_worker_that_cancels_every_task_ends_the_daemon_in_order(launch: Launcher, database: str) -> None:
    """Code that cancels all tasks of the loop hits the daemon's own: it says so, stops in order and exits with 70."""
    work = """
        import asyncio
        async def work(ctx):
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await ctx.sleep(3600)
    """
    daemon = launch(config(database), work)
    assert daemon.wait() == 70
    assert "cancelled" in daemon.said("daemon.failed")[0]["error"]
    assert daemon.said("daemon.stopped")[0]["status"] == 70
