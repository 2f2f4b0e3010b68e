"""Inputs far from zero mean and unit scale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import NORMALIZATIONS, SHAPES
from gradlint.rules._inputs import joined, reading, scale_of
from gradlint.rules._losses import progress
from gradlint.rules._optimizer import rescales
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, TensorFacts, Trace

_SATURATED = {"RNN": 0.8, "GRU": 0.5, "LSTM": 0.3}
"""Root mean square of the output from which a fresh recurrent layer's gates are saturated."""

_PLAIN = frozenset({"Linear", "Conv1d", "Conv2d", "Conv3d"})
"""Layers of torch's own that read their input as it is."""


_SEVERAL = 4
"""Numbers a sample has at least where they are told to be next to constant."""

_FLAT = (
    "Look at how the inputs are computed: normalized twice, or divided as whole numbers, they lose "
    "what tells one sample from another."
)


@dataclass(frozen=True)
class UnnormalizedInput(Rule):
    """Inputs on a scale that the first layer's weights were not made for.

    ## What it does
    Looks at the floating inputs that reach a first layer as they are (a linear layer's or a
    convolution's measured output has the size that its weights give that input, a recurrent
    layer's is saturated, or a trainable layer was called on the input itself): a warning where
    their root mean square is above `warning_scale` or below `smallest_scale`, or where one
    feature's is above `warning_scale` and `feature_spread` times that of the median feature;
    a warning, too, for an input that the layer reads beside others `feature_spread` times smaller
    (a time, an id), and where all of them vary by less than `min_variation` of their mean, or are
    zero; an error above `error_scale` where no normalization follows in the whole network and the
    user's optimizer does not divide the gradient's scale out, as Adam does.

    ## Why is this bad?
    Weight gradients are proportional to the input: pixels of 0…255 make the first layer's
    gradients hundreds of times larger than initialization and learning rate expect, and one
    large feature makes the loss a narrow valley.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
    batch = (torch.rand(64, 20) * 255, torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
    batch = ((torch.rand(64, 20) - 0.5) / 0.29, torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Integer inputs, embeddings and inputs that the model scales itself are not meant. A
    normalization right behind the first layer takes the scale out again: then, and where the
    weights were trained before, it is a note. So is an input up to `error_scale` of a network
    whose loss fell below `learned` of what it was: x, x², x³, x⁴ of normal x, to which PyTorch's
    example fits a polynomial, have a root mean square of 6 on average, and of 10 in some batches.
    So is a first layer that the graph does not show, if the model normalizes anything.

    ## References
    - LeCun, Bottou, Orr & Müller (1998), "Efficient BackProp", section 4.3
    - Reference [1], "Data normalization"
    - `min_variation`: the same; digits that vary by 0.1 around 1 reach an accuracy of 0.3 in 300
      steps, by 0.03 none, with SGD and with Adam
    - The limits: tests/calibration/input_scale.py. SGD learns digits at scale 10 and fails at
      30, Adam learns at 150 and fails at 0.001; raw Iris (4.0) is well, raw Wine (230) is not
    """

    code: ClassVar = "GL606"
    name: ClassVar = "unnormalized-input"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = (
        "Subtract each feature's mean and divide by its standard deviation (images: / 255, "
        "then Normalize)."
    )
    stage: ClassVar = Stage.DATA

    warning_scale: float = 10.0
    error_scale: float = 50.0
    smallest_scale: float = 1e-3
    feature_spread: float = 100.0
    learned: float = 0.05
    min_variation: float = 0.02

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each input on the wrong scale."""
        floating = [t for t in trace.facts.inputs if t.floating and not t.non_finite and t.shape]
        found = [f for tensor in floating if (f := self._judge(trace, tensor)) is not None]
        yield from found or islice(self._joined(trace), 1)

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where the inputs are not the user's, or hold no real numbers."""
        if trace.facts.synthesized:
            return "the batch was made up: its inputs say nothing"
        if not any(tensor.floating for tensor in trace.facts.inputs):
            return "no floating input was seen"
        return None

    def _judge(self, trace: Trace, tensor: TensorFacts) -> Finding | None:
        scale = math.hypot(tensor.mean, tensor.std)
        spread = self._spread(tensor)
        large, uneven = scale > self.warning_scale, spread > self.feature_spread
        small = 0 < scale < self.smallest_scale
        flat = self._is_flat(tensor)
        if not (large or uneven or small or flat):
            return None
        path = _first_layer(trace, tensor, scale)
        if path is None:
            return None
        if small and not flat and scale * math.sqrt(_fan_in(trace, path)) > 0.1:
            return None
        severity = Severity.WARNING
        learned = scale <= self.error_scale and self._learned(trace)
        if learned or trace.facts.pretrained or _normalized(trace, path):
            severity = Severity.NOTE
        elif scale > self.error_scale and not _normalizes(trace) and not rescales(trace):
            severity = Severity.ERROR
        limit = self.smallest_scale if small else self.warning_scale
        message = (
            f"{tensor.name} reaches {path or 'the first layer'} with values from "
            f"{tensor.minimum:.2g} to {tensor.maximum:.2g}: root mean square {scale:.2g} "
            f"(limit {limit:.2g})"
        )
        if flat and not large:
            limit = self.min_variation
            message = f"{tensor.name} reaches {path or 'the first layer'} with nothing but zeros"
            if scale > 0:
                message = (
                    f"{tensor.name} reaches {path or 'the first layer'} with values from "
                    f"{tensor.minimum:.4g} to {tensor.maximum:.4g}: it varies by "
                    f"{tensor.std / abs(tensor.mean):.2g} of its mean (limit {limit:.2g})"
                )
        if uneven:
            message += f", one feature {spread:.2g} times the median feature"
        return self.finding(
            path,
            message,
            trace=trace,
            severity=severity,
            help=_FLAT if flat and not large else self.help,
            evidence={
                "scale": scale,
                "mean": tensor.mean,
                "std": tensor.std,
                "spread": spread,
                "limit": limit,
            },
        )

    def _joined(self, trace: Trace) -> Iterator[Finding]:
        """Find an input that is put beside others, much smaller ones, for a first layer."""
        for path, tensor, spread in joined(trace):
            scale = scale_of(tensor)
            if scale <= self.warning_scale or spread <= self.feature_spread:
                continue
            learned = scale <= self.error_scale and self._learned(trace)
            known = learned or trace.facts.pretrained or _normalized(trace, path)
            yield self.finding(
                path,
                f"{tensor.name} reaches {path or 'the first layer'} with values from "
                f"{tensor.minimum:.2g} to {tensor.maximum:.2g}, beside features of a size "
                f"{spread:.2g} times smaller (limit {self.feature_spread:.2g})",
                trace=trace,
                severity=Severity.NOTE if known else Severity.WARNING,
                help="Divide it by its largest value, or embed it (a time by sines and cosines).",
                evidence={"scale": scale, "spread": spread, "limit": self.feature_spread},
            )

    def _is_flat(self, tensor: TensorFacts) -> bool:
        """Whether samples of several numbers are all zeros, or next to one and the same number.

        Ones alone are said of nodes whose graph is all that is known of them.
        """
        if prod(tensor.shape[1:]) < _SEVERAL:
            return False
        if tensor.std == 0:
            return tensor.mean == 0
        return tensor.std < self.min_variation * abs(tensor.mean)

    def _learned(self, trace: Trace) -> bool:
        """Whether the loss fell to next to nothing all the same."""
        seen = progress(trace)
        return seen is not None and seen[0] > 0 and 0 <= seen[1] < self.learned * seen[0]

    def _spread(self, tensor: TensorFacts) -> float:
        """Largest feature against the median feature; 1 where none is large in itself."""
        pairs = zip(tensor.channel_means, tensor.channel_stds, strict=False)
        scales = [math.hypot(mean, std) for mean, std in pairs]
        if len(scales) < 2 or max(scales) <= self.warning_scale:
            return 1.0
        middle = statistics.median(scales)
        return max(scales) / middle if middle > 0 else 1.0


def _first_layer(trace: Trace, tensor: TensorFacts, scale: float) -> str | None:
    """Return a first layer whose output has the size its weights give an input of `scale`.

    Where none has, one that was called on the input itself and whose output was not measured:
    below a cut the graph holds no layers.
    """
    measured = set()
    for op in trace.weight_layers():
        if op.inputs:
            continue
        module = trace.modules.get(op.module or "")
        if module is not None and module.kind in _SATURATED:
            seen = trace.of("activation_rms").at(module.path).initial
            reads = prod(module.input_shape or ()) == prod(tensor.shape)
            if reads and scale > 1 and seen.median > _SATURATED[module.kind]:
                return op.module
            continue
        ratio = reading(trace, op, scale)
        if ratio is not None and 0.3 <= ratio <= 3:
            return op.module
        # Weights without a bias make nothing of zeros: an output that is something read another.
        if ratio is not None or (
            scale == 0 and trace.of("activation_rms").at(op.module or "").initial.median > 0
        ):
            measured.add(op.module or "")
    plain = [m for m in trace.modules.values() if m.path not in measured]
    called = (m for m in plain if _called_on(trace, m, tensor))
    return next((module.path for module in called), None)


def _called_on(trace: Trace, module: ModuleFacts, tensor: TensorFacts) -> bool:
    """Whether a layer of torch's own, which learns, was called on `tensor` as it is."""
    if module.kind not in _PLAIN or module.ours or not module.input_given:
        return False
    learns = any(trace.parameters[p].requires_grad for p in module.parameters)
    return learns and prod(module.input_shape or ()) == prod(tensor.shape)


def _fan_in(trace: Trace, path: str) -> int:
    return max((p.fan_in for p in trace.parameters.values() if p.module == path), default=0)


def _normalized(trace: Trace, path: str) -> bool:
    """Whether every road from the first layer leads into a normalization at once.

    Of a layer that the graph does not show, whether the model normalizes at all.
    """
    layer = next((op for op in trace.weight_layers() if op.module == path), None)
    if layer is None:
        return any("Norm" in module.kind for module in trace.modules.values())
    following = trace.graph.ahead(layer, lambda o: o.kind in SHAPES or o.kind == "parameter_add")
    return bool(following) and all(op.kind in NORMALIZATIONS for op in following)


def _normalizes(trace: Trace) -> bool:
    return any(op.kind in NORMALIZATIONS and not op.in_loss for op in trace.graph)
