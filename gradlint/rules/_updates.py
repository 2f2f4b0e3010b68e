"""Which weights count when updates are judged, and how far they moved."""

from __future__ import annotations

import math
import statistics

from gradlint.graph import WEIGHTED, Operation
from gradlint.rules._optimizer import given
from gradlint.rules._scale_free import divides_scale_out
from gradlint.trace import ParameterFacts, Trace

USUAL_RATE = 1e-3
"""The learning rate of torch.optim.Adam, AdamW and SGD where none is given."""

HALF_ULP = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
"""Largest relative change that rounding to the nearest number can undo."""


def matrices(trace: Trace) -> list[ParameterFacts]:
    """Trainable weights of two dimensions or more that did not start at (nearly) zero.

    Embeddings are left out: only the rows of a batch move. A weight that starts near zero is
    replaced by its first updates, whatever the learning rate. One whose output is multiplied by
    a constant does not where the product with that is far from it: SIREN's layers (Sitzmann et
    al. 2020) start at a thirtieth of the usual size, behind a factor of 30.
    """
    found = []
    for parameter in trace.parameters.values():
        if not parameter.requires_grad or len(parameter.shape) < 2 or parameter.numel < 2:
            continue
        if "Embedding" in trace.module_kind(parameter.module):
            continue
        start = trace.of("weight_rms").at(parameter.path).initial.first
        if start * math.sqrt(max(1, parameter.fan_in)) * _magnified(trace, parameter.path) > 0.05:
            found.append(parameter)
    return found


def _magnified(trace: Trace, path: str) -> float:
    """Return the constant above 1 that multiplies all a weight makes, the smallest; or 1."""
    graph = trace.graph
    readers = [op for op in graph.reading(path) if op.kind in WEIGHTED]
    following = [after for op in readers for after in graph.following(op)]
    return max(1.0, min((_factor(op) for op in following), default=1.0))


def _factor(op: Operation) -> float:
    """Return the size of the constant that an operation multiplies by; 1 of any other one."""
    factor = abs(float(op.attributes.get("scalar", 1.0)))
    return 1 / factor if factor and op.name.startswith("Div") else factor


def tables(trace: Trace) -> dict[str, float]:
    """Paths of trainable embeddings, with the share of the entries that a batch's rows hold.

    Left out where no gradient shows which rows are in use.
    """
    found = {}
    for parameter in trace.parameters.values():
        if parameter.requires_grad and "Embedding" in trace.module_kind(parameter.module):
            zeros = trace.of("gradient_zero_share").at(parameter.path).training.median
            if zeros < 1:
                found[parameter.path] = 1 - zeros
    return found


def median_updates(trace: Trace, since: int, min_steps: int) -> dict[str, float]:
    """Median update-to-weight ratio of each matrix from step `since` of its own on.

    A model that joins a loop later has first steps of its own.
    """
    updates = trace.of("update_to_weight_ratio").training
    medians: dict[str, float] = {}
    for parameter in matrices(trace):
        own = updates.at(parameter.path)
        late = min((o.step for o in own.observations), default=1) - 1
        seen = [v for v in own.since(late + since).values if not math.isnan(v)]
        if len(seen) >= min_steps:
            medians[parameter.path] = statistics.median(seen)
    return medians


def expected_update(trace: Trace, parameter: ParameterFacts) -> float | None:
    """Return the update-to-weight ratio that gradient and learning rate make; None if unknown."""
    optimizer = given(trace)
    rates = [o.value for o in trace.of("learning_rate").at("") if o.value > 0]
    rates += [r for r in (optimizer.learning_rates if optimizer else ()) if r > 0]
    norm = trace.of("weight_norm").at(parameter.path).median
    gradient = trace.of("gradient_norm").at(parameter.path).training.median
    if not rates or not norm > 0:
        return None
    if optimizer is not None and divides_scale_out(optimizer):
        entries = math.sqrt(parameter.numel)
        if gradient < 1e-6 * entries:
            return None  # near the optimizer's own eps: its update is not known
        return min(rates) * entries / norm
    return min(rates) * gradient / norm


def below_rounding(trace: Trace, parameter: ParameterFacts) -> bool:
    """Whether the update that is to be expected is lost in the rounding of the weights.

    If all entries' updates are below half a unit in the last place, so is the ratio of the
    norms; a factor of 10 is left for momentum and schedules.
    """
    if not trace.of("weight_norm").at(parameter.path).median > 0:
        return False  # zero has no rounding: the smallest update shows
    expected = expected_update(trace, parameter)
    return expected is None or expected < 10 * HALF_ULP.get(parameter.dtype, 2.0**-24)


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
