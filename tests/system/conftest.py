"""Containers: a real systemd for each test that asks for one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from support.container_python import CHECKOUT, daemon_binds, why_no_python
from support.systemd_container import SystemdContainer, why_no_container

if TYPE_CHECKING:
    from collections.abc import Iterator

_MACHINE = Path("/")
_CONTAINERS = {"container", "trixie_container", "shared_container", "shared_trixie_container"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots a systemd, so that `-m "not systemd"` leaves it out."""
    for item in items:
        if _CONTAINERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("systemd")


@pytest.fixture
def container(container_binds: dict[str, Path]) -> Iterator[SystemdContainer]:
    """A booted systemd of this machine's release, with the daemon at /opt/pgsupervisor/bin/pgsupervisor."""
    yield from _booted(_MACHINE, container_binds)


@pytest.fixture
def trixie_container(trixie_binds: dict[str, Path]) -> Iterator[SystemdContainer]:
    """The same with Debian 13, whose systemd knows `Type=notify-reload`."""
    yield from _booted(_trixie(), trixie_binds)


@pytest.fixture(scope="module")
def shared_container(container_binds: dict[str, Path]) -> Iterator[SystemdContainer]:
    """One container for all tests of a module, each of which has units of its own there."""
    yield from _booted(_MACHINE, container_binds)


@pytest.fixture(scope="module")
def shared_trixie_container(trixie_binds: dict[str, Path]) -> Iterator[SystemdContainer]:
    """The same with Debian 13."""
    yield from _booted(_trixie(), trixie_binds)


@pytest.fixture(scope="session")
def container_binds() -> dict[str, Path]:
    """What a container of this machine's release sees beside the machine, for those who boot their own."""
    return _binds(_MACHINE)


@pytest.fixture(scope="session")
def trixie_binds() -> dict[str, Path]:
    """What a container of Debian 13 sees beside it."""
    root = _trixie()
    if not root.is_dir():
        _cannot(f"there is no Debian 13 at {root}: `make trixie` makes one")
    return _binds(root)


def _binds(root: Path) -> dict[str, Path]:
    reason = why_no_container(root) or why_no_python(root)
    if reason is not None:
        _cannot(reason)
    return daemon_binds(root)


def _booted(root: Path, binds: dict[str, Path]) -> Iterator[SystemdContainer]:
    with SystemdContainer(root, binds=binds) as container:
        yield container
        print(container.tail())  # noqa: T201 - pytest shows it beside a failure, and only there


def _trixie() -> Path:
    return Path(os.environ.get("PGSUPERVISOR_TRIXIE_ROOT") or CHECKOUT / ".cache" / "trixie").resolve()


def _cannot(reason: str) -> NoReturn:
    """Skip, or fail where everything is expected to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
