"""Copies of the model to try things on, so that it is left as it was."""

from __future__ import annotations

import copy
import dataclasses
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlint.errors import UsageError
from gradlint.probes.wiring import computed_from
from gradlint.target.losses import Fitted, Wrapped
from gradlint.target.user_code import say

T = TypeVar("T")
C = TypeVar("C")


def copy_of(model: nn.Module) -> nn.Module:
    """Return a deep copy of `model`, in training mode.

    Raises:
        UsageError: If it cannot be copied.
    """
    try:
        clone = copied(model, model)
    except Exception as error:
        raise UsageError(
            f"expected {type(model).__name__} to be a model that can be copied, copy.deepcopy "
            f"raised {say(error)}; give a class or a function that builds it instead"
        ) from error
    return clone.train()


def copied(value: T, model: nn.Module) -> T:
    """Return a deep copy of `value`, which holds `model`.

    Tensors that a module computed and keeps as attributes (an old-style weight norm does)
    cannot be deep-copied by torch; their numbers are copied, the next forward computes them.
    """
    memo = _memo(model)
    _copied_module(model, memo)
    return copy.deepcopy(value, memo)


def copied_together(
    model: nn.Module, optimizer: Optimizer | None, convention: C
) -> tuple[nn.Module, Optimizer | None, C]:
    """Return copies of a model, its optimizer and its loss that belong to each other.

    A loss that is a module, or a method of one, may have parameters, running statistics
    and a memory; one that cannot be copied, and any plain function, stays the same.
    """
    memo = _memo(model)
    clone = _copied_module(model, memo)
    twin = with_own_loss(convention, memo)
    return clone, None if optimizer is None else _copied_optimizer(optimizer, memo), twin


def with_own_loss(convention: C, memo: dict[int, object] | None = None) -> C:
    """Return `convention` with its loss copied, if that is a module or a method of one."""
    memo = {} if memo is None else memo
    changes = {}
    for name in ("loss_fn", "training_step"):
        function = getattr(convention, name, None)
        module = loss_module(function)
        if module is None:
            continue
        memo.update((key, value) for key, value in _memo(module).items() if key not in memo)
        try:
            changes[name] = copy.deepcopy(function, memo)
        except Exception:  # noqa: S112 (any: the loss is the user's, and may stay as it is)
            continue
    return dataclasses.replace(convention, **changes) if changes else convention  # type: ignore[type-var]


def loss_module(function: object) -> nn.Module | None:
    """The module that a loss is, or is a method of, whatever it is wrapped into."""
    for _ in range(4):
        for name in ("loss", "function"):
            if isinstance(function, (Fitted, Wrapped)) and hasattr(function, name):
                function = getattr(function, name)
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _copied_module(model: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Return a deep copy whose parameters are leaves, those of scripted parts, too."""
    with torch.no_grad():
        clone = copy.deepcopy(model, memo)
    own = dict(model.named_parameters(remove_duplicate=False))
    for path, other in clone.named_parameters(remove_duplicate=False):
        if path in own and own[path].requires_grad != other.requires_grad:
            other.requires_grad_(own[path].requires_grad)
    return clone


def _memo(model: nn.Module) -> dict[int, object]:
    memo: dict[int, object] = {}
    known = {id(p) for p in model.parameters()}
    for module in model.modules():
        for attribute in vars(module).values():
            if isinstance(attribute, Tensor) and not attribute.is_leaf:
                twin = attribute.detach().clone()
                if computed_from(attribute, known):  # a parameter nobody knows of stays one
                    with torch.enable_grad():
                        twin = nn.Parameter(twin).clone()
                memo[id(attribute)] = twin
    return memo


def _copied_optimizer(optimizer: Optimizer, memo: dict[int, object]) -> Optimizer:
    """Return a copy with all it knows: torch's own leaves out what is not in a state.

    (LBFGS keeps its parameters beside the groups, a wrapper the optimizer inside it.)
    """
    clone = copy.deepcopy(optimizer, memo)
    for name, value in vars(optimizer).items():
        if name in vars(clone) or name.startswith("_optimizer_") or callable(value):
            continue
        try:
            inner = isinstance(value, Optimizer)
            own = _copied_optimizer(value, memo) if inner else copy.deepcopy(value, memo)
        except Exception:  # noqa: S112 (any: a lock, a logger; torch itself drops them all)
            continue
        setattr(clone, name, own)
    return clone


def vocabulary(model: nn.Module) -> frozenset[int]:
    """Sizes of the model's embeddings."""
    tables = (nn.Embedding, nn.EmbeddingBag)
    return frozenset(m.num_embeddings for m in model.modules() if isinstance(m, tables))
