"""Tortures several daemons for as long as asked, and judges what they did."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import time
from itertools import groupby
from pathlib import Path

from torture.run import Settings, server_template, torture

_SHOWN = 20


def main() -> int:
    """Run, and return 1 when something was wrong."""
    options = _options()
    # The daemons are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The proxies go on sending to what was just reset.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    begun_s = time.monotonic()
    with server_template() as template:
        settings = Settings(options.seconds, options.seed, options.keep)
        outcome = torture(settings, template, lambda line: print(line, flush=True))
    print("", *outcome.figures.as_text(), sep="\n")
    for complaint in outcome.complaints:
        print(f"wrong: {complaint}")
    for rule, found in groupby(outcome.violations, key=lambda violation: violation.rule):
        what = [violation.what for violation in found]
        print(f"{len(what)} violations of {rule}, the first of them:", *what[:_SHOWN], sep="\n  ")
    is_right = not outcome.violations and not outcome.complaints
    print(f"\n{'right' if is_right else 'WRONG'}, seed {options.seed}, {time.monotonic() - begun_s:.0f} s in all")
    return 0 if is_right else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long they are disturbed (default: 300)")
    parser.add_argument("--seed", type=int, help="repeats the plan of the run that had it (default: a new one)")
    parser.add_argument("--keep", type=Path, help="a folder for the daemons' files and journals, which stay there")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


if __name__ == "__main__":
    sys.exit(main())
