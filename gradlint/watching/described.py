"""Described: what a model was given and returned, as statistics."""

from __future__ import annotations

from typing import Any

from gradlint.facts import TensorFacts
from gradlint.hooks.tensor_facts import MAX_ENTRIES, named_tensors, tensor_facts


def only(given: Any) -> Any:
    """Return what a model was called with: the one argument, or all of them by name."""
    args, kwargs = given if given is not None else ((), {})
    return args[0] if len(args) == 1 and not kwargs else {**dict(enumerate(args)), **kwargs}


def described(value: Any, name: str) -> tuple[TensorFacts, ...]:
    """Return the facts of every tensor in `value`."""
    return tuple(
        tensor_facts(label, tensor)
        for label, tensor in named_tensors(value, name)
        if not tensor.is_meta and tensor.numel() <= MAX_ENTRIES
    )
