"""How a few metrics went from step to step at each weight layer: layers by steps, bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gradlint.report_records import History
from gradlint.report_tables import main_parameters, typical
from gradlint.trace import Trace

OF_PARAMETERS = ("gradient_ratio", "update_to_weight_ratio")
OF_MODULES = ("activation_std",)
COLUMNS = 40
"""Columns at most: neighboring steps become one, by their median."""
ROWS = 96
"""Layers at most: of more, an even choice with both ends."""


def history_of(trace: Trace) -> dict[str, History]:
    """Return, by metric, its values at each weight layer from step to step.

    Empty where fewer than two steps were looked at.
    """
    weights = {facts.path: module for module, facts in main_parameters(trace).items()}
    modules = {module: module for module in weights.values()}
    asked = [(name, weights) for name in OF_PARAMETERS]
    asked += [(name, modules) for name in OF_MODULES]
    found = {name: _history(trace, name, rows) for name, rows in asked}
    return {name: history for name, history in found.items() if history is not None}


def _history(trace: Trace, metric: str, rows: Mapping[str, str]) -> History | None:
    values: dict[str, dict[int, list[float]]] = {}
    depths: dict[str, int] = {}
    steps: set[int] = set()
    for seen in trace.of(metric):
        row = rows.get(seen.site.path)
        if row is not None:
            values.setdefault(row, {}).setdefault(seen.step, []).append(seen.value)
            depths.setdefault(row, seen.site.depth)
            steps.add(seen.step)
    if len(steps) < 2:
        return None
    columns = _columns(sorted(steps))
    layers = sorted(values, key=depths.__getitem__)
    return History(
        steps=tuple(column[0] for column in columns),
        rows={
            layer: tuple(_cell(values[layer], column) for column in columns)
            for layer in _even(layers, ROWS)
        },
    )


def _columns(steps: Sequence[int]) -> list[list[int]]:
    count = min(COLUMNS, len(steps))
    columns: list[list[int]] = [[] for _ in range(count)]
    for i, step in enumerate(steps):
        columns[i * count // len(steps)].append(step)
    return columns


def _cell(values: Mapping[int, Sequence[float]], column: Sequence[int]) -> float | None:
    seen = [value for step in column for value in values.get(step, ())]
    if not seen:
        return None
    value = next((v for v in seen if not math.isfinite(v)), None)
    return float(f"{typical(seen):.3g}") if value is None else value


def _even(layers: Sequence[str], count: int) -> list[str]:
    if len(layers) <= count:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (count - 1))] for i in range(count)]
