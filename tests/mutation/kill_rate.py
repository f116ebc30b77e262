"""Which mutants of a module its tests kill."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from mutation.mutants import Mutant, mutants

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

CHECKOUT = Path(__file__).parents[2]
# The same examples in every run, and none made smaller that fails: only whether a test fails counts.
_PROFILE = "mutation"
# Of the processor; a mutant that takes this, and several times what the unchanged module does, loops for ever.
_LIMIT_S = 4
_TIMES_UNCHANGED = 4
_DEADLINE_S = 120
# The fixture behind every PostgreSQL.
_SERVER = "postgres_template"
_OPTIONS = (
    *("-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", f"--hypothesis-profile={_PROFILE}"),
    "-Wignore::pytest.PytestAssertRewriteWarning",  # what is loaded once for all mutants
)


class Result(NamedTuple):
    """What the tests made of a module's mutants.

    Attributes:
        killed: How many made a test fail.
        survivors: Those that did not, without the equivalent ones.
        equivalent: How many are listed as equivalent.
        mislisted: What the list of equivalent mutants has wrong.
    """

    killed: int
    survivors: list[Mutant]
    equivalent: int
    mislisted: list[str]

    @property
    def share(self) -> float:
        """The part of the mutants that is killed, without the equivalent ones."""
        total = self.killed + len(self.survivors)
        return self.killed / total if total else 1.0


class _Tests(NamedTuple):
    """The tests of a module, and how long of the processor's time they may take."""

    module: str
    files: Sequence[str]
    limit_s: int


class _UnitTestsFirst:
    """Runs what takes a moment first, because the first failure ends it, and nothing that needs a server."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the properties behind the examples."""
        items[:] = [item for item in items if _SERVER not in getattr(item, "fixturenames", ())]
        items.sort(key=lambda item: item.get_closest_marker("hypothesis") is not None)


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module other code than its file has."""

    def __init__(self, module: str, code: CodeType) -> None:
        self._module, self._code = module, code

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Find the one module."""
        del path, target
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._module else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the other code."""
        exec(self._code, module.__dict__)


def prepare() -> None:
    """Load what all tests need, once, and nothing of the project: every mutant is imported afresh."""
    import asyncpg  # noqa: F401
    import cronsim  # noqa: F401
    import pytest_asyncio  # noqa: F401
    import structlog  # noqa: F401
    import uvloop  # noqa: F401

    settings.register_profile(
        _PROFILE,
        deadline=None,
        database=None,
        derandomize=True,
        max_examples=30,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def kill(module: str, tests: Sequence[str], equivalent: Mapping[tuple[str, str], str]) -> Result:
    """Run a module's tests against each of its mutants.

    Args:
        module: Its name.
        tests: The test files.
        equivalent: The mutants that behave as the module does: place and change, and the reason.

    Raises:
        RuntimeError: The tests fail without any change.
    """
    path = CHECKOUT / (module.replace(".", "/") + ".py")
    source = path.read_text("utf-8")
    unchanged = Mutant("", "", 0, compile(source, str(path), "exec", dont_inherit=True))
    began_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    if [killed for _, killed in _run(_Tests(module, tests, _DEADLINE_S), [unchanged])] != [False]:
        raise RuntimeError(f"the tests of {module} fail as it is: {' '.join(tests)}")
    took_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began_s
    of_module = _Tests(module, tests, _LIMIT_S + ceil(_TIMES_UNCHANGED * took_s))
    killed, survivors, listed = 0, [], 0
    unseen = set(equivalent)
    mislisted: list[str] = []
    for mutant, is_killed in _run(of_module, mutants(source, str(path))):
        key = (mutant.where, mutant.change)
        unseen.discard(key)
        if is_killed:
            killed += 1
            if key in equivalent:
                mislisted.append(f"a test kills {key}, which is listed as equivalent")
        elif key in equivalent:
            listed += 1
        else:
            survivors.append(mutant)
    mislisted += [f"there is no mutant {key}, which is listed as equivalent" for key in sorted(unseen)]
    return Result(killed, sorted(survivors, key=lambda mutant: mutant.line), listed, mislisted)


def _run(tests: _Tests, changed: Iterable[Mutant]) -> Iterator[tuple[Mutant, bool]]:
    """Run the tests against each mutant, as many at once as there are processors."""
    running: dict[int, Mutant] = {}
    for mutant in changed:
        if len(running) >= (os.cpu_count() or 1):
            yield _next_end(running)
        running[_fork(tests, mutant)] = mutant
    while running:
        yield _next_end(running)


def _next_end(running: dict[int, Mutant]) -> tuple[Mutant, bool]:
    pid, status = os.wait()
    return running.pop(pid), status != 0


def _fork(tests: _Tests, mutant: Mutant) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (tests.limit_s, tests.limit_s))
        signal.alarm(_DEADLINE_S)
        sys.meta_path.insert(0, _Loader(tests.module, mutant.code))
        status = int(pytest.main([*_OPTIONS, *(str(CHECKOUT / file) for file in tests.files)], [_UnitTestsFirst()]))
    finally:
        os._exit(status)
