"""The weight layers of a report, each with its numbers at the beginning and at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gradlint.finding import Severity
from gradlint.health import MEASURES
from gradlint.report import Report
from gradlint.report_records import ModuleRow, ParameterRow
from gradlint.reporters.layers import groups_of

QUANTILES = tuple(f"gradient_magnitude_p{share:02}" for share in (5, 25, 50, 75, 95))

Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """A weight layer with the activation behind it: `first` at initialization, `last` later.

    `marks` are the numbers that are outside of their documented band, `findings` the codes of
    the findings that name the layer, notes aside.
    """

    index: int
    path: str
    kind: str
    activation: str
    shape: tuple[int, ...]
    first: Numbers
    last: Numbers
    quantiles: tuple[float, ...] = ()
    marks: frozenset[str] = frozenset()
    findings: tuple[str, ...] = field(default=())

    def now(self, name: str) -> float | None:
        """Return the latest value there is."""
        return self.last.get(name, self.first.get(name))


def rows_of(report: Report) -> list[Row]:
    """Return the weight layers of `report`, in execution order."""
    weights: dict[str, ParameterRow] = {}
    for parameter in report.parameters:
        other = weights.get(parameter.module)
        if other is None or math.prod(parameter.shape) > math.prod(other.shape):
            weights[parameter.module] = parameter
    grave = [f for f in report.findings if f.severity > Severity.NOTE]
    rows = []
    for index, group in enumerate(groups_of(report)):
        places = {place for row in group for place in (row.path, row.module)}
        codes = dict.fromkeys(f.code for f in grave if places & set(f.modules))
        rows.append(_row(index, group, weights.get(group[0].path), tuple(codes)))
    return rows


def _row(
    index: int, group: Sequence[ModuleRow], weight: ParameterRow | None, codes: tuple[str, ...]
) -> Row:
    layer, behind = group[0], group[-1]
    first = _numbers(layer.metrics, behind.metrics, weight.metrics if weight else {})
    last = _numbers(layer.latest, behind.latest, weight.latest if weight else {})
    for name in ("dead_fraction", "saturated_share"):
        seen = [
            v for row in group if (v := row.latest.get(name, row.metrics.get(name))) is not None
        ]
        if seen:
            last[name] = max(seen)
    metrics = weight.metrics if weight else {}
    return Row(
        index=index,
        path=layer.path,
        kind=layer.kind,
        activation=behind.kind if len(group) > 1 else "",
        shape=weight.shape if weight else (),
        first=first,
        last=last,
        quantiles=tuple(metrics[name] for name in QUANTILES if name in metrics),
        marks=frozenset(
            name for name in MEASURES if outside(name, last.get(name, first.get(name)))
        ),
        findings=codes,
    )


def _numbers(layer: Numbers, behind: Numbers, weight: Numbers) -> dict[str, float]:
    gradient = layer.get("pre_activation_grad_norm", layer.get("activation_grad_norm"))
    std = behind.get("activation_std", layer.get("activation_std"))
    found = {
        "gradient_norm": gradient,
        "activation_std": std,
        "gradient_ratio": layer.get("gradient_ratio"),
        "update_to_weight_ratio": weight.get("update_to_weight_ratio"),
    }
    return {name: value for name, value in found.items() if value is not None}


def outside(name: str, value: float | None) -> bool:
    """Return whether `value` is outside of the documented band of the metric `name`."""
    band = MEASURES[name].band
    if value is None or band is None:
        return False
    return not band[0] <= value <= band[1]
