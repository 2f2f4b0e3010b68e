"""Does the output depend on the tokens beside a mask? Samples exchange those at which it agrees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.probes.input_ignored import Outputs, change_of
from gradlint.target.trial import copied

LEAST = 2
"""Tokens that a sample has to exchange, at least."""


def masked_tokens(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], inputs: Any
) -> Mapping[str, Any] | None:
    """Exchange tokens of neighboring samples where their masks are the same, on a copy of `model`.

    Which value of a mask hides a token need not be known: a position that is seen in one
    sample is seen in the other. Only what neither mask shows can be exchanged unnoticed.

    Args:
        model: The model; unchanged.
        run: Calls a model on inputs, always with the same random state.
        inputs: A batch's inputs.

    Returns:
        ``change`` (relative change of that output of the model which changes most, as
        `change_of` has it), ``tokens`` (how many were exchanged), ``mask`` and ``of`` (the names
        of a mask and of what it masks); None where there is no mask, where it shows or hides
        all, where half of the samples have not both positions that it shows and such that it
        hides in common with their neighbor, or exchange fewer than two tokens.
    """
    named = named_tensors(inputs, "input")
    masks = {name: t for name, t in named if is_mask(t)}
    if not masks:
        return None
    name, first = next(iter(masks.items()))
    shape = first.shape
    alike = [m for m in masks.values() if m.shape == shape]
    agree = torch.stack([m.bool() == m.bool().roll(1, 0) for m in alike]).all(0)
    tokens = {n: t for n, t in named if n not in masks and t.shape[:2] == shape}
    if not tokens:
        return None
    exchanged = {id(t): _exchanged(t, agree) for t in tokens.values()}
    moved = torch.stack(
        [(exchanged[id(t)] != t).reshape(*shape, -1).any(-1) for t in tokens.values()]
    ).any(0)
    common = torch.minimum((agree & first.bool()).sum(1), (agree & ~first.bool()).sum(1))
    fit = (common > 0) & (moved.sum(1) >= LEAST)
    if 2 * int(fit.sum()) < len(first):
        return None
    change = change_by(model, run, inputs, lambda leaf: exchanged.get(id(leaf), leaf))
    if change is None:
        return None
    return {
        "change": change,
        "tokens": int(moved.sum()),
        "mask": name,
        "of": next(iter(tokens)),
    }


def change_by(
    model: nn.Module,
    run: Callable[[nn.Module, Any], Any],
    inputs: Any,
    exchanged: Callable[[Any], Any],
) -> float | None:
    """Return the relative change of that output of a copy of `model` which changes most.

    None where outputs cannot be compared, or are zero.
    """
    twin = copied(model, model).eval()
    seen: list[list[Tensor]] = []
    for given in (inputs, tree_map(exchanged, inputs)):
        outputs = Outputs()
        with torch.no_grad(), HookManager(twin, outputs):
            run(twin, given)
        seen.append(outputs.returned)
    pairs = list(zip(*seen, strict=True))
    if any(before.shape != after.shape for before, after in pairs):
        return None
    changes = [change_of(before, after) for before, after in pairs if before.any()]
    return None if not changes or any(map(math.isnan, changes)) else max(changes)


def is_mask(tensor: Tensor) -> bool:
    """Whether a tensor holds one of two values for each position of each sample."""
    if tensor.ndim != 2 or tensor.is_floating_point() or tensor.is_complex():
        return False
    return bool(tensor.any()) and not bool(((tensor != 0) & (tensor != 1)).any())


def _exchanged(tensor: Tensor, agree: Tensor) -> Tensor:
    """Return a tensor with its neighbor's entries where the masks of the two agree."""
    wide = agree.reshape(*agree.shape, *[1] * (tensor.ndim - 2))
    return torch.where(wide, tensor.roll(1, 0), tensor)
