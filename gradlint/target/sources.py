"""Where the user's code builds each module: the line a finding points to."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

from torch import nn

from gradlint.finding import Source
from gradlint.hooks.ranks import class_of
from gradlint.target.elements import CONTAINERS, Element, Elements, called, match, statements
from gradlint.target.functions import function_lines
from gradlint.target.user_code import is_users, shown

SCOPES = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Place:
    """An expression in a file, and the function it stands in."""

    file: str
    line: int
    expression: ast.expr | None = None
    scope: ast.AST | None = None


def module_sources(model: nn.Module, files: Sequence[str] | None = None) -> dict[str, Source]:
    """Return, by module path, the line of the user's code that builds the module.

    For an attribute of a class the user wrote that is the line of the assignment, for the
    part of a container its own line, for the model the line of its class, or of the call
    that builds it. What a library builds inside has the line of what the user built. Paths
    without any such line are missing. An operation that a module's class calls as a function,
    and only once, is at ``path:kind``; a plain list of modules at ``path:name``. Never raises.

    `files` are looked in for the call that builds a model of a library's class; by default
    the callers' files, then the target that was imported last.
    """
    try:
        return _sources(model, files)
    except Exception:  # a line is a courtesy: no report may fail for want of one
        return {}


def _sources(model: nn.Module, files: Sequence[str] | None) -> dict[str, Source]:
    places: dict[str, Place] = {}
    functions: dict[type, dict[str, Place]] = {}
    root = _root(model, _user_files() if files is None else files)
    if root is not None:
        places[""] = root
    for path, module in model.named_modules(remove_duplicate=False):
        known = places.get(path)
        for name, place in _children(module, known):
            places[f"{path}.{name}" if path else name] = place
        kind = class_of(module)
        if kind not in functions:
            functions[kind] = _functions(kind)
        lists = _assigned(kind, _unregistered(module)) if known is not None else {}
        for name, place in (functions[kind] | lists).items():
            places[f"{path}:{name}"] = place
    return {path: Source(shown(place.file), place.line) for path, place in places.items()}


def _children(module: nn.Module, at: Place | None) -> Iterator[tuple[str, Place]]:
    """Places of a module's children; the module's own where nothing better is known."""
    children = {name: child for name, child in module._modules.items() if child is not None}
    found = _assigned(class_of(module), children)
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        built = _super_call(class_of(module)) or at
        found |= _parts(children, built) if built is not None else {}
    for name in children:
        place = found.get(name) or at
        if place is not None:
            yield name, place


def _assigned(kind: type, children: Mapping[str, nn.Module]) -> dict[str, Place]:
    """Places at which the classes of the user's that `kind` is made of assign children."""
    found: dict[str, Place] = {}
    for base in reversed(kind.__mro__):
        file = _file_of(base)
        if file is None:
            continue
        tree = _class(file, base)
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if tree else []
        for function in functions:
            me = function.args.args[0].arg if function.args.args else "self"
            for statement, _ in statements(function):
                for name, value in _attributes(statement, me):
                    if name in children:
                        found[name] = Place(file, statement.lineno, value, function)
    return found


def _attributes(statement: ast.stmt, me: str) -> Iterator[tuple[str, ast.expr | None]]:
    """Attributes of ``self`` that a statement assigns, with their values."""
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            lefts, values = [target], [statement.value]
            if isinstance(target, ast.Tuple):
                lefts, value = target.elts, statement.value
                values = value.elts if isinstance(value, ast.Tuple) else [value] * len(lefts)
            for left, value in zip(lefts, values, strict=False):
                if isinstance(left, ast.Attribute) and _is(left.value, me):
                    yield left.attr, value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Attribute):
        if _is(statement.target.value, me):
            yield statement.target.attr, statement.value
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        name = call.args[0] if len(call.args) == 2 else None
        own = isinstance(call.func, ast.Attribute) and _is(call.func.value, me)
        adds = own and called(call) in ("add_module", "register_module")
        if adds and isinstance(name, ast.Constant):
            yield str(name.value), call.args[1]


def _unregistered(module: nn.Module) -> dict[str, nn.Module]:
    """Attributes of a module that hold modules without its knowledge: lists and dicts."""
    found: dict[str, nn.Module] = {}
    for name, value in vars(module).items():
        if isinstance(value, (list, tuple, dict)) and not name.startswith("_"):
            parts = value.values() if isinstance(value, dict) else value
            first = next((part for part in parts if isinstance(part, nn.Module)), None)
            if first is not None:
                found[name] = first
    return found


def _functions(kind: type) -> dict[str, Place]:
    """Places at which the user's classes that `kind` is made of call an operation, once."""
    found: dict[str, list[Place]] = {}
    for base in kind.__mro__:
        file = _file_of(base)
        tree = None if file is None else _class(file, base)
        if file is not None and tree is not None:
            for name, lines in function_lines(tree).items():
                found.setdefault(name, []).extend(Place(file, line) for line in lines)
    return {name: places[0] for name, places in found.items() if len(places) == 1}


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _super_call(kind: type) -> Place | None:
    """The ``super().__init__(…)`` of a container class of the user's."""
    file = _file_of(kind)
    tree = _class(file, kind) if file is not None else None
    for function in tree.body if tree is not None else []:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            for call in (n for n in ast.walk(function) if called(n) == "__init__"):
                if file is not None and isinstance(call, ast.Call) and call.args:
                    return Place(file, call.lineno, call, function)
    return None


def _parts(children: Mapping[str, nn.Module], at: Place) -> dict[str, Place]:
    """Places of a container's parts inside the expression that builds it."""
    if at.expression is None or at.scope is None:
        return {}
    elements = _elements(at)
    keys = list(children)
    kinds = [class_of(child).__name__ for child in children.values()]
    found = {}
    for key, place in zip(keys, match(elements, keys, kinds), strict=True):
        if place >= 0:
            part = elements[place].expression
            found[key] = Place(at.file, part.lineno, part, at.scope)
    return found


def _elements(at: Place) -> list[Element]:
    if at.expression is None or at.scope is None:
        return []
    reader = Elements(at.scope)
    if called(at.expression) not in CONTAINERS and isinstance(at.expression, ast.Call):
        return []
    parts = reader.of(at.expression)
    for statement, _ in statements(at.scope):  # self.layers = nn.ModuleList(), then append
        if isinstance(statement, ast.Assign) and statement.value is at.expression and not parts:
            return reader.of(statement.targets[0])
    return parts


def _root(model: nn.Module, files: Iterable[str]) -> Place | None:
    """Place of the model: its class's, if the user wrote it, else the call that builds it."""
    file = _file_of(class_of(model))
    if file is not None:
        tree = _class(file, class_of(model))
        return Place(file, tree.lineno) if tree is not None else None
    kinds = [class_of(child).__name__ for child in model.children()]
    keys = [name for name, _ in model.named_children()]
    best: tuple[int, Place] | None = None
    for candidate in files:
        for place in _calls(candidate, class_of(model).__name__):
            score = 1
            if class_of(model).__name__ in CONTAINERS:
                places = match(_elements(place), keys, kinds)
                score = sum(p >= 0 for p in places) if all(p >= 0 for p in places) else 0
            if score and (best is None or score > best[0]):
                best = (score, place)
        if best is not None:
            return best[1]
    return None


def _calls(file: str, kind: str) -> Iterator[Place]:
    """Calls of `kind` in a file, each with the function it stands in, in order of lines."""
    tree = _tree(file)
    if tree is None:
        return
    for scope in (n for n in ast.walk(tree) if isinstance(n, SCOPES)):
        seen: set[int] = set()
        for statement, _ in statements(scope):
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and called(node) == kind and id(node) not in seen:
                    seen.add(id(node))
                    yield Place(file, node.lineno, node, scope)


def _user_files() -> Iterator[str]:
    """Files of the callers, innermost first, then of the target imported last."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            yield frame.f_code.co_filename
        frame = frame.f_back
    targets = [m for name, m in sys.modules.items() if name.startswith("_gradlint_target_")]
    if targets and (file := getattr(targets[-1], "__file__", None)):
        yield file


def _file_of(kind: type) -> str | None:
    """The file a class was written in, if it is the user's."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    return file if file and is_users(file) else None


def _class(file: str, kind: type) -> ast.ClassDef | None:
    tree = _tree(file)
    return _classes(tree).get(kind.__qualname__.replace(".<locals>", "")) if tree else None


def _tree(file: str) -> ast.Module | None:
    try:
        return _parsed(file, Path(file).stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _parsed(file: str, changed: int) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes(), file)
    except (SyntaxError, ValueError):
        return None


@lru_cache(maxsize=64)
def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """Classes of a file by qualified name."""
    found: dict[str, ast.ClassDef] = {}

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            name = f"{prefix}{child.name}" if named else ""  # type: ignore[attr-defined]
            if isinstance(child, ast.ClassDef):
                found[name] = child
            walk(child, f"{name}." if named else prefix)

    walk(tree, "")
    return found
