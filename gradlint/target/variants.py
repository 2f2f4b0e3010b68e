"""Variants of a batch: a copy that may be overwritten, the same samples in other places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.batches import Batch


def copied_batch(batch: Batch) -> Batch:
    """Return a batch whose tensors a forward may overwrite."""

    def copy_leaf(leaf: Any) -> Any:
        return leaf.clone() if isinstance(leaf, Tensor) else leaf

    return Batch(tree_map(copy_leaf, batch.inputs), tree_map(copy_leaf, batch.targets))


def rolled(batch: Batch) -> Batch:
    """Return the batch with every sample's input exchanged for its neighbor's."""

    def roll(leaf: Any) -> Any:
        return leaf.roll(1, 0) if _plain(leaf) and leaf.ndim else leaf

    return Batch(tree_map(roll, batch.inputs), batch.targets)


def are_others(one: Any, other: Any) -> bool:
    """Whether two batches' inputs have the same shapes and not the same entries."""
    pairs = list(zip(named_tensors(one, "input"), named_tensors(other, "input"), strict=False))
    if any(a.shape != b.shape for (_, a), (_, b) in pairs):
        return False
    return any(not torch.equal(a, b) for (_, a), (_, b) in pairs if _plain(a) and _plain(b))


def _plain(leaf: Any) -> bool:
    """Whether `leaf` is a tensor of one block: neither sparse nor nested."""
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and not leaf.is_nested
