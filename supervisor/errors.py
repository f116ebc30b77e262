"""One tree of errors, one class for each way the daemon reacts."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from supervisor.exit_status import ExitStatus


class SupervisorError(Exception):
    """Everything that pgsupervisor raises on purpose.

    Attributes:
        exit_status: What the daemon, or a command, exits with when the error ends it.
    """

    exit_status: ClassVar[ExitStatus] = ExitStatus.SOFTWARE


class ConfigFault(NamedTuple):
    """One thing that is wrong with the configuration.

    Attributes:
        source: The file, or the environment variable, that contains it.
        key: The key path, such as `workers.mail.concurrency`; empty when the whole source is meant.
        problem: A sentence: what was found, what was expected, what to do.
    """

    source: str
    key: str
    problem: str

    def __str__(self) -> str:
        where = f"{self.source}: {self.key}" if self.key else self.source
        return f"{where}: {self.problem}"


class ConfigError(SupervisorError):
    """The configuration is wrong: refuse to start, or keep the old one.

    Attributes:
        faults: Everything that is wrong with it, in the order of the file.
    """

    exit_status = ExitStatus.CONFIG

    def __init__(self, *faults: ConfigFault) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class DatabaseUnavailable(SupervisorError):
    """The database is away and the worker is to stop, so it cannot wait any longer."""

    exit_status = ExitStatus.UNAVAILABLE


class LeaseLost(SupervisorError):
    """The lease has passed on: what this transaction wrote is rolled back, and the worker is stopped here."""


class ProjectionHalted(SupervisorError):
    """An event cannot be applied: the projection is halted until an operator has acted."""


class ShardingConflict(SupervisorError):
    """A node with a newer configuration uses another number of shards: the projection does not run here."""


class TransactionMisused(SupervisorError):
    """A handler ended the transaction it was given, or used it where it was over: nothing of the batch is moved."""


class InvalidEvent(SupervisorError, ValueError):
    """What was to be appended cannot be stored; nothing was sent, and the transaction can go on."""

    exit_status = ExitStatus.USAGE


class ConnectAttemptsExhausted(SupervisorError):
    """The start used up its attempts to connect."""

    exit_status = ExitStatus.UNAVAILABLE


class DatabaseAccessDenied(SupervisorError):
    """The server refused the login, the database or a privilege at the start."""

    exit_status = ExitStatus.NOPERM


class SchemaIncompatible(SupervisorError):
    """The SQL schema is older or newer than this daemon can work with."""

    exit_status = ExitStatus.CONFIG


class EmbeddedDatabaseLocked(SupervisorError):
    """Another process kept the embedded store's directory locked."""

    exit_status = ExitStatus.TEMPFAIL


class EmbeddedDatabaseMisconfigured(SupervisorError):
    """The embedded store cannot work until an operator changes something."""

    exit_status = ExitStatus.CONFIG


class EmbeddedDatabaseFailed(SupervisorError):
    """The embedded store cannot work at the moment, for want of disk space, say."""

    exit_status = ExitStatus.UNAVAILABLE


class ControlSocketInUse(SupervisorError):
    """Another daemon already answers at the control socket."""

    exit_status = ExitStatus.TEMPFAIL


class WorkerExhausted(SupervisorError):
    """A worker used up its restarts and its configuration says that the daemon ends with it."""


class InvalidTransition(SupervisorError):
    """A state machine was asked for a move it does not have: a fault of the daemon itself."""
