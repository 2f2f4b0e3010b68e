"""What the guards of a rule are, and how its module looks without each of them.

A guard is an `if` whose body only leaves (continue, break, return), each part of it where it
is an `or`; each `not …` that has to hold besides (`… and not _feeds_gate(op)`); and a private
predicate, made constantly true and constantly false. It is named by its function and its source
text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

Scope = ast.Module | ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Guard:
    """One guard: where it is, what it is called, and how its module looks without it."""

    name: str
    file: str
    function: str
    code: CodeType = field(repr=False)


def _leaves(node: ast.stmt) -> bool:
    """Whether `node` is an `if` that does nothing but leave."""
    leaving = (ast.Continue, ast.Break, ast.Return)
    return isinstance(node, ast.If) and len(node.body) == 1 and isinstance(node.body[0], leaving)


def _scopes(tree: Scope, outer: str = "", top: str = "") -> Iterator[tuple[str, str, Any]]:
    """Functions of a module, with their names and the functions in which they are nested."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _scopes(node, f"{outer}{node.name}.", top)
        elif isinstance(node, ast.FunctionDef):
            name = f"{outer}{node.name}"
            yield name, top or name, node
            yield from _scopes(node, f"{name}.", top or name)


def _statements(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """Statements of a function, not of those nested in it."""
    stack: list[ast.AST] = list(reversed(function.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.stmt) and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _exceptions(statement: ast.stmt) -> Iterator[tuple[str, list[ast.expr], int]]:
    """Each `not …` among what has to hold in a statement: of an `and`, of the `if` of a `for`."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            continue
        for node in ast.walk(child):
            word, parts = "", []
            if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
                word, parts = "and", node.values
            elif isinstance(node, ast.comprehension):
                word, parts = "if", node.ifs
            for i, part in enumerate(parts):
                if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.Not):
                    yield word, parts, i


def _constantly(value: bool, expression: ast.expr) -> ast.expr:
    """`value`; the expression still binds the names it reads, but is never evaluated."""
    operator = ast.Or() if value else ast.And()
    constant = ast.copy_location(ast.Constant(value), expression)
    return ast.copy_location(ast.BoolOp(operator, [constant, expression]), expression)


def _find(code: CodeType, name: str) -> CodeType:
    """The code of the function `name` in a module's code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == name:
                return constant
            if name.startswith(f"{constant.co_qualname}."):
                return _find(constant, name)
    raise LookupError(f"no function {name!r} in {code.co_filename}")


def guards_of(file: Path) -> Iterator[Guard]:
    """The guards of one file, in the order of its source."""
    tree = ast.parse(file.read_text())
    names: dict[str, int] = {}

    def guard(name: str, top: str) -> Guard:
        names[name] = names.get(name, 0) + 1
        text = f"{file.name}:{name}" + (f" #{names[name]}" if names[name] > 1 else "")
        ast.fix_missing_locations(tree)
        return Guard(text, file.name, top, _find(compile(tree, str(file), "exec"), top))

    for name, top, function in _scopes(tree):
        returns = ast.unparse(function.returns) if function.returns else ""
        private = function.name.startswith("_") or file.name.startswith("_")
        if returns == "bool" and private:
            body = function.body
            for value in (True, False):
                dead = ast.If(ast.Constant(False), body, [])
                function.body = [dead, ast.Return(ast.Constant(value))]
                yield guard(f"{name} is {value}", top)
            function.body = body
        for node in _statements(function):
            for what, parts, i in _exceptions(node):
                part = parts[i]
                parts[i] = _constantly(True, part)
                yield guard(f"{name}: {what} {ast.unparse(part)}", top)
                parts[i] = part
            if not (isinstance(node, ast.If) and _leaves(node)):
                continue
            test = node.test
            parts = test.values if isinstance(test, ast.BoolOp) and _is_or(test) else [test]
            for i, part in enumerate(parts):
                text = ast.unparse(part)
                if len(parts) == 1:
                    node.test = _constantly(False, part)
                    yield guard(f"{name}: {text}", top)
                    node.test = test
                else:
                    parts[i] = _constantly(False, part)
                    yield guard(f"{name}: {text}", top)
                    parts[i] = part


def _is_or(test: ast.BoolOp) -> bool:
    return isinstance(test.op, ast.Or)
