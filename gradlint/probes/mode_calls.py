"""ModeCalls: which functions that have a mode act as in training, and who called them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from gradlint.target.user_code import is_users, shown

_DROPPING: tuple[Callable[..., Any], ...] = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    functional.multi_head_attention_forward,
)
_BUILT_IN = (torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout)
_ATTENTION = functional.scaled_dot_product_attention
_UNTOLD: Any = object()
"""Stands for a training argument that was not given."""

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")


@dataclass(frozen=True, slots=True)
class Call:
    """A function that acts as in training, called in a module in evaluation mode."""

    function: str
    why: str
    module: str
    rate: float
    running: tuple[nn.Module, ...]
    """The modules around it, innermost last."""
    file: str = ""
    line: int = 0
    library: bool = False


class ModeCalls(TorchFunctionMode):
    """Notes calls in `running` modules that act as in training, once for each line.

    Args:
        model: The model, in evaluation mode.
        running: Paths and modules that run, innermost last; somebody else keeps it.
        wanted: What the model may be asked to restore: to drop of it is to corrupt it.
        other: The same of another copy of the model: a module that both see belongs to neither.
        telling: Whether to tell an argument that was given from a default.
        neutral: Whether such calls draw their numbers, and drop nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        running: Sequence[tuple[str, nn.Module]],
        wanted: Sequence[Tensor],
        other: ModeCalls | None = None,
        *,
        telling: bool,
        neutral: bool,
    ) -> None:
        super().__init__()
        self.calls: dict[tuple[str, str, str, int], Call] = {}
        self.outputs: list[Tensor] = []
        self._members = {id(module) for module in model.modules()}
        self._statistics = {id(buffer) for buffer in model.buffers()}
        self._running = running
        self._wanted = wanted
        self._hidden: list[nn.Module] = []  # kept, so that no other has their id
        self._others = set() if other is None else {id(module) for module in other._hidden}
        self._telling = telling
        self._neutral = neutral

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the call if it is one, and make it."""
        given = dict(kwargs or {})
        told = given.get("training") is not _UNTOLD
        if not told:
            given["training"] = True
        with defaults(True if self._telling else None):
            call = self._judged(func, args, given, told=told)
            if call is None or call.why == "statistics" or not self._neutral:
                return func(*args, **given)
            return _neutral(func, args, given)

    def _judged(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, told: bool
    ) -> Call | None:
        """Return what the call is, if it acts as in training where it must not."""
        acting = _acting(func, args, kwargs)
        if acting is None or not self._running or not torch.is_grad_enabled():
            return None
        why, rate, given = acting
        path, module = self._running[-1]
        corrupts = any(_same(given, tensor) for tensor in self._wanted)
        if module.training or corrupts:
            return None
        if why == "statistics" and id(given) not in self._statistics:
            return None
        file, line, owner = _caller(sys._getframe(2))
        if not told:
            why = "default"
        elif owner is not None and id(owner) not in self._members:
            if not owner.training or next(owner.parameters(), None) is not None:
                return None  # a network of its own
            self._hidden.append(owner)
            if id(owner) in self._others:
                return None
            why = "hidden"
        name = f"{'torch' if func in _BUILT_IN else 'F'}.{func.__name__}"
        call = Call(
            function=name,
            why=why,
            module=path,
            rate=rate,
            running=tuple(module for _, module in self._running),
            file=shown(file) if is_users(file) else "",
            line=line if is_users(file) else 0,
            library=not is_users(file) and not file.startswith("<"),
        )
        return self.calls.setdefault((name, path, file, line), call)


@contextmanager
def defaults(told: bool | None) -> Iterator[None]:
    """Give the functions' training argument its default, or one that tells; None: as it is.

    Only the function itself knows whether an argument was given, and torch hands on both alike.
    """
    if told is None:
        yield
        return
    before = [function.__defaults__ for function in _DROPPING]
    try:
        for function, wanted in zip(_DROPPING, _TRUE if told else _TELLING, strict=True):
            function.__defaults__ = wanted
        yield
    finally:
        for function, wanted in zip(_DROPPING, before, strict=True):
            function.__defaults__ = wanted


def _telling(function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the function's defaults with another for training, if that is True."""
    parameters = inspect.signature(function).parameters.values()
    having = [p for p in parameters if p.default is not p.empty]
    untold = [p.name == "training" and p.default is True for p in having]
    return tuple(_UNTOLD if mark else p.default for mark, p in zip(untold, having, strict=True))


_TRUE = [function.__defaults__ for function in _DROPPING]
_TELLING = [_telling(function) for function in _DROPPING]


def _acting(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[str, float, Any] | None:
    """Return how, at which rate, and on what `func` acts as in training, if it does.

    Of a normalization by the batch, what it acts on are its running statistics.
    """
    if func is _ATTENTION:
        rate = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
        return ("always", float(rate), None) if rate > 0 else None
    if func in _BUILT_IN:
        given = dict(zip(("input", "p", "train"), args, strict=False)) | dict(kwargs)
        acts = given["train"] and given["p"] > 0
        return ("given", float(given["p"]), given["input"]) if acts else None
    if func is not functional.batch_norm and func not in _DROPPING:
        return None
    bound = inspect.signature(func).bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if not given["training"]:
        return None
    if func is functional.batch_norm:
        kept = given["running_mean"]
        return None if kept is None else ("statistics", 0.0, kept)
    rate = given["dropout_p"] if "dropout_p" in given else given["p"]
    return ("given", float(rate), given.get("input")) if rate > 0 else None


def _neutral(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Draw as many random numbers as `func` does, and return what it does without them."""
    if func is functional.multi_head_attention_forward:
        func(*args, **kwargs)
        return func(*args, **(kwargs | {"training": False}))
    if func is _ATTENTION:
        func(*args, **kwargs)
        if len(args) > 4:
            return func(*(*args[:4], 0.0, *args[5:]), **kwargs)
        return func(*args, **(kwargs | {"dropout_p": 0.0}))
    given = args[0] if args else kwargs["input"]
    rest = kwargs | {"inplace": False} if "inplace" in kwargs else kwargs
    func(*args, **rest)
    return given


def _same(value: Any, tensor: Tensor) -> bool:
    """Whether `value` holds the numbers of `tensor`, in whatever shape."""
    if not isinstance(value, Tensor) or value.numel() != tensor.numel():
        return False
    with torch.no_grad():
        return torch.equal(value.reshape(-1), tensor.reshape(-1).to(value))


def _caller(frame: FrameType | None) -> tuple[str, int, nn.Module | None]:
    """Return the line outside of torch that made a call, and the innermost module around it."""
    file, line, owner = "", 0, None
    while frame is not None and not (file and owner is not None):
        name = frame.f_code.co_filename
        if not file and not name.startswith(_TORCH):
            file, line = name, frame.f_lineno
        own = frame.f_locals.get("self")
        if owner is None and isinstance(own, nn.Module):
            owner = own
        frame = frame.f_back
    return file, line, owner
