"""Background tasks with an owner."""

from __future__ import annotations

import asyncio

import pytest
from support.clock import settle

from supervisor.tasks import BackgroundTasks


class Owner:
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, BaseException]] = []
        self.tasks = BackgroundTasks(lambda name, error: self.heard.append((name, error)))


async def _raise(error: BaseException) -> None:
    raise error


async def test_a_crash_is_reported_at_once() -> None:
    """The owner hears of a crash with its name, before any garbage collector could."""
    owner = Owner()
    error = ValueError("broken")
    owner.tasks.start(_raise(error), name="mill")
    await settle()
    assert owner.heard == [("mill", error)]


async def test_an_end_is_no_crash() -> None:
    """A task that returns, or is cancelled, is not told; its result is there for who started it."""
    owner = Owner()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def answer() -> int:
        return 7

    assert await owner.tasks.start(answer(), name="answer") == 7
    task = owner.tasks.start(asyncio.Event().wait(), name="endless")
    await settle()
    owner.tasks.cancel("endless")
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert owner.heard == complaints == []


async def test_cancels_by_name() -> None:
    """Only the tasks of that name are cancelled; no name of that kind is no error."""
    owner = Owner()
    one, two, other = (owner.tasks.start(asyncio.Event().wait(), name=name) for name in ("a", "a", "b"))
    await settle()
    owner.tasks.cancel("a")
    owner.tasks.cancel("nobody")
    await settle()
    assert (one.cancelled(), two.cancelled(), other.done()) == (True, True, False)
    assert owner.tasks.cancel_all() == {other}
    await settle()
    assert other.cancelled()
    assert owner.tasks.cancel_all() == set()


async def test_a_task_that_fails_while_it_is_cancelled_is_reported() -> None:
    """An error on the way out of a cancellation is a crash like any other."""
    owner = Owner()

    async def stumble() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("stumbled")

    owner.tasks.start(stumble(), name="stumble")
    await settle()
    owner.tasks.cancel_all()
    await settle()
    assert [(name, type(error)) for name, error in owner.heard] == [("stumble", KeyError)]


async def test_holds_on_to_its_tasks() -> None:
    """A task that nobody else refers to is not collected in mid-flight."""
    import gc

    owner = Owner()
    done: list[bool] = []

    async def work() -> None:
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        done.append(True)

    owner.tasks.start(work(), name="work")
    gc.collect()
    await settle()
    assert done == [True]


async def test_one_task_of_a_name_is_cancelled_and_the_other_runs_on() -> None:
    """Cancelling a task, a critical one too, is no crash and leaves another task of the same name alone."""
    crashes: list[str] = []
    tasks = BackgroundTasks(lambda name, _: crashes.append(name))
    first, second = (tasks.start(asyncio.Event().wait(), name="loop", critical=True) for _ in range(2))
    tasks.cancel_task(first)
    await asyncio.wait([first])
    assert (first.cancelled(), second.done(), crashes) == (True, False, [])
    second.cancel()
    await asyncio.wait([second])
    assert crashes == ["loop"]  # still critical: cancelled by something else
