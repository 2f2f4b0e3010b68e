"""Stacks of residual blocks, and what stands around their adds. No rule here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradlint.graph import STRUCTURAL, Graph, Operation
from gradlint.trace import ModuleFacts, Trace

_NORMALIZED = frozenset({"layer_norm", "rms_norm"})


def stacks(trace: Trace) -> Iterator[tuple[list[ModuleFacts], list[list[Operation]]]]:
    """Yield the blocks of one class in one container, in their order, with their residual adds.

    Every block is called once and adds two signals of one shape; the first may add to the
    data itself, which needs no gradient and shows no add.
    """
    adds = [
        op
        for op in trace.graph.of_kind("add")
        if len(op.inputs) >= 2 and not op.in_loss and not op.attributes.get("broadcast")
    ]
    groups: dict[tuple[str, str], list[tuple[int, ModuleFacts]]] = {}
    for facts in trace.modules.values():
        parent, _, name = facts.path.rpartition(".")
        if name.isdecimal() and not facts.leaf and facts.calls == 1:
            groups.setdefault((parent, facts.kind), []).append((int(name), facts))
    for group in groups.values():
        blocks = [facts for _, facts in sorted(group, key=lambda pair: pair[0])]
        inside = [[op for op in adds if _within(op, block)] for block in blocks]
        if all(inside[1:]):
            yield blocks, inside


def _within(op: Operation, block: ModuleFacts) -> bool:
    return op.module is not None and f"{op.module}.".startswith(f"{block.path}.")


def normalizes_sums(graph: Graph, adds: Sequence[Operation]) -> bool:
    """Whether every sum goes into a normalization and nowhere else (Post-LN)."""
    after = [o for op in adds for o in graph.ahead(op, lambda o: o.kind in STRUCTURAL)]
    return bool(after) and all(op.kind in _NORMALIZED for op in after)


def scales_residual(graph: Graph, adds: Sequence[Operation]) -> bool:
    """Whether a constant or a parameter scales one side of a sum (DeepNorm, ReZero)."""
    before = [o for op in adds for o in graph.inputs_of(op)]
    return any(op.kind in ("scale", "parameter_mul") for op in before)
