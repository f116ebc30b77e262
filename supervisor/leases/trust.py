"""How long a lease is trusted without a sign that it is still held; pure.

The server gives a silent session's locks away after `IDLE_SESSION_TIMEOUT_S`, counted from the last statement that it
answered, so not before that statement was sent, which is what this daemon counts from. Until then the holder has
ended what it runs: after `TRUST_S` its workers are cancelled, and after `GRACE_S` more the process ends.

```text
  sent    answered                        workers cancelled    process ended      lock given away
   ├────────┤                                    │                   │                   │
   0                                          TRUST_S        TRUST_S + GRACE_S   IDLE_SESSION_TIMEOUT_S
```
"""

from __future__ import annotations

# Two looks in five seconds may fail to come before it is over; longer, and a frozen holder's work waits for longer.
TRUST_S = 10.0
# What a cancelled worker needs to end; as supervision's own grace.
GRACE_S = 2.0
# Above the daemon's slowest look by ten seconds, so that a busy machine loses nothing.
IDLE_SESSION_TIMEOUT_S = 15.0
# How often a node that lacks nothing looks: its only statement.
CALM_LOOK_S = 5.0
# How often a node looks that could take something over: a crash costs this and no more.
EAGER_LOOK_S = 0.5


def trusted_until_s(confirmed_s: float) -> float:
    """Return until when a lease is trusted that a statement sent at `confirmed_s` has shown as held."""
    return confirmed_s + TRUST_S


def has_outlived(lost_s: float | None, now_s: float) -> bool:
    """Whether something that still runs under a lease lost at `lost_s` has had its grace."""
    return lost_s is not None and now_s >= lost_s + GRACE_S
