"""Gains: what a weight has, and what the activation behind it asks for. No rule here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradlint.graph import SIGMOIDAL, Operation
from gradlint.rules._chains import Link, initial_value, weight_of
from gradlint.trace import Trace

_ROOT2 = math.sqrt(2)
_WANTED = {
    **dict.fromkeys(("relu", "relu6", "rrelu"), (_ROOT2, _ROOT2)),
    **dict.fromkeys(("tanh", "hardtanh", "softsign"), (1.0, 5 / 3)),
    **dict.fromkeys(("sigmoid", "hardsigmoid", "logsigmoid"), (0.5, 4.0)),
    **dict.fromkeys(("gelu", "silu", "mish", "hardswish", "elu", "celu", "softplus"), (1.0, 1.8)),
    "prelu": (1.37, _ROOT2),
    "selu": (0.75, 1.0),
    "": (1.0, 1.0),
}
"""Gains that keep the signal, by activation: the smallest and the largest in use.

ReLU: He et al. (2015). tanh: Glorot & Bengio (2010) and `torch.nn.init.calculate_gain`.
sigmoid: 4 is the inverse of its slope at 0; below that it loses the gradient at any gain.
GELU and kin: 1/√E[φ(z)²] for z ~ N(0, 1) is 1.2 (ELU) to 1.7 (SiLU).
"""


@dataclass(frozen=True, slots=True)
class Gain:
    """A weight layer's gain, std·√(fan in), and the nearest one that keeps the signal."""

    path: str
    activation: str
    gain: float
    wanted: float

    @property
    def decades(self) -> float:
        """Decades the signal is lost (below 0) or grows by at this layer."""
        return math.log10(self.gain / self.wanted)


def gain_of(trace: Trace, link: Link) -> Gain | None:
    """Return the gain of a layer of a chain; None where it or its activation is unknown."""
    weight = weight_of(trace, link.weight)
    gain = initial_value(trace, "init_gain", weight) if weight else None
    if gain is None or not 0 < gain < math.inf or link.weight.kind == "conv_transpose":
        return None
    band = _band(link.activation)
    if band is None:
        return None
    kind = link.activation.kind if link.activation else ""
    return Gain(link.path, kind, gain, min(max(gain, band[0]), band[1]))


def _band(activation: Operation | None) -> tuple[float, float] | None:
    if activation is not None and activation.kind == "leaky_relu":
        gain = math.sqrt(2 / (1 + float(activation.attributes.get("slope", 0.01)) ** 2))
        return gain, gain
    return _WANTED.get(activation.kind if activation else "")


def advice_for(activation: str) -> str:
    """Return how to initialize a weight in front of `activation`, in the imperative."""
    if activation in ("leaky_relu", "prelu"):
        return 'Use nn.init.kaiming_normal_(layer.weight, a=slope, nonlinearity="leaky_relu").'
    if activation in SIGMOIDAL:
        return "Use nn.init.xavier_normal_(layer.weight) on these layers."
    name = "relu" if activation not in ("", "selu") else "linear"
    return f'Use nn.init.kaiming_normal_(layer.weight, nonlinearity="{name}") on these layers.'
