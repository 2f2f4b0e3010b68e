"""The chain rule, taken apart: where a gradient's norm goes between the output and a layer.

Every operation passes its gradient on along edges. With g the norm of the whole gradient at
an operation and c the norm of what one edge contributes, an edge has the terms
op = log10(c / g_source) and join = log10(g_target / c). Walking from a target back to the
loss, and splitting the flow at joins in proportion to c², the sum of flow·(op + join) is
exactly log10(g_target / g_start): single paths through a network with skips sum to nothing
of the kind (design, section 6).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradlint.graph import (
    ACTIVATIONS,
    NORMALIZATIONS,
    SOFTMAXES,
    STRUCTURAL,
    WEIGHTED,
    Graph,
    Operation,
)

DISPLAY = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "prelu": "PReLU",
    "rrelu": "RReLU",
    "relu6": "ReLU6",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "glu": "GLU",
    "logsigmoid": "LogSigmoid",
}
"""Activation kinds that torch does not write by capitalizing the first letter."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What `source` contributed to the gradient at `target`: a norm, in units of the loss."""

    source: int
    target: int
    norm: float


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Decades between the start and one operation, by kind and (if asked) by module."""

    decades: Mapping[str, float]
    layers: Mapping[str, float]


def factor_of(graph: Graph, op: Operation) -> str:
    """Return which factor of the chain rule `op` is, in a reader's words.

    A normalization right behind a weight layer is counted with the weights: apart, they
    cancel (a residual BatchNorm network reads -1.3 and +4.2 decades).
    """
    if op.in_loss:
        return "loss"
    if op.kind in WEIGHTED or op.kind == "parameter_mul":
        return "weights"
    if op.kind in NORMALIZATIONS:
        before = graph.preceding(op)
        behind_weights = bool(before) and all(o.kind in WEIGHTED for o in before)
        return "weights" if behind_weights else "normalization"
    if op.kind in ACTIVATIONS:
        return DISPLAY.get(op.kind, op.kind.capitalize())
    if op.kind in SOFTMAXES:
        return "Softmax"
    if op.kind in ("matmul", "attention"):
        return "attention"
    if op.kind in STRUCTURAL:
        return "structural"
    if op.kind in ("add", "sub", "parameter_add", "shift"):
        return "residual"
    if op.kind == "scale":
        return "scale"
    return "other"


def decompose(
    graph: Graph, norms: Mapping[int, float], edges: Sequence[Edge]
) -> dict[int, dict[str, float]]:
    """Return, for each operation the gradient reached, its decades by factor.

    Args:
        graph: The operations.
        norms: L2 norm of the whole gradient at each operation's output.
        edges: Contributions between operations.

    Returns:
        Operation id to decades; for each, the values sum to log10(norm there / norm at the
        operation the walk started from). Operations with a zero or a non-finite gradient
        are left out.
    """
    incoming: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        if _usable(edge.norm):
            incoming[edge.target].append(edge)
    factors = {op.id: factor_of(graph, op) for op in graph}
    result: dict[int, dict[str, float]] = {}
    for op in reversed(graph.operations):
        norm = norms.get(op.id)
        if norm is None or not _usable(norm):
            continue
        arriving = [e for e in incoming[op.id] if e.source in result]
        if not arriving:
            if not incoming[op.id]:
                result[op.id] = {}
            continue
        total = math.fsum((e.norm / norm) ** 2 for e in arriving)
        decades: dict[str, float] = defaultdict(float)
        for edge in arriving:
            flow = (edge.norm / norm) ** 2 / total
            for factor, value in result[edge.source].items():
                decades[factor] += flow * value
            decades[factors[edge.source]] += flow * math.log10(edge.norm / norms[edge.source])
            decades["residual"] += flow * math.log10(norm / edge.norm)
        result[op.id] = dict(decades)
    return result


def by_layer(
    graph: Graph, norms: Mapping[int, float], edges: Sequence[Edge], target: int
) -> dict[str, float]:
    """Return the decades between the output and `target`, by module path.

    Structural operations and the loss are left out: they are shown apart and never blamed.
    A functional operation counts for the weight layer it follows.
    """
    incoming: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        if _usable(edge.norm) and _usable(norms.get(edge.source, 0.0)):
            incoming[edge.target].append(edge)
    flow: dict[int, float] = defaultdict(float)
    flow[target] = 1.0
    layers: dict[str, float] = defaultdict(float)
    for op in graph:
        share = flow.get(op.id, 0.0)
        norm = norms.get(op.id, 0.0)
        if share < 1e-12 or not _usable(norm):
            continue
        total = math.fsum((e.norm / norm) ** 2 for e in incoming[op.id])
        for edge in incoming[op.id]:
            part = share * (edge.norm / norm) ** 2 / total
            flow[edge.source] += part
            source = graph.by_id[edge.source]
            factor = factor_of(graph, source)
            if factor not in ("loss", "structural"):
                place = source.site.partition(":")[0]
                layers[place] += part * math.log10(edge.norm / norms[edge.source])
            layers[op.site.partition(":")[0]] += part * math.log10(norm / edge.norm)
    return {path: value for path, value in layers.items() if value}


def total(decades: Mapping[str, float]) -> float:
    """Return the sum of all decades."""
    return math.fsum(decades.values())


def blamed(decades: Mapping[str, float]) -> float:
    """Return the sum of the decades a model can be blamed for."""
    return math.fsum(v for factor, v in decades.items() if factor not in ("structural", "loss"))


def _usable(norm: float) -> bool:
    return math.isfinite(norm) and norm > 0
