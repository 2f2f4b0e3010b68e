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
    """Whether the learning rate was still rising, or stood where a schedule starts it.

    A schedule writes ``initial_lr`` into a fresh optimizer and sets its own first rate; `check`
    steps no schedule, so a warm-up stays at its first rate. A loop of the user's steps it: there
    the rates themselves tell.
    """
    optimizer = trace.facts.optimizer
    if (
        trace.facts.loop is None
        and optimizer is not None
        and optimizer.groups
        and not optimizer.has_state
    ):
        started = [(g.get("lr"), g.get("initial_lr")) for g in optimizer.groups]
        if all(a is not None and b is not None and a < 0.5 * b for a, b in started):
            return True
    rates = trace.of("learning_rate").at("").training.values
    return len(rates) >= 2 and rates[-1] > 1.5 * rates[0] and rates[-1] >= 0.99 * max(rates)
