"""Differences and products that became a table of all pairs, told from the graph."""

from __future__ import annotations

from gradlint.graph import Graph, Operation
from gradlint.rules._targets import outer
from gradlint.trace import Trace

Shape = tuple[int, ...]

_KEEPS = frozenset({"neg", "scale", "cast", "clone", "shift"})
"""Operations after which the mean of a table is still the product of two means, or nearly so."""


def crosswise(output: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one number for each output that makes a table of all pairs."""
    column = output[-1:] == (1,) and len(output) > 1
    return output[:-1] if column else (*output, 1)


def difference_of(graph: Graph, op: Operation) -> Operation:
    """Return the difference that an expanded output enters, as in an L1 loss; else `op` itself."""
    after = graph.consumers[op.id]
    if op.kind == "expand" and len(after) == 1 and after[0].kind in ("sub", "shift"):
        return after[0]
    return op


def error_of_pairs(trace: Trace, output: Operation, difference: Operation) -> bool:
    """Whether a watched loop averages the squares or sizes of a table of differences.

    What the difference by hand is taken from is not kept there. A kernel of the table, or the
    same output used once more (distances of samples to each other), is meant so.
    """
    graph = trace.graph
    if trace.facts.targets or outer(output.shape, crosswise(output.shape)) != difference.shape:
        return False
    sizes = graph.consumers[difference.id]
    ends = [end for size in sizes for end in graph.consumers[size.id]]
    return (
        len(graph.consumers[output.id]) == 1
        and bool(ends)
        and all(size.kind in ("pow", "abs", "mul") for size in sizes)
        and all(end.kind in ("mean", "sum") for end in ends)
    )


def weighed_crosswise(graph: Graph) -> tuple[Operation, Shape, Shape] | None:
    """Return a product of N numbers and of N weights in a column that is averaged over all pairs.

    The mean of such a table is the product of both means: no weight is any sample's own. An
    axis that was put in by hand, and a table of which more than the mean is used, are meant so.

    Returns:
        The product, and the shapes of its factors; None where there is none.
    """
    for op in graph.of_kind("mask", "mul"):
        factors = [graph.by_id[i].shape for i in op.inputs]
        factors += [op.attributes["factor_shape"]] if "factor_shape" in op.attributes else []
        count = max(op.shape, default=0)
        pairs = op.in_loss and count > 1 and op.shape == (count, count)
        if not pairs or sorted(map(tuple, factors)) != [(count,), (count, 1)]:
            continue
        by_hand = any(graph.by_id[i].name.startswith("Unsqueeze") for i in op.inputs)
        if not by_hand and _is_averaged(graph, op):
            return op, tuple(factors[0]), tuple(factors[1])
    return None


def _is_averaged(graph: Graph, op: Operation) -> bool:
    """Whether nothing but a mean or a sum over all entries reads a table."""
    while len(graph.consumers[op.id]) == 1:
        (op,) = graph.consumers[op.id]
        if op.kind in ("mean", "sum") and op.shape == ():
            return True
        if op.kind not in _KEEPS:
            return False
    return False
