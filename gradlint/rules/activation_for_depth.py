"""Activations that carry a signal over few layers, in many layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._chains import DISPLAY, Link, chains, why_not_initial
from gradlint.rules.base import Rule
from gradlint.trace import Trace

_SHALLOW = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "relu"})


@dataclass(frozen=True)
class ActivationForDepth(Rule):
    """A deep stack of sigmoid, tanh or ReLU layers with nothing that keeps the signal's size.

    ## What it does
    Counts the layers of each chain of weights that no normalization and no residual
    connection interrupts. Notes a chain in which more than `max_layers` of them end in a
    sigmoid, a tanh or a plain ReLU.

    ## Why is this bad?
    A derivative of at most 1/4 (sigmoid) or below 1 (tanh) is multiplied in at every layer,
    and a ReLU lets through what its weights' scale allows: over many layers the gradient
    depends on an initialization that is exactly right, and on its staying so.

    ## Example
    ```python
    width = 64
    layers = [layer for _ in range(12) for layer in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    ```

    Use instead:
    ```python
    width = 64
    layers = [
        layer
        for _ in range(12)
        for layer in (nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())
    ]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    ```

    ## When it is wrong
    A network as deep that is initialized well trains (a VGG without BatchNorm has 16 such
    layers): this is a note on what it rests on, and no more. Layers that share one weight,
    as the steps of an unrolled recurrence do, count once. Sums, gates, concatenations and
    attention end a chain.

    ## References
    - [0] section 4.2.3: over 10 layers, GELU, Swish or ELU; section 4.6: residual connections
    - He et al. (2015), "Delving deep into rectifiers", section 2.2
    """

    code: ClassVar = "GL110"
    name: ClassVar = "activation-for-depth"
    severity: ClassVar = Severity.NOTE
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Put a normalization in front of the activations or residual connections around them, "
        "or use GELU, SiLU or ELU."
    )

    max_layers: int = 10

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no structure to judge, or None."""
        if not trace.graph:
            return "no graph was observed"
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each chain that is too long for its activations."""
        for chain in chains(trace.graph):
            layers = _layers(chain)
            if len(layers) <= self.max_layers:
                continue
            counts = Counter(kind for _, kind in layers)
            kinds = " and ".join(
                f"{count} {_display(kind)}" for kind, count in counts.most_common()
            )
            first, last = layers[0][0], layers[-1][0]
            yield self.finding(
                first,
                f"{kinds} layers from {first or 'the model'} to {last or 'the model'} without "
                f"normalization or residual connection (limit {self.max_layers})",
                trace=trace,
                modules=tuple(dict.fromkeys(path for path, _ in layers)),
                step=0,
                evidence={"layers": len(layers), "limit": self.max_layers, "kinds": dict(counts)},
            )


def _layers(chain: tuple[Link, ...]) -> list[tuple[str, str]]:
    """Return path and activation of each layer whose activation is a shallow one, once each."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for link in chain:
        if link.activation is not None and link.activation.kind in _SHALLOW:
            weight = link.weight.parameters or (link.path,)
            found.setdefault(weight, (link.path, link.activation.kind))
    return list(found.values())


def _display(kind: str) -> str:
    return DISPLAY.get(kind, kind)
