"""What a model is to learn from its batches, where that is classes or numbers of one tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.probes.plain_network import Losses
from gradlint.target.batches import Batch

FEWEST = 32
"""Samples below which a network that learns nothing is not told from one that learns."""

KNOWN = 256
"""Samples of all batches among which is looked for something to be found."""

FITTED = 128
"""Samples of the batch that is to be fitted."""

CLASSES = frozenset({"cross_entropy", "nll"})
BINARY = frozenset({"bce", "bce_with_logits"})
NUMBERS = frozenset({"mse", "l1", "smooth_l1", "huber"})

MOST_ALIKE = 0.96
"""Share of one class, or one answer, above which a constant is next to right."""

MOST_NUMBERS = 64
"""Numbers of one sample's target above which it is a picture of something."""

Call = Callable[[nn.Module, Batch], Any]


class _Given(nn.Module):
    """Returns the same numbers whatever it is given."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the numbers."""
        return self.numbers


@dataclass
class Task:
    """What is to be learned: samples, how their outputs are made from scores, and their losses.

    `guesses` take targets and give the scores that are best for all of them: the first for
    `losses`, any of them for the user's own. `batch` holds the first samples, as they were.
    """

    inputs: Tensor
    targets: Tensor
    outputs: int
    link: Callable[[Tensor], Tensor]
    losses: Losses
    guesses: tuple[Callable[[Tensor], Tensor], ...]
    batch: Batch
    numbers: bool = False


def task_of(
    model: nn.Module, call: Call, batches: Sequence[Batch], losses: Collection[str]
) -> Task | None:
    """Return what the model is to learn; None where it is nothing that is judged here."""
    pairs = [_pair(batch) for batch in batches]
    alike = [p for p in pairs if p is not None and _shapes(p) == _shapes(pairs[0] or p)]
    if len(losses) != 1 or not alike or len(alike) < len(batches) - 1:
        return None
    inputs, targets = (torch.cat(tensors) for tensors in zip(*alike, strict=True))
    if not inputs.is_floating_point() or len(inputs) != len(targets):
        return None
    kept = _distinct(inputs)[:KNOWN]
    inputs, targets = inputs[kept], targets[kept]
    if len(kept) < FEWEST:
        return None
    batch = Batch(inputs[:FITTED], targets[:FITTED])
    with torch.no_grad():
        output = call(model, batch)[1]
    if not isinstance(output, Tensor) or output.shape[:1] != batch.inputs.shape[:1]:
        return None
    kind = next(iter(losses))
    if targets.dtype == torch.int64:
        return _classes(inputs, targets, output, batch, kind)
    wanted = targets[:FITTED]
    same = output.shape == wanted.shape and wanted.is_floating_point()
    if not same or targets.shape == inputs.shape or output[0].numel() > MOST_NUMBERS:
        return None
    return _numbers(inputs, targets, output, batch, kind)


def _pair(batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return inputs and targets where each is one plain tensor with samples."""
    pair = batch.inputs, batch.targets
    plain = all(type(t) is Tensor and t.ndim and t.layout is torch.strided for t in pair)
    return pair if plain else None  # type: ignore[return-value]


def _shapes(pair: tuple[Tensor, Tensor]) -> list[Any]:
    return [(tensor.shape[1:], tensor.dtype) for tensor in pair]


def _distinct(inputs: Tensor) -> list[int]:
    """Return the places of samples that come for the first time, in their order."""
    _, which = torch.unique(inputs.reshape(len(inputs), -1), dim=0, return_inverse=True)
    seen: dict[int, int] = {}
    for place, name in enumerate(which.tolist()):
        seen.setdefault(name, place)
    return sorted(seen.values())


def _classes(
    inputs: Tensor, targets: Tensor, output: Tensor, batch: Batch, kind: str
) -> Task | None:
    """Return the task where targets are classes of the output's columns."""
    if kind not in CLASSES or output.ndim != 2 or targets.ndim != 1:
        return None
    outputs = output.shape[1]
    if int(targets.min()) < 0 or int(targets.max()) >= outputs:
        return None
    if int(torch.bincount(targets[:FITTED]).max()) > MOST_ALIKE * len(targets[:FITTED]):
        return None
    probabilities = bool((output >= 0).all() and ((output.sum(1) - 1).abs() < 1e-3).all())
    link = functional.softmax if probabilities else functional.log_softmax

    def guess(targets: Tensor) -> Tensor:
        counts = torch.bincount(targets, minlength=outputs).to(torch.float32)
        return ((counts + 0.01) / (counts + 0.01).sum()).log()

    def losses(scores: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(scores, targets, reduction="none")

    made = lambda scores: link(scores, dim=1).to(output.dtype)  # noqa: E731
    return Task(inputs, targets, outputs, made, losses, (guess,), batch)


def _numbers(
    inputs: Tensor, targets: Tensor, output: Tensor, batch: Batch, kind: str
) -> Task | None:
    """Return the task where targets are numbers, or each the probability of a yes."""
    shape, flat = targets.shape[1:], targets.reshape(len(targets), -1).to(torch.float32)
    if kind in BINARY:
        if not 1 - MOST_ALIKE <= float(flat[:FITTED].mean()) <= MOST_ALIKE:
            return None
        link: Callable[[Tensor], Tensor] = torch.sigmoid if kind == "bce" else nn.Identity()

        def guess(targets: Tensor) -> Tensor:
            return torch.logit(targets.mean(0).clamp(1e-3, 1 - 1e-3))

        def losses(scores: Tensor, targets: Tensor) -> Tensor:
            each = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
            return each.mean(1)

        made = lambda scores: link(scores).reshape(-1, *shape).to(output.dtype)  # noqa: E731
        return Task(inputs, flat, flat.shape[1], made, losses, (guess,), batch)
    if kind not in NUMBERS:
        return None
    center, spread = flat.mean(0), flat.std(0)
    return Task(
        inputs,
        (flat - center) / spread,
        flat.shape[1],
        lambda scores: (scores * spread + center).reshape(-1, *shape).to(output.dtype),
        lambda scores, targets: (scores - targets).square().mean(1),
        (lambda targets: targets.mean(0), lambda targets: targets.median(0).values),
        batch,
        numbers=True,
    )


def best_constant(task: Task, call: Call) -> float:
    """Return the user's loss of the best constant prediction on the batch: mean or median."""
    targets = task.targets[: len(task.batch.inputs)]
    guesses = [guess(targets) for guess in task.guesses]
    full = [task.link(guess.expand(len(targets), task.outputs)) for guess in guesses]
    return min(float(call(_Given(numbers), task.batch)[0].detach()) for numbers in full)
