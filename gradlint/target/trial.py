"""Copies of the model to try things on, so that it is left as it was."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from gradlint.errors import UsageError
from gradlint.target.user_code import say

T = TypeVar("T")


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
    memo: dict[int, object] = {}
    for module in model.modules():
        for attribute in vars(module).values():
            if isinstance(attribute, Tensor) and not attribute.is_leaf:
                memo[id(attribute)] = attribute.detach().clone()
    return copy.deepcopy(value, memo)


def vocabulary(model: nn.Module) -> frozenset[int]:
    """Sizes of the model's embeddings."""
    tables = (nn.Embedding, nn.EmbeddingBag)
    return frozenset(m.num_embeddings for m in model.modules() if isinstance(m, tables))
