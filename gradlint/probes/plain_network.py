"""What a plain two-layer network finds in data: the yardstick for a model that finds nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN = 128
FEATURES = 128
"""Directions of the inputs that are kept where they have more: those in which they vary most."""

FOLDS = 4
STEPS = 150
EVERY = 10
"""Steps between looks at the samples left out: the best of them counts, as stopping early does."""

Losses = Callable[[Tensor, Tensor], Tensor]


def features(inputs: Tensor) -> Tensor | None:
    """Return the samples as standardized rows, at most `FEATURES` wide; None if not finite."""
    rows = inputs.detach().reshape(len(inputs), -1).to(torch.float32)
    if not bool(torch.isfinite(rows).all()):
        return None
    spread = rows.std(0)
    kept = spread > 1e-6 * rows.abs().amax(0).clamp(min=1e-30)
    rows = (rows[:, kept] - rows[:, kept].mean(0)) / spread[kept]
    if rows.shape[1] > FEATURES:
        sizes, directions = torch.linalg.eigh(rows @ rows.T)
        rows = (directions * sizes.clamp(min=0).sqrt())[:, -FEATURES:]
        rows = rows / rows.std().clamp(min=1e-12)
    return rows


class PlainNetwork(nn.Module):
    """Two layers and a ReLU over known samples, whatever it is called with.

    Args:
        rows: The samples' features; with one axis more as many networks of their own.
        outputs: Numbers it gives for each sample.
        link: Makes of these what a loss takes.
    """

    def __init__(self, rows: Tensor, outputs: int, link: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rows, self.link = rows, link
        sizes = (*rows.shape[:-2], rows.shape[-1], HIDDEN), (*rows.shape[:-2], HIDDEN, outputs)
        self.first = nn.Parameter(
            torch.randn(sizes[0], device=rows.device) * math.sqrt(2 / rows.shape[-1])
        )
        self.second = nn.Parameter(torch.randn(sizes[1], device=rows.device) / math.sqrt(HIDDEN))
        self.shift = nn.Parameter(torch.zeros(*rows.shape[:-2], 1, HIDDEN, device=rows.device))
        self.bias = nn.Parameter(torch.zeros(*rows.shape[:-2], 1, outputs, device=rows.device))

    def scores(self, rows: Tensor) -> Tensor:
        """Return what the second layer gives for `rows`."""
        hidden = functional.relu(rows @ self.first + self.shift)
        return hidden @ self.second + self.bias

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return what the loss takes for the known samples."""
        return self.link(self.scores(self.rows))


def left_out(
    rows: Tensor,
    targets: Tensor,
    outputs: int,
    losses: Losses,
    constant: Callable[[Tensor], Tensor],
) -> tuple[float, float]:
    """Train on parts of the samples; compare on the others with the best constant.

    Args:
        rows: The samples' features.
        targets: Their targets.
        outputs: Numbers the network gives for each sample.
        losses: Takes scores and targets, returns each sample's loss.
        constant: Takes targets, returns the scores that are best for all of them.

    Returns:
        By which share of the constant's loss the network's is lower, and how many standard
        errors that is.
    """
    count = len(rows) // FOLDS * FOLDS
    order = torch.randperm(len(rows))[:count].reshape(FOLDS, -1)
    rest = torch.stack([order[[j for j in range(FOLDS) if j != i]].flatten() for i in range(FOLDS)])
    network = PlainNetwork(rows[rest], outputs, nn.Identity())
    guesses = torch.stack([constant(targets[part]) for part in rest])
    base = _each(
        losses, guesses.unsqueeze(1).expand(FOLDS, order.shape[1], outputs), targets[order]
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    best = (0.0, 0.0)
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        _each(losses, network(), targets[rest]).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                gains = base - _each(losses, network.scores(rows[order]), targets[order])
            gain, error = float(gains.mean()), float(gains.std()) / math.sqrt(count)
            if gain > best[0] * float(base.mean()) and error > 0:
                best = gain / float(base.mean()), gain / error
    return best


def _each(losses: Losses, scores: Tensor, targets: Tensor) -> Tensor:
    return losses(scores.flatten(0, 1), targets.flatten(0, 1))
