from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from supervisor.systemd.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Reader:
    """systemd's end of the socket."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.address[1:] if self.address.startswith("@") else self.address)
        self.socket.setblocking(False)

    def messages(self) -> list[str]:
        """Return what has arrived since the last call; every datagram has to be UTF-8."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self.socket.close()

    def fill(self) -> None:
        """Make the queue full, as if systemd had not read for long."""
        while self._fill_from_one_sender():  # a sender's own buffer (278 datagrams) is smaller than the queue
            pass

    def _fill_from_one_sender(self) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.connect(self.address)
            sent = 0
            while True:
                try:
                    sender.send(b"FILLER=1")
                except BlockingIOError:
                    return sent
                sent += 1


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "notify")
    yield reader
    reader.close()


@pytest.fixture
def notifier(reader: Reader) -> Iterator[Notifier]:
    notifier = Notifier(reader.address)
    yield notifier
    notifier.close()


def _without_fillers(messages: list[str]) -> list[str]:
    return [message for message in messages if message != "FILLER=1"]


def test_says_each_message_in_the_words_of_sd_notify(reader: Reader, notifier: Notifier) -> None:
    """Every method sends one datagram in systemd's own form."""
    notifier.ready("3 workers")
    notifier.status("all is well")
    notifier.reloading(123)
    notifier.watchdog()
    notifier.extend(2.5)
    notifier.stopping()
    notifier.failed(69, errno=111, status="gave up")
    assert reader.messages() == [
        "READY=1\nSTATUS=3 workers",
        "STATUS=all is well",
        "RELOADING=1\nMONOTONIC_USEC=123",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "STOPPING=1",
        "EXIT_STATUS=69\nERRNO=111\nSTATUS=gave up",
    ]
    assert notifier.problem is None
    assert not notifier.has_pending


def test_stamps_a_reload_with_the_machines_monotonic_clock(reader: Reader, notifier: Notifier) -> None:
    """RELOADING carries the clock that systemd compares with, not that of a Clock with its offset."""
    import time

    before = time.monotonic()
    notifier.reloading()
    after = time.monotonic()
    (message,) = reader.messages()
    assert before - 0.001 <= int(message.rpartition("=")[2]) / 1e6 <= after


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Größe é", "Größe é"),
        ("connecting…", "connecting…"),
        ("数据库不可用", "数据库不可用"),
        ("one\ntwo\r\nREADY=1", "one two  READY=1"),
        ("lone \ud800 surrogate \udcff", "lone   surrogate  "),
        ("nul \0 inside", "nul   inside"),
        ("", ""),
    ],
)
def test_any_status_gets_through_with_its_ready(reader: Reader, notifier: Notifier, text: str, shown: str) -> None:
    """A status in any letters arrives as one line of UTF-8 and never costs the READY=1 it travels with."""
    notifier.ready(text)
    assert reader.messages() == [f"READY=1\nSTATUS={shown}"]


def test_cuts_a_long_status_at_a_letter(reader: Reader, notifier: Notifier) -> None:
    """A status of any length fits the 4096 bytes that systemd reads, with no letter cut in two."""
    notifier.ready("数" * 10_000)
    (message,) = reader.messages()
    assert message.startswith("READY=1\nSTATUS=数数")
    assert message.endswith("数…")
    assert len(message.encode()) < 2048


def test_a_full_socket_neither_blocks_nor_loses_ready(reader: Reader, notifier: Notifier) -> None:
    """With nobody reading, READY waits for `retry()`, of the statuses only the newest, and no watchdog."""
    reader.fill()
    notifier.ready("first")
    for number in range(500):
        notifier.status(f"status {number}")
        notifier.watchdog()
        notifier.extend(1)
    assert notifier.has_pending
    assert "full" in (notifier.pop_problem() or "")
    notifier.retry()
    assert notifier.problem is None  # told once
    reader.messages()
    notifier.retry()
    assert reader.messages() == ["READY=1", "STATUS=status 499"]
    assert not notifier.has_pending


def test_a_flood_of_its_own_does_not_block(reader: Reader, notifier: Notifier) -> None:
    """More datagrams than the queue holds are sent without waiting, and READY still arrives."""
    for number in range(2000):
        notifier.status(f"status {number}")
    notifier.ready()
    reader.messages()
    notifier.retry()
    assert reader.messages() == ["READY=1", "STATUS=status 1999"]


def test_keeps_the_order_of_what_must_not_be_lost(reader: Reader, notifier: Notifier) -> None:
    """READY, a reload and the stop arrive in their order, however many reloads there were meanwhile."""
    reader.fill()
    notifier.ready()
    for usec in range(1000):
        notifier.reloading(usec)
        notifier.ready("reloaded")
    notifier.stopping()
    reader.messages()
    notifier.retry()
    assert reader.messages() == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=999",
        "READY=1",
        "STOPPING=1",
        "STATUS=reloaded",
    ]


def test_what_is_kept_goes_before_what_is_new(reader: Reader, notifier: Notifier) -> None:
    """A later message never overtakes a pending one."""
    reader.fill()
    notifier.ready("connected")
    reader.messages()
    notifier.stopping("stopping")
    assert _without_fillers(reader.messages()) == ["READY=1", "STATUS=connected", "STOPPING=1\nSTATUS=stopping"]


def test_a_problem_is_reported_again_only_after_it_worked_in_between(reader: Reader, notifier: Notifier) -> None:
    """Each spell of failures is one problem, however many messages it met."""
    for _ in range(2):
        reader.fill()
        notifier.watchdog()
        assert notifier.pop_problem() is not None
        notifier.watchdog()
        assert notifier.pop_problem() is None
        reader.messages()
        notifier.watchdog()
        assert reader.messages() == ["WATCHDOG=1"]


def test_finds_a_socket_that_was_replaced(reader: Reader, notifier: Notifier) -> None:
    """A notify socket that was removed and created again is used again, with READY kept meanwhile."""
    notifier.watchdog()
    reader.close()
    os.unlink(reader.address)  # noqa: PTH108 - the address is what systemd gives, a string
    notifier.ready("still here")
    notifier.status("newest")
    assert notifier.has_pending
    assert notifier.problem is not None
    successor = Reader(reader.address)
    try:
        notifier.retry()
        assert successor.messages() == ["READY=1", "STATUS=newest"]
    finally:
        successor.close()


def test_a_successor_at_the_same_address_is_noticed_at_once(reader: Reader, notifier: Notifier) -> None:
    """When a new reader already stands at the address, no message is lost and there is no problem."""
    notifier.watchdog()
    reader.close()
    os.unlink(reader.address)  # noqa: PTH108
    successor = Reader(reader.address)
    try:
        notifier.watchdog()
        assert successor.messages() == ["WATCHDOG=1"]
        assert notifier.problem is None
    finally:
        successor.close()


def _stream_socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.bind(str(path))
    return str(path)


@pytest.mark.parametrize(
    "kind", ["missing", "missing folder", "file", "folder", "stream", "refused", "too long", "abstract", "not utf-8"]
)
def test_an_address_that_cannot_be_reached_is_one_problem(tmp_path: Path, kind: str) -> None:
    """Whatever is at the address, every method returns, one problem is reported and READY is kept."""
    path = tmp_path / "notify"
    address = str(path)
    match kind:
        case "missing folder":
            address = f"{path}/not/there"
        case "file":
            path.write_text("no socket")
        case "folder":
            path.mkdir()
        case "stream":
            address = _stream_socket(path)
        case "refused":
            Reader(path).close()
        case "too long":
            address = f"/{'x' * 200}"
        case "abstract":
            address = f"@{path}"
        case "not utf-8":
            address = f"{path}\udcff"
        case _:  # nothing is there
            assert kind == "missing"
    notifier = Notifier(address)
    assert notifier.problem is None
    notifier.watchdog()
    problem = notifier.pop_problem() or ""
    assert address[:20] in problem
    # The event's own sentence says what follows from it.
    assert "works on" not in problem
    notifier.ready("é…")
    notifier.status("数据")
    notifier.reloading()
    notifier.stopping()
    notifier.extend(1)
    notifier.failed(70)
    notifier.retry()
    assert notifier.problem is None
    assert notifier.has_pending
    notifier.close()


def test_talks_to_an_abstract_socket(tmp_path: Path) -> None:
    """`@name` is systemd's way of writing an abstract socket."""
    reader = Reader(f"@{tmp_path}/abstract")
    notifier = Notifier(reader.address)
    notifier.ready()
    assert reader.messages() == ["READY=1"]
    notifier.close()
    reader.close()


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative/path", "notify", "line\nbreak"])
def test_an_address_of_another_kind_is_a_problem_from_the_start(address: str) -> None:
    """An address that cannot be used is reported once; nothing is kept for it."""
    notifier = Notifier(address)
    problem = notifier.pop_problem() or ""
    assert address.partition("\n")[0] in problem
    assert "\n" not in problem
    notifier.ready("x")
    assert not notifier.has_pending
    assert notifier.problem is None


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_notify_socket_nothing_happens(environ: dict[str, str]) -> None:
    """Without systemd every method does nothing, and there is no problem."""
    notifier = Notifier.from_environment(environ)
    notifier.ready("x")
    notifier.reloading()
    notifier.ready()
    notifier.status("y")
    notifier.watchdog()
    notifier.extend(1)
    notifier.stopping()
    notifier.failed(70)
    notifier.retry()
    assert notifier.problem is None
    assert not notifier.has_pending
    assert notifier.watchdog_interval_s is None


def test_takes_its_variables_out_of_the_environment(reader: Reader) -> None:
    """Child processes do not inherit systemd's variables; all other variables stay."""
    environ = dict.fromkeys(("WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"), str(os.getpid()))
    environ |= {"NOTIFY_SOCKET": reader.address, "WATCHDOG_USEC": "30000000", "PATH": "/usr/bin"}
    notifier = Notifier.from_environment(environ)
    assert environ == {"PATH": "/usr/bin"}
    assert notifier.watchdog_interval_s == 15.0
    notifier.ready()
    assert reader.messages() == ["READY=1"]
    notifier.close()


@pytest.mark.parametrize(
    ("usec", "pid", "limit_s"),
    [
        pytest.param("20000000", str(os.getpid()), 20.0, id="its own"),
        ("20000000", "", 20.0),
        ("20000000", "1", None),
        ("20000000", "rubbish", None),
        ("0", "", None),
        ("", "", None),
        ("-5", "", None),
        ("rubbish", "", None),
        ("²", "", None),
    ],
)
def test_believes_a_watchdog_only_when_it_is_meant_for_this_process(
    reader: Reader, usec: str, pid: str, limit_s: float | None
) -> None:
    """A WATCHDOG_USEC inherited from a parent, or one that is no number, sets no watchdog."""
    environ = {"NOTIFY_SOCKET": reader.address, "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Notifier.from_environment(environ).watchdog_limit_s == limit_s
