"""Functions of torch replaced while somebody listens: backward, clipping, a GradScaler's steps.

Each is replaced once, however many watchers there are, and put back when the last one leaves.
A replacement that somebody else wrapped in the meantime stays, and does nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad


class Ear:
    """What a listener may be told; every method does nothing here."""

    def backward_begins(self, tensors: Sequence[Tensor], inputs: Any, create_graph: bool) -> None:
        """`torch.autograd.backward` was called from `tensors`."""

    def backward_ended(self, error: BaseException | None) -> None:
        """It returned, or raised `error`."""

    def clipped(
        self, kind: str, parameters: Any, limit: Any, norm: Tensor | None, norm_type: float
    ) -> None:
        """Gradients of `parameters` are about to be clipped; `norm` is their total norm."""

    def scaled(self, scaler: GradScaler) -> None:
        """A loss was multiplied by the scaler's scale."""

    def scaler_steps(self, scaler: GradScaler, optimizer: torch.optim.Optimizer) -> None:
        """`scaler.step(optimizer)` begins; the optimizer's own step follows unless skipped."""

    def optimizer_made(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer was built."""

    def loaded_weights(self, module: nn.Module, missing: list[str], unexpected: list[str]) -> None:
        """A state dict was loaded into `module`, which it knows by other names in part."""

    def scaler_updates(self, scaler: GradScaler) -> None:
        """`scaler.update` returned."""


_ears: list[Ear] = []
_undo: list[Callable[[], None]] = []


def listen(ear: Ear) -> None:
    """Tell `ear` from now on."""
    if not _ears:
        _place()
    _ears.append(ear)


def leave(ear: Ear) -> None:
    """Tell `ear` no more; the last one to leave finds torch as it was."""
    if ear in _ears:
        _ears.remove(ear)
    if not _ears:
        while _undo:
            _undo.pop()()


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    original = vars(owner).get(name)
    if original is None:  # not in this version of torch
        return
    replacement = make(original)
    setattr(owner, name, replacement)

    def undo() -> None:
        if vars(owner).get(name) is replacement:
            setattr(owner, name, original)

    _undo.append(undo)


def _replace_inside(function: Any, make: Callable[[Any], Any]) -> bool:
    """Replace what a wrapping function calls: names imported early lead there, too."""
    for cell in getattr(function, "__closure__", None) or ():
        original = cell.cell_contents
        if getattr(original, "__name__", "") != function.__name__:
            continue
        replacement = make(original)
        cell.cell_contents = replacement

        def undo(cell: Any = cell, original: Any = original, ours: Any = replacement) -> None:
            if cell.cell_contents is ours:
                cell.cell_contents = original

        _undo.append(undo)
        return True
    return False


def _place() -> None:
    _replace(torch.autograd, "backward", _backward)
    helper = hasattr(clip_grad, "_clip_grads_with_norm_")
    if helper:
        # `clip_grad_norm_` looks its helper up when it is called, by whatever name it is known.
        _replace(clip_grad, "_clip_grads_with_norm_", _clip_with_norm)
        public = getattr(torch.nn.utils, "clip_grads_with_norm_", None)
        if public is not None:
            for owner in (torch.nn.utils, clip_grad):
                _replace(owner, "clip_grads_with_norm_", _clip_with_norm)
    else:
        for owner in (torch.nn.utils, clip_grad):
            _replace(owner, "clip_grad_norm_", _clip_norm)
    if not _replace_inside(clip_grad.clip_grad_value_, _clip_value):
        for owner in (torch.nn.utils, clip_grad):
            _replace(owner, "clip_grad_value_", _clip_value)
    _replace(GradScaler, "scale", _scale)
    _replace(GradScaler, "step", _scaler_step)
    _replace(GradScaler, "update", _scaler_update)
    _replace(nn.Module, "load_state_dict", _load)
    _replace(torch.optim.Optimizer, "__init__", _make_optimizer)


def _backward(original: Any) -> Any:
    @functools.wraps(original)
    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        ears = tuple(_ears)
        if isinstance(tensors, Tensor):
            roots = [tensors]
        else:
            if not isinstance(tensors, (tuple, list)):
                tensors = tuple(tensors)
            roots = [t for t in tensors if isinstance(t, Tensor)]
        inputs = kwargs.get("inputs", args[4] if len(args) > 4 else None)
        graph = bool(kwargs.get("create_graph", args[2] if len(args) > 2 else False))
        for ear in ears:
            ear.backward_begins(roots, inputs, graph)
        try:
            result = original(tensors, *args, **kwargs)
        except BaseException as error:
            for ear in reversed(ears):
                ear.backward_ended(error)
            raise
        for ear in reversed(ears):
            ear.backward_ended(None)
        return result

    return backward


def _clip_with_norm(original: Any) -> Any:
    @functools.wraps(original)
    def clip_with_norm(
        parameters: Any, max_norm: Any, total_norm: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not isinstance(parameters, (Tensor, list, tuple)):
            parameters = list(parameters)
        for ear in tuple(_ears):
            ear.clipped("norm", parameters, max_norm, total_norm, 2.0)
        return original(parameters, max_norm, total_norm, *args, **kwargs)

    return clip_with_norm


def _clip_norm(original: Any) -> Any:
    @functools.wraps(original)
    def clip_norm(parameters: Any, max_norm: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(parameters, (Tensor, list, tuple)):
            parameters = list(parameters)
        for ear in tuple(_ears):
            ear.clipped("norm", parameters, max_norm, None, 2.0)
        return original(parameters, max_norm, *args, **kwargs)

    return clip_norm


def _clip_value(original: Any) -> Any:
    @functools.wraps(original)
    def clip_value(parameters: Any, clip_value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(parameters, (Tensor, list, tuple)):
            parameters = list(parameters)
        for ear in tuple(_ears):
            ear.clipped("value", parameters, clip_value, None, float("inf"))
        return original(parameters, clip_value, *args, **kwargs)

    return clip_value


def _scale(original: Any) -> Any:
    @functools.wraps(original)
    def scale(self: GradScaler, outputs: Any) -> Any:
        result = original(self, outputs)
        if self.is_enabled():
            for ear in tuple(_ears):
                ear.scaled(self)
        return result

    return scale


def _scaler_step(original: Any) -> Any:
    @functools.wraps(original)
    def step(self: GradScaler, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        if self.is_enabled():
            for ear in tuple(_ears):
                ear.scaler_steps(self, optimizer)
        return original(self, optimizer, *args, **kwargs)

    return step


def _scaler_update(original: Any) -> Any:
    @functools.wraps(original)
    def update(self: GradScaler, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if self.is_enabled():
            for ear in tuple(_ears):
                ear.scaler_updates(self)
        return result

    return update


def _load(original: Any) -> Any:
    @functools.wraps(original)
    def load_state_dict(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        missing, unexpected = _names(result, "missing_keys"), _names(result, "unexpected_keys")
        for ear in tuple(_ears):
            ear.loaded_weights(self, missing, unexpected)
        return result

    return load_state_dict


def _names(result: Any, kind: str) -> list[str]:
    """Return what ``load_state_dict`` says of keys; a module's own one may say nothing."""
    found = getattr(result, kind, None)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _make_optimizer(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        for ear in tuple(_ears):
            ear.optimizer_made(self)

    return __init__
