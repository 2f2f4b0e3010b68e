"""Gradients that are gone when the optimizer comes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP, by_stream, of_stream
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ClearedBeforeStep(Rule):
    """Gradients cleared between backward and the optimizer's step.

    ## What it does
    Compares the total gradient norm when a step's last backward ended with the one that the
    optimizer's step saw. It is an error where the first was above zero and the second exactly
    zero at `min_share` of at least `min_steps` observed steps of an optimizer.

    It is an error, too, where a step has several backward passes, and the gradients of all but
    the last are cleared before it: at `min_share` of the observed steps the same number of them,
    at least `min_thrown` together.

    ## Why is this bad?
    The optimizer updates nothing: with a gradient of None it skips the parameter, with one of
    zero only momentum and weight decay act. Where the last backward pass of several is left, all
    others were computed for nothing: an accumulation over four micro-batches trains on one.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    ## When it is wrong
    Alternating optimizers are stepped now and then without a gradient of theirs: one that saw
    a gradient at other steps is not meant. Nor are updates by hand, which have no step, and
    optimizers that hold nothing of the model. Gradients are cleared between two backward passes
    with good reason, too, where the first one's are read: attacks, sharpness-aware minimization,
    gradients merged by hand or compared. So only passes from one and the same line count, whose
    graphs lead to parameters alone, between which no weight moves, and whose last one's gradient
    one of torch's own optimizers applies as it is, or scaled. A loop that rejects steps by chance
    throws away another number of them each time.

    ## References
    - PyTorch documentation, `torch.optim`, section "Taking an optimization step"
    - The limit of `min_thrown` is our choice: a loop that rejects half of its passes throws one
      away at sixteen steps in a row with a probability of 2e-10, and the same eight or more at two
      steps with one of 0.002, whatever share it rejects
    """

    code: ClassVar = "GL705"
    name: ClassVar = "cleared-before-step"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("backward_gradient_norm",)
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = "Move zero_grad() in front of backward(), or behind step()."

    min_steps: int = 3
    min_share: float = 0.9
    min_thrown: int = 16

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched, or no optimizer stepped in it."""
        loop = trace.facts.loop
        if loop is None:
            return NO_LOOP
        if loop.by_hand or trace.facts.optimizer is None:
            return "the weights are updated by hand"
        if loop.discarded is not None:
            return None  # norms are not measured of a step with many backward passes
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each optimizer that saw no gradient."""
        known = [p.in_optimizer for p in trace.parameters.values() if p.in_optimizer is not None]
        if known and not any(known):
            return  # another model's optimizer: `foreign-parameters` speaks of it
        yield from self._thrown_away(trace)
        total = {o.step: o.value for o in trace.of("total_gradient_norm").at("").training}
        left = [
            o
            for o in trace.of("backward_gradient_norm").at("").training
            if o.step in total and o.value != 0
        ]
        for stream, every in by_stream(trace, left).items():
            seen = every[1:]  # the first step is measured as backward left it
            gone = [o for o in seen if total[o.step] == 0]
            if len(gone) < self.min_steps or len(gone) < self.min_share * len(seen):
                continue
            module, whose = of_stream(trace, stream)
            norm = statistics.median(o.value for o in gone)
            yield self.finding(
                module,
                f"gradients were cleared between backward and step: {norm:.2g} after backward, 0 "
                f"in the step, at {len(gone)} of {len(seen)} observed steps{whose}",
                trace=trace,
                step=gone[0].step,
                evidence={"steps": len(seen), "cleared": len(gone), "norm": norm},
            )

    def _thrown_away(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for steps of which only the last backward pass was of use."""
        loop = trace.facts.loop
        seen = loop.discarded if loop is not None else None
        if seen is None or seen.steps < self.min_share * seen.observed:
            return
        if seen.steps * seen.each < self.min_thrown or seen.steps < 2:
            return
        yield self.finding(
            "",
            f"gradients were cleared between backward and step: those of {seen.each} of "
            f"{seen.each + 1} backward passes, at {seen.steps} of {seen.observed} observed steps",
            trace=trace,
            help=_INNER,
            evidence={
                "steps": seen.observed, "cleared": seen.steps, "backwards": seen.each + 1,
                "thrown": seen.each,
            },
        )  # fmt: skip


_INNER = "Call zero_grad() once for each step(): both inside the inner loop, or both outside of it."
