"""Attention trained at the full learning rate from the first step, and thrown by it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP
from gradlint.rules._losses import noise, progress
from gradlint.rules._optimizer import rescales
from gradlint.rules._series import points
from gradlint.rules._updates import matrices
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class MissingWarmup(Rule):
    """A transformer whose first steps are too long.

    ## What it does
    Looks at a model with attention, trained by Adam or its kin, whose learning rate is at its
    highest from the first step on. Flags a run in which one of the first `early_steps` steps
    changed the median weight matrix by more than `min_update` of its size and the loss rose to
    more than `max_rise` times its first value in that time.

    ## Why is this bad?
    Adam's first steps have the size of the learning rate whatever the gradient, while its
    estimate of the gradient's variance rests on a few samples. In a transformer, above all with
    the normalization behind the residual sum, such steps can make attention one-hot for good.

    ## Example
    ```python
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(10, 32), encoder, nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.randint(0, 10, (16, 12))
    y = x.flip(1).flatten()
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y)
        loss.backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    model = nn.Sequential(nn.Embedding(10, 32), encoder, nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=20)
    x = torch.randint(0, 10, (16, 12))
    y = x.flip(1).flatten()
    for step in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y)
        loss.backward()
        optimizer.step()
        warmup.step()
    ```

    ## When it is wrong
    Many transformers, those with the normalization in front above all, learn well without a
    warm-up: a loss that does not rise at first is not flagged. A rate that is too high for the
    whole run (GL401) looks the same at first.

    ## References
    - Xiong et al. (2020), "On layer normalization in the transformer architecture"
    - Liu et al. (2020), "On the variance of the adaptive learning rate and beyond"
    - The limits are our choice
    """

    code: ClassVar = "GL407"
    name: ClassVar = "missing-warmup"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("update_to_weight_ratio",)
    help: ClassVar = "Let the learning rate rise from near zero over the first steps."
    stage: ClassVar = Stage.UPDATE

    early_steps: int = 20
    min_update: float = 0.1
    max_rise: float = 1.2

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the first steps threw the model."""
        seen, loop = progress(trace), trace.facts.loop
        rates = points(trace, "learning_rate")
        if loop is None or seen is None or loop.streams > 1 or not rates or not rescales(trace):
            return
        first = seen[0]
        if rates[0][1] < 0.9 * max(r for _, r in rates) or first <= 0 or not _attends(trace):
            return
        losses = [(v, s) for s, v in points(trace, "loss") if s <= self.early_steps]
        updates: dict[int, list[float]] = {}
        for matrix in matrices(trace):
            for step, value in points(trace, "update_to_weight_ratio", matrix.path):
                updates.setdefault(step, []).append(value)
        early = {s: statistics.median(v) for s, v in updates.items() if s <= self.early_steps}
        if not losses or not early:
            return
        (worst, step), largest = max(losses), max(early.values())
        risen = worst > self.max_rise * first and worst > first + 6 * noise(trace)
        if not risen or largest <= self.min_update:
            return
        yield self.finding(
            "",
            f"the loss rises from {first:.2g} to {worst:.2g} by step {step}, at a learning rate "
            f"that is {rates[0][1]:.2g} from the first step on; a step changes the median matrix "
            f"by {largest:.0%} of its size (limit {self.min_update:.0%})",
            trace=trace,
            step=step,
            evidence={
                "first": first,
                "highest": worst,
                "update": largest,
                "limit": self.min_update,
                "learning_rate": rates[0][1],
            },
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there was no loop: `check` steps no schedule."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)


def _attends(trace: Trace) -> bool:
    """Whether the model has attention, as a module or as operations."""
    if any("Attention" in m.kind or "Transformer" in m.kind for m in trace.modules.values()):
        return True
    graph = trace.graph
    softmax = any(op.kind == "softmax" and not op.in_loss for op in graph)
    return softmax and bool(graph.of_kind("matmul"))
