"""What is known of a run afterwards; the checker judges nothing else."""

from __future__ import annotations

from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A projection that buries its poison cannot apply events of this type.
POISON = "poison"


class Outcome(Enum):
    """What became of a writer's transaction, as far as the writer knows."""

    COMMITTED = "the server said so"
    ROLLED_BACK = "its COMMIT was never sent, or a savepoint was rolled back"
    UNKNOWN = "the connection was lost during its COMMIT"


class Attempt(NamedTuple):
    """Events that a writer appended and that share one fate.

    Attributes:
        uids: A mark in each event's data, never used twice.
        outcome: Their fate.
    """

    uids: tuple[str, ...]
    outcome: Outcome


class Event(NamedTuple):
    """A row of the event log."""

    position: int
    stream: str
    type: str
    uid: str


class Turn(NamedTuple):
    """A committed transaction that concerned a lease.

    Attributes:
        lease: The lease's name.
        number: Counted from 1 for each lease, under a row lock that is held to the end of the transaction: the order
            of the numbers is the order of the commits, and a transaction that was rolled back leaves no gap.
        is_take: Whether the epoch was raised by it; else a worker did something under the lease.
        epoch: The epoch that was given, or that the worker believed in.
        incarnation: Random at each acquisition; None: the lease was given to nobody.
        node: Who was given it, or who worked.
        at_s: Seconds of the server's clock, for figures alone.
    """

    lease: str
    number: int
    is_take: bool
    epoch: int
    incarnation: str | None
    node: str | None
    at_s: float


class Applied(NamedTuple):
    """An event that a projection has applied.

    Attributes:
        lease: The shard's lease, and `turn` the number of its transaction.
        nth: The how manieth event of its stream it was for this projection, in the order of the commits.
        uid: As the handler was given it.
    """

    lease: str
    turn: int
    projection: str
    stream: str
    nth: int
    position: int
    uid: str


class Mark(NamedTuple):
    """A sign of life that a holder left outside of the database.

    Attributes:
        at_s: The machine's monotonic clock, which all its processes share.
    """

    lease: str
    epoch: int
    node: str
    at_s: float


class Drop(NamedTuple):
    """The server let go of sessions by itself, so of their locks too, while their owners were alive.

    Attributes:
        node: Whose; None: everybody's.
        begun_s: From then on the locks may have been gone.
        ended_s: By then they were.
    """

    node: str | None
    begun_s: float
    ended_s: float


class Resumption(NamedTuple):
    """A stopped process was continued."""

    node: str
    at_s: float


class Reading(NamedTuple):
    """What a projection is to apply.

    Attributes:
        streams: Globs.
        buries_poison: Whether events of the type `poison` end among its dead letters.
    """

    streams: tuple[str, ...]
    buries_poison: bool = False

    def wants(self, event: Event) -> bool:
        """Whether it reads the event's stream."""
        return any(fnmatchcase(event.stream, glob) for glob in self.streams)


class History(NamedTuple):
    """A whole run."""

    projections: Mapping[str, Reading]
    attempts: Sequence[Attempt] = ()
    events: Sequence[Event] = ()
    turns: Sequence[Turn] = ()
    applied: Sequence[Applied] = ()
    buried: Sequence[tuple[str, int]] = ()
    marks: Sequence[Mark] = ()
    drops: Sequence[Drop] = ()
    resumptions: Sequence[Resumption] = ()
