"""Which layer takes which argument of forward first, read from the source of forward."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from torch import nn

TRIVIAL = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.Identity,
    nn.Flatten,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
)
"""Layers that take any shape and so say nothing of their input."""


def first_layer(model: nn.Module, argument: str | None = None, depth: int = 0) -> nn.Module | None:
    """Return the leaf layer that `argument` of the model's forward reaches first.

    None for the first argument. Read from forward's source, following assignments, own
    methods and loops over module lists; where that leads nowhere, the first layer in the
    order of registration.
    """
    if depth > 12:
        return None
    if isinstance(model, (nn.Sequential, nn.ModuleList)):
        for child in model:
            if not isinstance(child, TRIVIAL):
                return first_layer(child, None, depth + 1)
        return None
    if not any(True for _ in model.children()) or _built_in(model):
        return None if isinstance(model, TRIVIAL) else model
    found = consumer(model, argument)
    if found is not None:
        return first_layer(found, None, depth + 1)
    if argument is not None:
        return None
    for child in model.children():
        if not isinstance(child, TRIVIAL) and (layer := first_layer(child, None, depth + 1)):
            return layer
    return None


def _built_in(module: nn.Module) -> bool:
    home = type(module).__module__
    return home.startswith("torch.nn.modules.") and not home.endswith(".container")


def consumer(model: nn.Module, argument: str | None = None) -> nn.Module | None:
    """Return the submodule that forward first calls on `argument`, or None if none shows."""
    tree = _function(type(model), "forward")
    if tree is None:
        return None
    names = [a.arg for a in tree.args.posonlyargs + tree.args.args][1:]
    wanted = argument if argument is not None else (names[0] if names else None)
    if wanted is None:
        return None
    chain = _Walk(type(model), model).follow(tree, wanted)
    return _resolve(model, chain) if chain else None


def _function(owner: type, name: str) -> ast.FunctionDef | None:
    try:
        source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
        tree = ast.parse(source).body[0]
    except (OSError, TypeError, AttributeError, SyntaxError, IndexError):
        return None
    return tree if isinstance(tree, ast.FunctionDef) else None


def _resolve(model: nn.Module, chain: tuple[str, ...]) -> nn.Module | None:
    value: Any = model
    for name in chain:
        if name == "[]":
            value = next(iter(value.children()), None) if isinstance(value, nn.Module) else None
        else:
            value = getattr(value, name, None)
    return value if isinstance(value, nn.Module) else None


class _Walk:
    """Follows one argument through a function's statements to the first module called on it."""

    def __init__(self, owner: type, model: nn.Module, depth: int = 0) -> None:
        self.owner = owner
        self.model = model
        self.depth = depth
        self.loops: dict[str, tuple[str, ...]] = {}
        self.me = "self"

    def follow(self, tree: ast.FunctionDef, argument: str) -> tuple[str, ...] | None:
        """Return the attribute chain of the first module called on `argument`."""
        arguments = tree.args.posonlyargs + tree.args.args
        self.me = arguments[0].arg if arguments else "self"
        carried = {argument}
        for node in _statements(tree.body):
            if isinstance(node, ast.For):
                self._loop(node)
                continue
            for call in (n for n in _inner_first(node) if isinstance(n, ast.Call)):
                if any(_uses(entry, carried) for entry in _arguments(call)):
                    found = self._called(call, carried)
                    if found:
                        return found
            if isinstance(node, ast.Assign) and _uses(node.value, carried):
                carried |= {
                    n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)
                }
        return None

    def _loop(self, node: ast.For) -> None:
        chain = _chain(node.iter, self.me)
        if isinstance(node.iter, ast.Call) and node.iter.args:  # enumerate, zip, reversed
            chain = _chain(node.iter.args[0], self.me)
        if chain:
            for name in (n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)):
                self.loops[name] = (*chain, "[]")

    def _called(self, call: ast.Call, carried: set[str]) -> tuple[str, ...] | None:
        if isinstance(call.func, ast.Name) and call.func.id in self.loops:
            return self.loops[call.func.id]
        chain = _chain(call.func, self.me)
        if not chain:
            return None
        if _resolve(self.model, chain) is not None:
            return chain
        if len(chain) == 1 and self.depth < 4:
            return self._method(chain[0], call, carried)
        return None

    def _method(self, name: str, call: ast.Call, carried: set[str]) -> tuple[str, ...] | None:
        tree = _function(self.owner, name)
        if tree is None:
            return None
        names = [a.arg for a in tree.args.args][1:]
        given = dict(zip(names, call.args, strict=False))
        given |= {k.arg: k.value for k in call.keywords if k.arg}
        inner = next((n for n, value in given.items() if _uses(value, carried)), None)
        walk = _Walk(self.owner, self.model, self.depth + 1)
        return walk.follow(tree, inner) if inner else None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, (ast.If, ast.With, ast.For, ast.While, ast.Try)):
            if isinstance(node, ast.For):
                yield node
            for inner in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, inner, []))
        else:
            yield node


def _inner_first(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes in the order they are evaluated: arguments before the call."""
    for child in ast.iter_child_nodes(node):
        yield from _inner_first(child)
    yield node


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _uses(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(n, ast.Name) and n.id in names for n in ast.walk(node))


def _chain(node: ast.AST, me: str) -> tuple[str, ...]:
    """Attributes after ``self``, called `me`: ``self.a.b[0]`` is ("a", "b", "[]"); else empty."""
    names: list[str] = []
    while True:
        if isinstance(node, ast.Subscript):
            names.append("[]")
            node = node.value
        elif isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        else:
            break
    own = isinstance(node, ast.Name) and node.id == me
    return tuple(reversed(names)) if own else ()
