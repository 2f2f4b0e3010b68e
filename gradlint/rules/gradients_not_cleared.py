"""Gradients of one step that are still there in the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP, by_stream, of_stream
from gradlint.rules.base import Rule
from gradlint.trace import LoopFacts, Observation, Trace


@dataclass(frozen=True)
class GradientsNotCleared(Rule):
    """Gradients that are never cleared and add up from step to step.

    ## What it does
    Looks at what is left in `.grad` when the first backward after a step begins. It is an
    error where that is not zero at `min_share` of at least `min_steps` observed steps of an
    optimizer, and a note where it is at a quarter of them or more. Optimizers that take turns,
    each once after every backward pass, are looked at one by one.

    ## Why is this bad?
    `backward` adds to `.grad`. Without `zero_grad` every step follows the sum of all gradients
    since the start: those of weights that are long gone, and growing without end. The run
    looks like a learning rate that is too high.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    ## When it is wrong
    Accumulation over micro-batches clears after each step and is not meant: only what a step
    leaves behind counts, and only in parameters of the optimizer that steps. A loop that clears
    at every second step is a note.

    ## References
    - PyTorch documentation, `torch.optim.Optimizer.zero_grad`
    - The limits are our choice: one clean step in ten is what a loop that clears by hand, now
      and then, shows
    """

    code: ClassVar = "GL704"
    name: ClassVar = "gradients-not-cleared"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("carried_gradient_norm",)
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = "Call optimizer.zero_grad() before each backward that starts a step."

    min_steps: int = 3
    min_share: float = 0.9

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each optimizer whose gradients were carried over."""
        loop = trace.facts.loop
        carried = trace.of("carried_gradient_norm").at("").since(2)  # nothing comes before step 1
        streams = by_stream(trace, carried)
        turns = {} if loop is None else _by_turn(loop, carried)
        for stream, seen in (turns or streams).items():
            dirty = [o for o in seen if o.value != 0]
            if len(dirty) < self.min_steps or len(dirty) < 0.25 * len(seen):
                continue
            always = len(dirty) >= self.min_share * len(seen)
            module, whose = of_stream(trace, stream) if stream in streams else ("", f" of {stream}")
            yield self.finding(
                module,
                "gradients were not cleared: those of the step before were still there at "
                f"{len(dirty)} of {len(seen)} observed steps{whose}",
                trace=trace,
                severity=Severity.ERROR if always else Severity.NOTE,
                step=dirty[0].step,
                help=_BY_HAND if loop is not None and loop.by_hand else self.help,
                evidence={"steps": len(seen), "carried": len(dirty)},
            )


def _by_turn(loop: LoopFacts, carried: Iterable[Observation]) -> dict[str, list[Observation]]:
    """Group steps by whose turn they are, where every optimizer steps once after each backward.

    Nothing where it is not so, or where optimizers have losses of their own.
    """
    count = len(loop.optimizers)
    if count < 2 or loop.streams > 1 or loop.steps != count * loop.backwards:
        return {}
    turns: dict[str, list[Observation]] = {}
    for seen in carried:
        place = (seen.step - 1) % count
        if seen.step > count:  # nothing comes before the first turn of each
            turns.setdefault(f"optimizer {place + 1} of {count}, by their turns", []).append(seen)
    return turns


_BY_HAND = "Set each parameter's .grad to None after its update."
