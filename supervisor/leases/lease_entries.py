"""What the journal hears of leases: one entry for each move, however many leases it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.tasks import BackgroundTasks

# A thousand leases that arrive over some seconds are a few entries; one alone is told at once.
_APART_S = 1.0
_NAMED = 5


class LeaseEntries:
    """Gathers what happens to leases; what follows within a second of an entry is told together."""

    def __init__(self, *, clock: Clock, tasks: BackgroundTasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._gathered: dict[tuple[str, str | None], dict[str, int | None]] = {}
        self._told_s: dict[str, float] = {}
        self._is_due = False

    def note(self, event: str, name: str, *, epoch: int | None, reason: str | None = None) -> None:
        """Note what happened to one lease."""
        self._gathered.setdefault((event, reason), {})[name] = epoch
        if not self._is_due:
            self._is_due = True
            now_s = self._clock.now_s()
            # A loss is never kept back.
            since_s = now_s - self._told_s.get(event, float("-inf"))
            delay_s = 0.0 if event == "lease.lost" else max(0.0, _APART_S - since_s)
            self._tasks.start(self._tell_soon(delay_s), name="leases: tell")
        elif event == "lease.lost":
            self._tasks.start(self._tell_soon(0.0), name="leases: tell")

    def flush(self) -> None:
        """Tell what was gathered now: nobody may be there to do it later."""
        self._is_due = False
        gathered, self._gathered = self._gathered, {}
        for (event, reason), leases in gathered.items():
            self._told_s[event] = self._clock.now_s()
            _tell(event, reason, leases)

    async def _tell_soon(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        self.flush()


def _tell(event: str, reason: str | None, leases: dict[str, int | None]) -> None:
    why: dict[str, Any] = {"reason": reason} if reason else {}
    if len(leases) > 1:
        for name, epoch in leases.items():
            log_event(event, level="debug", leases=1, lease=name, **_epoch(epoch), **why)
    names = ", ".join(sorted(leases)) if len(leases) <= _NAMED else None
    fields: dict[str, Any] = {"leases": len(leases), **({"lease": names} if names else {}), **why}
    if len(leases) == 1:
        fields |= _epoch(next(iter(leases.values())))
    log_event(event, **fields)


def _epoch(epoch: int | None) -> dict[str, Any]:
    return {} if epoch is None else {"epoch": epoch}
