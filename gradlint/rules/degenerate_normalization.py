"""Normalization over one value, or over a constant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import NORMALIZATIONS
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, Trace

_RAISED = "more than 1 spatial element"


@dataclass(frozen=True)
class DegenerateNormalization(Rule):
    """A normalization over a single value, or of an input that does not vary.

    ## What it does
    Counts the values that each mean and variance are taken over: one feature in LayerNorm, one
    position in InstanceNorm, one channel and one position in a group of GroupNorm. Also flags
    a normalization whose input was exactly constant in every observed step, `min_steps` at
    least.

    ## Why is this bad?
    A value less its own mean is 0: the output is the bias whatever the input, and the gradient
    to all layers in front of it exactly zero.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.LayerNorm(1), nn.Linear(1, 3)
    )
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 1), nn.Linear(1, 3)
    )
    ```

    ## When it is wrong
    InstanceNorm and BatchNorm in eval mode use running statistics and are not meant; nor is
    BatchNorm over a batch of one, which is GL801.

    ## References
    - Ba, Kiros & Hinton (2016), "Layer normalization"; Ulyanov, Vedaldi & Lempitsky (2016),
      "Instance normalization"; Wu & He (2018), "Group normalization": x − mean(x) = 0 for one x
    """

    code: ClassVar = "GL809"
    name: ClassVar = "degenerate-normalization"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "Remove the normalization, or normalize where there are several values."
    stage: ClassVar = Stage.FORWARD
    exact: ClassVar = True

    min_steps: int = 5

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each normalization without anything to normalize."""
        for event in trace.events("exception"):
            if _RAISED in str(event.detail.get("message", "")):
                yield self._finding(trace, event.module, "InstanceNorm normalizes over 1 position")
                return
        flagged: set[str] = set()
        for module in trace.modules.values():
            if module.input_shape is not None and _values(module, module.input_shape) == 1:
                flagged.add(module.path)
                where = f"{module.kind} normalizes over 1 value (input {module.input_shape})"
                yield self._finding(trace, module.path, f"{where}: its output does not vary")
        yield from self._constant(trace, flagged)

    def _finding(self, trace: Trace, module: str | None, message: str) -> Finding:
        return self.finding(module, message, trace=trace, evidence={"values": 1})

    def _constant(self, trace: Trace, flagged: set[str]) -> Iterator[Finding]:
        """Normalizations by module whose input never varied in the steps observed."""
        spread = trace.of("activation_std")
        for op in trace.graph.of_kind(*NORMALIZATIONS):
            before = trace.graph.inputs_of(op)
            if len(before) != 1 or op.in_loss or op.module in flagged:
                continue
            source = trace.modules.get(before[0].site)
            if source is not None and not source.leaf:
                continue  # a container's output is not this operation's
            seen = spread.at(before[0].site)
            if len(seen.steps) >= self.min_steps and set(seen.values) == {0.0}:
                yield self.finding(
                    op.module,
                    f"the input of the normalization was constant in {len(seen.steps)} steps: "
                    "its output does not vary",
                    trace=trace,
                    help="Find out why the layer in front of it gives a constant.",
                    exact=False,
                    evidence={"std": 0.0, "steps": len(seen.steps)},
                )


def _values(module: ModuleFacts, shape: Sequence[int]) -> int | None:
    """Values each statistic of `module` is taken over; None for what is no such layer."""
    options = module.options
    if module.kind in ("LayerNorm", "RMSNorm"):
        normalized = options.get("normalized_shape")
        return prod(normalized) if isinstance(normalized, tuple) and normalized else None
    if module.kind.startswith("InstanceNorm"):
        estimates = module.training or not options.get("track_running_stats", False)
        return prod(shape[2:]) if estimates and len(shape) > 2 else None
    if module.kind == "GroupNorm" and len(shape) > 1:
        groups = options.get("num_groups")
        return prod(shape[1:]) // groups if isinstance(groups, int) and groups > 0 else None
    return None
