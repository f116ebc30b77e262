"""Importing the users' functions: every fault is reported, and none hangs or ends the daemon."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.workers import projection, service

from supervisor.clock import SystemClock
from supervisor.errors import ConfigError
from supervisor.workers.handlers import import_handlers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = """
import functools
async def work(ctx): ...
async def optional(ctx, more=1, *, other=2): ...
partial = functools.partial(optional, more=3)
def plain(ctx): ...
def generator(ctx): yield
async def asyncgen(ctx): yield
async def none(): ...
async def pair(ctx, job): ...
filled = functools.partial(pair, 1, 2)
number = 3
class Class:
    async def method(self, ctx): ...
    async def __call__(self, ctx): ...
instance = Class()
def decorate(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper
decorated = decorate(work)
def __getattr__(name):
    if name == "explosive": raise SystemExit(9)
    raise AttributeError(name)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to import from, forgotten afterwards."""
    before, path = set(sys.modules), [*sys.path]
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    """Write a module of a name that no other test uses."""
    (folder / f"{name}.py").write_text(text)
    return name


async def problems(folder: Path, *runs: str, timeout_s: float = 30.0) -> list[str]:
    """Return what is wrong with workers that run these."""
    specs = [type(service())(name=f"w{n}", run=run, kind=service().kind) for n, run in enumerate(runs)]
    with pytest.raises(ConfigError) as caught:
        await import_handlers(specs, python_path=[folder], source="app.toml", clock=SystemClock(), timeout_s=timeout_s)
    assert all(fault.source == "app.toml" for fault in caught.value.faults)
    return [f"{fault.key}: {fault.problem}" for fault in caught.value.faults]


async def test_what_can_be_a_worker(folder: Path) -> None:
    """Coroutine functions, partials, decorated ones, methods and callable objects can be workers."""
    module = write(folder, "good_workers", GOOD)
    names = ["work", "optional", "partial", "instance", "instance.method", "decorated"]
    specs = [service(f"w{n}") for n, _ in enumerate(names)]
    specs = [type(s)(name=s.name, run=f"{module}:{name}", kind=s.kind) for s, name in zip(specs, names, strict=True)]
    functions = await import_handlers(specs, python_path=[folder], source="app.toml", clock=SystemClock())
    assert [*functions] == [spec.name for spec in specs]
    assert functions["w0"] is sys.modules[module].work


async def test_the_import_path(folder: Path) -> None:
    """The folders come after the standard library and before what is installed, each once and in their order."""
    own = [folder / "a", folder / "site-packages", folder / "c"]
    for each in own:
        each.mkdir()
    before = [*sys.path]
    for python_path in (own[:2], own[:1] * 2, own):  # a reload may add some
        await import_handlers([], python_path=python_path, source="app.toml", clock=SystemClock())
    first = next(n for n, entry in enumerate(before) if entry.endswith("site-packages"))
    assert sys.path == [*before[:first], *map(str, (own[0], own[1], own[2])), *before[first:]]


async def test_a_folder_of_the_import_path_has_to_exist(folder: Path) -> None:
    """A folder that is not there is a fault of `python_path`, beside those of the workers."""
    specs = [type(service())(name="w", run="absent_module:work", kind=service().kind)]
    with pytest.raises(ConfigError) as caught:
        await import_handlers(
            specs, python_path=[folder, folder / "absent"], source="app.toml", clock=SystemClock()
        )  # fmt: skip
    assert [fault.key for fault in caught.value.faults] == ["supervisor.python_path", "workers.w.run"]
    assert str(caught.value.faults[0]) == f"app.toml: supervisor.python_path: the folder {folder}/absent does not exist"


async def test_the_import_path_without_installed_packages(folder: Path) -> None:
    """If no packages are installed, the folders come last."""
    sys.path[:] = bare = [entry for entry in sys.path if not entry.endswith("packages")]
    await import_handlers([], python_path=[folder], source="app.toml", clock=SystemClock())
    assert sys.path == [*bare, str(folder)]


async def test_an_own_module_comes_before_an_installed_one(folder: Path) -> None:
    """A worker's module shadows an installed package of the same name, but not the standard library."""
    for name in ("iniconfig", "sched"):
        write(folder, name, "async def work(ctx): ...\n")
        sys.modules.pop(name, None)
    spec = type(service())(name="w", run="iniconfig:work", kind=service().kind)
    functions = await import_handlers([spec], python_path=[folder], source="app.toml", clock=SystemClock())
    assert functions["w"].__code__.co_filename == str(folder / "iniconfig.py")
    (problem,) = await problems(folder, "sched:work")
    assert "sched.py has no 'work'" in problem


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plain", "is a plain function"),
        ("generator", "is a generator"),
        ("asyncgen", "is an async generator"),
        ("number", "is of type 'int'"),
        ("Class", "is a class"),
        ("none", r'takes \(\); a worker of kind "service" takes \(ctx\)'),
        ("pair", r"takes \(ctx, job\)"),
        ("filled", r"takes \(\)"),
        ("wrok", r"good_faults\.py has no 'wrok'; did you mean 'work'\?"),
        ("explosive", "raised SystemExit: 9"),
    ],
)
async def test_what_cannot_be_a_worker(folder: Path, name: str, says: str) -> None:
    """The fault says what was found instead."""
    module = write(folder, "good_faults", GOOD)
    (problem,) = await problems(folder, f"{module}:{name}")
    assert problem.startswith("workers.w0.run: ")
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(problem)


async def test_what_a_projection_takes(folder: Path) -> None:
    """A projection's function takes the context and the events; a fault says so if it takes the context alone."""
    module = write(folder, "views", GOOD)
    names = ["pair", "optional"]
    specs = [projection(f"w{n}")._replace(run=f"{module}:{name}") for n, name in enumerate(names)]
    functions = await import_handlers(specs, python_path=[folder], source="app.toml", clock=SystemClock())
    assert functions["w0"] is sys.modules[module].pair
    specs = [projection()._replace(run=f"{module}:{name}") for name in ("work", "plain")]
    for spec, says in zip(
        specs,
        ('takes (ctx); a worker of kind "projection" takes (ctx, events)', "async def work(ctx, events)"),
        strict=True,
    ):
        with pytest.raises(ConfigError) as caught:
            await import_handlers([spec], python_path=[folder], source="app.toml", clock=SystemClock())
        assert says in caught.value.faults[0].problem


async def test_one_function_for_a_service_and_a_projection(folder: Path) -> None:
    """Each worker is checked by its own kind."""
    module = write(folder, "both", GOOD)
    specs = [service()._replace(run=f"{module}:pair"), projection()._replace(run=f"{module}:pair")]
    with pytest.raises(ConfigError) as caught:
        await import_handlers(specs, python_path=[folder], source="app.toml", clock=SystemClock())
    assert [fault.key for fault in caught.value.faults] == ["workers.mail.run"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n1 / 0\n", r"bad_import\.py:2: ZeroDivisionError"),
        ("def broken(:\n", r"bad_import\.py:1: SyntaxError"),
        ("import sys\nsys.exit(2)\n", r"raised SystemExit: 2 at .*bad_import\.py:2"),
        ("raise KeyboardInterrupt\n", "raised KeyboardInterrupt"),
        ("raise BaseExceptionGroup('all', [SystemExit(), OSError()])\n", "BaseExceptionGroup"),
        ("import no_such_package\n", r"failed at .*bad_import\.py:1: ModuleNotFoundError.*no_such_package"),
        ("raise OSError('postgresql://a:hunter2@b/c')\n", r"a:\*\*\*@b"),
    ],
)
async def test_an_import_that_fails(folder: Path, text: str, says: str) -> None:
    """The error is shown with the place where it happened, without secrets, and does not end the process."""
    (problem,) = await problems(folder, f"{write(folder, 'bad_import', text)}:work")
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(problem)
    assert "hunter2" not in problem


async def test_all_faults_are_reported_together(folder: Path) -> None:
    """A module that is missing, one in a missing package, a wrong syntax: each worker has its fault."""
    found = await problems(folder, "not_there:work", "not_there.inner:work", "no-colon", ":x", "a..b:x")
    assert "there is no module 'not_there'" in found[0]
    assert "there is no module 'not_there'" in found[1]
    assert all('expected "package.module:function"' in problem for problem in found[2:])


async def test_an_import_that_hangs(folder: Path) -> None:
    """The fault names the module and the place; workers that came later say why they were not imported."""
    release = threading.Event()
    sys.modules["release_of_the_test"] = holder = type(sys)("release_of_the_test")
    holder.release = release  # type: ignore[attr-defined]
    module = write(folder, "hanging", "import release_of_the_test as r\n\nr.release.wait(60)\n")
    try:
        found: Any = await problems(folder, f"{module}:work", "asyncio:sleep", timeout_s=0.3)
    finally:
        release.set()
        del sys.modules["release_of_the_test"]
    assert "importing 'hanging' has not ended after 300ms; it is at" in found[0]
    assert "hanging.py:3" in found[0]
    assert "worker 'w0' came first" in found[1]


async def test_an_imported_module_is_not_executed_again(folder: Path) -> None:
    """A reload uses the modules that Python has imported."""
    module = write(
        folder, "counted", "import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\nasync def f(ctx): ...\n"
    )
    spec = type(service())(name="w", run=f"{module}:f", kind=service().kind)
    for _ in range(3):
        await import_handlers([spec], python_path=[folder], source="", clock=SystemClock())
    assert sys.counted == 1  # type: ignore[attr-defined]
