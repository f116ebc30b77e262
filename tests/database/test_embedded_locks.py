"""One daemon at a time holds a state directory, and whoever waits knows for whom."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock, settle

from supervisor.clock import SystemClock
from supervisor.database.embedded.locks import Holder, StateLock, next_notice_s
from supervisor.errors import EmbeddedDatabaseLocked, EmbeddedDatabaseMisconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOLDER = """
import sys
from pathlib import Path
from supervisor.database.embedded.locks import StateLock
lock = StateLock(Path(sys.argv[1]))
assert lock.try_acquire() is None
print("held", flush=True)
sys.stdin.readline()
lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    """Have the holder release the lock, and live on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_free_lock_is_taken_and_noted(tmp_path: Path) -> None:
    """A free lock is taken at once; the file says by whom, and nothing after the release."""
    lock = StateLock(tmp_path / "state" / "dir")
    assert lock.try_acquire() is None
    note = json.loads((lock.directory / "lock").read_text())
    assert (note["pid"], note["host"]) == (os.getpid(), os.uname().nodename)
    lock.release()
    lock.release()
    assert (lock.directory / "lock").read_text() == ""
    assert lock.try_acquire() is None
    lock.release()


def test_taken_lock_names_its_holder(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Whoever finds the lock taken learns the process, its machine and since when."""
    found = StateLock(tmp_path).try_acquire()
    assert found is not None
    assert (found.pid, found.host) == (holder.pid, os.uname().nodename)
    assert f"process {holder.pid} on " in str(found)
    assert found.since is not None


async def test_successor_waits_for_a_draining_predecessor(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """Over a drain of half a minute the successor names the holder at growing distances, then takes over when let."""
    clock, lock = FakeClock(), StateLock(tmp_path)
    words: list[tuple[Holder, float]] = []
    waiting = asyncio.ensure_future(lock.acquire(clock=clock, on_waiting=lambda *word: words.append(word)))
    await clock.next_sleep()
    await clock.jump(30)
    assert [waited_s for _, waited_s in words] == [0, 5, 10, 20]
    assert {word.pid for word, _ in words} == {holder.pid}
    assert not waiting.done()
    let_go(holder)
    await asyncio.wait_for(waiting, 30)
    assert lock.is_held
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    lock.release()


async def test_killed_holder_leaves_no_lock(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """The lock of a killed process is free at once, and its note is not believed."""
    clock, lock = FakeClock(), StateLock(tmp_path)
    waiting = asyncio.ensure_future(lock.acquire(clock=clock))
    await clock.next_sleep()
    holder.send_signal(signal.SIGKILL)
    await asyncio.wait_for(waiting, 30)
    lock.release()


async def test_gives_up(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """After its limit the waiting ends with an error that names the holder, and nothing is left waiting."""
    clock, lock = FakeClock(), StateLock(tmp_path)
    waiting = asyncio.ensure_future(lock.acquire(clock=clock, give_up_s=12))
    await clock.next_sleep()
    await clock.jump(11.9)
    assert not waiting.done()
    await clock.jump(0.2)
    with pytest.raises(EmbeddedDatabaseLocked, match=f"process {holder.pid} on .* gave up after 12 s"):
        await waiting
    await the_thread_releases_the_lock(tmp_path, holder)


async def test_cancelled_waiting_takes_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A waiting that is cancelled ends at once and does not hold the lock later."""
    clock, lock = FakeClock(), StateLock(tmp_path)
    waiting = asyncio.ensure_future(lock.acquire(clock=clock))
    await clock.next_sleep()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await the_thread_releases_the_lock(tmp_path, holder)
    assert not lock.is_held


async def the_thread_releases_the_lock(directory: Path, holder: subprocess.Popen[str]) -> None:
    """Release the lock, wait until no thread waits for it any more, and find it free."""
    let_go(holder)
    for thread in threading.enumerate():
        if thread.name == "state-lock":
            await asyncio.to_thread(thread.join, 5)
    await settle()
    other = StateLock(directory)
    assert other.try_acquire() is None
    other.release()


async def test_cancelled_in_the_moment_of_the_handover(tmp_path: Path) -> None:
    """A cancellation that meets the handover leaves the lock free or held, never lost."""
    for turns in range(30):
        first, second = StateLock(tmp_path), StateLock(tmp_path)
        assert first.try_acquire() is None
        waiting = asyncio.ensure_future(second.acquire(clock=SystemClock()))
        await settle(3)
        first.release()
        for thread in threading.enumerate():
            if thread.name == "state-lock":
                thread.join(5)
        await settle(turns % 6)
        waiting.cancel()
        await asyncio.wait([waiting])
        await settle()
        assert second.is_held == (not waiting.cancelled())
        second.release()
        assert first.try_acquire() is None
        first.release()


def locked_with_note(directory: Path, note: str) -> Holder | None:
    """Take the lock, put another note into the file, and return what a second one finds."""
    first = StateLock(directory)
    assert first.try_acquire() is None
    (directory / "lock").write_text(note)
    try:
        return StateLock(directory).try_acquire()
    finally:
        first.release()


def test_note_of_a_reused_pid_is_not_believed(tmp_path: Path) -> None:
    """A note whose process number has gone to another process names nobody."""
    note = {"pid": os.getpid(), "host": os.uname().nodename, "since": "2026-01-01T00:00:00+00:00", "start_ticks": 1}
    assert locked_with_note(tmp_path, json.dumps(note)) == Holder()


def test_note_of_another_machine_is_believed(tmp_path: Path) -> None:
    """A holder on another machine is named as it wrote itself."""
    note = {"pid": 7, "host": "elsewhere.example", "since": "2026-01-01T00:00:00+00:00", "start_ticks": 1}
    assert locked_with_note(tmp_path, json.dumps(note)) == Holder(7, "elsewhere.example", note["since"], 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"pid": "x"}', "\x00\xff"])
def test_broken_note_names_nobody(tmp_path: Path, note: str) -> None:
    """A note that cannot be read is no reason to fail."""
    found = locked_with_note(tmp_path, note)
    assert found == Holder()
    assert str(found) == "another process"


def test_stale_note_does_not_block(tmp_path: Path) -> None:
    """A note that a killed process left, its number in use again, does not keep anybody from the lock."""
    (tmp_path / "lock").write_text(json.dumps({"pid": 1, "host": os.uname().nodename, "since": "", "start_ticks": 0}))
    lock = StateLock(tmp_path)
    assert lock.try_acquire() is None
    lock.release()


def test_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    """A child that outlives the holder's release does not hold the lock on."""
    lock = StateLock(tmp_path)
    assert lock.try_acquire() is None
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        lock.release()
        other = StateLock(tmp_path)
        assert other.try_acquire() is None
        other.release()
        child.kill()


def test_directory_that_is_a_file(tmp_path: Path) -> None:
    """A state directory that cannot be one is said plainly."""
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedDatabaseMisconfigured, match="cannot be locked: Not a directory"):
        StateLock(tmp_path / "file").try_acquire()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_read_only_directory(tmp_path: Path) -> None:
    """A state directory on a read-only file system is said plainly."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    try:
        with pytest.raises(EmbeddedDatabaseMisconfigured, match="cannot be locked: Read-only file system"):
            StateLock(tmp_path).try_acquire()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@given(st.floats(min_value=0, max_value=1e6))
def test_words_grow_apart(waited_s: float) -> None:
    """The number of words grows with the logarithm of the waiting."""
    assert next_notice_s(waited_s) >= max(5.0, waited_s)
