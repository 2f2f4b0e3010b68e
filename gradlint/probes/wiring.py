"""Modules and parameters that hide from `parameters()`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gradlint.hooks.attributes import is_users
from gradlint.trace import Event


def unregistered(model: nn.Module) -> Iterator[Event]:
    """Yield an event for each attribute that hides modules or parameters.

    A module in a plain list, tuple, dict or set is not registered: `parameters()`,
    `to()`, `state_dict()` and the optimizer do not see it. Modules that are registered
    elsewhere as well, and those that nothing of trains, are left out. Nor is a tensor that was
    computed from parameters: ``nn.Parameter(x) * 0.01`` is none.
    """
    registered = {id(m) for m in model.modules()}
    known = {id(p) for p in model.parameters()} | {id(b) for b in model.buffers()}
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_") and attribute in _OF_TORCH:
                continue
            container, hidden = _hidden(value)
            if isinstance(value, torch.Tensor):
                container, hidden = "tensor", computed_from(value, known)
            lost = [m for m in hidden if id(m) not in registered]
            count = sum(
                p.numel() if isinstance(p, torch.Tensor) else 0
                for m in lost
                for p in (m.parameters() if isinstance(m, nn.Module) else [m])
                if p.requires_grad and id(p) not in known
            )
            if lost and count:
                yield Event(
                    "unregistered-module",
                    module=path,
                    detail={
                        "attribute": attribute,
                        "kind": type(lost[0]).__name__,
                        "container": container,
                        "parameters": count,
                        "modules": len(lost),
                        "training": any(getattr(m, "training", True) for m in lost),
                        "ours": is_users(getattr(_home(type(module)), "__file__", None) or "<"),
                    },
                )


_MOST_NODES = 16
"""Operations looked through between a parameter and what was made of it."""


def computed_from(value: torch.Tensor, known: set[int]) -> list[Any]:
    """Return the parameters that a tensor was computed from; none if the model knows one."""
    stack = [] if value.grad_fn is None else [value.grad_fn]
    found: dict[int, Any] = {}
    count = 0
    while stack:
        node = stack.pop()
        count += 1
        leaf = getattr(node, "variable", None)
        if leaf is not None and (id(leaf) in known or not isinstance(leaf, nn.Parameter)):
            return []
        if leaf is not None:
            found[id(leaf)] = leaf
        if count > _MOST_NODES:
            return []
        stack += [after for after, _ in node.next_functions if after is not None]
    return list(found.values())


_OF_TORCH = frozenset(vars(nn.Module()))


def _home(kind: type) -> Any:
    import sys

    return sys.modules.get(kind.__module__)


def _hidden(value: Any) -> tuple[str, list[Any]]:
    if isinstance(value, nn.Module):
        return "", []
    if isinstance(value, dict):
        items: list[Any] = list(value.values())
    elif isinstance(value, (list, tuple, set)):
        items = list(value)
    else:
        return "", []
    nested = [i for item in items if isinstance(item, (list, tuple)) for i in item]
    return type(value).__name__, [
        item
        for item in (*items, *nested)
        if isinstance(item, nn.Module)
        or (isinstance(item, torch.Tensor) and item.is_leaf and item.requires_grad)
    ]
