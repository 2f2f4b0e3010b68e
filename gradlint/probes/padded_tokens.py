"""Does the output depend on padded tokens, or on where the padding is alone? Samples exchange them.

A model that makes its mask of its tokens has none among its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.tensor_facts import named_tensors
from gradlint.probes.masked_tokens import LEAST, change_by, is_mask


def padded_tokens(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], inputs: Any
) -> Mapping[str, Any] | None:
    """Exchange tokens between samples where none is padding, on a copy of `model`.

    Tokens that are the same in all samples (a class token) stay where they are.

    Args:
        model: The model; unchanged.
        run: Calls a model on inputs, always with the same random state.
        inputs: A batch's inputs.

    Returns:
        ``change`` (relative change of that output of the model which changes most, as
        `change_of` has it), ``tokens`` (how many were exchanged), ``of`` (their name) and
        ``padding`` (its value); None where no tokens end, or begin, in paddings of different
        length, where a mask or anything but the lengths is given beside them, and where
        fewer than two tokens a sample are exchanged.
    """
    named = named_tensors(inputs, "input")
    found = [(n, t, p) for n, t in named if (p := _padding(t)) is not None]
    if not found or any(is_mask(t) for _, t in named):
        return None
    name, tokens, padding = found[0]
    shape = padding.shape
    beside = [t for _, t in named if t.shape[:2] != shape]
    if any(t.ndim > 1 or t.is_floating_point() for t in beside):
        return None  # what else the model is given may be all that it looks at
    alike = [t for _, t in named if t.shape[:2] == shape]
    varied = torch.stack([_varied(t) for t in alike]).any(0)
    free = ~padding & varied
    count = int(free.sum())

    def exchanged(leaf: Any) -> Any:
        if not any(leaf is t for t in alike):
            return leaf
        return leaf.masked_scatter(_wide(free, leaf), leaf[free].roll(count // 2, 0))

    moved = (exchanged(tokens) != tokens).reshape(*shape, -1).any(-1).sum()
    if int(moved) < LEAST * len(tokens):
        return None
    change = change_by(model, run, inputs, exchanged)
    if change is None:
        return None
    kept = float(tokens[padding].flatten()[0])
    return {"change": change, "tokens": int(moved), "of": name, "padding": kept}


def _padding(tensor: Tensor) -> Tensor | None:
    """Return where a tensor of shape ``(N, T)`` or ``(N, T, C)`` is padded; None if nowhere.

    Padding is one value, or zeros instead of a vector, in front of or behind all that half of
    the samples or more hold, and nowhere else; there are different lengths of it.
    """
    if tensor.numel() == 0:
        return None
    if tensor.ndim != (3 if tensor.is_floating_point() else 2):
        return None
    for side in (-1, 0):
        if tensor.is_floating_point():
            same = ~tensor.any(-1)
        else:
            same = tensor == tensor[:, side].mode().values
        ends = same.flip(1) if side else same
        counts = ends.sum(1)
        together = torch.equal(ends, ends.cumprod(1).bool())
        if (
            together
            and 2 * int((counts > 0).sum()) >= len(tensor)
            and len(set(counts.tolist())) > 1
        ):
            return same
    return None


def _varied(tensor: Tensor) -> Tensor:
    """Return, for each position, whether samples differ there."""
    return (tensor != tensor[:1]).reshape(*tensor.shape[:2], -1).any(-1).any(0)


def _wide(where: Tensor, like: Tensor) -> Tensor:
    return where.reshape(*where.shape, *[1] * (like.ndim - 2)).expand_as(like)
