"""The metrics: every module in this folder that defines one. Tensors in, scalar tensors out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from gradlint.metrics.base import Metric, Tap

__all__ = ["Metric", "Tap", "all_metrics", "metrics_at"]


@cache
def all_metrics() -> Mapping[str, Metric]:
    """Return every metric by its name."""
    found: dict[str, Metric] = {}
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name == "base":
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.update(
            (value.name, value) for value in vars(module).values() if isinstance(value, Metric)
        )
    return found


@cache
def metrics_at(tap: Tap) -> tuple[Metric, ...]:
    """Return the metrics that read the tensor at `tap`."""
    return tuple(metric for metric in all_metrics().values() if metric.tap is tap)
