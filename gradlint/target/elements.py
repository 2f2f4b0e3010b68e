"""The parts of a container in source code: what is written between its brackets, in order."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "__init__")
"""Calls that hold the parts of a container; the last is a subclass's ``super().__init__``."""


@dataclass(frozen=True)
class Element:
    """One part: the expression that builds it, its key, and whether a loop repeats it."""

    expression: ast.expr
    key: str | None = None
    loop: bool = False

    @property
    def kind(self) -> str:
        """Name of the class or function that is called; empty for anything else."""
        return called(self.expression)


def called(node: ast.AST) -> str:
    """Last name of what an expression calls: ``nn.Linear(2, 3)`` is "Linear"."""
    if not isinstance(node, ast.Call):
        return ""
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


class Elements:
    """Reads containers inside one function or module, whose variables it follows."""

    def __init__(self, scope: ast.AST) -> None:
        self.scope = scope

    def of(self, expression: ast.expr, depth: int = 0) -> list[Element]:
        """Parts of a container, a list, a comprehension, or a variable that holds one."""
        if depth > 8:
            return []
        if isinstance(expression, ast.Call):
            return [e for argument in expression.args for e in self._argument(argument, depth)]
        return self._sequence(expression, depth)

    def _argument(self, argument: ast.expr, depth: int) -> list[Element]:
        if isinstance(argument, ast.Starred):
            return self._sequence(argument.value, depth + 1)
        if isinstance(argument, ast.Call) and called(argument) not in (
            "OrderedDict",
            "dict",
            "list",
        ):
            return [Element(argument)]
        return self._sequence(argument, depth + 1)

    def _sequence(self, node: ast.expr, depth: int) -> list[Element]:
        if depth > 8:
            return []
        if isinstance(node, (ast.List, ast.Tuple)):
            return [e for part in node.elts for e in self._part(part, depth)]
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            return [Element(value, _text(key)) for key, value in pairs]
        if isinstance(node, (ast.ListComp, ast.GeneratorExp)):
            inner = self._part(node.elt, depth)
            if len(node.generators) > 1 and isinstance(node.elt, ast.Name):
                inner = self._sequence(node.generators[-1].iter, depth + 1)
            return [replace(e, loop=True) for e in inner]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [*self._sequence(node.left, depth + 1), *self._sequence(node.right, depth + 1)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return [replace(e, loop=True) for e in self._sequence(node.left, depth + 1)]
        if isinstance(node, ast.Call) and node.args:
            return self._sequence(node.args[0], depth + 1)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return list(self._variable(ast.unparse(node), depth + 1))
        return []

    def _part(self, part: ast.expr, depth: int) -> list[Element]:
        if isinstance(part, ast.Starred):
            return self._sequence(part.value, depth + 1)
        if isinstance(part, ast.Tuple) and len(part.elts) == 2 and _text(part.elts[0]) is not None:
            return [Element(part.elts[1], _text(part.elts[0]))]
        if isinstance(part, ast.IfExp):
            return [Element(part.body)]
        return [Element(part)]

    def _variable(self, name: str, depth: int) -> Iterator[Element]:
        """What is put into the variable or attribute `name`, in the order it is written."""
        for statement, loop in statements(self.scope):
            for element in self._put(statement, name, depth):
                yield replace(element, loop=element.loop or loop)

    def _put(self, statement: ast.stmt, name: str, depth: int) -> list[Element]:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            for target in _targets(statement):
                if ast.unparse(target) == name and not _refers(statement.value, name):
                    held = called(statement.value) in CONTAINERS
                    get = self.of if held else self._sequence
                    return get(statement.value, depth + 1)
                if isinstance(target, ast.Subscript) and ast.unparse(target.value) == name:
                    return [Element(statement.value, _text(target.slice))]
        if isinstance(statement, ast.AugAssign) and ast.unparse(statement.target) == name:
            return self._sequence(statement.value, depth + 1)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value
            if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == name:
                return self._method(call, call.func.attr, depth)
        return []

    def _method(self, call: ast.Call, method: str, depth: int) -> list[Element]:
        if method == "append" and call.args:
            return self._part(call.args[0], depth)
        if method in ("extend", "update") and call.args:
            return self._sequence(call.args[0], depth + 1)
        if method in ("add_module", "register_module") and len(call.args) == 2:
            return [Element(call.args[1], _text(call.args[0]))]
        return []


def statements(scope: ast.AST, loop: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Statements below `scope` and whether a loop repeats them; not those of inner functions."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(child, ast.stmt):
            yield child, loop
        yield from statements(child, loop or isinstance(child, (ast.For, ast.While)))


def match(elements: Sequence[Element], keys: Sequence[str], kinds: Sequence[str]) -> list[int]:
    """Return, for each child of a container, the place of its element; -1 for none.

    `keys` and `kinds` are the children's names and classes. Elements before and after a loop
    are matched from both ends, those inside in turn, as long as classes agree; else the
    child takes the element of its class whose turn it is.
    """
    before = next((i for i, e in enumerate(elements) if e.loop), len(elements))
    after = next((i for i, e in enumerate(reversed(elements)) if e.loop), 0)
    if before == len(elements):
        after = 0
    block = list(range(before, len(elements) - after))
    found = []
    for i, (key, kind) in enumerate(zip(keys, kinds, strict=True)):
        keyed = [n for n, e in enumerate(elements) if e.key == key]
        tail = len(kinds) - i
        if keyed:
            place = keyed[0]
        elif i < before:
            place = i
        elif tail <= after:
            place = len(elements) - tail
        else:
            place = block[(i - before) % len(block)] if block else -1
        if not keyed and (place < 0 or not _agrees(elements[place], kind)):
            place = _by_kind(elements, kinds, i)
        found.append(place)
    return found


def _by_kind(elements: Sequence[Element], kinds: Sequence[str], i: int) -> int:
    places = [n for n, e in enumerate(elements) if e.kind == kinds[i]]
    if not places:
        return -1
    turn = list(kinds[:i]).count(kinds[i])
    return places[min(turn, len(places) - 1)]


def _agrees(element: Element, kind: str) -> bool:
    """Whether an element can build `kind`: its class, or a function that returns anything."""
    return element.kind == kind or not element.kind[:1].isupper()


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return statement.targets if isinstance(statement, ast.Assign) else [statement.target]


def _refers(node: ast.AST, name: str) -> bool:
    return isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) == name


def _text(node: ast.AST | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
