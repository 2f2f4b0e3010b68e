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

_BLAMELESS = frozenset({"structural", "loss"})
"""Factors that are shown and never blamed: the batch size alone moves them by a decade."""

_PIECES = frozenset({"slice", "split", "index"})
"""Operations that take a part of a tensor."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What `source` contributed to the gradient at `target`: a norm, in units of the loss."""

    source: int
    target: int
    norm: float


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
    if op.kind == "matmul" and len(op.inputs) < 2:
        return "constant matrix"  # an adjacency, a basis: no one learns it
    if op.kind in ("matmul", "attention"):
        return "attention"
    if op.kind in STRUCTURAL:
        return "structural"
    if op.kind in ("add", "sub", "parameter_add", "shift"):
        return "residual"
    if op.kind == "scale":
        return "scale"
    return "other"


def join_of(graph: Graph, op: Operation, sources: Sequence[int]) -> dict[int, str]:
    """Return, for each of the `sources` whose gradients meet at `op`, which factor the join is.

    Where a signal is read twice its gradients add up: a residual. The loss may read the
    output as often as it likes, and pieces of one tensor only lay their gradients side by
    side: the more pieces, the larger the whole, which is no one's fault. Nor is what a
    concatenation cuts apart on the way back and a meeting puts together again: the cut is
    structural, so is the meeting (a DenseNet of 24 layers that learns well wins 1.6 decades in
    its meetings and loses 2.1 in its cuts).
    """
    read_by = [graph.by_id[i].kind for i in sources if not graph.by_id[i].in_loss]
    pieces = op.kind in _PIECES or all(kind in _PIECES for kind in read_by)
    meeting = "structural" if pieces or "concat" in read_by else "residual"
    return {i: "loss" if graph.by_id[i].in_loss else meeting for i in sources}


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
    incoming = _incoming(edges)
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
        joins = join_of(graph, op, [e.source for e in arriving])
        decades: dict[str, float] = defaultdict(float)
        for edge, flow in _split(arriving):
            for factor, value in result[edge.source].items():
                decades[factor] += flow * value
            decades[factors[edge.source]] += flow * math.log10(edge.norm / norms[edge.source])
            decades[joins[edge.source]] += flow * math.log10(norm / edge.norm)
        result[op.id] = {factor: value for factor, value in decades.items() if value}
    return result


def by_layer(
    graph: Graph, norms: Mapping[int, float], edges: Sequence[Edge], target: int
) -> dict[str, float]:
    """Return the decades between the output and `target`, by module path.

    Structural operations and the loss are left out: they are shown apart and never blamed.
    A functional operation counts for the weight layer it follows, a join for the module at
    whose output the gradients meet. The values sum to `blamed` of the target's decades.
    """
    incoming = _incoming(edges)
    reached = decompose(graph, norms, edges).keys()
    flow: dict[int, float] = defaultdict(float)
    flow[target] = 1.0
    layers: dict[str, float] = defaultdict(float)
    for op in graph:
        share = flow.get(op.id, 0.0)
        if share < 1e-12 or op.id not in reached:
            continue
        arriving = [e for e in incoming[op.id] if e.source in reached]
        joins = join_of(graph, op, [e.source for e in arriving])
        for edge, part in _split(arriving):
            flow[edge.source] += share * part
            source = graph.by_id[edge.source]
            if factor_of(graph, source) not in _BLAMELESS:
                place = source.site.partition(":")[0]
                layers[place] += share * part * math.log10(edge.norm / norms[edge.source])
            if joins[edge.source] not in _BLAMELESS:
                place = op.site.partition(":")[0]
                layers[place] += share * part * math.log10(norms[op.id] / edge.norm)
    return {path: value for path, value in layers.items() if value}


def _incoming(edges: Sequence[Edge]) -> Mapping[int, list[Edge]]:
    """Return the edges with a usable norm by their target."""
    incoming: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        if _usable(edge.norm):
            incoming[edge.target].append(edge)
    return incoming


def _split(arriving: Sequence[Edge]) -> list[tuple[Edge, float]]:
    """Return each edge with its share of the flow, in proportion to its norm's square."""
    largest = max((e.norm for e in arriving), default=1.0)
    squares = [(e.norm / largest) ** 2 for e in arriving]
    whole = math.fsum(squares)
    return [(e, square / whole) for e, square in zip(arriving, squares, strict=True)]


def total(decades: Mapping[str, float]) -> float:
    """Return the sum of all decades."""
    return math.fsum(decades.values())


def blamed(decades: Mapping[str, float]) -> float:
    """Return the sum of the decades a model can be blamed for."""
    return math.fsum(v for factor, v in decades.items() if factor not in _BLAMELESS)


def _usable(norm: float) -> bool:
    return math.isfinite(norm) and norm > 0
