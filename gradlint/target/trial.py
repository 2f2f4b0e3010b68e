"""Copies of the model to try things on, so that it is left as it was."""

from __future__ import annotations

import copy

from torch import nn

from gradlint.errors import UsageError
from gradlint.target.user_code import say


def copy_of(model: nn.Module) -> nn.Module:
    """Return a deep copy of `model`, in training mode.

    Raises:
        UsageError: If it cannot be copied.
    """
    try:
        clone = copy.deepcopy(model)
    except Exception as error:
        raise UsageError(
            f"expected {type(model).__name__} to be a model that can be copied, copy.deepcopy "
            f"raised {say(error)}; give a class or a function that builds it instead"
        ) from error
    return clone.train()


def vocabulary(model: nn.Module) -> frozenset[int]:
    """Sizes of the model's embeddings."""
    tables = (nn.Embedding, nn.EmbeddingBag)
    return frozenset(m.num_embeddings for m in model.modules() if isinstance(m, tables))
