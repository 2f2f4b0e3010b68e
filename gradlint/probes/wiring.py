"""Modules and parameters that hide from `parameters()`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gradlint.hooks.attributes import is_users
from gradlint.trace import Event


def unregistered(model: nn.Module) -> Iterator[Event]:
    """Yield an event for each plain container that hides modules or parameters.

    A module in a plain list, tuple, dict or set is not registered: `parameters()`,
    `to()`, `state_dict()` and the optimizer do not see it. Modules that are registered
    elsewhere as well, and those that nothing of trains, are left out.
    """
    registered = {id(m) for m in model.modules()}
    known = {id(p) for p in model.parameters()} | {id(b) for b in model.buffers()}
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute.startswith("_") and attribute in _OF_TORCH:
                continue
            container, hidden = _hidden(value)
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
