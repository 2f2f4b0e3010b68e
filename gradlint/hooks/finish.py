"""What an operation is in the whole: on the model's side or the loss's, at a site, a gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from gradlint.graph import ACTIVATIONS, LOSSES, STRUCTURAL, WEIGHTED, Graph, Operation

_BY_ENTRY = frozenset({
    "pow", "square", "abs", "neg", "shift", "sub", "add", "mul", "exp", "log", "scale", "mask",
    "clamp", "softplus",
})  # fmt: skip
"""Operations a loss written by hand is made of, in front of its mean or sum."""


def finish(operations: list[Operation], modules: Mapping[str, nn.Module]) -> list[Operation]:
    """Add what takes the whole graph: the loss side, normalizations by hand, sites, gates.

    Args:
        operations: All operations, in forward order.
        modules: Modules by path.
    """
    in_loss = _loss_side(operations)
    finished: list[Operation] = []
    feeders: dict[int, tuple[str, int]] = {}
    fed: dict[str, set[str]] = {}
    for op in operations:
        kind = op.kind
        sources = [finished[i] for i in op.inputs]
        if kind == "mul" and any(s.kind == "rsqrt" for s in sources):
            kind = "rms_norm"
        attributes = dict(op.attributes)
        if kind in ("add", "sub", "mul") and len(op.inputs) == 2:
            shapes = {s.shape for s in sources}
            if len(shapes) > 1:
                attributes["broadcast"] = True
        if kind in WEIGHTED and op.module:
            feeders[op.id] = (op.module, op.call)
        else:
            known = (feeders[i] for i in op.inputs if feeders[i][0])
            feeders[op.id] = next(known, ("", op.call))
        if kind in ACTIVATIONS and op.module:
            fed.setdefault(op.module, set()).add(feeders[op.id][0])
        done = replace(op, kind=kind, attributes=attributes, in_loss=op.id in in_loss)
        finished.append(done)
    taken: Counter[tuple[str, int]] = Counter()
    for i, op in enumerate(finished):
        site = op.module or ""
        # One module behind several layers has the units of none: each is a site of its own.
        shared = len(fed.get(site, ())) > 1
        if op.kind in ACTIVATIONS and (shared or not _is_activation_module(modules, op.module)):
            feeder, call = feeders[op.id]
            site = f"{feeder or site}:{op.kind}"
            taken[site, call] += 1
            if taken[site, call] > 1:
                site = f"{site}#{taken[site, call]}"
        finished[i] = replace(op, site=site)
    return _mark_gates(finished)


def _is_activation_module(modules: Mapping[str, nn.Module], path: str | None) -> bool:
    module = modules.get(path) if path else None
    if module is None or next(module.children(), None) is not None:
        return False
    return not any(p.ndim > 1 for p in module.parameters(recurse=False)) and not any(
        word in type(module).__name__ for word in ("RNN", "LSTM", "GRU", "Cell")
    )


def _loss_side(operations: list[Operation]) -> set[int]:
    """Operations on the loss's side of the model's output.

    Those are the ones outside every module's call that feed no module, and, where a model
    computes its own loss, torch's losses with the log-softmax in front of them and all that
    follows.
    """
    called = any(op.module is not None for op in operations)
    feeding: set[int] = set()
    for op in reversed(operations):
        if op.module is not None or op.id in feeding:
            feeding.update(op.inputs)
    inside: set[int] = set()
    for op in operations:
        outside = called and op.module is None and op.id not in feeding
        if op.kind in LOSSES or outside or any(i in inside for i in op.inputs):
            inside.add(op.id)
    by_id = {op.id: op for op in operations}
    stack = [i for i in inside if by_id[i].kind in ("nll", "kl_div")]
    while stack:
        for i in by_id[stack.pop()].inputs:
            before = by_id[i]
            if before.kind in STRUCTURAL and i not in inside:
                stack.append(i)
            elif before.kind == "log_softmax":
                inside.add(i)
    return inside | _own_loss(operations, inside)


def _own_loss(operations: list[Operation], inside: set[int]) -> set[int]:
    """Operations of a loss that a model computes by hand inside its own forward.

    Those are the numbers that only the loss reads, and what makes them entry by entry.
    """
    if not operations or operations[-1].module is None:
        return set()
    consumers = Graph(tuple(operations)).consumers
    by_hand = set() if operations[-1].id in inside else {operations[-1].id}
    for op in reversed(operations):
        readers = {reader.id for reader in consumers[op.id]}
        if not readers or op.id in inside or not readers <= inside | by_hand:
            continue
        number = op.shape == () and op.kind in _BY_ENTRY | {"mean", "sum", "div", "sqrt"}
        if number or (op.kind in _BY_ENTRY and readers <= by_hand):
            by_hand.add(op.id)
    return by_hand


def _mark_gates(operations: list[Operation]) -> list[Operation]:
    """Mark activations whose only use is to multiply another signal (gates, attention by hand)."""
    graph = Graph(tuple(operations))
    passes = STRUCTURAL | {"shift", "scale", "mask"}
    marked: list[Operation] = []
    for op in operations:
        if op.kind in ACTIVATIONS or op.kind == "softmax":
            following = graph.ahead(op, lambda o: o.kind in passes)
            if following and all(o.kind in ("mul", "matmul", "rsub") for o in following):
                op = replace(op, attributes={**op.attributes, "gate": True})
        marked.append(op)
    return marked
