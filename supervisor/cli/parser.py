"""What may be written on the command line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

import supervisor

_USAGE = 64


class Parser(argparse.ArgumentParser):
    """argparse with the exit status that sysexits.h gives a wrong command line."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong and exit with 64."""
        self.print_usage(sys.stderr)
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def parser_of_commands() -> Parser:
    """Return the parser of every command."""
    about = "Keeps asyncio workers running on PostgreSQL, under systemd."
    parser = Parser(prog="pgsupervisor", description=about, allow_abbrev=False)
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
    _add(commands, "migrate", "create or upgrade the SQL schema")
    append = _add(commands, "append", "append one event and print its position")
    append.add_argument("stream", metavar="STREAM", help="what it concerns, such as orders-17")
    append.add_argument("type", metavar="TYPE", help="what happened, such as placed")
    append.add_argument("data", metavar="JSON", nargs="?", default="{}", help="a JSON object (default: {})")
    _add_projections(commands)
    _add(commands, "unit", "print a hardened systemd unit for this configuration")
    return parser


def _add_projections(commands: argparse._SubParsersAction[Parser]) -> None:
    about = "Look at projections, and move one that stands still."
    parser = commands.add_parser("projections", help=about[0].lower() + about[1:-1], description=about)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    listing = _add(actions, "list", "show how far each has come, and where one has stopped")
    listing.add_argument("--json", action="store_true", help="as JSON")
    reset = _add(actions, "reset", "let one begin again; what it has written stays")
    reset.add_argument("name", metavar="NAME", help="the projection")
    reset.add_argument(
        "--to", metavar="POSITION", type=int, default=0, help="the first event is the one after this (default: 0, all)"
    )
    skip = _add(actions, "skip", "leave out the event at which one has stopped")
    skip.add_argument("name", metavar="NAME", help="the projection")
    forget = _add(actions, "forget", "forget one that nobody runs any more, so that it holds back no event")
    forget.add_argument("name", metavar="NAME", help="the projection")


def _add(
    commands: argparse._SubParsersAction[Parser], name: str, what: str, *, control: bool = False
) -> argparse.ArgumentParser:
    about = what[0].upper() + what[1:] + "."
    command = commands.add_parser(name, help=what, description=about, allow_abbrev=False)
    command.add_argument(
        "-c", "--config", metavar="FILE",
        help="the configuration (default: $PGSUPERVISOR_CONFIG, ./pgsupervisor.toml, "
        "/etc/pgsupervisor/pgsupervisor.toml)",
    )  # fmt: skip
    if control:
        command.add_argument("--control", metavar="PATH", help="the running daemon's control socket")
    return command
