"""Chains of weight layers with nothing between them that resets the signal. No rule here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gradlint.graph import ACTIVATIONS, Graph, Operation
from gradlint.trace import Trace

MULTIPLIES = frozenset({"linear", "conv", "conv_transpose"})
"""Operations whose output scales with their weight."""

PASSES = ACTIVATIONS | frozenset(
    [
        "view",
        "transpose",
        "expand",
        "cast",
        "clone",
        "squeeze",
        "slice",
        "split",
        "mask",
        "pad",
        "upsample",
        "dropout",
        "max_pool",
        "avg_pool",
        "mean",
        "amax",
        "parameter_add",
        "clamp",
    ]
)
"""Operations that hand the size of the signal on: none adds a second signal or normalizes."""

_JOINS = frozenset({"add", "concat"})

_MOVES = frozenset({"index", "sum"})
"""Rows chosen, or added to rows ("index_add"), and sums: messages between nodes of a graph."""

DISPLAY = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "prelu": "PReLU",
    "relu6": "ReLU6",
    "rrelu": "RReLU",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "logsigmoid": "LogSigmoid",
}
"""Activation kinds as torch writes them, where that is not the capitalized kind."""

SHARING = 0.02
"""Decades (5 %) by which a layer has to change the signal to take part in a trend."""


@dataclass(frozen=True, slots=True)
class Link:
    """A weight layer of a chain and the one nonlinearity behind it, if there is one."""

    weight: Operation
    activation: Operation | None

    @property
    def path(self) -> str:
        """Path of the module that holds the weight."""
        return self.weight.module or ""


@dataclass(frozen=True, slots=True)
class Trend:
    """The part of a chain along which a positive quantity falls, or grows, the most."""

    start: int
    first: float
    last: float
    layers: int
    decades: float
    """Change over that part, a log10 factor; negative when it falls."""
    spared: float
    """The same without the single layer that changes it most."""
    sharing: int
    """Layers that change it by 5 % or more in that direction."""
    end: float | None
    """What follows directly where that is no positive number: 0, infinity or NaN; else None."""

    @property
    def per_layer(self) -> float:
        """Factor a layer, the geometric mean."""
        return factor(self.decades / (self.layers - 1))


def factor(decades: float) -> float:
    """Return ``10 ** decades``, within what a float holds."""
    return float(10.0 ** max(-300.0, min(decades, 300.0)))


def why_not_initial(trace: Trace) -> str | None:
    """Return why rules on the initialization have nothing to judge, or None."""
    return "weights were loaded or trained before" if trace.facts.pretrained else None


def weight_of(trace: Trace, op: Operation) -> str | None:
    """Return the path of the one weight matrix or kernel that `op` multiplies by, or None."""
    found = [p for p in op.parameters if len(_shape(trace, p)) >= 2]
    return found[0] if len(found) == 1 else None


def bias_of(trace: Trace, op: Operation) -> str | None:
    """Return the path of the one vector that `op` adds, or None."""
    found = [p for p in op.parameters if len(_shape(trace, p)) == 1]
    return found[0] if len(found) == 1 else None


def _shape(trace: Trace, path: str) -> tuple[int, ...]:
    facts = trace.parameters.get(path)
    return facts.shape if facts is not None else ()


def following_activation(graph: Graph, op: Operation) -> Operation | None:
    """Return the one activation that reads `op`, past shapes, pooling and biases."""
    plain = (PASSES | {"scale"}) - ACTIVATIONS
    found = [o for o in graph.ahead(op, lambda o: o.kind in plain) if o.kind in ACTIVATIONS]
    return found[0] if len(found) == 1 else None


def chains(
    graph: Graph, through: Callable[[Operation], bool] | None = None
) -> Iterator[tuple[Link, ...]]:
    """Yield the un-normalized chains of weight layers, longest first, without overlap.

    A normalization, a join of two signals (residual, gate, concatenation), attention and
    anything unknown end a chain; with `through`, whatever it does not hold for.
    """
    weights = [o for o in graph if o.kind in MULTIPLIES and not o.in_loss]
    after = {o.id: [n.id for n in graph.ahead(o, through or hands_on)] for o in weights}
    left = {o.id for o in weights}
    while left:
        length: dict[int, int] = {}
        follow: dict[int, int] = {}
        for op in reversed(weights):
            if op.id in left:
                ways = [n for n in after[op.id] if n in left]
                if ways:
                    follow[op.id] = max(ways, key=lambda n: length[n])
                length[op.id] = 1 + (length[follow[op.id]] if op.id in follow else 0)
        at: int | None = max(length, key=lambda i: length[i])
        links: list[Link] = []
        while at is not None:
            left.discard(at)
            op = graph.by_id[at]
            links.append(Link(op, following_activation(graph, op)))
            at = follow.get(at)
        yield tuple(links)


def hands_on(op: Operation) -> bool:
    """Whether `op` hands the size of a signal on to what reads it."""
    # "x / x.detach().std()" is a scale, too, but no constant: it normalizes.
    constant = op.kind == "scale" and "scalar" in op.attributes
    # So is a matrix that no one learns: the adjacency of a graph.
    fixed = op.kind == "matmul" and len(op.inputs) == 1
    return op.kind in PASSES or constant or fixed


def with_sums(graph: Graph) -> Callable[[Operation], bool]:
    """Return what tells the operations that hand a signal on, those that sum it up included.

    Sums over neighbors, positions and branches. Joined signals count where each comes from
    weight layers that all read the same: no sum of different depths, as a residual add is.
    """
    behind: dict[int, frozenset[int]] = {}
    nearest: dict[int, frozenset[int]] = {}
    passing: set[int] = set()
    for op in graph:
        found = frozenset[int]().union(*(nearest[i] for i in op.inputs))
        behind[op.id] = found
        alike = all(graph.by_id[i].kind in MULTIPLIES for i in found)
        alike = alike and len({behind[i] for i in found}) == 1
        joins = op.kind in _JOINS and len(op.inputs) > 1 and not op.missing and alike
        moves = op.kind in _MOVES and (len(op.inputs) == 1 or alike)
        if hands_on(op) or joins or moves:
            passing.add(op.id)
        nearest[op.id] = found if op.id in passing else frozenset({op.id})
    return lambda op: op.id in passing


def initial_value(trace: Trace, metric: str, path: str) -> float | None:
    """Return the median of `metric` at `path` over the batches of step 0, or None.

    A value that is not finite on half of the batches or more stands for all.
    """
    values = [o.value for o in trace.of(metric).at(path) if o.step == 0]
    if not values:
        return None
    broken = [v for v in values if not math.isfinite(v)]
    if 2 * len(broken) >= len(values):
        return broken[0]
    return statistics.median(v for v in values if math.isfinite(v))


def signal(trace: Trace, chain: Sequence[Link]) -> list[tuple[str, float]]:
    """Return the activation RMS at step 0 along `chain`, as pairs of module path and value.

    Read behind the weights where each of them is a module of its own, else behind the
    activations. A site that is used twice holds several layers and is left out.
    """
    before = [_at_site(trace, link.weight) for link in chain]
    behind = [_at_site(trace, link.activation) for link in chain]
    sites = [link.weight.site for link in chain]
    before = [v if sites.count(s) == 1 else None for v, s in zip(before, sites, strict=True)]
    sites = [link.activation.site if link.activation else "" for link in chain]
    behind = [v if sites.count(s) == 1 else None for v, s in zip(behind, sites, strict=True)]
    values = max(before, behind, key=lambda vs: sum(v is not None for v in vs))
    return [(link.path, v) for link, v in zip(chain, values, strict=True) if v is not None]


def _at_site(trace: Trace, op: Operation | None) -> float | None:
    if op is None:
        return None
    facts = trace.modules.get(op.site)
    if facts is not None and not facts.leaf:
        return None  # a container's output is not this operation's
    return initial_value(trace, "activation_rms", op.site)


def trend_of(values: Sequence[float], *, growing: bool) -> Trend | None:
    """Return the longest way up or down in `values`, before the first without a logarithm.

    The part with the largest ratio of its ends: a bias in the last layer can lift a signal
    that has long vanished.
    """
    sign = 1.0 if growing else -1.0
    logs: list[float] = []
    for value in values:
        if not math.isfinite(value) or value <= 0:
            break
        logs.append(sign * math.log10(value))
    lowest, best = 0, (0, 0)
    for index, height in enumerate(logs):
        lowest = index if height < logs[lowest] else lowest
        if height - logs[lowest] > logs[best[1]] - logs[best[0]]:
            best = (lowest, index)
    start, stop = best
    steps = [after - before for before, after in pairwise(logs[start : stop + 1])]
    if not steps:
        return None
    total = sum(steps)
    return Trend(
        start=start,
        first=values[start],
        last=values[stop],
        layers=len(steps) + 1,
        decades=sign * total,
        spared=sign * (total - max(steps)),
        sharing=sum(step > SHARING for step in steps),
        end=values[stop + 1] if stop + 1 == len(logs) < len(values) else None,
    )
