"""The mutants of a module: its syntax tree with one small change each."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# Where an expression counts as true or false.
_CONDITIONS = {(ast.If, "test"), (ast.While, "test"), (ast.IfExp, "test"), (ast.match_case, "guard")}
# What a mutant is shown in, when it is too small to be read alone.
_CONTEXT = (ast.expr, ast.keyword, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return)
_SHOWN = 110


class Mutant(NamedTuple):
    """One change.

    Attributes:
        where: The function or class that contains it, by its qualified name; empty: the module itself.
        change: The code before and after, as `a < b -> a <= b`.
        line: Its line.
        code: The whole module with the change.
    """

    where: str
    change: str
    line: int
    code: CodeType


class _Site(NamedTuple):
    """A node in its place."""

    where: str
    node: ast.AST
    parents: tuple[ast.AST, ...]
    field: str
    put: Callable[[Any], None]


def mutants(source: str, path: str) -> Iterator[Mutant]:
    """Return the mutants of a module.

    Not mutated are docstrings, annotations and types, imports, the pieces of f-strings, `__slots__`, and the values
    of enum members, which the decisions compare by identity.
    """
    tree = ast.parse(source)
    for site in list(_sites(tree, (), "")):
        shown = _shown_in(site)
        before = _text(shown)
        for replacement, removed in _replacements(site):
            ast.copy_location(replacement, site.node)
            site.put(replacement)
            after = _text(replacement if shown is site.node else shown)
            code = compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)
            site.put(site.node)
            change = f"without {removed}" if removed else f"{before} -> {after}"
            yield Mutant(site.where, change, getattr(site.node, "lineno", 0), code)


def _sites(node: ast.AST, parents: tuple[ast.AST, ...], where: str) -> Iterator[_Site]:
    inner = (node, *parents)
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "bases", "decorator_list", "format_spec", "type_params"}:
            continue
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if not isinstance(child, ast.AST) or _is_left_alone(child, node):
                continue
            named = isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            inside = f"{where}.{child.name}".lstrip(".") if named else where  # type: ignore[attr-defined]
            put = _putter(node, field, index if isinstance(value, list) else None)
            yield _Site(inside, child, inner, field, put)
            yield from _sites(child, inner, inside)


def _putter(parent: ast.AST, field: str, index: int | None) -> Callable[[Any], None]:
    def put(node: Any) -> None:
        if index is None:
            setattr(parent, field, node)
        else:
            getattr(parent, field)[index] = node

    return put


def _is_left_alone(node: ast.AST, parent: ast.AST) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()) | ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
        case ast.Assign() if isinstance(parent, ast.ClassDef):
            return any(isinstance(base, ast.Name) and base.id == "Enum" for base in parent.bases)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.Constant() if isinstance(parent, ast.JoinedStr):
            return True
    return False


def _replacements(site: _Site) -> Iterator[tuple[ast.AST, str]]:
    """Return what is put in a node's place, and, where something is only left out, what."""
    match site.node:
        case ast.Dict(keys, values):
            for index, (key, value) in enumerate(zip(keys, values, strict=True)):
                rest = [n for n in range(len(keys)) if n != index]
                removed = f"{_text(key)}: {_text(value)}" if key is not None else f"**{_text(value)}"
                yield ast.Dict([keys[n] for n in rest], [values[n] for n in rest]), removed
        case ast.Set(elements) if len(elements) > 1:
            for element in elements:
                yield ast.Set([other for other in elements if other is not element]), _text(element)
        case ast.MatchOr(patterns):
            for pattern in patterns:
                rest_of = [other for other in patterns if other is not pattern]
                yield ast.MatchOr(rest_of) if len(rest_of) > 1 else rest_of[0], f"case {_text(pattern)}"
        case ast.Expr(ast.Call()):
            yield ast.Pass(), _text(site.node)
        case node:
            yield from ((replacement, "") for replacement in _changed(site, node))


def _changed(site: _Site, node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901 - a case for each rule
    match node:
        case ast.Compare(ops=[operator]):
            yield from (ast.Compare(node.left, [other()], node.comparators) for other in _COMPARISONS[type(operator)])
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            yield ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right)
        case ast.AugAssign() if type(node.op) in _OPERATORS:
            yield ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant():
            yield from _constants(node)
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            yield ast.Call(ast.Name(_FUNCTIONS[name], ast.Load()), node.args, node.keywords)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript() if _is_condition(site):
            yield ast.UnaryOp(ast.Not(), node)


def _constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool(value):
            yield ast.Constant(not value)
        case int(number) | float(number):
            yield ast.Constant(number + 1)
        case str(text):
            yield ast.Constant("XX" + text)
        case _:
            pass


def _is_condition(site: _Site) -> bool:
    parent = site.parents[0]
    is_filter = isinstance(parent, ast.comprehension) and site.field == "ifs"
    return (type(parent), site.field) in _CONDITIONS or isinstance(parent, ast.BoolOp) or is_filter


def _shown_in(site: _Site) -> ast.AST:
    """Return the smallest node around a change that can be read alone."""
    shown = site.node
    for parent in site.parents:
        if len(_text(shown)) > _SHOWN // 4 or not isinstance(parent, _CONTEXT) or len(_text(parent)) > _SHOWN:
            break
        shown = parent
    return shown


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())
