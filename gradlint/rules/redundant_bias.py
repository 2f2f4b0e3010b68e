"""Biases that a normalization takes out again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import Operation
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class RedundantBias(Rule):
    """A bias in front of BatchNorm.

    ## What it does
    Notes a linear layer or convolution with a bias whose output goes straight into a BatchNorm
    (or InstanceNorm) of the same channels.

    ## Why is this bad?
    The normalization subtracts each channel's mean, and the bias with it: the bias has no
    effect and a gradient of zero, and costs memory and an optimizer state. Its gradient of
    1e-9 is what monitors mistake for a vanishing one.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3))
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(8, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)
    )
    ```

    ## When it is wrong
    It does no harm to training (VGG with BatchNorm keeps its biases): a note.

    ## References
    - Ioffe & Szegedy (2015), "Batch normalization", section 3.2: "the bias b can be ignored"
    """

    code: ClassVar = "GL805"
    name: ClassVar = "redundant-bias"
    severity: ClassVar = Severity.NOTE
    help: ClassVar = "Build the layer with bias=False."
    stage: ClassVar = Stage.FORWARD
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each bias that is taken out again."""
        seen: set[str] = set()
        for op in trace.graph.of_kind("linear", "conv", "conv_transpose"):
            bias = next((p for p in op.parameters if _is_bias(trace, p)), None)
            if bias is None or bias in seen:
                continue
            following = trace.graph.ahead(op, lambda o: o.kind in ("view", "transpose"))
            if following and all(self._cancels(trace, op, norm, bias) for norm in following):
                seen.add(bias)
                yield self.finding(
                    op.module,
                    f"{bias} has no effect: the normalization {following[0].module or 'behind'} "
                    "subtracts each channel's mean",
                    trace=trace,
                    parameter=bias,
                    evidence={"normalization": following[0].module},
                )

    def _cancels(self, trace: Trace, op: Operation, norm: Operation, bias: str) -> bool:
        """Whether `norm` averages over everything but the axis that `bias` lies along."""
        if norm.kind not in ("batch_norm", "instance_norm"):
            return False
        if not norm.attributes.get("training", True) or len(op.shape) < 2:
            return False
        channels = trace.parameters[bias].shape[0]
        by_sample = trace.module_kind(norm.module or "").startswith("InstanceNorm")
        if by_sample:
            return op.kind != "linear" and op.shape[1] == channels
        if len(norm.shape) < 2 or norm.shape[1] != channels:
            return False
        direct = op.id in norm.inputs
        moved = any(o.kind == "transpose" for o in trace.graph.inputs_of(norm))
        on_axis_1 = op.kind != "linear" or len(op.shape) == 2
        return on_axis_1 if direct else moved or len(op.shape) == 2


def _is_bias(trace: Trace, parameter: str) -> bool:
    facts = trace.parameters.get(parameter)
    return facts is not None and len(facts.shape) == 1 and parameter.endswith("bias")
