"""How long a lease is trusted: the numbers fit, and task and thread keep to them."""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from support.clock import FakeClock, settle

from supervisor.clock import SystemClock
from supervisor.leases import timing
from supervisor.leases.expiry import Deadline, LeaseExpiry, LeaseExpiryThread
from supervisor.leases.lease import Lease
from supervisor.leases.local_lease import LeaseEvent, LeaseState, LocalLeases
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_the_server_waits_for_longer_than_the_worker_lives() -> None:
    """A holder has ended its worker, and itself if need be, before the server can free its lock."""
    assert timing.TRUST_S + timing.GRACE_S < timing.IDLE_SESSION_TIMEOUT_S
    assert timing.HEARTBEAT_S * 2 <= timing.TRUST_S
    assert timing.STANDBY_POLL_S < timing.HEARTBEAT_S


def test_another_node_soon_has_what_a_holder_loses() -> None:
    """After a crash another node has the lease within a second, and after a silence within twenty."""
    assert timing.STANDBY_POLL_S < 1.0
    assert timing.IDLE_SESSION_TIMEOUT_S + timing.HEARTBEAT_S <= 20.0


def test_the_grace_counts_from_a_loss() -> None:
    """Without a loss no grace is over, and with one it is over two seconds later."""
    assert not timing.grace_is_over(None, 1e9)
    assert not timing.grace_is_over(100.0, 101.9)
    assert timing.grace_is_over(100.0, 102.0)


class BenchmarkRun:
    """An expiry task with one lease that is held."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.overrun: list[str] = []
        self.reasons: list[str] = []
        self.leases = LocalLeases(now_s=self.clock.now_s, on_change=self._changed, on_lost=lambda *_: None)
        self.expiry = LeaseExpiry(
            self.leases, clock=self.clock, on_expired=self._on_expired, on_overrun=self.overrun.append
        )
        self.lease = self.leases.get("mail")
        self.lease.apply(LeaseEvent.TRY)
        self.lease.apply(LeaseEvent.ACQUIRED, Lease("mail", 1, 1, UUID(int=1)))
        self.expiry.renewed(self.clock.now_s())

    def state(self) -> LeaseState:
        return self.lease.state

    def _changed(self) -> None:
        self.expiry.wake()

    def _on_expired(self, reason: str) -> None:
        self.reasons.append(reason)
        for lease in self.leases.trusted():
            lease.apply(LeaseEvent.LOST)


@asynccontextmanager
async def running() -> AsyncIterator[BenchmarkRun]:
    bench = BenchmarkRun()
    crashed: list[BaseException] = []
    tasks = BackgroundTasks(lambda _, error: crashed.append(error))
    tasks.start(bench.expiry.run(), name="trust")
    await settle()
    yield bench
    tasks.cancel_all()
    await settle()
    assert not crashed


async def test_trust_ends_without_a_sign() -> None:
    """Ten seconds after the last answered statement was sent, the lease is lost, and not before."""
    async with running() as bench:
        await bench.clock.jump(9.9)
        assert bench.state() is LeaseState.HELD
        await bench.clock.jump(0.2)
        assert bench.state() is LeaseState.LOST
        assert bench.reasons == ["no answer from the server that shows it held for 10s"]


async def test_trust_goes_on_with_signs() -> None:
    """Each answer extends the trust, counted from when its statement was sent."""
    async with running() as bench:
        for _ in range(20):
            sent_s = bench.clock.now_s()
            await bench.clock.jump(4.9)
            bench.expiry.renewed(sent_s)
        assert bench.state() is LeaseState.HELD
        await bench.clock.jump(5.2)
        assert bench.state() is LeaseState.LOST


async def test_a_worker_that_overruns_its_lease_is_named_once() -> None:
    """A worker that lives two seconds after a loss is named, once."""
    async with running() as bench:
        bench.lease.apply(LeaseEvent.LOST)
        await bench.clock.jump(1.9)
        assert not bench.overrun
        await bench.clock.jump(10.0)
        assert bench.overrun == ["mail"]


async def test_a_worker_that_ends_in_time_is_not_named() -> None:
    """A worker that ends within its grace is no reason to end the process."""
    async with running() as bench:
        bench.lease.apply(LeaseEvent.LOST)
        await bench.clock.jump(1.9)
        bench.lease.worker_ended()
        await bench.clock.jump(10.0)
        assert not bench.overrun


async def test_a_frozen_process_gives_its_worker_the_grace() -> None:
    """After a long freeze the lease is lost at once, and the worker still has its two seconds."""
    async with running() as bench:
        await bench.clock.jump(9.0)
        bench.clock._now_s += 60.0
        bench.expiry.wake()
        await settle()
        assert bench.state() is LeaseState.LOST
        await bench.clock.jump(1.0)
        assert not bench.overrun
        await bench.clock.jump(1.1)
        assert bench.overrun == ["mail"]


def test_the_thread_waits_for_the_deadline_and_no_longer() -> None:
    """No lease is named before its deadline, and none at all where nothing runs under a lease."""
    clock, heard = SystemClock(), threading.Event()
    idle = LeaseExpiryThread(lambda: None, on_overrun=lambda _: heard.set(), clock=clock)
    idle.start()
    named: list[tuple[str, float]] = []
    deadline = Deadline(clock.now_s() + 1.5, "mail")

    def end(lease: str) -> None:
        named.append((lease, clock.now_s()))
        heard.set()

    thread = LeaseExpiryThread(lambda: deadline, on_overrun=end, clock=clock)
    thread.start()
    assert heard.wait(30.0)
    thread.stop()
    idle.stop()
    assert named[0][0] == "mail"
    assert named[0][1] >= deadline.at_s
