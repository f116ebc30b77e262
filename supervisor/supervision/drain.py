"""Brings a run that was told to stop to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.supervision import stopping

if TYPE_CHECKING:
    from supervisor.clock import Clock
    from supervisor.supervision.attention import Attention
    from supervisor.supervision.run import Run
    from supervisor.supervision.tenancy import Tenancy


class Drain:
    """Waits for runs to end, and cancels them when it is time.

    Attributes:
        cut_off_after_s: How long the last run was waited for in vain before it was cancelled; None: it was
            not, or it had nothing in flight.
    """

    __slots__ = ("_attention", "_clock", "_hurried_s", "cut_off_after_s")

    def __init__(self, attention: Attention, *, clock: Clock) -> None:
        self._attention = attention
        self._clock = clock
        self._hurried_s: float | None = None
        self.cut_off_after_s: float | None = None

    def hurry(self) -> None:
        """Cancel what is waited for at once, now and from now on."""
        self._hurried_s = self._clock.now_s()
        self._attention.wake()

    async def wait_for(self, run: Run, *, limit_s: float, is_work: bool, tenancy: Tenancy | None = None) -> bool:
        """Return whether a run that was told to stop has ended within its deadlines.

        Args:
            run: The run.
            limit_s: How long it may take, from now on, before it is cancelled.
            is_work: Whether it is work in flight by nature, as a tick is.
            tenancy: The lease that it runs under.
        """
        told_s, cancelled_s, lost_s = self._clock.now_s(), None, None
        self.cut_off_after_s = None
        while not run.is_done:
            notices = is_work or run.stop.is_cooperative
            if tenancy is not None and lost_s is None and tenancy.is_lost:
                lost_s = self._clock.now_s()
            stop = stopping.Stop(told_s, limit_s, notices, run.stop.in_flight, self._hurried_s, cancelled_s, lost_s)
            match stopping.next_step(stop, now_s=self._clock.now_s()):
                case stopping.WaitUntil(at_s):
                    await self._attention.wait(at_s)
                case stopping.Cancel():
                    if cancelled_s is None and self._hurried_s is None:
                        run.cut_off()
                    else:
                        run.cancel()
                    cancelled_s = self._clock.now_s()
                    if notices or stop.in_flight:
                        self.cut_off_after_s = round(cancelled_s - told_s, 3)
                case stopping.Abandon():
                    return False
        return True
