"""Operations whose derivative is zero everywhere, and the parameters they starve. No rule here."""

from __future__ import annotations

from gradlint.graph import Operation
from gradlint.trace import ParameterFacts, Trace

STEPS = frozenset({"round", "floor", "ceil", "trunc", "sign", "sgn"})
"""Step functions: torch returns zeros for their derivative."""


def starved(trace: Trace) -> tuple[Operation, list[ParameterFacts]] | None:
    """Return a step function and the trainable parameters whose gradient it makes zero.

    Those reach the loss through such functions alone, and had a gradient of exactly zero
    whenever one was observed. A straight-through estimator leads around its step.
    """
    blockers = trace.graph.of_kind(*STEPS)
    gradients = trace.of("gradient_norm")
    found = [
        parameter
        for parameter in trace.parameters.values()
        if parameter.requires_grad
        and (seen := gradients.at(parameter.path).values)
        and not any(seen)
        and _only_through_steps(trace, parameter)
    ]
    return (blockers[0], found) if found else None


def _only_through_steps(trace: Trace, parameter: ParameterFacts) -> bool:
    """Whether every way from a parameter to the loss leads through a step function."""
    graph = trace.graph
    readers = [op for path in (parameter.path, *parameter.aliases) for op in graph.reading(path)]
    stack, seen, blocked = list(readers), {op.id for op in readers}, False
    while stack:
        op = stack.pop()
        if op.kind in STEPS:
            blocked = True
            continue
        following = graph.consumers[op.id]
        if not following:
            return False
        for after in following:
            if after.id not in seen:
                seen.add(after.id)
                stack.append(after)
    return blocked
