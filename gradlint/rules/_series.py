"""What rules ask of a watched training loop: its series, its clipping, its spikes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gradlint.rules._updates import median_updates
from gradlint.trace import Trace

NO_CLIPPING = "no clipping seen"
NO_SCALER = "no GradScaler seen"


def points(trace: Trace, metric: str, path: str = "") -> list[tuple[int, float]]:
    """Finite values of `metric` at the training steps, one a step, in order of the steps."""
    seen = trace.of(metric).at(path).training
    return sorted({o.step: o.value for o in seen if math.isfinite(o.value)}.items())


def clippings(trace: Trace) -> list[tuple[int, float, float]]:
    """Steps that clipped by norm, each with the norm before it and the limit.

    A call with an infinite limit only measures the norm, and is left out.
    """
    limits = dict(points(trace, "clipping_limit"))
    norms = points(trace, "norm_before_clipping")
    return [(step, norm, limits[step]) for step, norm in norms if limits.get(step, 0) > 0]


def quantile(values: Sequence[float], share: float) -> float:
    """Smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def usual_update(trace: Trace, since: int = 1, min_steps: int = 3) -> float:
    """Median over the weight matrices of their median update-to-weight ratio; NaN if unknown."""
    medians = median_updates(trace, since, min_steps)
    return statistics.median(medians.values()) if medians else math.nan


@dataclass(frozen=True, slots=True)
class Spike:
    """A value far above those before it, after which they came back."""

    step: int
    value: float
    usual: float


_BEFORE = 20
_FIRST = 10
_AFTER = 5
_SIGMAS = 6.0


def spikes(series: Sequence[tuple[int, float]], factor: float) -> list[Spike]:
    """Return the values above `factor` times the median of the twenty before them.

    A spike is also above all of the first ten values (the gradient of a fitted model is small,
    and varies by decades), is six robust deviations of the logarithm above those before it, and
    one of the next five is below a third of it: what stays up has diverged.
    """
    found = []
    for i in range(_FIRST, len(series)):
        step, value = series[i]
        before = [v for _, v in series[max(0, i - _BEFORE) : i] if v > 0]
        after = [v for _, v in series[i + 1 : i + 1 + _AFTER]]
        if len(before) < _FIRST or not after:
            continue
        usual = statistics.median(before)
        if value <= factor * usual or value <= max(v for _, v in series[:_FIRST]):
            continue
        logs = [math.log(v / usual) for v in before]
        spread = 1.4826 * statistics.median(abs(x) for x in logs)
        if math.log(value / usual) > _SIGMAS * spread and min(after) < value / 3:
            found.append(Spike(step, value, usual))
    return found
