"""Which model a file means, and how it is built."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gradlint.errors import TargetNotFoundError
from gradlint.target.module_file import Imported
from gradlint.target.signatures import required, takes
from gradlint.target.user_code import quietly, say, where

NAMES = ("model", "net", "build_model", "make_model", "create_model", "get_model")
"""Names of a model or of a function that builds one, in the order they are looked for."""


@dataclass
class Model:
    """A model that was found: its name, how to build it, and whether each call is a new one."""

    name: str
    build: Callable[[], nn.Module]
    rebuildable: bool
    sample: nn.Module
    assumed: dict[str, str] = field(default_factory=dict)


def find_model(target: Imported, seed: int = 0) -> Model:
    """Return the model called by name, else under a usual name, else the one class there is.

    Raises:
        TargetNotFoundError: If there is none, or more than one, or it cannot be built.
    """
    if target.name is not None:
        return _made(target, target.name, _attribute(target, target.name), seed)
    for name in NAMES:
        value = vars(target.module).get(name)
        if isinstance(value, nn.Module) or (
            callable(value) and not isinstance(value, (ModuleType, torch.Tensor))
        ):
            return _made(target, name, value, seed)
    return _only_class(target, seed)


def _attribute(target: Imported, name: str) -> Any:
    value: Any = target.module
    for part in name.split("."):
        if not hasattr(value, part):
            known = [k for k, v in vars(target.module).items() if _could_be(v, target.module)]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {target.command(close[0])}?" if close else ""
            if not close and known:
                hint = f"; it has {', '.join(known[:6])}"
            raise TargetNotFoundError(f"expected {name!r} in {target.path}, found none{hint}")
        value = getattr(value, part)
    return value


def _could_be(value: Any, module: ModuleType) -> bool:
    if isinstance(value, nn.Module):
        return True
    own = getattr(value, "__module__", None) == module.__name__
    if isinstance(value, type):
        return own and issubclass(value, nn.Module)
    return own and inspect.isfunction(value) and not required(value)


def _made(target: Imported, name: str, value: Any, seed: int) -> Model:
    if isinstance(value, nn.Module):
        value = uncompiled(value)
        return Model(name, lambda: value, False, with_parameters(value, name, target))
    if not callable(value) or (isinstance(value, type) and not issubclass(value, nn.Module)):
        raise TargetNotFoundError(
            f"expected {name} in {target.path} to be an nn.Module, or a class or function that "
            f"builds one, got {_kind(value)}"
        )
    needed = required(value)
    if needed:
        raise TargetNotFoundError(_needs(target, name, needed, isinstance(value, type)))

    def build() -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):
                built = value()
        except Exception as error:
            raise TargetNotFoundError(
                f"expected {name}() in {target.path} to build a model, it raised "
                f"{say(error)}{where(error)}"
            ) from error
        if not isinstance(built, nn.Module):
            raise TargetNotFoundError(
                f"expected {name}() in {target.path} to return an nn.Module, got {_kind(built)}"
            )
        return uncompiled(built)

    with quietly(seed):
        sample = build()
    if _handed_out(sample, value, target.module):
        return Model(name, lambda: sample, False, with_parameters(sample, name, target))
    return Model(name, build, True, with_parameters(sample, name, target))


def _handed_out(model: nn.Module, function: Any, module: ModuleType) -> bool:
    """Whether a function returns one model that it keeps, rather than building it."""
    kept = any(value is model for value in vars(module).values())
    return kept or hasattr(function, "cache_info")


def uncompiled(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`'s wrapper: only that can be looked into."""
    original = getattr(model, "_orig_mod", None)
    return original if isinstance(original, nn.Module) else model


def with_parameters(model: nn.Module, name: str, target: Imported | None = None) -> nn.Module:
    """Return `model` if it has parameters that can be trained and looked at.

    Raises:
        TargetNotFoundError: If it has none, only their shapes, or is a compiled program.
    """
    at = f" in {target.path}" if target is not None else ""
    if isinstance(model, torch.jit.ScriptModule):
        raise TargetNotFoundError(
            f"expected {name}{at} to be a module in Python, got a TorchScript program, which "
            "cannot be looked into; name the module that was given to torch.jit"
        )
    hollow = next((path for path, p in model.named_parameters() if p.is_meta), None)
    if hollow is not None:
        raise TargetNotFoundError(
            f"expected {name}{at} to have weights, its {hollow} is on the meta device and has a "
            "shape only; build it on a real device, or load its weights first"
        )
    if next(model.parameters(), None) is None:
        raise TargetNotFoundError(
            f"expected {name}{at} to have parameters to train, {type(model).__name__} has none; "
            "assign layers to self, or keep them in nn.ModuleList, so that they are registered"
        )
    return model


def _kind(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    return "None" if value is None else f"{type(value).__name__} {value!r:.40}"


def _needs(target: Imported, name: str, needed: tuple[str, ...], is_class: bool) -> str:
    what = "build without arguments" if is_class else "be called without arguments"
    them = "them default values" if len(needed) > 1 else "it a default value"
    call = f"{name}({', '.join(f'{n}=…' for n in needed)})"
    instead = f"define build_model() that returns {call}"
    if name == "build_model":
        instead = f"define model = {call}"
    return (
        f"expected {name} in {target.path} to {what}, it needs {', '.join(needed)}; give {them}, "
        f"or {instead}"
    )


def _only_class(target: Imported, seed: int) -> Model:
    """The one class of the file that builds; of several, the one the others are parts of."""
    defined = {id(v): v for v in vars(target.module).values() if isinstance(v, type)}
    own = (v for v in defined.values() if v.__module__ == target.module.__name__)
    classes = [v for v in own if _is_model(v)]
    if not classes:
        raise TargetNotFoundError(_none_found(target))
    free = [c for c in classes if not required(c)]
    if not free:
        names = ", ".join(c.__name__ for c in classes)
        first = classes[-1]
        if len(classes) == 1:
            raise TargetNotFoundError(_needs(target, first.__name__, required(first), True))
        raise TargetNotFoundError(
            f"expected one model in {target.path} that builds without arguments, found {names}, "
            f"which all need some ({first.__name__}: {', '.join(required(first))}); define "
            "build_model() that returns the one to check"
        )
    if len(free) == 1:
        return _of_class(target, free[0], classes, seed)
    outer = _outermost(free, seed)
    if len(outer) == 1:
        return _of_class(target, outer[0], classes, seed)
    commands = " or ".join(target.command(c.__name__) for c in outer)
    raise TargetNotFoundError(
        f"expected one model in {target.path}, found {len(outer)}: "
        f"{', '.join(c.__name__ for c in outer)}; choose with {commands}"
    )


def _of_class(
    target: Imported, chosen: type[nn.Module], classes: list[type[nn.Module]], seed: int
) -> Model:
    found = _made(target, chosen.__name__, chosen, seed)
    others = [c.__name__ for c in classes if c is not chosen and required(c)]
    inside = {type(m).__name__ for m in found.sample.modules()}
    left = [name for name in others if name not in inside]
    if left:
        found.assumed["model"] = (
            f"{chosen.__name__} ({', '.join(left)} cannot be built without arguments)"
        )
    return found


def _is_model(kind: type) -> bool:
    """Whether a class is a module that can be called, and no loss."""
    if not issubclass(kind, nn.Module) or kind.forward is nn.Module.forward:
        return False
    known = takes(kind.forward)
    named = kind.__name__.lower().endswith(("loss", "criterion"))
    return not (named and known is not None and len(known.positional) > 2)


def _outermost(classes: list[type[nn.Module]], seed: int) -> list[type[nn.Module]]:
    """Those of `classes` that are no part of another; those that do not build are left out."""
    built: dict[type[nn.Module], set[type]] = {}
    for kind in classes:
        try:
            with quietly(seed):
                built[kind] = {type(m) for m in list(kind().modules())[1:]}
        except Exception:  # noqa: S112 (any: it is the user's constructor; others may build)
            continue
    if not built:
        return classes
    return [c for c in built if not any(c in parts for o, parts in built.items() if o is not c)]


def _none_found(target: Imported) -> str:
    values = vars(target.module).items()
    instances = [k for k, v in values if isinstance(v, nn.Module) and not k.startswith("_")]
    text = (
        f"expected a model in {target.path}: {', '.join(NAMES)}, or one nn.Module subclass; "
        "found none"
    )
    if instances:
        commands = " or ".join(target.command(name) for name in instances[:4])
        return f"{text} of these names; choose with {commands}"
    return f"{text}; name it, as in {target.command('NAME')}"
