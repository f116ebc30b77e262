"""The exit statuses of `run` and of the commands: most are of BSD's sysexits.h, which systemd prints by name."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Why the process ends."""

    OK = 0
    REFUSED = 1  # of commands, never of `run`: what was asked for was not done
    USAGE = 64
    UNAVAILABLE = 69
    SOFTWARE = 70
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78
    INTERRUPTED = 130  # of commands: Ctrl-C ended it; as a shell reports a death by SIGINT
