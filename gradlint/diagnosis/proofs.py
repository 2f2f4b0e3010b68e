"""What exemptions ask of a trace: where a parameter acts, and what stands behind it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from gradlint.finding import Finding
from gradlint.graph import NORMALIZATIONS, STRUCTURAL, WEIGHTED, Operation
from gradlint.trace import Trace

MOVES = frozenset(
    {
        "view",
        "transpose",
        "expand",
        "cast",
        "clone",
        "squeeze",
        "slice",
        "concat",
        "split",
        "index",
    }
)
"""Operations that move entries and change none."""

_SHIFT_KEEPS = MOVES | {"max_pool", "avg_pool", "parameter_add", "shift"}
"""Operations behind which a constant added to a channel is still a constant of the channel."""


def parameters_of(trace: Trace, finding: Finding) -> tuple[str, ...]:
    """Return the parameter a finding speaks of, or all of its module's own."""
    if finding.parameter is not None:
        return (finding.parameter,)
    if finding.module is None:
        return ()
    facts = trace.modules.get(finding.module)
    return facts.parameters if facts else ()


def at_start(trace: Trace, metric: str, path: str) -> float | None:
    """Return the median of `metric` at `path` over step 0, or None."""
    values = trace.of(metric).at(path).initial.values
    return statistics.median(values) if values else None


@lru_cache(maxsize=2)
def _largest_at_start(trace: Trace) -> Mapping[str, float]:
    """Return each parameter's largest entry before training, in absolute value."""
    return {o.site.path: o.value for o in trace.of("weight_abs_max") if o.step == 0}


def is_zero_at_start(trace: Trace, path: str) -> bool:
    """Whether every entry of the parameter at `path` was zero before training."""
    return _largest_at_start(trace).get(path) == 0


def dimensions(trace: Trace, path: str) -> int:
    """Return the number of dimensions of a parameter; 0 where it is unknown."""
    facts = trace.parameters.get(path)
    return len(facts.shape) if facts else 0


def feeds_only(
    trace: Trace,
    path: str,
    through: frozenset[str],
    wanted: Callable[[Operation], bool],
) -> tuple[Operation, ...]:
    """Return what the readers of `path` feed, past `through`, if all of it is `wanted`."""
    found: dict[int, Operation] = {}
    for op in trace.graph.reading(path):
        for after in trace.graph.ahead(op, lambda o: o.kind in through):
            found[after.id] = after
    ops = tuple(found.values())
    return ops if ops and all(wanted(op) for op in ops) else ()


def centering(trace: Trace, path: str) -> tuple[Operation, ...]:
    """Return the normalizations that subtract each channel's mean right behind `path`."""
    return feeds_only(trace, path, _SHIFT_KEEPS, lambda op: centers_channels(trace, op))


def centers_channels(trace: Trace, op: Operation) -> bool:
    """Whether `op` subtracts the mean of every single channel, by the batch's own statistics.

    BatchNorm in training mode and InstanceNorm do. GroupNorm and LayerNorm take the mean
    over several channels, and a bias changes their differences, unless every channel is a
    group.
    """
    if op.kind == "batch_norm":
        return op.attributes.get("training") is not False
    if op.kind == "instance_norm":
        return True
    facts = trace.modules.get(op.module or "")
    if op.kind != "group_norm" or facts is None:
        return False
    groups, channels = facts.options.get("num_groups"), facts.options.get("num_channels")
    return groups is not None and groups == channels


def normalizing(trace: Trace, path: str) -> tuple[Operation, ...]:
    """Return the normalizations right behind the weight at `path`, if it feeds nothing else."""
    through = MOVES | {"parameter_add"}
    return feeds_only(trace, path, through, lambda op: op.kind in NORMALIZATIONS)


def zero_gates(trace: Trace) -> tuple[Operation, ...]:
    """Return the operations that pass no gradient at step 0, since their parameter is zero.

    The weight of a linear layer or convolution, the γ of a normalization, a ReZero scale.
    """
    return _gates(trace, lambda path: is_zero_at_start(trace, path))


def small_scales(trace: Trace, most: float) -> tuple[Operation, ...]:
    """Return the learned scales that start at no more than `most` (layer scale)."""

    def small(path: str) -> bool:
        return 0 < _largest_at_start(trace).get(path, 0.0) <= most

    return tuple(op for op in _gates(trace, small) if op.kind == "parameter_mul")


def _gates(trace: Trace, holds: Callable[[str], bool]) -> tuple[Operation, ...]:
    found = []
    for op in trace.graph:
        if op.in_loss:
            continue
        if op.kind in WEIGHTED:
            factors = [p for p in op.parameters if dimensions(trace, p) >= 2]
        elif op.kind in NORMALIZATIONS:
            factors = [p for p in op.parameters if p.rpartition(".")[2] in ("weight", "gamma")]
        elif op.kind == "parameter_mul":
            factors = list(op.parameters)
        else:
            continue
        if factors and all(holds(p) for p in factors):
            found.append(op)
    return tuple(found)


def reaches_loss_only_through(
    trace: Trace, path: str, gates: Iterable[Operation]
) -> tuple[Operation, ...]:
    """Return the `gates` behind `path`, if every way from its readers to the loss meets one."""
    graph = trace.graph
    closed = {op.id: op for op in gates}
    readers = graph.reading(path)
    met: dict[int, Operation] = {}
    seen: set[int] = set()
    stack = [after for op in readers if op.id not in closed for after in graph.consumers[op.id]]
    for op in readers:
        if op.id in closed:
            return ()
        if not graph.consumers[op.id]:
            return ()
    while stack:
        op = stack.pop()
        if op.id in closed:
            met[op.id] = op
            continue
        if op.in_loss or not graph.consumers[op.id]:
            return ()
        if op.id not in seen:
            seen.add(op.id)
            stack.extend(graph.consumers[op.id])
    return tuple(met.values())


def low_rank_partner(trace: Trace, path: str) -> str | None:
    """Return the zero weight B that alone reads what the weight A at `path` returns (LoRA)."""
    through = STRUCTURAL | {"scale"}
    ops = feeds_only(trace, path, through, lambda op: op.kind in WEIGHTED)
    partners = {p for op in ops for p in op.parameters if dimensions(trace, p) >= 2}
    if len(partners) != 1:
        return None
    partner = partners.pop()
    mine, other = trace.parameters.get(path), trace.parameters.get(partner)
    if mine is None or other is None or not is_zero_at_start(trace, partner):
        return None
    rank = mine.fan_out or mine.shape[0]
    narrow = rank < (mine.fan_in or mine.numel // rank) and rank < (other.fan_out or other.shape[0])
    return partner if narrow else None


def gradient_zero_at_start(trace: Trace, path: str) -> bool:
    """Whether the gradient was exactly zero at step 0, on every batch."""
    values = trace.of("gradient_norm").at(path).initial.values
    return bool(values) and not any(values)


def gets_going(trace: Trace, path: str, gates: Iterable[Operation]) -> bool:
    """Whether a gradient arrives after the first updates, or at least the gates have one."""
    later = trace.of("gradient_norm").at(path).training.values
    if later:
        return later[-1] != 0
    paths = [p for op in gates for p in op.parameters]
    return any((at_start(trace, "gradient_norm", p) or 0) > 0 for p in paths)
