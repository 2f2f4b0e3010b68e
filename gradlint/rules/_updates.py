"""Which weights count when updates are judged, and how far they moved."""

from __future__ import annotations

import math
import statistics

from gradlint.trace import ParameterFacts, Trace


def matrices(trace: Trace) -> list[ParameterFacts]:
    """Trainable weights of two dimensions or more that did not start at (nearly) zero.

    Embeddings are left out: only the rows of a batch move. A weight that starts near zero is
    replaced by its first updates, whatever the learning rate.
    """
    found = []
    for parameter in trace.parameters.values():
        if not parameter.requires_grad or len(parameter.shape) < 2 or parameter.numel < 2:
            continue
        if "Embedding" in trace.module_kind(parameter.module):
            continue
        start = trace.of("weight_rms").at(parameter.path).initial.first
        if start * math.sqrt(max(1, parameter.fan_in)) > 0.05:
            found.append(parameter)
    return found


def median_updates(trace: Trace, since: int, min_steps: int) -> dict[str, float]:
    """Median update-to-weight ratio of each matrix from step `since` on."""
    updates = trace.of("update_to_weight_ratio")
    medians: dict[str, float] = {}
    for parameter in matrices(trace):
        seen = [v for v in updates.at(parameter.path).since(since).values if not math.isnan(v)]
        if len(seen) >= min_steps:
            medians[parameter.path] = statistics.median(seen)
    return medians


def warming_up(trace: Trace) -> bool:
    """Whether the learning rate was still rising at the end of the watched steps."""
    rates = trace.of("learning_rate").at("").training.values
    return len(rates) >= 2 and rates[-1] > 1.5 * rates[0] and rates[-1] >= 0.99 * max(rates)
