"""Which operations are dropout: on a CPU it is a product with a mask."""

from __future__ import annotations

from gradlint.graph import Operation
from gradlint.trace import Trace


def rate(trace: Trace, op: Operation) -> float | None:
    """Return the dropout rate of `op`; None where it is none, or the rate is not known."""
    if op.kind not in ("dropout", "mask"):
        return None
    facts = trace.modules.get(op.module) if op.module else None
    if facts is not None and "Dropout" in facts.kind and facts.training:
        value = facts.options.get("p")
        return float(value) if isinstance(value, (int, float)) else None
    return None


def is_dropout(trace: Trace, op: Operation) -> bool:
    """Whether `op` drops entries at random."""
    known = rate(trace, op)
    return known > 0 if known is not None else op.kind == "dropout"
