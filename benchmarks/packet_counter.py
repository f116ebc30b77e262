"""Counts connections to ports of this machine as the kernel sends them, refused ones too."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import defaultdict
from typing import Self

_ETH_P_ALL = 0x0003
_TCP = 6
_SYN, _ACK = 0x02, 0x10
_PACKET_OUTGOING = 4


class PacketCounter:
    """Listens on the loopback device; needs the right to open a packet socket.

    Attributes:
        is_possible: Whether it may listen.
    """

    def __init__(self) -> None:
        self.is_possible = False
        self._dials: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._spoken: dict[int, set[int]] = defaultdict(set)
        self._socket: socket.socket | None = None
        with contextlib.suppress(PermissionError):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            self._socket.bind(("lo", 0))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 2**20)
            self._socket.settimeout(0.1)
            self.is_possible = True
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="sniffer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        if self._socket is not None:
            self._socket.close()

    def dials(self, port: int) -> int:
        """Return how many connections were dialled to a port."""
        return len(self._dials[port])

    def spoken(self, port: int) -> int:
        """Return how many of them carried a byte of the client's: more than a look whether anything listens."""
        return len(self._spoken[port])

    def _listen(self) -> None:
        while self._socket is not None and not self._ends.is_set():
            with contextlib.suppress(TimeoutError):
                packet, address = self._socket.recvfrom(256)
                # The loopback device shows each packet twice.
                if address[2] != _PACKET_OUTGOING:
                    self._see(packet[14:])

    def _see(self, packet: bytes) -> None:
        if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != _TCP:
            return
        header = (packet[0] & 15) * 4
        total = struct.unpack_from("!H", packet, 2)[0]
        source, target, sequence = struct.unpack_from("!HHI", packet, header)
        offset, flags = packet[header + 12] >> 4, packet[header + 13]
        if flags & _SYN and not flags & _ACK:
            # The same SYN sent again is the same dial.
            self._dials[target].add((source, sequence))
        elif total > header + offset * 4:
            self._spoken[target].add(source)
