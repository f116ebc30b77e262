"""The writer against pipes, disks and descriptors that misbehave: callers never wait, losses are reported."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import threading
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from supervisor.clock import SystemClock
from supervisor.journal.entry import Entry, Rendered, Summary
from supervisor.journal.events import ERROR, EVENTS, INFO
from supervisor.journal.sinks import Sink, Stream, encode_json_line
from supervisor.journal.writer import EntryQueue, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from supervisor.journal.fields import Value

_numbers = count()


def say(writer: Writer, event: str, level: int = INFO, **fields: Value) -> None:
    """Submit an entry that is equal to no other."""
    submit(writer, next(_numbers), event, level, **fields)


def submit(writer: Writer, key: object, event: str, level: int = ERROR, **fields: Value) -> None:
    """Submit an entry under a key."""
    event_type = EVENTS.get(event)
    writer.submit(
        key,
        lambda: Entry(event, level, SystemClock().wall_time(), fields, event_type),
        lambda: Summary(event, level, event_type, fields),
    )


def started(descriptor: int, *, max_entries: int = 100) -> Writer:
    """Return a running writer of JSON lines."""
    sink = Sink(encode_json_line, Stream(descriptor))
    writer = Writer(sink, clock=SystemClock(), queue=EntryQueue(max_entries=max_entries))
    writer.start()
    return writer


class Reader:
    """Reads lines from a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.lines: list[dict[str, Any]] = []
        self._descriptor = descriptor
        self._rest = b""

    def read_until(self, event: str, limit_s: float = 20.0) -> dict[str, Any]:
        """Return the next line of this event, keeping those before it."""
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
            assert select.select([self._descriptor], [], [], limit_s)[0], f"no {event}"
            self._rest += os.read(self._descriptor, 65536)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_pipe_that_is_not_read(pipe: tuple[int, int], is_blocking: bool) -> None:
    """Logging returns at once while the pipe is full; once it is read, the rest comes and the losses are reported."""
    os.set_blocking(pipe[1], is_blocking)
    writer = started(pipe[1])
    for number in range(500):
        say(writer, "filler", text="x" * 2000, number=number)
    assert not writer.flush(0.05)
    assert writer.counts.dropped > 0
    reader = Reader(pipe[0])
    told = reader.read_until("log.dropped")
    shown = [line for line in reader.lines if line["event"] == "filler"]
    assert told["count"] + len(shown) == 500
    assert writer.flush(5)
    assert writer.counts == (len(shown) + 1, 0, told["count"])
    say(writer, "after")
    reader.read_until("after")
    assert writer.close(5)


def test_warnings_have_room_when_chatter_fills_the_buffer(pipe: tuple[int, int]) -> None:
    """An error still fits when debug and info entries have used up their share."""
    writer = started(pipe[1])
    for _ in range(500):
        say(writer, "filler", text="x" * 2000)
    say(writer, "cause", ERROR)
    Reader(pipe[0]).read_until("cause")
    assert writer.close(5)


def test_close_never_hangs_on_a_stuck_write(pipe: tuple[int, int]) -> None:
    """With a pipe that is not read, closing gives up at its deadline and returns that not all was written."""
    writer = started(pipe[1])
    for _ in range(50):
        say(writer, "filler", text="x" * 4000)
    assert not writer.close(0.05)
    reader = Reader(pipe[0])
    for _ in range(50):
        reader.read_until("filler")


def test_a_closed_descriptor() -> None:
    """Writing to a closed descriptor loses the entries, counted, and harms neither the thread nor the caller."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    writer = started(write_end)
    for _ in range(300):
        say(writer, "filler")
    assert not writer.flush(0.05)
    assert writer.counts.dropped >= 190
    assert not writer.close(5)
    assert writer.counts == (0, 0, 300)


def test_a_reader_that_went_away_and_came_back(tmp_path: Any) -> None:
    """While the other end is closed (EPIPE) entries wait; they are written to the next reader."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_end = os.open(path, os.O_WRONLY)
    os.close(first)
    writer = started(write_end)
    say(writer, "kept")
    assert not writer.flush(0.05)
    second = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert Reader(second).read_until("kept")
    assert writer.close(5)
    os.close(second)
    os.close(write_end)


def test_a_full_disk_that_gets_room_again(pipe: tuple[int, int]) -> None:
    """On ENOSPC entries wait, the overflow is reported with its reason once there is room."""
    full = os.open("/dev/full", os.O_WRONLY)
    writer = started(full)
    for number in range(300):
        say(writer, "filler", number=number)
    assert not writer.flush(0.05)
    # The same descriptor leads to a place with room, as when an operator deletes a file.
    os.dup2(pipe[1], full)
    reader = Reader(pipe[0])
    told = reader.read_until("log.dropped")
    assert "No space left" in told["reason"]
    assert told["count"] + len(reader.lines) - 1 == 300
    assert reader.lines[0]["number"] == 0
    assert writer.close(5)
    os.close(full)


def test_another_format_frees_what_is_stuck(pipe: tuple[int, int]) -> None:
    """An entry that cannot be written goes to the new place when the format is changed, in the new form."""
    full = os.open("/dev/full", os.O_WRONLY)
    writer = Writer(Sink(lambda entry: b"old " + encode_json_line(entry), Stream(full)), clock=SystemClock())
    writer.start()
    say(writer, "stuck")
    assert not writer.flush(0.05)
    writer.sink = Sink(encode_json_line, Stream(pipe[1]))
    Reader(pipe[0]).read_until("stuck")
    assert writer.close(5)
    os.close(full)


@pytest.fixture
def small_disk(tmp_path: Any) -> Iterator[Any]:
    """A file that may grow to a thousand bytes, so that a longer line is torn."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield tmp_path / "log"
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make_room() -> None:
    """Let files grow again."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_torn_line_is_continued(small_disk: Any) -> None:
    """A line that was written in part goes on where it stopped when there is room again."""
    with small_disk.open("wb", buffering=0) as file:
        stream, line = Stream(file.fileno()), b"x" * 3000 + b"\n"
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                stream.write(line)
        make_room()
        stream.write(line)
    assert small_disk.read_bytes() == line


def test_a_line_given_up_does_not_swallow_the_next(small_disk: Any) -> None:
    """After a line that was torn and given up the next one starts on a line of its own."""
    with small_disk.open("wb", buffering=0) as file:
        stream = Stream(file.fileno())
        with pytest.raises(OSError, match="File too large"):
            stream.write(b"x" * 3000 + b"\n")
        make_room()
        stream.write(b"next\n")
    assert small_disk.read_bytes() == b"x" * 1000 + b"\nnext\n"


def test_a_line_longer_than_a_pipe(pipe: tuple[int, int]) -> None:
    """A non-blocking pipe that takes a line in pieces gets all of it."""
    os.set_blocking(pipe[1], False)
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    writer = started(pipe[1])
    say(writer, "long", text="x" * 40_000)
    assert len(Reader(pipe[0]).read_until("long")["text"]) == 40_000
    assert writer.close(5)


def test_repeats_are_reported_at_the_end(pipe: tuple[int, int]) -> None:
    """Closing reports the counts of folded entries: shown and counted add up to what was logged."""
    writer = started(pipe[1])
    for number in range(10):
        submit(writer, "failed", "worker.failed", worker="mail", number=number)
    assert writer.close(5)
    reader = Reader(pipe[0])
    told = reader.read_until("log.repeated")
    assert [line["event"] for line in reader.lines] == ["worker.failed", "log.repeated"]
    assert (told["count"], told["of_event"], told["worker"], told["level"]) == (9, "worker.failed", "mail", "error")
    assert writer.counts == (2, 9, 0)


def test_repeats_are_reported_while_nothing_else_is_logged(pipe: tuple[int, int]) -> None:
    """The thread wakes by itself when a window with repeats ends."""
    writer = started(pipe[1])
    for _ in range(3):
        submit(writer, "failed", "worker.failed")
    assert Reader(pipe[0]).read_until("log.repeated")["count"] == 2
    assert writer.close(5)


def test_an_entry_that_cannot_be_rendered_costs_only_itself(pipe: tuple[int, int]) -> None:
    """A failed rendering is counted and reported, and what follows is written."""

    def encode(entry: Rendered) -> bytes:
        if entry.event == "odd":
            raise ZeroDivisionError
        return encode_json_line(entry)

    writer = Writer(Sink(encode, Stream(pipe[1])), clock=SystemClock())
    writer.start()
    say(writer, "odd")
    reader = Reader(pipe[0])
    assert "odd could not be rendered" in reader.read_until("log.dropped")["reason"]
    say(writer, "after")
    reader.read_until("after")
    assert writer.close(5)


def test_logging_while_logging(pipe: tuple[int, int]) -> None:
    """An entry logged while another is made, as a destructor may do at any moment, neither hangs nor gets lost."""
    writer = started(pipe[1])

    def build() -> Entry:
        say(writer, "inner")
        return Entry("outer", INFO, SystemClock().wall_time(), {}, None)

    writer.submit("outer", build, lambda: Summary("outer", INFO, None, {}))
    reader = Reader(pipe[0])
    reader.read_until("outer")
    assert writer.close(5)
    assert [line["event"] for line in reader.lines] == ["inner", "outer"]


class OddKey:
    """A key whose comparison logs, as a destructor or a signal handler may do in the middle of the folding."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __hash__(self) -> int:
        say(self._writer, "interruption", number=next(_numbers))
        return 1


def test_logging_from_within_the_folding(pipe: tuple[int, int]) -> None:
    """An entry logged while the same thread folds another, in a caller or in the writer, is neither lost nor hangs."""
    writer = started(pipe[1])
    submit(writer, OddKey(writer), "outer")
    with writer._fold_lock:
        submit(writer, OddKey(writer), "late")  # as if another thread were in there: the writer's thread folds it
    reader = Reader(pipe[0])
    reader.read_until("late")
    assert writer.close(5)
    while "interruption" not in [line["event"] for line in reader.lines[-1:]]:
        reader.read_until("interruption")
    assert {line["event"] for line in reader.lines} == {"outer", "late", "interruption"}


def test_the_writer_folds_what_callers_could_not(pipe: tuple[int, int]) -> None:
    """Equal entries that came while another thread was folding are folded all the same, and counted."""
    writer = started(pipe[1])
    with writer._fold_lock:
        for number in range(10):
            submit(writer, "failed", "worker.failed", worker="mail", number=number)
    reader = Reader(pipe[0])
    assert writer.close(5)
    assert reader.read_until("log.repeated")["count"] == 9
    assert writer.counts == (2, 9, 0)


def test_many_threads_log_at_once(pipe: tuple[int, int]) -> None:
    """Each entry of each thread is written once and whole."""
    writer = started(pipe[1], max_entries=10_000)

    def log_many() -> None:
        for _ in range(200):
            say(writer, "one")

    threads = [threading.Thread(target=log_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    reader = Reader(pipe[0])
    for _ in range(1600):
        reader.read_until("one")
    for thread in threads:
        thread.join()
    assert writer.close(5)
    assert writer.counts == (1600, 0, 0)


def test_the_thread_takes_no_signals(pipe: tuple[int, int]) -> None:
    """The thread blocks every signal that can be blocked, so that they all go to the main thread."""
    writer = started(pipe[1])
    assert writer.flush(5)
    thread = next(thread for thread in threading.enumerate() if thread.name == "journal" and thread is writer._thread)
    with open(f"/proc/self/task/{thread.native_id}/status", encoding="ascii") as status:  # noqa: PTH123 - /proc
        blocked = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
    for number in (1, 2, 10, 12, 15, 17):
        assert blocked >> (number - 1) & 1
    assert writer.close(5)
