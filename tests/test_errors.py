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
        (errors.ConnectAttemptsExhausted, ExitStatus.UNAVAILABLE),
        (errors.DatabaseAccessDenied, ExitStatus.NOPERM),
        (errors.SchemaIncompatible, ExitStatus.CONFIG),
        (errors.EmbeddedDatabaseLocked, ExitStatus.TEMPFAIL),
        (errors.EmbeddedDatabaseMisconfigured, ExitStatus.CONFIG),
        (errors.EmbeddedDatabaseFailed, ExitStatus.UNAVAILABLE),
        (errors.ControlSocketInUse, ExitStatus.TEMPFAIL),
        (errors.WorkerExhausted, ExitStatus.SOFTWARE),
    ],
)
def test_an_error_has_its_exit_status(error: type[errors.SupervisorError], status: ExitStatus) -> None:
    """The promised statuses, for `run` and for every other command."""
    assert error.exit_status is status
