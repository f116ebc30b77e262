"""The command line: what there is, and which file carries it out."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

from supervisor.cli.output import flush

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

# What a shell says of a command that Ctrl-C ended.
_INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """Carry out one command and return its exit status."""
    if (plain := _fast_run_arguments(arguments)) is not None:
        return _run(*plain)
    from supervisor.cli.parser import parser_of_commands  # noqa: PLC0415 - systemd's own command line needs none

    try:
        options = parser_of_commands().parse_args(arguments)
    except SystemExit:
        flush()
        raise
    if options.command == "run":
        return _run(options.config)
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


def _fast_run_arguments(arguments: Sequence[str]) -> tuple[str | None] | None:
    """Return what `-c` says of a command line that is `run` and no more, else None.

    The daemon's start need not wait for a parser of eight commands.
    """
    match list(arguments):
        case ["run"]:
            return (None,)
        case ["run", "-c" | "--config", path] if not path.startswith("-"):
            return (path,)
        case _:
            return None


def _run(config: str | None) -> int:
    # A start makes much and leaves nothing to collect; the daemon turns it on again before it first waits.
    gc.disable()
    from supervisor.daemon.process import run as run_daemon  # noqa: PLC0415 - only what the command needs

    return run_daemon(config)


def _check(options: argparse.Namespace) -> int:
    from supervisor.cli.check import check  # noqa: PLC0415 - only what the command needs

    return check(options.config, connect=options.connect)


def _status(options: argparse.Namespace) -> int:
    from supervisor.cli.status import show_status  # noqa: PLC0415 - only what the command needs

    return show_status(options.control, options.config, as_json=options.json, watch=options.watch)


def _reload(options: argparse.Namespace) -> int:
    from supervisor.cli.control_client import reload  # noqa: PLC0415 - only what the command needs

    return reload(options.control, options.config, dry_run=options.dry_run)


def _order(options: argparse.Namespace) -> int:
    from supervisor.cli.control_client import order  # noqa: PLC0415 - only what the command needs

    return order(options.control, options.config, options.command, options.worker)


def _migrate(options: argparse.Namespace) -> int:
    from supervisor.cli.migrate import migrate  # noqa: PLC0415 - only what the command needs

    return migrate(options.config)


def _append(options: argparse.Namespace) -> int:
    from supervisor.cli.append import append  # noqa: PLC0415 - only what the command needs

    return append(options.config, options.stream, options.type, options.data)


def _projections(options: argparse.Namespace) -> int:
    from supervisor.cli import projections  # noqa: PLC0415 - only what the command needs

    match options.action:
        case "list":
            return projections.list_projections(options.config, as_json=options.json)
        case "reset":
            return projections.reset(options.config, options.name, to=options.to)
        case "forget":
            return projections.forget(options.config, options.name)
        case _:
            return projections.skip(options.config, options.name)


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
    "migrate": _migrate,
    "append": _append,
    "projections": _projections,
    "unit": _unit,
}
