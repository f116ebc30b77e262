"""The commented file is complete and true, and the example can be started."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.config_file import faults_of

from supervisor.config.loader import read_config
from supervisor.config.model import EmbeddedStore, Projection
from supervisor.config.schema import TOP, WORKER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from supervisor.config.table_reader import Key

FOLDER = Path(__file__).parents[2] / "config"
COMMENTED = FOLDER / "pgsupervisor.toml"
_DEFAULT = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)
_ALTERNATIVE = re.compile(r"^(?P<first>#?[a-z_]+ = .*\n)#\| (?P<other>.*)\n", re.MULTILINE)


def _keys(keys: Mapping[str, Key], *before: str) -> Iterator[tuple[str, ...]]:
    for name, key in keys.items():
        yield from _keys(key.inner, *before, name) if key.inner is not None else [(*before, name)]


def _known() -> set[tuple[str, ...]]:
    return {path for path in _keys(TOP) if path != ("workers",)} | set(_keys(WORKER, "workers", "*"))


def _shown(tables: dict[str, Any], *before: str) -> Iterator[tuple[str, ...]]:
    for name, value in tables.items():
        path = (*before, "*" if before == ("workers",) else name)
        if isinstance(value, dict) and path[-1] != "settings":
            yield from _shown(value, *path)
        else:
            yield path


def _uncommented(text: str) -> str:
    return _DEFAULT.sub("", text)


def test_the_file_has_every_key_and_no_other() -> None:
    """The file has every key of the schema, and no other."""
    text = _uncommented(COMMENTED.read_text())
    shown = set(_shown(tomllib.loads(text)))
    shown |= set(_shown(tomllib.loads(_ALTERNATIVE.sub(r"\g<other>\n", text))))
    assert shown == _known()


def test_every_default_that_is_shown_is_the_default(tmp_path: Path) -> None:
    """Removing each comment sign changes nothing, so each value shown is what the model has."""
    path = tmp_path / COMMENTED.name
    path.write_text(COMMENTED.read_text())
    as_shipped = read_config(path, {})
    path.write_text(_uncommented(COMMENTED.read_text()))
    assert read_config(path, {}) == as_shipped


@pytest.mark.parametrize("match", list(_ALTERNATIVE.finditer(COMMENTED.read_text())), ids=lambda match: match["other"])
def test_every_alternative_is_valid(tmp_path: Path, match: re.Match[str]) -> None:
    """An alternative in place of the line before it is a configuration too."""
    text = COMMENTED.read_text()
    (tmp_path / "dsn").write_text("postgresql:///app")
    other = match["other"].replace("/run/secrets/app-dsn", "dsn")
    assert faults_of(tmp_path, text.replace(match[0], f"{other}\n")) == []


def test_every_key_is_explained() -> None:
    """Each key, or group of keys, follows a sentence."""
    blocks = [
        block for block in COMMENTED.read_text().split("\n\n") if re.search(r"^#?\|? ?[a-z_]+ = ", block, re.MULTILINE)
    ]
    assert len(blocks) > 25
    unexplained = [block for block in blocks if not block.startswith("# ") and "kind =" not in block]
    assert unexplained == []


def test_the_example_is_valid() -> None:
    """What `make run` starts is a valid configuration on an embedded store, with its state in the checkout's root."""
    config = read_config(FOLDER / "example.toml", {})
    assert config.database.target == EmbeddedStore()
    assert config.daemon.state_dir == FOLDER.parent / ".pgsupervisor"
    assert config.daemon.python_path == (FOLDER,)
    assert list(config.workers) == ["shop", "packer", "sales", "bookkeeper"]


def test_the_example_runs_what_is_there() -> None:
    """Every worker of the example is an async function of its module that takes what its kind is given."""
    tree = ast.parse((FOLDER / "example_workers.py").read_text())
    functions = {
        node.name: [argument.arg for argument in node.args.args]
        for node in tree.body
        if isinstance(node, ast.AsyncFunctionDef)
    }
    for spec in read_config(FOLDER / "example.toml", {}).workers.values():
        module, _, name = spec.run.partition(":")
        assert module == "example_workers"
        assert functions[name] == (["ctx", "events"] if isinstance(spec.kind, Projection) else ["ctx"])
