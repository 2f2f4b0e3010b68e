"""Additions that broadcast instead of adding like to like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import ACTIVATIONS, NORMALIZATIONS, SHAPES, WEIGHTED, Graph, Operation
from gradlint.rules._chains import weight_of
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_BRANCH = ACTIVATIONS | NORMALIZATIONS | SHAPES | {"parameter_add", "parameter_mul", "scale"}
_SEVERAL = 2
"""Convolutions of which one alone may gather all positions on purpose."""

_PAD = 'Pad the branch\'s convolutions (padding="same"), or cut the trunk to its length.'
_UNSQUEEZING = frozenset({"squeeze", "view", "expand", "index", "slice", "transpose"})


@dataclass(frozen=True)
class ResidualShape(Rule):
    """A residual addition whose two sides differ in shape.

    ## What it does
    Looks at every addition of two signals of different shapes: an error where it makes a
    table larger than both ((N, 1) + (N) gives (N, N)) without an axis put in on purpose, and
    where a branch whose last layer has one feature is added to the signal it was computed
    from, so that all features get the same number. A warning where the branch is nothing but
    two or more unpadded convolutions that shrink an axis to one position, step by step.

    ## Why is this bad?
    Torch stretches axes of size 1 without a word. The sum is not the residual that was meant:
    samples are mixed, or a whole branch shrinks to one number.

    ## Example
    ```python
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(16, 32)
            self.second = nn.Linear(32, 1)

        def forward(self, x):
            return x + self.second(torch.relu(self.first(x)))

    model = nn.Sequential(nn.Linear(8, 16), Block(), nn.Linear(16, 3))
    ```

    Use instead:
    ```python
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(16, 32)
            self.second = nn.Linear(32, 16)

        def forward(self, x):
            return x + self.second(torch.relu(self.first(x)))

    model = nn.Sequential(nn.Linear(8, 16), Block(), nn.Linear(16, 3))
    ```

    ## When it is wrong
    Healthy additions broadcast over positions (squeeze-and-excitation, global context: one
    vector for all pixels, from a pooling or a single convolution), over the batch (position
    embeddings), between siblings (value plus advantages in dueling networks) or between axes
    put in with `unsqueeze` (additive attention, pair representations): the rule says nothing of
    them.

    ## References
    - Reference [0], "Common pitfalls", 6: branch and trunk of different sizes
    - PyTorch documentation, "Broadcasting semantics"
    """

    code: ClassVar = "GL808"
    name: ClassVar = "residual-shape"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = (
        "Give both sides the same shape: keep the branch's width, or project the shortcut (a "
        "1×1 convolution, a Linear)."
    )
    stage: ClassVar = Stage.FORWARD

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each addition at fault."""
        graph = trace.graph
        for op in graph.of_kind("add"):
            if not op.attributes.get("broadcast") or len(op.inputs) != 2:
                continue
            first, second = graph.inputs_of(op)
            if not first.shape or not second.shape or not op.shape:
                continue
            shrunk = _shrunk(trace, first, second) or _shrunk(trace, second, first)
            why = shrunk or (
                _table(graph, op, first, second)
                or _one_feature(graph, op, first, second)
                or _samples_as_features(graph, first, second)
            )
            if why is not None:
                yield self.finding(
                    op.module,
                    f"{first.shape} + {second.shape} gives {op.shape}: {why}",
                    trace=trace,
                    severity=Severity.WARNING if shrunk else self.severity,
                    help=_PAD if shrunk else self.help,
                    source=op.source,
                    evidence={
                        "shapes": [list(first.shape), list(second.shape)],
                        "result": list(op.shape),
                    },
                )
        yield from self._to_the_batch(trace)

    def _to_the_batch(self, trace: Trace) -> Iterator[Finding]:
        """Branches of one feature added to their module's input, which needs no gradient."""
        for op in trace.graph.of_kind("shift"):
            facts = trace.modules.get(op.module) if op.module is not None else None
            if op.in_loss or op.missing != 1 or len(op.inputs) != 1 or facts is None:
                continue
            branch = trace.graph.by_id[op.inputs[0]]
            if facts.input_shape != op.shape or len(branch.shape) != len(op.shape):
                continue
            axis = 1 if branch.kind.startswith("conv") else len(op.shape) - 1
            if branch.kind in WEIGHTED and axis > 0 and branch.shape[axis] == 1 < op.shape[axis]:
                yield self.finding(
                    op.module,
                    f"{op.shape} + {branch.shape} gives {op.shape}: one feature of "
                    f"{branch.module or 'the branch'} is added to all",
                    trace=trace,
                    source=op.source,
                    evidence={
                        "shapes": [list(op.shape), list(branch.shape)],
                        "result": list(op.shape),
                    },
                )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where nothing is added."""
        return (
            None
            if trace.graph.of_kind("add", "shift")
            else "no addition of two signals in the graph"
        )


def _table(graph: Graph, op: Operation, first: Operation, second: Operation) -> str | None:
    """Say why a sum larger than both sides is at fault; None where it is meant."""
    if prod(op.shape) <= max(prod(first.shape), prod(second.shape)):
        return None
    if len(first.shape) == len(second.shape):
        return None
    if _axis_put_in(graph, first) or _axis_put_in(graph, second):
        return None
    longer, shorter = sorted((first, second), key=lambda o: -len(o.shape))
    if shorter.shape[0] != longer.shape[0]:
        return None
    return "every sample is added to every other"


def _one_feature(graph: Graph, op: Operation, first: Operation, second: Operation) -> str | None:
    """Say why a branch of one feature is at fault; None where it is none, or not a residual."""
    for trunk, branch in ((first, second), (second, first)):
        rank = len(op.shape)
        if len(trunk.shape) != rank or len(branch.shape) != rank or rank < 2:
            continue
        if _axis_put_in(graph, branch) or trunk.id not in {o.id for o in graph.ancestors(branch)}:
            continue
        last = (
            (branch,)
            if branch.kind in WEIGHTED
            else graph.behind(branch, lambda o: o.kind in _BRANCH)
        )
        if len(last) != 1 or last[0].kind not in WEIGHTED or len(last[0].shape) != rank:
            continue
        axis = 1 if last[0].kind.startswith("conv") else rank - 1
        if branch.shape[axis] == last[0].shape[axis] == 1 < trunk.shape[axis]:
            return f"one feature of {last[0].module or 'the branch'} is added to all"
    return None


def _shrunk(trace: Trace, trunk: Operation, branch: Operation) -> str | None:
    """Say why a branch that lost its positions is at fault; None where they were pooled.

    Each of its convolutions takes a kernel's size less one off the axis, as those do that lack
    their padding, and no kernel is as long as the trunk.
    """
    if len(trunk.shape) != len(branch.shape):
        return None
    pairs = zip(trunk.shape, branch.shape, strict=True)
    lost = [axis for axis, (whole, left) in enumerate(pairs) if left == 1 < whole]
    op, convolutions = branch, 0
    while op.id != trunk.id:
        if len(op.inputs) != 1 or op.kind not in _BRANCH - SHAPES | {"conv", "dropout"}:
            return None
        before = trace.graph.by_id[op.inputs[0]]
        if op.kind == "conv":
            kernel = trace.parameters[path].shape if (path := weight_of(trace, op)) else ()
            for axis in lost:
                taken = before.shape[axis] - op.shape[axis]
                if len(kernel) != len(op.shape) or not 0 < taken == kernel[axis] - 1:
                    return None
            convolutions += 1
        op = before
    if not lost or convolutions < _SEVERAL:
        return None
    return f"{convolutions} convolutions without padding leave one position, added to all"


def _samples_as_features(graph: Graph, first: Operation, second: Operation) -> str | None:
    """Say why a branch of one number a sample is at fault once its feature axis is gone.

    ``(N, U) + (N,)`` aligns samples with features; it runs only where there are as many of
    the one as of the other.
    """
    trunk, branch = sorted((first, second), key=lambda o: -len(o.shape))
    if branch.shape != trunk.shape[:-1]:
        return None
    dropped = branch.kind in ("squeeze", "view", "slice") and any(
        before.shape == (*branch.shape, 1) for before in graph.inputs_of(branch)
    )
    if not dropped or trunk.id not in {o.id for o in graph.ancestors(branch)}:
        return None
    return "one number of each sample is added to one feature of all"


def _axis_put_in(graph: Graph, op: Operation) -> bool:
    """Whether an axis of size 1 was put in on purpose, with `unsqueeze`, None or a view."""
    return op.kind in _UNSQUEEZING and any(
        len(before.shape) < len(op.shape) or before.kind in _UNSQUEEZING
        for before in graph.inputs_of(op)
    )
