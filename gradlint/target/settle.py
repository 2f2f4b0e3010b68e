"""Which convention a model, a batch and a loss follow: read where it shows, else tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.errors import GradlintError, TargetError
from gradlint.hooks.loss import from_error
from gradlint.target.batches import Batch, describe, joined
from gradlint.target.calls import Convention, own_loss
from gradlint.target.chosen import choose
from gradlint.target.losses import OutputsOnly, name_of
from gradlint.target.made import Made, candidates, make, plan
from gradlint.target.signatures import target_keyword
from gradlint.target.trial import copy_of, vocabulary, with_own_loss
from gradlint.target.user_code import quietly


@dataclass
class Settled:
    """A convention, how to make targets if none are given, and what to say of both."""

    convention: Convention
    makers: list[Made] = field(default_factory=list)
    assumed: dict[str, str] = field(default_factory=dict)

    def complete(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return `batch` with targets made up where none are given."""
        if not self.makers or batch.targets is not None:
            return batch
        return Batch(batch.inputs, make(self.makers, batch.inputs, generator))


def settle(
    model: nn.Module,
    batch: Batch,
    *,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    training_step: Callable[[nn.Module, Any], Any] | None = None,
    step_name: str = "training_step",
    given: bool = True,
    seed: int = 0,
) -> Settled:
    """Return how a loss comes out of `model` on batches like `batch`.

    `given` says that the batch is the user's own, not a synthesized one: a training step
    then takes it as it is.

    Raises:
        TargetError: If a pass raises, or no loss fits.
    """
    if training_step is not None:
        step = Convention(training_step=training_step, step_name=step_name)
        if given:
            return Settled(step)
        return _settle_step(step, model, batch, seed)
    if loss_fn is not None and (batch.targets is not None or isinstance(loss_fn, OutputsOnly)):
        return Settled(Convention(loss_fn))
    with quietly(seed, warn=False):
        clone = copy_of(model)
        if loss_fn is not None:
            return _settle_targets(loss_fn, clone, batch, seed)
        if batch.targets is not None:
            return _settle_loss(clone, batch)
        return _settle_both(clone, batch, seed)


def _settle_targets(
    loss_fn: Callable[[Any, Any], Any], model: nn.Module, batch: Batch, seed: int
) -> Settled:
    """Find targets for a given loss."""
    convention = Convention(loss_fn)
    loss_fn = with_own_loss(convention).loss_fn or loss_fn
    outputs = convention.outputs(model, batch)
    try:
        loss_fn(outputs, None)  # a loss may leave its targets alone
    except Exception:  # noqa: S110 (any: it is the user's function, told that there are none)
        pass
    else:
        return Settled(convention)
    error: Exception | None = None
    for makers in candidates(outputs, batch.inputs, vocabulary(model), loss_fn):
        try:
            targets = make(makers, batch.inputs, torch.Generator().manual_seed(seed))
            loss = loss_fn(outputs, targets)
        except Exception as raised:
            error = error or raised
            continue
        if isinstance(loss, Tensor):
            return Settled(convention, makers, {"targets": _words(makers)})
    raise TargetError(
        f"expected targets for the loss {name_of(loss_fn)} on outputs {describe(outputs)}, the "
        "batch holds none and none that gradlint made up fit; give (inputs, targets) as "
        "example_batch in the target's file"
    ) from error


def _settle_loss(model: nn.Module, batch: Batch) -> Settled:
    """Find the loss for given targets: the model's own, else one that fits."""
    keyword = target_keyword(model)
    if keyword is not None:
        convention = Convention(keyword=keyword)
        if _has_own_loss(convention, model, batch):
            return Settled(convention, assumed={"loss": "the model's own"})
    plain = Convention()
    outputs = plain.outputs(model, batch)
    if own_loss(outputs) is not None:
        return Settled(plain, assumed={"loss": "the model's own"})
    loss = choose(outputs, batch.targets)
    return Settled(Convention(loss), assumed={"loss": f"{loss.__name__} (chosen)"})


def _has_own_loss(convention: Convention, model: nn.Module, batch: Batch) -> bool:
    """Whether forward, given the targets, comes to a loss: also if the loss does not take them."""
    try:
        return own_loss(convention.outputs(model, batch)) is not None
    except TargetError as error:
        if from_error(error) is None:
            raise
        return True


def _settle_both(model: nn.Module, batch: Batch, seed: int) -> Settled:
    """Find loss and targets: the model's own loss, else those most natural to its outputs."""
    plain = Convention()
    outputs = plain.outputs(model, batch)
    if own_loss(outputs) is not None:
        return Settled(plain, assumed={"loss": "the model's own"})
    loss, makers = plan(outputs, batch.inputs, vocabulary(model))
    keyword = target_keyword(model)
    if keyword is not None:
        for tried in _own_targets(model, outputs, batch, makers):
            targets = make(tried, batch.inputs, torch.Generator().manual_seed(seed))
            convention = Convention(keyword=keyword)
            try:
                found = own_loss(convention.outputs(model, Batch(batch.inputs, targets)))
            except TargetError:
                continue
            if found is not None and found.numel() == 1 and bool(torch.isfinite(found.detach())):
                said = {"loss": "the model's own", "targets": _words(tried)}
                return Settled(convention, tried, said)
    said = {"loss": f"{loss.__name__} (chosen)", "targets": _words(makers)}
    return Settled(Convention(loss), makers, said)


def _own_targets(
    model: nn.Module, outputs: Any, batch: Batch, makers: list[Made]
) -> Iterator[list[Made]]:
    """Targets to try on a model with a loss of its own: for tokens, the next token first."""
    first = batch.inputs
    if isinstance(first, Tensor) and not first.is_floating_point() and first.ndim == 2:
        yield [Made("the next token", tuple(first.shape), first.dtype)]
    yield makers
    yield from candidates(outputs, batch.inputs, vocabulary(model), None)


def _settle_step(step: Convention, model: nn.Module, batch: Batch, seed: int) -> Settled:
    """Find the synthesized batch that a training step takes."""
    error: GradlintError | None = None
    for makers in _step_targets(model, batch, seed):
        targets = make(makers, batch.inputs, _seeded(seed)) if makers else None
        try:
            with quietly(seed, warn=False):
                step(copy_of(model), Batch(batch.inputs, targets))
        except TargetError as raised:
            error = error or raised
            continue
        return Settled(step, makers, {"targets": _words(makers)} if makers else {})
    raise TargetError(
        f"expected a batch for {step.step_name}, no synthesized one fits (inputs "
        f"{describe(joined(batch))} were tried alone and with targets); define example_batch or "
        "get_batch in the target's file"
    ) from error


def _step_targets(model: nn.Module, batch: Batch, seed: int) -> Iterator[list[Made]]:
    with quietly(seed, warn=False):
        try:
            clone = copy_of(model)
            outputs = Convention().outputs(clone, batch)
            tried = [plan(outputs, batch.inputs, vocabulary(model))[1]]
            tried += list(candidates(outputs, batch.inputs, vocabulary(model), None))
        except TargetError:
            tried = []
    yield from tried
    yield []


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _words(makers: list[Made]) -> str:
    return "synthesized: " + ", ".join(dict.fromkeys(maker.how for maker in makers))
