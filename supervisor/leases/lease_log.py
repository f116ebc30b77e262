"""Journal entries about leases: one entry for each change, however many leases it concerns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.journal import log_event

if TYPE_CHECKING:
    from collections.abc import Collection

    from supervisor.clock import Clock
    from supervisor.tasks import BackgroundTasks

# A thousand leases that arrive over some seconds are a few entries; a single lease is logged at once.
_MIN_INTERVAL_S = 1.0
_MAX_NAMES = 5
# Short problems, such as a deadlock or a busy pool, are over by then.
LOGGED_AFTER_S = 5.0


def lease_field(names: Collection[str]) -> dict[str, str]:
    """Return the field `lease` of an entry about these leases; where they are many, the entry has their number only."""
    return {"lease": ", ".join(sorted(names))} if len(names) <= _MAX_NAMES else {}


def abbreviated(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(sorted(names)[:_MAX_NAMES]) + more


class LeaseLog:
    """Gathers what happens to leases; what follows within a second of an entry is logged together."""

    def __init__(self, *, clock: Clock, tasks: BackgroundTasks) -> None:
        self._clock = clock
        self._tasks = tasks
        self._gathered: dict[tuple[str, str | None], dict[str, int | None]] = {}
        self._logged_s: dict[str, float] = {}
        self._is_due = False

    def record(self, event: str, name: str, *, epoch: int | None, reason: str | None = None) -> None:
        """Gather what happened to one lease."""
        self._gathered.setdefault((event, reason), {})[name] = epoch
        if not self._is_due:
            self._is_due = True
            now_s = self._clock.now_s()
            # A loss is never delayed.
            since_s = now_s - self._logged_s.get(event, float("-inf"))
            delay_s = 0.0 if event == "lease.lost" else max(0.0, _MIN_INTERVAL_S - since_s)
            self._tasks.start(self._flush_after(delay_s), name="leases: log")
        elif event == "lease.lost":
            self._tasks.start(self._flush_after(0.0), name="leases: log")

    def flush(self) -> None:
        """Log what was gathered, now: there may be no later."""
        self._is_due = False
        gathered, self._gathered = self._gathered, {}
        for (event, reason), leases in gathered.items():
            self._logged_s[event] = self._clock.now_s()
            _log(event, reason, leases)

    async def _flush_after(self, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        self.flush()


def _log(event: str, reason: str | None, leases: dict[str, int | None]) -> None:
    why: dict[str, Any] = {"reason": reason} if reason else {}
    if len(leases) > 1:
        for name, epoch in leases.items():
            log_event(event, level="debug", leases=1, lease=name, **_epoch(epoch), **why)
    fields: dict[str, Any] = {"leases": len(leases), **lease_field(leases), **why}
    if len(leases) == 1:
        fields |= _epoch(next(iter(leases.values())))
    log_event(event, **fields)


def _epoch(epoch: int | None) -> dict[str, Any]:
    return {} if epoch is None else {"epoch": epoch}


class ProblemLog:
    """Logs a lasting problem of a node once, and its end once."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._since_s: float | None = None
        self._is_logged = False

    def update(self, problem: str | None) -> None:
        """Log `problem` if it has lasted, or that it is over; None: there is none."""
        now_s = self._clock.now_s()
        if problem is None:
            if self._is_logged and self._since_s is not None:
                log_event("lease.unblocked", after_s=round(now_s - self._since_s, 1))
            self._since_s, self._is_logged = None, False
        elif self._since_s is None:
            self._since_s = now_s
        elif not self._is_logged and now_s >= self._since_s + LOGGED_AFTER_S:
            self._is_logged = True
            log_event("lease.blocked", reason=problem)
