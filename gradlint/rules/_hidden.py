"""Which activations are hidden ones. No rule here."""

from __future__ import annotations

from gradlint.graph import ACTIVATIONS, Operation
from gradlint.trace import Trace


def hidden_activations(trace: Trace) -> tuple[Operation, ...]:
    """Return the model's activations that are no gates and not its output, one for each site."""
    found: dict[str, Operation] = {}
    for op in trace.graph:
        outside = op.in_loss or op.id in trace.graph.output_ids
        if op.kind in ACTIVATIONS and not outside and not op.attributes.get("gate"):
            found.setdefault(op.site, op)
    return tuple(found.values())
