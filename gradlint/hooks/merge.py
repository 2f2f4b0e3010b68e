"""Facts of several batches as facts of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradlint.hooks.tensor_facts import merged
from gradlint.trace import LossFacts, TensorFacts


def merged_losses(found: list[LossFacts]) -> list[LossFacts]:
    """Merge the facts of one loss over batches, so that the widest ranges are known.

    Mean and spread of an output stay those of the first batch: updates move the later ones.
    """
    by_place: dict[tuple[str, int | None], LossFacts] = {}
    for facts in found:
        key = (facts.kind, facts.operation)
        known = by_place.get(key)
        if known is None:
            by_place[key] = facts
            continue
        by_place[key] = replace(
            known,
            output=_as_at_first(known.output, _widest(known.output, facts.output)),
            target=_widest(known.target, facts.target),
            row_sum_min=_of(min, known.row_sum_min, facts.row_sum_min),
            row_sum_max=_of(max, known.row_sum_max, facts.row_sum_max),
        )
    return list(by_place.values())


def _of(choose: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    return choose(a, b) if a is not None and b is not None else (a if b is None else b)


def _as_at_first(first: TensorFacts | None, wide: TensorFacts | None) -> TensorFacts | None:
    if first is None or wide is None:
        return wide
    return replace(wide, mean=first.mean, std=first.std)


def _widest(a: TensorFacts | None, b: TensorFacts | None) -> TensorFacts | None:
    if a is None or b is None:
        return a or b
    return merged([(a,), (b,)])[0]
