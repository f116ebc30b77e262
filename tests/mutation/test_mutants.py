"""What is changed in a module, and what is left alone."""

from __future__ import annotations

import pytest
from mutation.__main__ import _equivalent, _tests
from mutation.kill_rate import CHECKOUT
from mutation.mutants import mutants


def changes(source: str) -> set[str]:
    return {mutant.change for mutant in mutants(source, "decision.py")}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", {"x = a < b -> x = a <= b", "x = a < b -> x = a >= b"}),
        ("LIMIT_S = 5.0", {"LIMIT_S = 5.0 -> LIMIT_S = 6.0"}),
        ("x = a or 1", {"x = a or 1 -> x = a and 1", "x = a or 1 -> x = not a or 1", "x = a or 1 -> x = a or 2"}),
        ("x = {1: y}", {"without 1: y", "x = {1: y} -> x = {2: y}"}),
        ("seen.add(y)", {"without seen.add(y)"}),
        ("match x:\n    case A | B:\n        pass", {"without case A", "without case B"}),
        ("if f(x):\n    pass", {"f(x) -> not f(x)"}),
    ],
)  # fmt: skip
def test_each_rule_changes_one_thing(source: str, expected: set[str]) -> None:
    """A mutant is the module with one small change."""
    assert changes(source) == expected


def test_what_decides_nothing_is_left_alone() -> None:
    """Docstrings, types, slots, imports, pieces of text and the values of enum members are no decisions."""
    source = '''
"""A docstring."""
from enum import Enum
Jitter = Literal["full", "none"]
class State(Enum):
    """A docstring."""
    HELD = "held"
class Window:
    __slots__ = ("count",)
def said(n: "int") -> "str":
    """A docstring."""
    return f"{n} times"
'''
    assert changes(source) == set()


def test_every_deciding_module_has_tests() -> None:
    """The table of pyproject.toml names modules and test files that exist, and each equivalent mutant has a reason."""
    tests = _tests()
    assert len(tests) > 15
    for module, files in tests.items():
        assert (CHECKOUT / f"{module.replace('.', '/')}.py").exists(), module
        assert files, module
        assert all((CHECKOUT / file).exists() for file in files), module
    assert all(reason for module in tests for reason in _equivalent(module).values())
