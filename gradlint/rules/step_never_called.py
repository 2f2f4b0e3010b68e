"""Backward passes that no optimizer step follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP, keeps, moved, roots, strangers
from gradlint.rules._optimizer import topmost
from gradlint.rules.base import Rule
from gradlint.trace import LoopFacts, ParameterFacts, Trace

ACCUMULATED = 100
"""Micro-batches for one step beyond which a loop that was cut short is not accumulating."""


@dataclass(frozen=True)
class StepNeverCalled(Rule):
    """Gradients are computed, and no optimizer uses them.

    ## What it does
    Counts backward passes and optimizer steps. No step after `min_backwards` backward passes is
    an error where an optimizer exists, a warning where the loop was cut short and its first
    step may have been still to come. Where there is no optimizer it is a note, and a warning
    if a model of fresh weights, in training mode, was compared with targets 100 times. Where some
    optimizers step, one that never did is a warning if parameters that it alone can hold got
    gradients and stood still over `min_steps` steps.

    ## Why is this bad?
    The weights stay at their initial values, at the full price of forward and backward.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
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
    Saliency maps, attacks and sanity checks call backward to look at gradients: without an
    optimizer, or with one that was restored from a checkpoint, it is a note. Updates by hand
    count as steps. Steps that a GradScaler skipped were called. An optimizer that is kept for
    a later phase looks idle until then. One that steps without any of the model's parameters
    is left to GL703.

    ## References
    - PyTorch documentation, `torch.optim`, section "Taking an optimization step"
    - 100 micro-batches for one step, as for a loop that was cut short, is our choice
    """

    code: ClassVar = "GL707"
    name: ClassVar = "step-never-called"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = "Call optimizer.step() after backward()."

    min_backwards: int = 10
    min_steps: int = 10

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched."""
        return NO_LOOP if trace.facts.loop is None else None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if no optimizer stepped, or one of several never did."""
        loop = trace.facts.loop
        if loop is None or loop.by_hand or loop.backwards < self.min_backwards:
            return
        asked = loop.scaler is not None and loop.scaler.steps > 0
        if loop.steps == 0 and not asked:
            if not any(s.steps >= self.min_steps for s in strangers(trace)):  # they stepped
                yield self._none(trace, loop)
        elif loop.steps >= self.min_steps and loop.idle_optimizers:
            yield from self._idle(trace, loop)

    def _none(self, trace: Trace, loop: LoopFacts) -> Finding:
        optimizer = trace.facts.optimizer
        exists = optimizer is not None or bool(loop.idle_optimizers)
        severity, name = Severity.ERROR, " and ".join(loop.idle_optimizers) or "the optimizer"
        if not exists and _trains(trace, loop):
            severity = Severity.WARNING
        elif not exists or (optimizer is not None and optimizer.has_state):
            severity = Severity.NOTE
        elif loop.ended and loop.backwards < ACCUMULATED:
            severity = Severity.WARNING
        return self.finding(
            "",
            f"{loop.backwards} backward passes, and {name} never stepped"
            if exists
            else f"{loop.backwards} backward passes, and no optimizer exists",
            trace=trace,
            severity=severity,
            help=self.help
            if exists
            else "Build an optimizer and call its step() after backward().",
            evidence={"backwards": loop.backwards, "steps": 0},
        )

    def _idle(self, trace: Trace, loop: LoopFacts) -> Iterator[Finding]:
        """Yield one finding if what got gradients stood still beside an idle optimizer."""
        still = [p for p in trace.parameters.values() if self._stands_still(trace, p)]
        if not still:
            return
        rest = [p for p in trace.parameters.values() if not self._stands_still(trace, p)]
        places = tuple(topmost(still, rest))
        names = " and ".join(loop.idle_optimizers)
        yield self.finding(
            places[0],
            f"{names} never stepped in {loop.steps} steps of {_listed(loop.optimizers)}: "
            f"{len(still)} {_noun(still)} of {places[0] or 'the model'} got gradients and stood "
            "still",
            trace=trace,
            modules=places,
            severity=Severity.WARNING,
            help=f"Call the step() of {names}, too, or do not build it.",
            evidence={"backwards": loop.backwards, "steps": loop.steps, "parameters": len(still)},
        )

    def _stands_still(self, trace: Trace, parameter: ParameterFacts) -> bool:
        """Whether a parameter that an optimizer holds got gradients and was never updated."""
        if not parameter.requires_grad or parameter.in_optimizer is not True:
            return False
        # Updates are measured where .grad is there, whoever steps.
        updates = trace.of("update_to_weight_ratio").at(parameter.path).training
        asked = len(updates) >= 3
        return asked and not moved(trace, parameter.path) and keeps(trace, parameter.path)


def _trains(trace: Trace, loop: LoopFacts) -> bool:
    """Whether a loop without an optimizer means to train: nobody explains a fresh model."""
    seen = any(loss.target is not None for loss in trace.facts.losses)
    models = [trace.modules[path] for path in roots(trace) if path in trace.modules]
    mode = bool(models) and all(model.training for model in models)
    return seen and mode and not trace.facts.pretrained and loop.backwards >= ACCUMULATED


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names) or "others"


def _noun(group: Sequence[ParameterFacts]) -> str:
    return "parameter" if len(group) == 1 else "parameters"
