"""Where the user's code calls an operation as a function: ``F.softmax(x, 1)``, ``x.sigmoid()``."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from gradlint.graph import ACTIVATIONS, SOFTMAXES

NAMES = (
    ACTIVATIONS
    | SOFTMAXES
    | {"dropout", "batch_norm", "layer_norm", "normalize"}
    | {"log", "exp", "sqrt", "rsqrt", "pow", "div", "acos", "asin", "norm", "log1p", "logsumexp"}
)
"""Operations looked for; each is called as its kind in the graph is called."""


def function_lines(tree: ast.ClassDef) -> dict[str, list[int]]:
    """Return, by kind of operation, the lines at which the methods of a class call it.

    What is called on ``self`` is a module or a method, and not among them.
    """
    found: dict[str, list[int]] = {}
    for method in _methods(tree):
        me = method.args.args[0].arg if method.args.args else "self"
        for call in (node for node in ast.walk(method) if isinstance(node, ast.Call)):
            name, line = _called(call, me)
            if name in NAMES:
                found.setdefault(name, []).append(line)
    return found


def _methods(tree: ast.ClassDef) -> Iterable[ast.FunctionDef]:
    return (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name != "__init__")


def _called(call: ast.Call, me: str) -> tuple[str, int]:
    """Return the name of what is called, as the graph has it, and the line of that name."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id.rstrip("_"), function.lineno
    if not isinstance(function, ast.Attribute):
        return "", 0
    own = isinstance(function.value, ast.Name) and function.value.id == me
    line = function.end_lineno or function.lineno
    return ("", 0) if own else (function.attr.rstrip("_"), line)
