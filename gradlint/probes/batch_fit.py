"""Can the model fit one batch in which a plain network finds something?"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.probes.fitting_task import Call, Task, best_constant, task_of
from gradlint.probes.plain_network import PlainNetwork, features, left_out
from gradlint.target.batches import Batch
from gradlint.target.trial import copied

RATES = (1e-3, 1e-2, 1e-4)
STEPS = 200
"""Steps of Adam at each rate."""

SUSPECT = 0.1
"""Share of the best constant's loss by which a training's is lower where it is no suspect."""

SIGNAL = 0.1
ERRORS = 4.0
"""What is found has to lower the loss by that share of it, and by so many standard errors: of 300
sets of random labels and numbers none came to 2.4."""

AGAIN = 3
"""Calls of one layer in one forward that make a recurrence of it."""


class _Scaled(nn.Module):
    """A model whose outputs are moved to where the targets are."""

    def __init__(self, model: nn.Module, center: float, scale: float, to: float) -> None:
        super().__init__()
        self.model, self.center, self.scale, self.to_center = model, center, scale, to

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the model's output, moved."""
        output: Tensor = self.model(*args, **kwargs)
        return (output - self.center) * self.scale + self.to_center


class _Calls:
    """Counts the calls of each layer that has parameters of its own."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Count a call."""
        if next(module.parameters(recurse=False), None) is not None:
            self.counts[path] += 1

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Nothing is asked of what is returned."""


def batch_fit(
    model: nn.Module,
    fresh: Callable[[], nn.Module],
    call: Call,
    batches: Sequence[Batch],
    losses: Collection[str],
    seconds: float = 5.0,
) -> Mapping[str, Any] | None:
    """Fit one batch with copies of a model whose training got nowhere, and with a plain network.

    Args:
        model: The model after its training; unchanged.
        fresh: Returns the model as it was before, to be changed.
        call: Runs a model and the loss on a batch.
        batches: Batches of the training, at least one.
        losses: Kinds of the losses that were seen.
        seconds: Time the model's trainings may take; None where they take longer.

    Returns:
        ``constant``, ``model`` and ``plain`` (the user's loss on the batch of the best constant
        prediction, of the model at its best learning rate, of the plain network), ``share`` (of
        the way from the first to the last that the model comes), ``signal`` (share of the
        constant's loss by which the plain network's is lower on samples left out) and ``errors``
        (that, in standard errors), ``samples`` (of the batch), ``known`` (of all), ``steps`` and
        ``rates``. None where the training got somewhere, where data or losses are others, or
        where there is nothing to be found.
    """
    torch.manual_seed(0)
    trained = _to_fit(copied(model, model))
    task = task_of(trained, call, batches, losses)
    if task is None or _recurs(trained, task.batch, call):
        return None
    with torch.no_grad():
        constant = best_constant(task, call)
        reached = float(call(trained, task.batch)[0].detach())
    if reached < (1 - SUSPECT) * constant:
        return None
    rows = features(task.inputs)
    if rows is None:
        return None
    signal, errors = left_out(rows, task.targets, task.outputs, task.losses, task.guesses[0])
    if signal < SIGNAL or errors < ERRORS:
        return None
    size = len(task.batch.inputs)
    network = PlainNetwork(rows[:size], task.outputs, task.link)
    plain = _descend(network, call, task.batch, 3e-3, math.inf, 0.0)
    if not 0 <= plain <= 0.5 * constant:
        return None
    enough = constant - SUSPECT * (constant - plain)
    deadline, best = time.monotonic() + seconds, math.inf
    for number, rate in enumerate(RATES):
        torch.manual_seed(number)  # where it is built anew: by another draw of its weights
        patient = _moved(_to_fit(fresh()), task, call)
        found = _descend(patient, call, task.batch, rate, deadline, enough)
        if math.isnan(found):
            return None
        best = min(best, found)
        if best <= enough:
            break
    return {
        "constant": constant,
        "model": best,
        "plain": plain,
        "share": max(0.0, (constant - best) / (constant - plain)),
        "signal": signal,
        "errors": errors,
        "samples": size,
        "known": len(task.inputs),
        "steps": STEPS,
        "rates": list(RATES),
    }


def _recurs(model: nn.Module, batch: Batch, call: Call) -> bool:
    """Whether layers run again on what they returned: memory takes thousands of steps to learn.

    (LSTMs that see a class in the first 10 of 60 steps are at a constant after 600 of Adam.)
    """
    if any(isinstance(m, (nn.RNNBase, nn.RNNCellBase)) for m in model.modules()):
        return True
    calls = _Calls()
    with torch.no_grad(), HookManager(model, calls):
        call(model, batch)
    return max(calls.counts.values(), default=0) >= AGAIN


def _to_fit(model: nn.Module) -> nn.Module:
    """Put a copy into the mode in which nothing is random: batches are normalized as such."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
        elif isinstance(module, nn.RNNBase):  # CUDA's have no backward in evaluation mode
            module.train()
            module.dropout = 0.0
    return model


def _moved(model: nn.Module, task: Task, call: Call) -> nn.Module:
    """Return `model` with its outputs moved to targets that are far from 0 or of another size.

    That is another fault, or none; what is asked here is whether it tells samples apart.
    """
    with torch.no_grad():  # also where parameters are made by the first call
        output = call(model, task.batch)[1].detach()
    if not task.numbers:
        return model
    targets = torch.as_tensor(task.batch.targets)
    center, spread = float(targets.mean()), float(targets.std())
    if abs(center) <= 3 and 0.1 <= spread <= 10:
        return model
    scale = spread / max(float(output.std()), 1.0)
    return _Scaled(model, float(output.mean()), scale, center)


def _descend(
    model: nn.Module, call: Call, batch: Batch, rate: float, deadline: float, enough: float
) -> float:
    """Return the lowest loss of `STEPS` steps of Adam; NaN where the time does not suffice."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=rate)
    best = math.inf
    for _ in range(STEPS):
        if time.monotonic() > deadline:
            return math.nan
        optimizer.zero_grad()
        loss = call(model, batch)[0]
        best = min(best, float(loss.detach()))
        if best <= enough:
            break
        loss.backward()
        optimizer.step()
    return best
