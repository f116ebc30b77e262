"""Journal entries about leases: an entry for a change, not for each lease."""

from __future__ import annotations

from support.clock import FakeClock, settle
from support.entries import Entries, LoggedEntry

from supervisor.leases.lease_log import LOGGED_AFTER_S, LeaseLog, ProblemLog
from supervisor.tasks import BackgroundTasks


class BenchmarkRun:
    """A lease log on a fake clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.crashed: list[BaseException] = []
        self.tasks = BackgroundTasks(lambda _, error: self.crashed.append(error))
        self.leases = LeaseLog(clock=self.clock, tasks=self.tasks)

    async def settle(self) -> None:
        """Let the log write what is due now."""
        await self.clock.jump(0.0)
        await settle()


def above_debug(entries: Entries) -> list[LoggedEntry]:
    return [told for told in entries.all if told.level > 10]


async def test_one_lease_is_logged_at_once() -> None:
    """A single lease is named with its epoch, in the next turn of the loop."""
    bench = BenchmarkRun()
    with Entries() as entries:
        bench.leases.record("lease.acquired", "mail", epoch=3)
        await bench.settle()
    assert [(told.event, told.fields) for told in entries.all] == [
        ("lease.acquired", {"leases": 1, "lease": "mail", "epoch": 3})
    ]


async def test_a_thousand_at_once_are_one_entry() -> None:
    """Many leases are counted, and each has its own entry at debug level; few are named."""
    bench = BenchmarkRun()
    with Entries() as entries:
        for number in range(1000):
            bench.leases.record("lease.lost", f"w{number}", epoch=1, reason="the session ended")
        await bench.settle()
    assert [told.fields for told in above_debug(entries)] == [{"leases": 1000, "reason": "the session ended"}]
    assert len(entries.all) == 1001
    with Entries() as entries:
        for name in ("b", "a"):
            bench.leases.record("lease.lost", name, epoch=1, reason="the session ended")
        await bench.settle()
    assert [told.fields["lease"] for told in above_debug(entries)] == ["a, b"]


async def test_leases_that_arrive_slowly_are_gathered() -> None:
    """Leases that arrive one by one over seconds are an entry a second."""
    bench = BenchmarkRun()
    with Entries() as entries:
        for number in range(30):
            bench.leases.record("lease.acquired", f"w{number}", epoch=1)
            await bench.clock.jump(0.1)
        await bench.clock.jump(2.0)
    told = [entry.fields["leases"] for entry in above_debug(entries)]
    assert told[0] == 1
    assert sum(told) == 30
    assert len(told) <= 5


async def test_a_loss_is_not_delayed() -> None:
    """A loss is logged at once, after what was gathered before it."""
    bench = BenchmarkRun()
    with Entries() as entries:
        bench.leases.record("lease.acquired", "a", epoch=1)
        await bench.settle()
        bench.leases.record("lease.acquired", "b", epoch=1)
        bench.leases.record("lease.lost", "a", epoch=1, reason="gone")
        await bench.settle()
    assert [(told.event, told.fields["lease"]) for told in entries.all] == [
        ("lease.acquired", "a"),
        ("lease.acquired", "b"),
        ("lease.lost", "a"),
    ]


async def test_nothing_is_left_unlogged_at_the_end() -> None:
    """What is still gathered when the node leaves is logged then."""
    bench = BenchmarkRun()
    with Entries() as entries:
        for name in ("a", "b"):
            bench.leases.record("lease.released", name, epoch=1)
            await bench.settle()
        assert len(entries.all) == 1
        bench.leases.flush()
    assert [told.fields["lease"] for told in entries.all] == ["a", "b"]


async def test_a_lasting_problem_is_logged_once_and_once_when_it_is_over() -> None:
    """A short problem is not logged; a lasting one is one entry, whatever its text becomes, and one when it is over."""
    clock = FakeClock()
    problem = ProblemLog(clock=clock)
    with Entries() as entries:
        problem.update("a deadlock")
        await clock.jump(LOGGED_AFTER_S - 0.1)
        problem.update("a deadlock")
        problem.update(None)
        await clock.jump(LOGGED_AFTER_S)
        problem.update(None)
        assert entries.all == []
        for _ in range(4):
            problem.update("1 of its leases could not be taken")
            await clock.jump(LOGGED_AFTER_S - 1)
        problem.update("2 of its leases could not be taken")
        assert [(told.event, told.fields) for told in entries.all] == [
            ("lease.blocked", {"reason": "1 of its leases could not be taken"})
        ]
        problem.update(None)
        problem.update(None)
        assert [told.fields for told in entries.of("lease.unblocked")] == [{"after_s": 16.0}]
        assert len(entries.all) == 2
