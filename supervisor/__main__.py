"""The process's first statements, and the command line behind them."""

# The very first statement: from here to the loop's handlers no signal may end the process. `_signal` is
# built in, `signal` is a module with an enum machinery to import first.
import _signal  # type: ignore[import-not-found]  # CPython has it, typeshed does not

_signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGHUP, _signal.SIGTERM, _signal.SIGINT})

import sys  # noqa: E402


def main() -> None:
    """Run the command line and exit with its status."""
    from supervisor.cli.main import run  # noqa: PLC0415 - the signals are blocked before anything is imported

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
