"""Batches of a target: read from what the user gave, or drawn from a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gradlint.target.batches import MOST_BATCHES, Batch, Source, check, prepare, split, whole
from gradlint.target.calls import Convention
from gradlint.target.settle import Settled
from gradlint.target.signatures import target_keyword
from gradlint.target.specs import Recipe
from gradlint.target.synthesize import dtype_of
from gradlint.target.user_code import quietly

Batches = Callable[[nn.Module, int], list[Batch]]


def given(source: Source, *, loss: bool, step: bool, inputs_first: bool = False) -> Batches:
    """Return the batches of a source, checked and on the model's device.

    `loss` says that a loss function wants targets, `step` that a training step wants each
    batch whole, `inputs_first` that the source was called inputs.
    """

    def batches(model: nn.Module, seed: int) -> list[Batch]:
        keyword = target_keyword(model) is not None
        bare = not keyword and (inputs_first or not loss)

        def read(raw: Any) -> Batch:
            if step:
                return whole(raw)
            return split(raw, model, bare=bare, all_bare=inputs_first and not keyword)

        return [prepare(check(read(raw), source.name), model) for raw in source(seed)]

    return batches


def drawn(recipe: Recipe) -> Batches:
    """Return batches drawn from a recipe; what forward takes as labels is their targets."""

    def batches(model: nn.Module, seed: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed)
        dtype = dtype_of(model)
        made = []
        for _ in range(MOST_BATCHES):
            raw = recipe.draw(generator, dtype)
            batch = split(raw, model) if isinstance(raw, dict) else Batch(raw)
            made.append(prepare(batch, model))
        return made

    return batches


def completed(batches: Batches, settled: Settled) -> Batches:
    """Return `batches` with made-up targets where there are none, for a model made whole.

    The parameters of lazy layers get their shapes here, by a pass that trains nothing.
    """

    def complete(model: nn.Module, seed: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(seed + 1)
        made = [settled.complete(batch, generator) for batch in batches(model, seed)]
        materialize(model, settled.convention, made[0])
        return made

    return complete


def materialize(model: nn.Module, convention: Convention, batch: Batch) -> None:
    """Give lazy parameters their shapes."""
    if not any(nn.parameter.is_lazy(p) for p in model.parameters()):
        return
    training = model.training
    with torch.no_grad(), quietly():
        convention(model.eval(), batch)
    model.train(training)
