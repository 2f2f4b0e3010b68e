"""Weight layers with nothing nonlinear between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import STRUCTURAL, Graph, Operation
from gradlint.rules._chains import bias_of, weight_of, why_not_initial
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_LINEAR = frozenset({"view", "cast", "clone", "squeeze", "dropout"})
"""What leaves a product of two weights one weight; other shapes mix other axes."""

_ATTENTION = frozenset({"matmul", "attention", "softmax"})


@dataclass(frozen=True)
class LinearStack(Rule):
    """Two weight layers that together are one linear layer.

    ## What it does
    Flags a linear layer, or a convolution of the same kernel, whose output goes straight
    (past flattening, dropout, biases and a LeakyReLU of slope 1, as ``nn.LeakyReLU(True)``
    makes one) into one other of its kind and nowhere else. The
    inner width has to be at least the smaller of the outer ones; smaller is a low-rank
    factorization, which is meant.

    ## Why is this bad?
    W₂(W₁x + b₁) + b₂ is Wx + b: the second layer adds parameters and no capacity. Usually
    the activation was forgotten.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Deep linear networks are studied, and used as over-parameterization, on purpose. Silent
    by design: low-rank factors (LoRA, bottlenecks), attention's projections, depthwise and
    separable convolutions, layers of different parts of a model (a backbone's embedding
    under a new head), a normalization in between, a layer whose output is used twice.

    ## References
    - [2] FAQ 1: without nonlinearity a deep network is one linear layer
    """

    code: ClassVar = "GL112"
    name: ClassVar = "linear-stack"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = "Put an activation between the two layers, or make them one."

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no structure to judge, or None."""
        if not trace.graph:
            return "no graph was observed"
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each pair of layers that is one."""
        graph = trace.graph
        for first in graph.of_kind("linear", "conv"):
            ahead = graph.ahead(first, lambda o: _is_linear(trace, o))
            if len(ahead) != 1 or ahead[0].kind != first.kind or ahead[0].in_loss:
                continue
            second = ahead[0]
            widths = _widths(trace, first, second)
            if widths is None or widths[1] < min(widths[0], widths[2]):
                continue
            straight = _is_straight_between(graph, first, second)
            if not _same_part(trace, first, second) or _attends(graph, first, second):
                continue
            yield self.finding(
                second.module,
                f"nothing nonlinear between {first.module or 'the weights'} and "
                f"{second.module or 'the next'}: {widths[0]} → {widths[1]} → {widths[2]} is one "
                f"{first.kind} layer {widths[0]} → {widths[2]}"
                + (", for a LeakyReLU with a slope of 1 changes nothing" if straight else ""),
                trace=trace,
                help="Give the slope by its name: LeakyReLU(negative_slope=0.01, inplace=True)."
                if straight
                else self.help,
                modules=tuple(dict.fromkeys(op.module or "" for op in (first, second))),
                evidence={"first": first.module, "second": second.module, "widths": list(widths)},
            )


def _is_linear(trace: Trace, op: Operation) -> bool:
    bias = op.kind == "parameter_add" and bias_of(trace, op) is not None
    dropout = op.kind == "mask" and "Dropout" in trace.module_kind(op.module or "")
    return (op.kind in _LINEAR or bias or dropout or _is_straight(op)) and not op.in_loss


def _is_straight(op: Operation) -> bool:
    """Whether it is a LeakyReLU that returns what it is given."""
    return op.kind == "leaky_relu" and op.attributes.get("slope") == 1


def _is_straight_between(graph: Graph, first: Operation, second: Operation) -> bool:
    behind = {op.id for op in graph.ancestors(second)}
    return any(_is_straight(op) and op.id in behind for op in graph.descendants(first))


def _widths(trace: Trace, first: Operation, second: Operation) -> tuple[int, int, int] | None:
    """Return the three widths of two layers that mix all of them; None where they do not fit."""
    paths = (weight_of(trace, first), weight_of(trace, second))
    if None in paths or paths[0] == paths[1]:
        return None
    shapes = [trace.parameters[path].shape for path in paths if path]
    if shapes[0][2:] != shapes[1][2:]:
        return None  # a separable convolution, or a reduction by 1×1
    one, two = shapes
    for op in (first, second):
        facts = trace.modules.get(op.module or "")
        if op.attributes.get("groups", 1) != 1:
            return None
        if op.kind == "conv" and facts is not None and facts.options.get("groups", 1) != 1:
            return None
        if facts is not None and facts.kind == "Conv1D":  # transformers' own: inputs first
            return None
    if one[0] == two[1]:
        return one[1], one[0], two[0]
    if first.kind == "linear" and one[1] == two[0] and first.module == second.module:
        return one[0], one[1], two[1]  # x @ W₁ @ W₂
    return None


def _same_part(trace: Trace, first: Operation, second: Operation) -> bool:
    """Whether both are of one part: in one container, or in two of one class of its own."""
    one, two = (op.module for op in (first, second))
    if one is None or two is None:
        return False
    parents = [path.rpartition(".")[0] for path in (one, two)]
    if parents[0] == parents[1]:
        return True
    kinds = [trace.module_kind(path) for path in parents]
    grandparents = [path.rpartition(".")[0] for path in parents]
    own = kinds[0] == kinds[1] and kinds[0] not in ("", "Sequential", "ModuleList", "ModuleDict")
    return own and grandparents[0] == grandparents[1]


def _attends(graph: Graph, first: Operation, second: Operation) -> bool:
    """Whether either is a projection of an attention."""
    around = (
        *graph.behind(first, lambda o: o.kind in STRUCTURAL),
        *graph.ahead(second, lambda o: o.kind in STRUCTURAL | {"scale", "mask", "parameter_add"}),
    )
    return any(op.kind in _ATTENTION and not op.in_loss for op in around)
