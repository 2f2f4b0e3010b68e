"""Products that became a table of all pairs, told from the graph."""

from __future__ import annotations

from gradlint.graph import Graph, Operation

Shape = tuple[int, ...]

_KEEPS = frozenset({"neg", "scale", "cast", "clone", "shift"})
"""Operations after which the mean of a table is still the product of two means, or nearly so."""


def crosswise(output: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one number for each output that makes a table of all pairs."""
    column = output[-1:] == (1,) and len(output) > 1
    return output[:-1] if column else (*output, 1)


def giver_of(graph: Graph, output: Shape, table: Shape) -> str | None:
    """Return the module whose output, as it is, the loss makes a table of."""
    for op in graph:
        before = [graph.by_id[i] for i in op.inputs] if op.in_loss and op.shape == table else []
        for given in before:
            if not given.in_loss and given.shape == output:
                return given.module
    return None


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
