"""The command line: what may be written, and which function carries it out.

A command's function returns its exit status, or raises a SupervisorError, whose sentence is printed and whose
`exit_status` the process ends with. The functions are imported when they are called, so that each command loads only
what it needs.
"""

from __future__ import annotations

import gc
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import supervisor
from supervisor.cli.output import flush, print_error
from supervisor.errors import SupervisorError
from supervisor.exit_status import ExitStatus

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    Handler = Callable[[argparse.Namespace], int]
    # argparse has no public name for what `add_subparsers` returns.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001


def run(arguments: Sequence[str]) -> int:
    """Carry out one command and return its exit status."""
    if (fast := _fast_run_arguments(arguments)) is not None:
        return _run_daemon(*fast)
    try:
        options = command_parser().parse_args(arguments)
    except SystemExit:
        flush()
        raise
    if options.command == "run":
        return _run_daemon(options.config)
    try:
        return _carry_out(options)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    finally:
        flush()


def _carry_out(options: argparse.Namespace) -> int:
    # Only the daemon wants its signals held back until it can handle them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM, signal.SIGINT})
    handler: Handler = options.handler
    try:
        return handler(options)
    except BrokenPipeError:
        # The reader has read enough.
        return ExitStatus.OK
    except SupervisorError as error:
        print_error(str(error))
        return error.exit_status


def _fast_run_arguments(arguments: Sequence[str]) -> tuple[str | None] | None:
    """Return what `-c` says of a command line that is `run` and no more, else None.

    The daemon's start need not wait for argparse and the parsers of all commands.
    """
    match list(arguments):
        case ["run"]:
            return (None,)
        case ["run", "-c" | "--config", path] if not path.startswith("-"):
            return (path,)
        case _:
            return None


def _run_daemon(config: str | None) -> int:
    # A start makes much and leaves nothing to collect; the daemon turns it on again before it first waits.
    gc.disable()
    from supervisor.daemon.process import run as run_daemon  # noqa: PLC0415 - only what the command needs

    return run_daemon(config)


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    import argparse  # noqa: PLC0415 - a start under systemd needs none

    class Parser(argparse.ArgumentParser):
        """argparse with the exit status that sysexits.h gives a wrong command line, and each command's own usage."""

        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            # A command's parser reports what it does not know; else the parser of all commands would, with its usage.
            options, unknown = super().parse_known_args(args, namespace)
            if unknown:
                self.error(f"unrecognized arguments: {' '.join(unknown)}")
            return options, unknown

        def error(self, message: str) -> NoReturn:
            self.print_usage(sys.stderr)
            self.exit(ExitStatus.USAGE, f"{self.prog}: {message}\n")

    about = "Keeps asyncio workers running on PostgreSQL, under systemd."
    parser = Parser(prog="pgsupervisor", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"pgsupervisor {supervisor.__version__}")
    commands: Subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )  # fmt: skip
    _add(commands, "run", "run the daemon in the foreground", lambda options: _run_daemon(options.config))
    check = _add(commands, "check", "read the configuration and import every worker; print every fault", _check)
    check.add_argument("--connect", action="store_true", help="connect to the database too")
    _add_control_commands(commands)
    _add_database_commands(commands)
    _add(commands, "unit", "print a hardened systemd unit for this configuration", _unit)
    return parser


def _add_control_commands(commands: Subparsers) -> None:
    status = _add(commands, "status", "show what the running daemon does", _status, control=True)
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    reload = _add(commands, "reload", "make the running daemon read its configuration again", _reload, control=True)
    reload.add_argument("--dry-run", action="store_true", help="only print what would change")
    for name, about in (
        ("pause", "let a worker finish its current run, and start no other"),
        ("resume", "let a paused worker run again"),
        ("restart", "stop a worker and start it again, also an exhausted one"),
    ):
        command = _add(commands, name, about, _worker_command, control=True)
        command.add_argument("worker", metavar="WORKER", help="the worker's name")


def _add_database_commands(commands: Subparsers) -> None:
    _add(commands, "migrate", "create or upgrade the SQL schema", _migrate)
    append = _add(commands, "append", "append one event and print its position", _append)
    append.add_argument("stream", metavar="STREAM", help="what the event concerns, such as orders-17")
    append.add_argument("type", metavar="TYPE", help="what happened, such as placed")
    append.add_argument("data", metavar="JSON", nargs="?", default="{}", help="a JSON object (default: {})")
    about = "Show projections, and repair one that has stopped."
    projections = commands.add_parser("projections", help=_lower(about), description=about)
    actions: Subparsers = projections.add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=type(projections)
    )
    listing = _add(actions, "list", "show each projection's position, lag and problem", _list_projections)
    listing.add_argument("--json", action="store_true", help="as JSON")
    reset = _add(actions, "reset", "apply a projection's events again; what it has written stays", _reset_projection)
    reset.add_argument("name", metavar="NAME", help="the projection")
    reset.add_argument(
        "--to", metavar="POSITION", type=int, default=0, help="the first event is the one after this (default: 0, all)"
    )
    skip = _add(actions, "skip", "leave out the event at which a projection has stopped", _skip_poison)
    skip.add_argument("name", metavar="NAME", help="the projection")
    forget = _add(
        actions, "forget", "delete the checkpoint of a projection that no daemon runs any more", _forget_projection
    )
    forget.add_argument("name", metavar="NAME", help="the projection")


def _add(
    commands: Subparsers, name: str, about: str, handler: Handler, *, control: bool = False
) -> argparse.ArgumentParser:
    sentence = f"{about[0].upper()}{about[1:]}."
    command = commands.add_parser(name, help=about, description=sentence, allow_abbrev=False)
    command.set_defaults(handler=handler)
    command.add_argument(
        "-c", "--config", metavar="FILE",
        help="the configuration (default: $PGSUPERVISOR_CONFIG, ./pgsupervisor.toml, "
        "/etc/pgsupervisor/pgsupervisor.toml)",
    )  # fmt: skip
    if control:
        command.add_argument("--control", metavar="PATH", help="the running daemon's control socket")
    return command


def _lower(sentence: str) -> str:
    return f"{sentence[0].lower()}{sentence[1:-1]}"


def _check(options: argparse.Namespace) -> int:
    from supervisor.cli.check import check  # noqa: PLC0415 - only what the command needs

    return check(options.config, connect=options.connect)


def _unit(options: argparse.Namespace) -> int:
    from supervisor.cli.unit import print_unit  # noqa: PLC0415 - only what the command needs

    return print_unit(options.config)


def _status(options: argparse.Namespace) -> int:
    from supervisor.cli.status import show_status  # noqa: PLC0415 - only what the command needs

    return show_status(options.control, options.config, as_json=options.json, watch=options.watch)


def _reload(options: argparse.Namespace) -> int:
    from supervisor.cli.control_client import reload  # noqa: PLC0415 - only what the command needs

    return reload(options.control, options.config, dry_run=options.dry_run)


def _worker_command(options: argparse.Namespace) -> int:
    from supervisor.cli.control_client import worker_command  # noqa: PLC0415 - only what the command needs

    return worker_command(options.control, options.config, options.command, options.worker)


def _migrate(options: argparse.Namespace) -> int:
    from supervisor.cli.migrate import migrate  # noqa: PLC0415 - only what the command needs

    return migrate(options.config)


def _append(options: argparse.Namespace) -> int:
    from supervisor.cli.append import append  # noqa: PLC0415 - only what the command needs

    return append(options.config, options.stream, options.type, options.data)


def _list_projections(options: argparse.Namespace) -> int:
    from supervisor.cli import projections  # noqa: PLC0415 - only what the command needs

    return projections.list_projections(options.config, as_json=options.json)


def _reset_projection(options: argparse.Namespace) -> int:
    from supervisor.cli import projections  # noqa: PLC0415 - only what the command needs

    return projections.reset(options.config, options.name, to=options.to)


def _skip_poison(options: argparse.Namespace) -> int:
    from supervisor.cli import projections  # noqa: PLC0415 - only what the command needs

    return projections.skip(options.config, options.name)


def _forget_projection(options: argparse.Namespace) -> int:
    from supervisor.cli import projections  # noqa: PLC0415 - only what the command needs

    return projections.forget(options.config, options.name)
