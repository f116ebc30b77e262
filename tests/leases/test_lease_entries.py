"""What the journal hears of leases: an entry for a move, not for each lease."""

from __future__ import annotations

from support.clock import FakeClock, settle
from support.entries import Entries, Told

from supervisor.leases.lease_entries import LeaseEntries
from supervisor.leases.trouble import TOLD_AFTER_S, Trouble
from supervisor.tasks import BackgroundTasks


class Bench:
    """Entries in the making, and those that were told aloud."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.crashed: list[BaseException] = []
        self.tasks = BackgroundTasks(lambda _, error: self.crashed.append(error))
        self.leases = LeaseEntries(clock=self.clock, tasks=self.tasks)

    async def settle(self) -> None:
        """Let what is due now happen."""
        await self.clock.jump(0.0)
        await settle()


def aloud(entries: Entries) -> list[Told]:
    return [told for told in entries.all if told.level > 10]


async def test_one_lease_is_told_at_once() -> None:
    """A lease alone is named with its epoch, as soon as the loop turns."""
    bench = Bench()
    with Entries() as entries:
        bench.leases.note("lease.acquired", "mail", epoch=3)
        await bench.settle()
    assert [(told.event, told.fields) for told in entries.all] == [
        ("lease.acquired", {"leases": 1, "lease": "mail", "epoch": 3})
    ]


async def test_a_thousand_at_once_are_one_entry() -> None:
    """Many leases are counted, and each has its own entry at debug level; few are named."""
    bench = Bench()
    with Entries() as entries:
        for number in range(1000):
            bench.leases.note("lease.lost", f"w{number}", epoch=1, reason="the session ended")
        await bench.settle()
    assert [told.fields for told in aloud(entries)] == [{"leases": 1000, "reason": "the session ended"}]
    assert len(entries.all) == 1001
    with Entries() as entries:
        for name in ("b", "a"):
            bench.leases.note("lease.lost", name, epoch=1, reason="the session ended")
        await bench.settle()
    assert [told.fields["lease"] for told in aloud(entries)] == ["a, b"]


async def test_what_dribbles_in_is_gathered() -> None:
    """Leases that arrive one by one over seconds are an entry a second."""
    bench = Bench()
    with Entries() as entries:
        for number in range(30):
            bench.leases.note("lease.acquired", f"w{number}", epoch=1)
            await bench.clock.jump(0.1)
        await bench.clock.jump(2.0)
    told = [entry.fields["leases"] for entry in aloud(entries)]
    assert told[0] == 1
    assert sum(told) == 30
    assert len(told) <= 5


async def test_a_loss_is_not_kept_back() -> None:
    """A loss is told at once, after what was gathered before it."""
    bench = Bench()
    with Entries() as entries:
        bench.leases.note("lease.acquired", "a", epoch=1)
        await bench.settle()
        bench.leases.note("lease.acquired", "b", epoch=1)
        bench.leases.note("lease.lost", "a", epoch=1, reason="gone")
        await bench.settle()
    assert [(told.event, told.fields["lease"]) for told in entries.all] == [
        ("lease.acquired", "a"),
        ("lease.acquired", "b"),
        ("lease.lost", "a"),
    ]


async def test_nothing_is_left_untold_at_the_end() -> None:
    """What is still gathered when the node leaves is told then."""
    bench = Bench()
    with Entries() as entries:
        for name in ("a", "b"):
            bench.leases.note("lease.released", name, epoch=1)
            await bench.settle()
        assert len(entries.all) == 1
        bench.leases.flush()
    assert [told.fields["lease"] for told in entries.all] == ["a", "b"]


async def test_trouble_that_lasts_is_told_once_and_when_it_is_over() -> None:
    """What passes within seconds is not told; what lasts is one entry, whatever its words become, and one when over."""
    clock = FakeClock()
    trouble = Trouble(clock=clock)
    with Entries() as entries:
        trouble.see("a deadlock")
        await clock.jump(TOLD_AFTER_S - 0.1)
        trouble.see("a deadlock")
        trouble.see(None)
        await clock.jump(TOLD_AFTER_S)
        trouble.see(None)
        assert entries.all == []
        for _ in range(4):
            trouble.see("1 of its leases could not be taken")
            await clock.jump(TOLD_AFTER_S - 1)
        trouble.see("2 of its leases could not be taken")
        assert [(told.event, told.fields) for told in entries.all] == [
            ("lease.trouble", {"reason": "1 of its leases could not be taken"})
        ]
        trouble.see(None)
        trouble.see(None)
        assert [told.fields for told in entries.of("lease.untroubled")] == [{"after_s": 16.0}]
        assert len(entries.all) == 2
