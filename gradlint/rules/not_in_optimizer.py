"""Trainable parameters that no optimizer holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import (
    keeps,
    learned,
    left_alone,
    moved,
    stood_still,
    without_the_model,
)
from gradlint.rules._optimizer import NOT_GIVEN, given, is_copy, topmost
from gradlint.rules.base import Rule
from gradlint.trace import ParameterFacts, Trace

_PARTNERS = ("discriminator", "critic", "generator", "adversary", "teacher", "target", "ema")


@dataclass(frozen=True)
class NotInOptimizer(Rule):
    """Trainable parameters that get gradients but no updates.

    ## What it does
    Names parameters that need a gradient and got one, and that the optimizer does not hold; in a
    watched loop also those that took the place of others while it went on.

    ## Why is this bad?
    They keep their initial values for ever, at the full price of their backward pass. Usual
    reasons: layers added or replaced after the optimizer was built, a forgotten submodule, a
    filter on names that lost more than it should.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(16, 32)
            self.head = nn.Linear(32, 5)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    model = Net()
    optimizer = torch.optim.SGD(model.body.parameters(), lr=0.1)
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(16, 32)
            self.head = nn.Linear(32, 5)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    ## When it is wrong
    Training the head of a pretrained network leaves its front out on purpose, adversarial
    networks have one optimizer for each side, teachers and target networks have none: where
    that shows (loaded weights, a twin that is trained, such a name) it is a note, unless the
    optimizers of a loop hold nothing that ever gets a gradient, or all hold the same. Where a
    watched loop optimizes an image or a prompt, and where weights move all the same (by hand,
    by an optimizer that is not watched), it is silent.

    ## References
    - PyTorch documentation, `torch.optim`, section "Constructing it"
    """

    code: ClassVar = "GL702"
    name: ClassVar = "not-in-optimizer"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = (
        "Build the optimizer from model.parameters(), after the last layer is in place; freeze "
        "what is not to learn with requires_grad_(False)."
    )
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each topmost module that is left out, or parameter."""
        if without_the_model(trace):
            return
        parameters = list(trace.parameters.values())
        lost = [p for p in parameters if _left_out(trace, p)]
        held = [p for p in parameters if p.in_optimizer]
        rest = [p for p in parameters if p.requires_grad and not _left_out(trace, p)]
        for path, group in topmost(lost, rest).items():
            severity, because = self._weigh(trace, path, group, held)
            count = len(group)
            noun = "parameter" if count == 1 else "parameters"
            yield self.finding(
                path,
                f"no optimizer holds {count} trainable {noun} of {path or 'the model'} that got "
                f"gradients{because}",
                trace=trace,
                severity=severity,
                parameter=group[0].path if count == 1 else None,
                evidence={"parameters": count, "entries": sum(p.numel for p in group)},
            )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no optimizer was seen."""
        return NOT_GIVEN if given(trace) is None else None

    def _weigh(
        self,
        trace: Trace,
        path: str,
        group: Sequence[ParameterFacts],
        held: Sequence[ParameterFacts],
    ) -> tuple[Severity, str]:
        if _in_vain(trace, held):
            return Severity.ERROR, ": none that it holds ever got one"
        names = path.lower().split(".")
        partner = any(part.startswith(_PARTNERS) or part.endswith(_PARTNERS) for part in names)
        if partner and _all_alike(trace) and not is_copy(path, group, held):
            return _weight_of(trace), ": every optimizer holds the same others"
        if partner:
            return Severity.NOTE, ": another optimizer's, by its name"
        if is_copy(path, group, held):
            return Severity.NOTE, ": a copy of a part that is trained"
        if trace.facts.pretrained and left_alone(trace, path):
            return Severity.NOTE, ": a pretrained network that judges others"
        if trace.facts.pretrained and _in_front(trace, group, held):
            return Severity.NOTE, ": the front of a pretrained network"
        since = max(p.since for p in group)
        replaced = f": by step {since} they had replaced those that one held" if since else ""
        return _weight_of(trace), replaced


def _left_out(trace: Trace, parameter: ParameterFacts) -> bool:
    """Whether a parameter with a gradient is in no optimizer, and nothing else moves it."""
    return (
        parameter.requires_grad
        and parameter.in_optimizer is False
        and parameter.gradient == "present"
        and not moved(trace, parameter.path)
        and keeps(trace, parameter.path)
        and (not parameter.since or stood_still(trace, parameter.path))
    )


def _weight_of(trace: Trace) -> Severity:
    return Severity.WARNING if trace.facts.pretrained else Severity.ERROR


def _all_alike(trace: Trace) -> bool:
    """Whether a loop has several optimizers that take turns, all of the very same parameters.

    One of them was to hold another side.
    """
    loop = trace.facts.loop
    return loop is not None and 2 <= loop.alike == len(loop.optimizers)


def _in_vain(trace: Trace, held: Sequence[ParameterFacts]) -> bool:
    """Whether the optimizers of a loop hold parameters, and only such as never got a gradient.

    Holding a copy of what learns is no excuse then.
    """
    optimizer = trace.facts.optimizer
    if trace.facts.loop is None or not held or (optimizer is not None and optimizer.foreign):
        return False
    return all(p.gradient == "missing" and not learned(trace, p.path) for p in held)


def _in_front(
    trace: Trace, group: Sequence[ParameterFacts], held: Sequence[ParameterFacts]
) -> bool:
    """Whether every module of `group` runs before all that the optimizer holds."""
    last = max(
        (trace.modules[p.module].depth for p in group if p.module in trace.modules), default=0
    )
    trained = [trace.modules[p.module].depth for p in held if p.module in trace.modules]
    return bool(trained) and last < min(trained)
