"""Passes on a copy of the model, to learn what it returns; the model is left as it was."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import torch
from torch import nn

from gradlint.errors import UsageError
from gradlint.target.raised import say


@contextmanager
def quietly(seed: int | None = None) -> Iterator[None]:
    """Run the user's code: what it prints goes to stderr, the random state is put back."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), redirect_stdout(sys.stderr):
        if seed is not None:
            torch.manual_seed(seed)
        yield


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
