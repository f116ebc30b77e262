"""`python -m mutation [MODULE…]`: shows the share of the deciding modules' mutants that their tests kill.

A mutant is a module with one small change. One that no test notices shows a decision that no test asserts. The
deciding modules and their tests are in pyproject.toml, the equivalent mutants in equivalent.toml. The status is 1 when
a module is below the limit, or when a listed mutant does not exist or is killed.

Why not a library. mutmut 3 changes what is inside of functions alone: the tables of states, SQLSTATEs and the constants
of a policy, half of what these modules decide, stay as they are; it has neither a limit nor a list of tests for each
module, and no place for the reason why a mutant is equivalent. cosmic-ray starts a pytest for every mutant, which takes
an hour, and edits the checkout meanwhile.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from mutation.kill_rate import CHECKOUT, Result, kill, prepare

LIMIT = 0.9
_EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def _tests() -> dict[str, list[str]]:
    """Return the test files of each deciding module.

    Raises:
        SystemExit: A module is under the contract of purity, and its tests are not named.
    """
    tool = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]
    tests: dict[str, list[str]] = tool["mutation"]["tests"]
    for contract in tool["importlinter"]["contracts"]:
        if contract["name"] == "Decisions are pure" and (missing := set(contract["source_modules"]) - set(tests)):
            sys.exit(f"pyproject.toml, tool.mutation.tests: the tests of {', '.join(sorted(missing))} are not named")
    return tests


def _equivalent(module: str) -> dict[tuple[str, str], str]:
    listed: list[dict[str, Any]] = tomllib.loads(_EQUIVALENT.read_text("utf-8")).get("mutant", [])
    return {(entry["where"], entry["change"]): entry["reason"] for entry in listed if entry["module"] == module}


def _show(module: str, result: Result) -> bool:
    """Print a module's line, and what is wrong; return whether all is well."""
    total = result.killed + len(result.survivors)
    is_well = result.share >= LIMIT and not result.mislisted
    listed = f", {result.equivalent} equivalent" if result.equivalent else ""
    print(f"{'' if is_well else 'FAILED '}{module}: {result.share:.0%} of {total}{listed}", flush=True)
    for mutant in result.survivors:
        print(f"  {mutant.line}: {mutant.where or 'module'}: {mutant.change}")
    for problem in result.mislisted:
        print(f"  {problem}")
    return is_well


def main(wanted: list[str]) -> int:
    """Run the modules whose names contain one of `wanted`, or all; return the exit status."""
    prepare()
    modules = {m: files for m, files in _tests().items() if not wanted or any(part in m for part in wanted)}
    results = [_show(module, kill(module, tests, _equivalent(module))) for module, tests in modules.items()]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
