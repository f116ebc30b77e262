"""Each error names the exit status of a process that it ends."""

from __future__ import annotations

import pytest

from supervisor import errors
from supervisor.exit_status import ExitStatus


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SupervisorError, ExitStatus.SOFTWARE),
        (errors.ConfigError, ExitStatus.CONFIG),
        (errors.DatabaseUnavailable, ExitStatus.UNAVAILABLE),
        (errors.InvalidEvent, ExitStatus.USAGE),
        (errors.DatabaseGaveUp, ExitStatus.UNAVAILABLE),
        (errors.DatabaseRefused, ExitStatus.NOPERM),
        (errors.SchemaUnusable, ExitStatus.CONFIG),
        (errors.StoreLocked, ExitStatus.TEMPFAIL),
        (errors.StoreUnusable, ExitStatus.CONFIG),
        (errors.StoreFailed, ExitStatus.UNAVAILABLE),
        (errors.ControlTaken, ExitStatus.TEMPFAIL),
        (errors.WorkerExhausted, ExitStatus.SOFTWARE),
    ],
)
def test_an_error_has_its_exit_status(error: type[errors.SupervisorError], status: ExitStatus) -> None:
    """The promised statuses, for `run` and for every other command."""
    assert error.exit_status is status
