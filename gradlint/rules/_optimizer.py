"""What rules ask of an optimizer and of the parameters it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gradlint.rules._scale_free import divides_scale_out
from gradlint.trace import OptimizerFacts, ParameterFacts, Trace


def given(trace: Trace) -> OptimizerFacts | None:
    """Return the user's optimizer; None where there is none, or gradlint's own stands in."""
    optimizer = trace.facts.optimizer
    return None if optimizer is None or optimizer.probe else optimizer


def steps(trace: Trace) -> bool:
    """Whether the weights were updated as the user does it: by their optimizer, or by hand."""
    loop = trace.facts.loop
    return given(trace) is not None or (loop is not None and loop.by_hand)


def rescales(trace: Trace) -> bool:
    """Whether the user's optimizer divides the gradient's scale out."""
    optimizer = given(trace)
    return optimizer is not None and divides_scale_out(optimizer)


def maximizes(trace: Trace) -> bool:
    """Whether the user's optimizer climbs instead of descending."""
    optimizer = given(trace)
    return optimizer is not None and any(group.get("maximize") for group in optimizer.groups)


NOT_GIVEN = "no optimizer was given"


def is_copy(path: str, group: Sequence[ParameterFacts], others: Sequence[ParameterFacts]) -> bool:
    """Whether `others` hold the same parameters by name and shape elsewhere (EMA, target).

    Layers of one kind in a row look alike too: single layers and numbered ones do not count.
    """
    if len(group) < 3 or path.rpartition(".")[2].isdigit():
        return False
    start = len(path) + 1 if path else 0
    mine = Counter((p.path[start:], p.shape) for p in group)
    tail = f".{group[0].path[start:]}"
    prefixes = {p.path[: 1 - len(tail)] for p in others if p.path.endswith(tail)}
    return any(
        mine == Counter((p.path[len(x) :], p.shape) for p in others if p.path.startswith(x))
        for x in prefixes
    )


def topmost(
    members: Sequence[ParameterFacts], others: Sequence[ParameterFacts]
) -> dict[str, list[ParameterFacts]]:
    """Group `members` by the highest module that holds none of `others`."""
    partly = {path for p in others for path in lineage(p.module)}
    groups: dict[str, list[ParameterFacts]] = {}
    for parameter in members:
        above = [path for path in lineage(parameter.module) if path not in partly]
        groups.setdefault(above[0] if above else parameter.module, []).append(parameter)
    return groups


def lineage(path: str) -> list[str]:
    """Paths from the model down to `path` itself."""
    parts = path.split(".") if path else []
    return ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))]
