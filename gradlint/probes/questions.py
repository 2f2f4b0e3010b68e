"""Questions asked of a model after its training: each an extra pass on a copy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradlint.probes.attention_peaks import attention_peaks
from gradlint.probes.batch_fit import batch_fit
from gradlint.probes.batch_leakage import batch_leakage
from gradlint.probes.batch_statistics import batch_statistics
from gradlint.probes.constant_output import constant_output
from gradlint.probes.custom_derivatives import custom_derivatives
from gradlint.probes.evaluation_mode import evaluation_mode
from gradlint.probes.future_leakage import (
    declared_causal,
    future_leakage,
    no_decoder,
    predicts_next,
    trained_causal,
)
from gradlint.probes.input_ignored import input_ignored
from gradlint.probes.loss_terms import loss_terms
from gradlint.probes.masked_tokens import masked_tokens
from gradlint.probes.padded_tokens import padded_tokens
from gradlint.probes.time_gradients import time_gradients
from gradlint.probes.unit_sizes import unit_sizes
from gradlint.target.batches import Batch
from gradlint.target.variants import are_others, rolled

Call = Callable[[nn.Module, Batch], Any]
Observed = Mapping[str, Any] | None


def ask(
    model: nn.Module,
    batches: Sequence[Batch],
    call: Call,
    steps: int,
    *,
    own_step: bool,
    fresh: Callable[[], nn.Module] | None = None,
    losses: Collection[str] = (),
) -> dict[str, Mapping[str, Any]]:
    """Return what the probes observed, by their names.

    Args:
        model: The trained model; unchanged.
        batches: Batches of the training, at least one.
        call: Runs forward and loss.
        steps: Training steps made before.
        own_step: Whether the user's own step computes the loss: it may mix samples.
        fresh: Returns the model as it was before; None where the data are not the user's.
        losses: Kinds of the losses that were seen.
    """
    first = batches[0]

    def with_inputs(model: nn.Module, inputs: Any) -> Any:
        return call(model, Batch(inputs, first.targets))

    asked: dict[str, Callable[[], Observed]] = {}
    candidates = (*batches[1:], rolled(first))
    second = next((b for b in candidates if are_others(first.inputs, b.inputs)), None)
    if second is not None:  # else every batch holds the same inputs: nothing to compare
        asked["input-ignored"] = lambda: input_ignored(model, _seeded(call), first, second, steps)
    asked["custom-derivatives"] = lambda: custom_derivatives(model, _seeded(call), first, fresh)
    asked["masked-tokens"] = lambda: masked_tokens(model, _seeded(with_inputs), first.inputs)
    asked["padded-tokens"] = lambda: padded_tokens(model, _seeded(with_inputs), first.inputs)
    if not own_step and first.targets is not None:
        asked["constant-output"] = lambda: constant_output(model, call, batches)
        asked["batch-leakage"] = lambda: batch_leakage(model, _seeded(with_inputs), first.inputs)
    asked["future-leakage"] = lambda: _looks_ahead(model, call, first)
    asked["batch-statistics"] = lambda: batch_statistics(model, _seeded(call), batches)
    asked["loss-terms"] = lambda: loss_terms(model, _seeded(call), batches)
    asked["time-gradients"] = lambda: time_gradients(model, _seeded(call), batches)
    asked["attention-peaks"] = lambda: attention_peaks(model, _seeded(call), batches)
    asked["unit-sizes"] = lambda: unit_sizes(model, _seeded(call), batches)
    asked["evaluation-mode"] = lambda: evaluation_mode(
        model, _seeded(call), first, own_step=own_step
    )
    if fresh is not None and not own_step:
        asked["batch-fit"] = lambda: batch_fit(model, fresh, call, batches, losses)
    answers = {name: _answer(question) for name, question in asked.items()}
    return {name: found for name, found in answers.items() if found is not None}


def _looks_ahead(model: nn.Module, call: Call, batch: Batch) -> Observed:
    """Ask for later tokens where the next one is to be predicted."""

    def loss(model: nn.Module, inputs: Any, targets: Any) -> Any:
        return _seeded(call)(model, Batch(inputs, targets))[0]

    def with_inputs(model: nn.Module, inputs: Any) -> Any:
        return call(model, Batch(inputs, batch.targets))

    if not (
        declared_causal(model)
        or predicts_next(batch.inputs, batch.targets)
        or trained_causal(model, loss, batch.inputs, batch.targets)
    ):
        return None
    found = future_leakage(model, _seeded(with_inputs), batch.inputs)
    return None if found is None else {**found, "no_decoder": no_decoder(model)}


def _seeded(call: Callable[[nn.Module, Any], Any]) -> Callable[[nn.Module, Any], Any]:
    """Return `call` with the same random numbers each time: only the inputs differ."""

    def seeded(model: nn.Module, batch: Any) -> Any:
        torch.manual_seed(0)
        return call(model, batch)

    return seeded


def _answer(question: Callable[[], Observed]) -> Observed:
    state = torch.get_rng_state()
    try:
        return question()
    except Exception:  # a model that cannot run in evaluation mode is not what is asked here
        return None
    finally:
        torch.set_rng_state(state)
