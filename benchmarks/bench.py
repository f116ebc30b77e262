"""What every figure is given: an installation, servers, folders, and how thorough to be."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.postgres import Postgres, make_template, running_postgres, server_home

from benchmarks.installation import Installation, install

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(slots=True)
class BenchmarkRun:
    """The bench that the figures are measured on.

    Attributes:
        installation: The daemon under test.
        seed: Where the random phases come from; a figure draws its own from it.
        is_quick: Fewer and shorter measurements, to see that everything works.
    """

    installation: Installation
    seed: int
    is_quick: bool
    _template: Path
    _scratch: Path
    _folders: int = field(default=0)

    @classmethod
    @contextlib.contextmanager
    def set_up(cls, *, seed: int, is_quick: bool) -> Iterator[Self]:
        """Install the daemon and make room; everything but the environment is gone afterwards."""
        with server_home() as home:
            # A short path: the address of a socket holds 107 bytes.
            scratch = Path(tempfile.mkdtemp(prefix="pgb-"))
            try:
                template = make_template(home)
                # Twenty daemons with eleven connections each.
                (template / "test.conf").write_text("max_connections = 400\n")
                yield cls(install(), seed, is_quick, template, scratch)
            finally:
                shutil.rmtree(scratch)

    def random(self, name: str) -> random.Random:
        """Return a source of chance that is the same in every run of this seed."""
        return random.Random(f"{self.seed} {name}")

    def folder(self, name: str) -> Path:
        """Return the path of a fresh folder, not made yet."""
        self._folders += 1
        return self._scratch / f"{name}{self._folders}"

    def server(self) -> contextlib.AbstractContextManager[Postgres]:
        """Run a fresh PostgreSQL."""
        return running_postgres(self._template)

    def bare(self, script: str, *arguments: str) -> tuple[str | Path, ...]:
        """Return the command of a script in `bare/`."""
        return (self.installation.python, Path(__file__).parent / "bare" / f"{script}.py", *arguments)

    def count(self, full: int, quick: int) -> int:
        """Return a number of repetitions."""
        return quick if self.is_quick else full
