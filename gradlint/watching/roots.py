"""Roots: which models a loop trains, and what they are called."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

_ABOUT_HOOKS = "Using `torch.compile.module.` when there are global hooks on modules"

_WRAPPERS = ("module", "_orig_mod")
"""Attributes under which data parallelism and compilation keep the user's model."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's model inside DistributedDataParallel, torch.compile and the like."""
    kinds = (
        "DistributedDataParallel",
        "DataParallel",
        "OptimizedModule",
        "FullyShardedDataParallel",
    )
    while type(model).__name__ in kinds:
        inner = next(
            (vars(model).get("_modules", {}).get(name) for name in _WRAPPERS
             if isinstance(vars(model).get("_modules", {}).get(name), nn.Module)),
            None,
        )  # fmt: skip
        if inner is None:
            return model
        model = inner
    return model


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile runs the module."""
    return type(model).__name__ == "OptimizedModule" or (
        getattr(model, "_compiled_call_impl", None) is not None
    )


def is_trained_before(model: nn.Module) -> bool:
    """Whether the model tells that its weights are not fresh ones.

    BatchNorm counts its batches, and transformers' models know the name they were loaded by.
    """
    for name, buffer in model.named_buffers():
        counts = name.endswith("num_batches_tracked") and buffer.device.type == "cpu"
        if counts and buffer.reshape(1).tolist()[0] > 0:
            return True
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    return isinstance(name, str) and bool(name)


class Discovery:
    """Finds the models that a script calls: the outermost module of each call that may train.

    A global hook, so it taxes every module call; `stop` it once the models are known.
    """

    def __init__(self, found: Callable[[nn.Module, str], None]) -> None:
        self._found = found
        self._handle: RemovableHandle | None = None
        self._known: dict[int, weakref.ref[nn.Module]] = {}
        """By ``id``, which a later module may have again: a set of modules would ask their `==`."""
        self._quiet: dict[int, weakref.ref[nn.Module]] = {}
        """Those that were called without gradient."""

    @property
    def running(self) -> bool:
        """Whether the hook is in place."""
        return self._handle is not None

    def start(self) -> None:
        """Place the hook."""
        if self._handle is None:
            # torch warns, once a call, that it sees a hook; it is ours, and fires as it should.
            warnings.filterwarnings("ignore", message=_ABOUT_HOOKS)
            self._handle = register_module_forward_pre_hook(self._called)

    def stop(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            ours = [f for f in warnings.filters if getattr(f[1], "pattern", "") == _ABOUT_HOOKS]
            for each in ours:
                warnings.filters.remove(each)  # type: ignore[attr-defined]

    def know(self, model: nn.Module) -> None:
        """Take `model` and its parts as found."""
        self._known.update((id(m), weakref.ref(m)) for m in model.modules())

    def called_quietly(self) -> set[int]:
        """Return the parameters, by ``id``, of modules that were called without gradient."""
        called = [module for ref in self._quiet.values() if (module := ref()) is not None]
        return {id(p) for module in called for p in module.parameters()}

    def _knows(self, module: nn.Module) -> bool:
        known = self._known.get(id(module))
        return known is not None and known() is module

    def _called(self, module: nn.Module, inputs: Any) -> None:
        if self._knows(module):
            return
        if not torch.is_grad_enabled():
            self._quiet[id(module)] = weakref.ref(module)  # another one may have had its `id`
            return
        if torch.compiler.is_compiling():
            return
        frame = sys._getframe(1)
        root = _owner(frame, module)
        if root is not module and self._knows(root):
            return
        if _is_loss(module) or not any(p.requires_grad for p in root.parameters()):
            return
        self._found(root, name_of(root, frame))


def _is_loss(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.loss._Loss) and next(module.parameters(), None) is None


def _owner(frame: FrameType | None, module: nn.Module) -> nn.Module:
    """Return the outermost module among the callers whose part `module` is."""
    owner = module
    for caller in _callers(frame):
        candidate = caller.f_locals.get("self")
        if not isinstance(candidate, nn.Module) or candidate is owner:
            continue
        if any(m is owner for m in candidate.modules()):
            owner = candidate
    return owner


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def owners(parameters: Sequence[nn.Parameter]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost modules of the process that hold one of `parameters`, with labels.

    A compiled module's calls are told to no hook, and weights may be used without a call.
    """
    wanted = {id(p) for p in parameters}
    if not wanted:
        return
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    holding = [m for m in modules if any(id(p) in wanted for p in m.parameters())]
    inner = {id(part) for m in holding for part in m.modules() if part is not m}
    for model in holding:
        if id(model) not in inner:
            yield type(model).__name__.lower(), model


def name_of(model: nn.Module, frame: FrameType | None) -> str:
    """Return what the callers call `model`, or its class's name."""
    wrapped = unwrapped(model)
    for caller in _callers(frame):
        if caller.f_globals.get("__name__", "").startswith(("torch.", "gradlint.")):
            continue
        for scope in (caller.f_locals, caller.f_globals):
            for name, value in list(scope.items()):
                if (value is model or value is wrapped) and name.isidentifier() and name != "self":
                    return name
    return type(wrapped).__name__.lower()
