"""How long a lease is trusted: the numbers fit, and the trustee keeps to them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from support.clock import FakeClock, settle

from supervisor.leases import trust
from supervisor.leases.lease import Lease
from supervisor.leases.stand import LeaseEvent, LeaseState
from supervisor.leases.stands import LocalLeases
from supervisor.leases.trustee import Trustee
from supervisor.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def test_the_server_waits_for_longer_than_the_worker_lives() -> None:
    """A holder has ended its worker, and itself if need be, before the server can give its lock away."""
    assert trust.TRUST_S + trust.GRACE_S < trust.IDLE_SESSION_TIMEOUT_S
    assert trust.CALM_LOOK_S * 2 <= trust.TRUST_S
    assert trust.EAGER_LOOK_S < trust.CALM_LOOK_S


def test_what_has_no_loss_has_outlived_nothing() -> None:
    """The grace counts from a loss."""
    assert not trust.has_outlived(None, 1e9)
    assert not trust.has_outlived(100.0, 101.9)
    assert trust.has_outlived(100.0, 102.0)


class Bench:
    """A trustee with one stand that is held."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.outlived: list[str] = []
        self.reasons: list[str] = []
        self.stands = LocalLeases(now_s=self.clock.now_s, on_change=self._changed, on_lost=lambda *_: None)
        self.trustee = Trustee(
            self.stands, clock=self.clock, on_distrust=self._distrust, on_outlived=self.outlived.append
        )
        self.stand = self.stands.get("mail")
        self.stand.happens(LeaseEvent.TRY)
        self.stand.happens(LeaseEvent.ACQUIRED, Lease("mail", 1, 1, UUID(int=1)))
        self.trustee.confirm(self.clock.now_s())

    def state(self) -> LeaseState:
        return self.stand.state

    def _changed(self) -> None:
        self.trustee.notice()

    def _distrust(self, reason: str) -> None:
        self.reasons.append(reason)
        for stand in self.stands.believed():
            stand.happens(LeaseEvent.LOST)


@asynccontextmanager
async def trusting() -> AsyncIterator[Bench]:
    bench = Bench()
    crashed: list[BaseException] = []
    tasks = BackgroundTasks(lambda _, error: crashed.append(error))
    tasks.start(bench.trustee.run(), name="trust")
    await settle()
    yield bench
    tasks.cancel_all()
    await settle()
    assert not crashed


async def test_trust_ends_without_a_sign() -> None:
    """Ten seconds after the last question that was answered was sent, the lease is lost, and not before."""
    async with trusting() as bench:
        await bench.clock.jump(9.9)
        assert bench.state() is LeaseState.HELD
        await bench.clock.jump(0.2)
        assert bench.state() is LeaseState.LOST
        assert bench.reasons == ["no answer from the server that shows it held for 10s"]


async def test_trust_goes_on_with_signs() -> None:
    """Each answer extends the trust, counted from the moment its question was sent."""
    async with trusting() as bench:
        for _ in range(20):
            sent_s = bench.clock.now_s()
            await bench.clock.jump(4.9)
            bench.trustee.confirm(sent_s)
        assert bench.state() is LeaseState.HELD
        await bench.clock.jump(5.2)
        assert bench.state() is LeaseState.LOST


async def test_what_outlives_its_lease_is_named_once() -> None:
    """A worker that lives two seconds after a loss is named, once."""
    async with trusting() as bench:
        bench.stand.happens(LeaseEvent.LOST)
        await bench.clock.jump(1.9)
        assert not bench.outlived
        await bench.clock.jump(10.0)
        assert bench.outlived == ["mail"]


async def test_what_ends_in_time_is_not_named() -> None:
    """A worker that ends within its grace is no reason to end the process."""
    async with trusting() as bench:
        bench.stand.happens(LeaseEvent.LOST)
        await bench.clock.jump(1.9)
        bench.stand.worker_ended()
        await bench.clock.jump(10.0)
        assert not bench.outlived


async def test_a_frozen_process_gives_its_worker_the_grace() -> None:
    """After a long freeze the lease is lost at once, and the worker still has its two seconds."""
    async with trusting() as bench:
        await bench.clock.jump(9.0)
        bench.clock._now_s += 60.0
        bench.trustee.notice()
        await settle()
        assert bench.state() is LeaseState.LOST
        await bench.clock.jump(1.0)
        assert not bench.outlived
        await bench.clock.jump(1.1)
        assert bench.outlived == ["mail"]
