"""A long run of many layers, to see what a page makes of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from gradlint.report import build_report
from gradlint.reporters.html.rows import QUANTILES
from gradlint.trace import (
    MODEL,
    Facts,
    Flow,
    ModuleFacts,
    Observation,
    ParameterFacts,
    Site,
    Trace,
)

LOOKS = 50


def _named(i: int) -> str:
    return f"model.encoder.layers.{i // 4}.block.{('q', 'k', 'v', 'out')[i % 4]}_proj"


def long_run(
    layers: int,
    steps: int,
    *,
    nan_from: int | None = None,
    name: Callable[[int], str] = _named,
    report: bool = True,
) -> Any:
    """Return the report (or the trace) of a run whose first layers have small gradients."""
    chance = random.Random(0)
    paths = [name(i) for i in range(layers)]
    seen = [o for i, path in enumerate(paths) for o in _layer(i, path, steps, nan_from, chance)]
    seen += _series(steps, nan_from, chance)
    blame = {path: chance.gauss(0, 0.3) for path in paths}
    flows = tuple(
        Flow(
            step=0,
            site=Site(path, "Linear", 2 * i, path),
            decades={"weights": -0.2, "GELU": 0.1, "loss": -1.0},
            layers=blame if i == 0 else {},
            norm=1.0,
        )
        for i, path in enumerate(paths)
    )
    trace = Trace(
        seen,
        modules={path: ModuleFacts(path, "Linear", 2 * i, 1) for i, path in enumerate(paths)},
        parameters={
            f"{path}.weight": ParameterFacts(f"{path}.weight", (96, 96), module=path)
            for path in paths
        },
        facts=Facts(flows=flows),
    )
    return build_report([], trace=trace, target={"path": "big.py"}) if report else trace


def _layer(
    i: int, path: str, steps: int, nan_from: int | None, chance: random.Random
) -> Iterator[Observation]:
    weight = Site(f"{path}.weight", "parameter", 2 * i, path)
    module = Site(path, "Linear", 2 * i, path)
    behind = Site(f"{path}:gelu", "gelu", 2 * i + 1, path)
    size = 10 ** (-3 * math.exp(-i / 40) + chance.gauss(0, 0.15) - 1.5)
    for place, quantile in enumerate(QUANTILES):
        yield Observation(quantile, weight, 0, size * 10 ** ((place - 2) * 0.7 - 3))
    yield Observation("pre_activation_grad_norm", module, 0, size)
    yield Observation("dead_fraction", behind, 0, 0.02)
    for step in range(0, steps + 1, max(1, steps // LOOKS)):
        broken = nan_from is not None and step >= nan_from
        ratio = math.nan if broken else size * 10 ** chance.gauss(0, 0.1)
        yield Observation("gradient_ratio", weight, step, ratio)
        yield Observation("activation_std", module, step, 10 ** (0.3 * math.sin(i / 30)))
        if step:
            yield Observation("update_to_weight_ratio", weight, step, 1e-3)


def _series(steps: int, nan_from: int | None, chance: random.Random) -> Iterator[Observation]:
    for step in range(steps + 1):
        broken = nan_from is not None and step >= nan_from
        loss = 2.3 * math.exp(-3 * step / steps) + abs(chance.gauss(0, 0.03))
        yield Observation("loss", MODEL, step, math.nan if broken else loss)
        yield Observation("total_gradient_norm", MODEL, step, math.nan if broken else 0.7)
        yield Observation("norm_before_clipping", MODEL, step, 0.7 + abs(chance.gauss(0, 0.9)))
        yield Observation("clipping_limit", MODEL, step, 1.0)
        yield Observation("learning_rate", MODEL, step, 1e-3 * (1 - step / (steps + 1)))
