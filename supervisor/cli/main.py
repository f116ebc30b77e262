"""The command line: what there is, and which file carries it out."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import supervisor
from supervisor.cli.output import flush

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_USAGE = 64
# What a shell says of a command that Ctrl-C ended.
_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """argparse with the exit status that sysexits.h gives a wrong command line."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and exit with 64."""
        self.print_usage(sys.stderr)
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def run(arguments: Sequence[str]) -> int:
    """Carry out one command and return its exit status."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit:
        flush()
        raise
    if options.command == "run":
        return _run(options)
    try:
        return _carry_out(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        flush()


def _carry_out(options: argparse.Namespace) -> int:
    # Only the daemon wants its signals held back until it can handle them.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM, signal.SIGINT})
    handler: Callable[[argparse.Namespace], int] = _HANDLERS[options.command]
    try:
        return handler(options)
    except BrokenPipeError:
        # Whoever read has read enough.
        return 0


def _parser() -> Parser:
    parser = Parser(prog="pgsupervisor", description="Keeps asyncio workers running on PostgreSQL, under systemd.")
    parser.add_argument("--version", action="version", version=f"pgsupervisor {supervisor.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _add(commands, "run", "run the daemon in the foreground")
    check = _add(commands, "check", "read the configuration and import every worker; print every fault")
    check.add_argument("--connect", action="store_true", help="connect to the database too")
    status = _add(commands, "status", "show what the running daemon does", control=True)
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    reload = _add(commands, "reload", "make the running daemon read its configuration anew", control=True)
    reload.add_argument("--dry-run", action="store_true", help="only print what would change")
    for name, what in (
        ("pause", "let a worker end what it does, and not run again"),
        ("resume", "let a paused worker run again"),
        ("restart", "stop a worker and start it anew, also an exhausted one"),
    ):
        _add(commands, name, what, control=True).add_argument("worker", metavar="WORKER", help="its name")
    _add(commands, "unit", "print a hardened systemd unit for this configuration")
    return parser


def _add(
    commands: argparse._SubParsersAction[Parser], name: str, what: str, *, control: bool = False
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    command.add_argument(
        "-c", "--config", metavar="FILE",
        help="the configuration (default: $PGSUPERVISOR_CONFIG, ./pgsupervisor.toml, "
        "/etc/pgsupervisor/pgsupervisor.toml)",
    )  # fmt: skip
    if control:
        command.add_argument("--control", metavar="PATH", help="the running daemon's control socket")
    return command


def _run(options: argparse.Namespace) -> int:
    from supervisor.daemon.process import run as run_daemon  # noqa: PLC0415 - only what the command needs

    return run_daemon(options.config)


def _check(options: argparse.Namespace) -> int:
    from supervisor.cli.check import check  # noqa: PLC0415 - only what the command needs

    return check(options.config, connect=options.connect)


def _status(options: argparse.Namespace) -> int:
    from supervisor.cli.status import show_status  # noqa: PLC0415 - only what the command needs

    return show_status(options.control, options.config, as_json=options.json, watch=options.watch)


def _reload(options: argparse.Namespace) -> int:
    from supervisor.cli.order import reload  # noqa: PLC0415 - only what the command needs

    return reload(options.control, options.config, dry_run=options.dry_run)


def _order(options: argparse.Namespace) -> int:
    from supervisor.cli.order import order  # noqa: PLC0415 - only what the command needs

    return order(options.control, options.config, options.command, options.worker)


def _unit(options: argparse.Namespace) -> int:
    from supervisor.cli.unit import print_unit  # noqa: PLC0415 - only what the command needs

    return print_unit(options.config)


_HANDLERS = {
    "check": _check,
    "status": _status,
    "reload": _reload,
    "pause": _order,
    "resume": _order,
    "restart": _order,
    "unit": _unit,
}
