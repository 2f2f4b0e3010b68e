"""Which batches hold one label only: merged facts no longer tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradlint.trace import TensorFacts

IGNORED = -100
"""What torch's losses ignore by default; the place of a label, and none."""


def target_values(batches: Sequence[tuple[TensorFacts, ...]]) -> Mapping[str, Any] | None:
    """Return how many batches hold one label only, and how many labels there were.

    Labels that losses ignore count for nothing.

    Args:
        batches: Facts of the targets of each batch; those of several targets tell nothing.

    Returns:
        "batches" seen, how many were "constant", different "values" of those, labels of the
        batch with the "fewest" and of "all", and whether some were "ignored"; None of no batch.
    """
    seen = [targets[0] for targets in batches if len(targets) == 1]
    if not seen:
        return None
    constant = [t for t in seen if t.unique == 1 or (t.unique == 2 and t.minimum == IGNORED)]
    counts = [_count(t) for t in seen]
    return {
        "batches": len(seen),
        "constant": len(constant),
        "values": len({t.maximum for t in constant}),
        "fewest": min(counts),
        "all": sum(counts),
        "ignored": any(t.minimum == IGNORED for t in constant),
    }


def _count(targets: TensorFacts) -> int:
    """Return the number of labels; exact where there is one beside those ignored."""
    count = math.prod(targets.shape)
    if targets.unique == 2 and targets.minimum == IGNORED:
        return round(count * (targets.mean - IGNORED) / (targets.maximum - IGNORED))
    return count
