"""Frozen parameters that change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._loop import NO_LOOP, twin
from gradlint.rules._optimizer import is_copy, topmost
from gradlint.rules.base import Rule
from gradlint.trace import ParameterFacts, Trace

_COPIES = (
    "ema", "target", "teacher", "momentum", "slow", "average", "shadow", "polyak", "encoder_k",
    "key_encoder", "copy", "old", "lagged", "reference",
)  # fmt: skip
_TABLES = ("codebook", "quantiz", "embed", "prototype", "centroid", "cluster", "queue", "memory")


@dataclass(frozen=True)
class FrozenButMoving(Rule):
    """Parameters with ``requires_grad=False`` whose weights change all the same.

    ## What it does
    Compares frozen parameters from one observed step to the next. A change at `min_steps` of
    them is an error where an optimizer holds the parameter together with a gradient from before
    it was frozen, a warning where something else writes to a weight matrix of a layer, and a
    note where that is a usual design.

    ## Why is this bad?
    What was to be kept is lost. `requires_grad_(False)` stops new gradients; an optimizer still
    moves whatever has a `.grad`, if only by momentum and weight decay.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        model[0].requires_grad_(step < 5)
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(64, 16), torch.randint(0, 5, (64,))

    for step in range(30):
        model[0].requires_grad_(step < 5)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    ```

    ## When it is wrong
    Moving averages (EMA, mean teachers, momentum encoders, target networks) follow a part that
    learns: told by a twin that is trained, or by the name, they are a note. So are codebooks,
    vectors and single numbers kept as parameters, and updates by hand. A network that is
    frozen in turn, as one side of a GAN, gets new gradients in between and is silent.

    ## References
    - PyTorch documentation, `torch.optim.Optimizer.zero_grad`: optimizers act differently on a
      gradient of 0 and of None
    - He et al. (2020), "Momentum contrast for unsupervised visual representation learning"
    """

    code: ClassVar = "GL706"
    name: ClassVar = "frozen-but-moving"
    severity: ClassVar = Severity.ERROR
    metrics: ClassVar = ("frozen_change",)
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True
    help: ClassVar = (
        "Set .grad to None where you freeze, or leave frozen parameters out of the optimizer."
    )

    min_steps: int = 3

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loop was watched."""
        return NO_LOOP if trace.facts.loop is None else super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each topmost module whose frozen parameters move."""
        everything = list(trace.parameters.values())
        moving = [p for p in everything if self._moves(trace, p)]
        trained = [p for p in everything if p.requires_grad and p.in_optimizer is not False]
        kept = {p.path for p in moving}
        rest = [p for p in everything if p.path not in kept]
        for path, group in topmost(moving, rest).items():
            for parameters in _split(group):
                yield self._judge(trace, path, parameters, trained)

    def _moves(self, trace: Trace, parameter: ParameterFacts) -> bool:
        changes = trace.of("frozen_change").at(parameter.path)
        moved = [o for o in changes if o.value > 0]
        if len(moved) < self.min_steps:
            return False
        # New gradients since it was first seen frozen: it is frozen in turn, not for good.
        after = trace.of("gradient_norm").at(parameter.path).since(moved[0].step).values
        return len({value for value in after if value > 0}) <= 1

    def _judge(
        self,
        trace: Trace,
        path: str,
        group: list[ParameterFacts],
        trained: list[ParameterFacts],
    ) -> Finding:
        changes = [
            o.value for p in group for o in trace.of("frozen_change").at(p.path) if o.value > 0
        ]
        severity, because = _reason(trace, path, group, trained)
        noun = "parameter" if len(group) == 1 else "parameters"
        verb = "moves" if len(group) == 1 else "move"
        return self.finding(
            path,
            f"{len(group)} frozen {noun} of {path or 'the model'} {verb}, by up to "
            f"{max(changes):.2g} of the size between observed steps: {because}",
            trace=trace,
            severity=severity,
            parameter=group[0].path if len(group) == 1 else None,
            evidence={"parameters": len(group), "change": max(changes)},
        )


def _split(group: list[ParameterFacts]) -> Iterator[list[ParameterFacts]]:
    """Part what the optimizer has a gradient for from what it passes over."""
    held = [p for p in group if _by_optimizer(p)]
    other = [p for p in group if not _by_optimizer(p)]
    yield from (part for part in (held, other) if part)


def _by_optimizer(parameter: ParameterFacts) -> bool:
    """Whether an optimizer moves it: it holds it, and a gradient is there."""
    return parameter.in_optimizer is True and parameter.gradient == "present"


def _reason(
    trace: Trace, path: str, group: list[ParameterFacts], trained: list[ParameterFacts]
) -> tuple[Severity, str]:
    names = [p.path.lower() for p in group]
    if is_copy(path, group, trained):
        return Severity.NOTE, "a moving copy of a part that is trained"
    if all(any(c in n for c in _COPIES) for n in names):
        return Severity.NOTE, "a moving copy, by its name"
    if _by_optimizer(group[0]):
        return Severity.ERROR, "the optimizer holds them with a gradient from before"
    if twin(trace, path) is not None:
        return Severity.NOTE, "a moving copy of another model, which is trained"
    if all(any(t in n for t in _TABLES) for n in names):
        return Severity.NOTE, "a table that is updated without gradient"
    loop = trace.facts.loop
    if loop is not None and loop.by_hand:
        return Severity.NOTE, "they are updated by hand"
    if not any(len(p.shape) >= 2 and _of_layer(trace, p) for p in group):
        return Severity.NOTE, "numbers that the model keeps for itself"
    return Severity.WARNING, "something other than the optimizer writes to them"


def _of_layer(trace: Trace, parameter: ParameterFacts) -> bool:
    kind = trace.module_kind(parameter.module)
    return kind.startswith(("Linear", "Conv", "LSTM", "GRU", "RNN", "Bilinear", "Multihead"))
