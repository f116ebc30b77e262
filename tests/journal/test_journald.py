"""journald's native protocol, read by a receiver that follows its specification."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from typing import TYPE_CHECKING

import pytest
from support.clock import FakeClock

from supervisor.journal.entry import Entry, render
from supervisor.journal.events import CRITICAL, EVENTS, INFO
from supervisor.journal.journald import JournalSocket, encode_native

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from supervisor.journal.fields import Value

_SEALS_OF_JOURNALD = 0b1111


class Receiver:
    """A datagram socket that takes entries as journald does."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(30)

    def receive(self) -> dict[str, str]:
        """Return the fields of the next entry."""
        descriptors = array.array("i")
        data, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_LEN(descriptors.itemsize))
        for _, _, payload in ancillary:
            descriptors.frombytes(payload)
        for descriptor in descriptors:
            assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS_OF_JOURNALD == _SEALS_OF_JOURNALD
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                data = file.read()
        return parse(data)

    def close(self) -> None:
        self._socket.close()


def parse(data: bytes) -> dict[str, str]:
    """Return the fields of a datagram."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[9 + length :]
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "socket")
    yield receiver
    receiver.close()


def encoded(level: int = INFO, **fields: Value) -> bytes:
    """Return an entry as a datagram."""
    return encode(fields, level)


def encode(fields: dict[str, Value], level: int = INFO) -> bytes:
    """Return an entry with fields of any name as a datagram."""
    event = "worker.failed"
    return encode_native(render(Entry(event, level, FakeClock().wall_time(), fields, EVENTS[event])))


def test_the_promised_fields() -> None:
    """An entry carries the fields by which journalctl finds it."""
    fields = parse(encoded(level=CRITICAL, worker="mail", error_type="E", error="a\nb", sqlstate="57P01", none=None))
    assert fields == {
        "MESSAGE": "Worker mail failed: E: a\nb",
        "PRIORITY": "2",
        "SYSLOG_IDENTIFIER": "pgsupervisor",
        "MESSAGE_ID": EVENTS["worker.failed"].message_id,
        "EVENT": "worker.failed",
        "WORKER": "mail",
        "ERROR_TYPE": "E",
        "ERROR": "a\nb",
        "SQLSTATE": "57P01",
    }


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a-b.c", "A_B_C"), ("_uid", "UID"), ("1st", "FIELD_1ST"), ("é", "FIELD_"), ("", "FIELD_"),
        ("x" * 100, "X" * 64), ("a=b\nc", "A_B_C"), ("MESSAGE_", "MESSAGE_"),
    ],
)  # fmt: skip
def test_names_that_journald_would_drop(name: str, sent: str) -> None:
    """A field's name is made one that journald takes."""
    assert sent in parse(encode({name: 1}))


def test_values_that_would_be_blobs() -> None:
    """Control characters and lone surrogates are written out, so that journalctl shows the text."""
    assert parse(encoded(text="a\x00b\x1b[2J\udc80\tc"))["TEXT"] == "a\\x00b\\x1b[2J\\udc80\tc"


def test_an_entry_cannot_add_fields() -> None:
    """A newline in a value stays inside it."""
    fields = parse(encoded(text="a\nPRIORITY=0\nMESSAGE=forged"))
    assert fields["PRIORITY"] == "6"
    assert fields["TEXT"] == "a\nPRIORITY=0\nMESSAGE=forged"


def test_a_datagram_arrives(tmp_path: Path, receiver: Receiver) -> None:
    """An ordinary entry is one datagram."""
    place = JournalSocket(str(tmp_path / "socket"))
    place.write(encoded(worker="mail"))
    place.close()
    assert receiver.receive()["WORKER"] == "mail"


def test_a_large_entry_arrives_as_a_sealed_file(tmp_path: Path, receiver: Receiver) -> None:
    """What is too large for a datagram comes in a sealed memory file."""
    place = JournalSocket(str(tmp_path / "socket"))
    texts: dict[str, Value] = {f"text{number}": "x" * 48_000 for number in range(20)}
    place.write(encode(texts))
    assert receiver.receive()["TEXT19"] == "x" * 48_000
    place.close()


def test_journald_restarts(tmp_path: Path) -> None:
    """While journald is away a write fails; when it is back behind a new socket the next one arrives."""
    path = tmp_path / "socket"
    place = JournalSocket(str(path))
    with pytest.raises(FileNotFoundError):
        place.write(encoded())
    first = Receiver(path)
    place.write(encoded(number=1))
    assert first.receive()["NUMBER"] == "1"
    first.close()
    with pytest.raises(ConnectionRefusedError):
        place.write(encoded())
    path.unlink()
    second = Receiver(path)
    place.write(encoded(number=2))
    assert second.receive()["NUMBER"] == "2"
    second.close()
    place.close()
