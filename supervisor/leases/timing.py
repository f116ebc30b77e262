"""How long a lease is trusted without a sign that it is still held; pure.

The server ends a silent session, and frees its locks, `IDLE_SESSION_TIMEOUT_S` after the last statement that it
answered. That is not before this daemon sent the statement, and the daemon counts from there. The holder has ended
what it runs before that: its workers are cancelled after `TRUST_S`, and the process ends after `GRACE_S` more.

```text
  sent    answered                        workers cancelled    process ended      lock freed
   ├────────┤                                    │                   │                │
   0                                          TRUST_S        TRUST_S + GRACE_S   IDLE_SESSION_TIMEOUT_S
```
"""

from __future__ import annotations

# One heartbeat of two may fail to come before trust is over; longer, and the work of a frozen holder waits longer.
TRUST_S = 10.0
# What a cancelled worker needs to end; the same as supervision's own grace.
GRACE_S = 2.0
# Ten seconds above the slowest heartbeat, so that a busy machine loses nothing.
IDLE_SESSION_TIMEOUT_S = 15.0
# How often a node that waits for no lease takes a snapshot: its only statement.
HEARTBEAT_S = 5.0
# How often a node that waits for a lease takes a snapshot: a holder's crash costs this and no more.
STANDBY_POLL_S = 0.5


def trusted_until_s(renewed_s: float) -> float:
    """Return until when a lease is trusted that a statement sent at `renewed_s` has shown as held."""
    return renewed_s + TRUST_S


def grace_is_over(lost_s: float | None, now_s: float) -> bool:
    """Whether a worker that still runs under a lease lost at `lost_s` has had its grace."""
    return lost_s is not None and now_s >= lost_s + GRACE_S
