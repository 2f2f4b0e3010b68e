"""An optimizer of somebody else's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import left_alone, moved, roots, strangers, without_the_model
from gradlint.rules._optimizer import NOT_GIVEN, given
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ForeignParameters(Rule):
    """An optimizer that holds parameters which are not the model's.

    ## What it does
    Counts the optimizer's parameters that the model does not have. It is an error where the
    optimizer holds none of the model's, or where the model has trainable ones that the
    optimizer lacks: they were replaced after it was built. In a watched loop that updates no
    model it is one, too, if an optimizer stepped `min_steps` times after backward passes, holds
    nothing of the model, and never found a gradient at a parameter of its own; or if it holds a
    model that never had one nor moved in as many steps, while two copies of it or more were
    called in its place: each a `deepcopy`, say, that is adapted to a task. So is an optimizer
    that takes over from another one, holds nothing of the models, and has no gradient at
    `min_seen` steps looked at or more: after a resume, of a model that another one replaced.

    ## Why is this bad?
    The optimizer updates tensors that no forward pass reads; the model's own never move.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    ## When it is wrong
    A loss may have parameters of its own (a temperature, class centers, weights of tasks),
    and one optimizer may serve several models: beside all of the model's own parameters
    foreign ones are a note, and beside the trained part of a pretrained network a warning. A
    watched loop that optimizes an image, a prompt or a latent code, and whose loss answers to
    its steps, is a note.

    ## References
    - PyTorch documentation, `torch.optim`, section "Constructing it"
    - `min_seen` is that of GL708: one step without a gradient may be a dummy one
    """

    code: ClassVar = "GL703"
    name: ClassVar = "foreign-parameters"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Build the optimizer after the model's last layer is made, loaded and moved."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    min_steps: int = 10
    min_seen: int = 3

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the optimizer holds parameters that are not the model's."""
        optimizer = given(trace)
        yield from self._strangers(trace)
        copied = [*self._copied(trace), *self._empty(trace)]
        yield from copied
        if optimizer is None or optimizer.foreign == 0 or copied:
            return
        trainable = [p for p in trace.parameters.values() if p.requires_grad]
        held = sum(bool(p.in_optimizer) for p in trace.parameters.values())
        alone = [f"{root}." for root in roots(trace) if left_alone(trace, root)]
        lacking = sum(
            p.in_optimizer is False
            and p.gradient == "present"
            and not moved(trace, p.path)
            and not (held and p.path.startswith(tuple(alone)))
            for p in trainable
        )
        noun = "parameter" if optimizer.foreign == 1 else "parameters"
        text = f"the optimizer holds {optimizer.foreign} {noun} that the model does not have"
        if without_the_model(trace):
            text += ": they are what the loop optimizes"
        elif held == 0:
            text += " and none of its own"
        elif lacking:
            text += f" and lacks {lacking} of its trainable ones"
        yield self.finding(
            "",
            text,
            trace=trace,
            severity=Severity.NOTE
            if without_the_model(trace)
            else _severity(held, lacking, pretrained=trace.facts.pretrained),
            evidence={"foreign": optimizer.foreign, "held": held, "lacking": lacking},
        )

    def _strangers(self, trace: Trace) -> Iterator[Finding]:
        """Find optimizers that step, and have nothing to apply, where the model stands still."""
        for stranger in strangers(trace):
            if stranger.steps < self.min_steps:
                continue
            noun = "parameter" if stranger.parameters == 1 else "parameters"
            yield self.finding(
                "",
                f"{stranger.kind} stepped {stranger.steps} times after the model's backward "
                f"passes and had nothing to apply: it holds {stranger.parameters} {noun} that the "
                "model does not have and that never had a gradient",
                trace=trace,
                evidence={"foreign": stranger.parameters, "held": 0, "steps": stranger.steps},
            )

    def _copied(self, trace: Trace) -> list[Finding]:
        """Find optimizers of a model that stands still, and whose copies get the gradients."""
        loop = trace.facts.loop
        return [
            self.finding(
                "",
                f"after {seen.steps} steps {seen.kind} had moved none of the {seen.parameters} "
                f"parameters it holds: {seen.copies} copies of their {seen.model} were called and "
                "trained in its place",
                trace=trace,
                help="Adapt with torch.func.functional_call on the model's own parameters, or "
                "put the copies' gradients into their .grad before the step.",
                evidence={"held": 0, "steps": seen.steps, "copies": seen.copies},
            )
            for seen in (loop.originals if loop is not None else ())
            if seen.steps >= self.min_steps
        ]

    def _empty(self, trace: Trace) -> list[Finding]:
        """Find optimizers that took over, hold nothing of the models and never have a gradient."""
        loop = trace.facts.loop
        return [
            self.finding(
                "",
                f"{seen.kind} made {seen.steps} steps from step {seen.first} on: none of the "
                f"{seen.foreign} parameters it holds had a gradient at any of the {seen.seen} "
                "looked at; backward goes to a model that does not have them",
                trace=trace,
                step=seen.first,
                evidence={"foreign": seen.foreign, "held": 0, "steps": seen.steps},
            )
            for seen in (loop.empty if loop is not None else ())
            if seen.foreign and seen.steps >= self.min_steps and seen.seen >= self.min_seen
        ]

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no optimizer was seen."""
        loop = trace.facts.loop
        seen = strangers(trace) or (loop is not None and loop.originals)
        return NOT_GIVEN if given(trace) is None and not seen else None


def _severity(held: int, lacking: int, *, pretrained: bool) -> Severity:
    if not lacking:
        return Severity.NOTE
    return Severity.WARNING if held and pretrained else Severity.ERROR
