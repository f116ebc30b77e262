"""The machine's time zone with its rules, which a fixed offset does not have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from datetime import tzinfo

    from supervisor.clock import Clock

_LOCALTIME = "/etc/localtime"


def machine_zone(clock: Clock) -> tzinfo:
    """Return the zone that `TZ`, else `/etc/localtime`, names; else the offset that is in force now."""
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        with open(name or _LOCALTIME, "rb") as file:  # noqa: PTH123 - one file, and pathlib brings nothing here
            return ZoneInfo.from_file(file, key=name or _LOCALTIME)
    except (OSError, ValueError):
        # A POSIX rule such as `CET-1CEST`, or no file at all. ZoneInfoNotFoundError is a KeyError.
        pass
    except KeyError:
        pass
    zone = clock.wall_time().tzinfo
    assert zone is not None  # noqa: S101 - Clock.wall() promises it
    return zone
