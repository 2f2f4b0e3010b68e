"""The tables of a report: modules, parameters, series and gradient flow of a Trace, in short."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from gradlint.report_records import FlowRow, ModuleRow, ParameterRow
from gradlint.trace import Flow, ParameterFacts, Site, Trace

SERIES = (
    "loss", "total_gradient_norm", "learning_rate", "clipping_limit", "norm_before_clipping",
)  # fmt: skip
"""Metrics of the whole run that are reported step by step."""
HELD = frozenset({"clipping_limit"})
"""Those of them that hold until they change: only changes are reported."""


def typical(values: Sequence[float]) -> float:
    """The median of the finite values, or a non-finite one where those are the majority."""
    finite = [v for v in values if math.isfinite(v)]
    if len(finite) * 2 < len(values):
        return next(v for v in values if not math.isfinite(v))
    return statistics.median(finite) if finite else math.nan


class _Cell:
    """All values of one metric at one site, apart by phase."""

    __slots__ = ("initial", "training")

    def __init__(self) -> None:
        self.initial: list[float] = []
        self.training: list[tuple[int, float]] = []

    @property
    def metric(self) -> float:
        return typical(self.initial or [value for _, value in self.training])

    @property
    def latest(self) -> float:
        return max(self.training, key=lambda pair: pair[0])[1]


_Cells = dict[str, dict[str, _Cell]]


def _cells(trace: Trace) -> tuple[_Cells, dict[str, Site]]:
    cells: _Cells = {}
    sites: dict[str, Site] = {}
    for seen in trace:
        path = seen.site.path
        sites.setdefault(path, seen.site)
        cell = cells.setdefault(path, {}).setdefault(seen.metric, _Cell())
        if seen.step == 0:
            cell.initial.append(seen.value)
        else:
            cell.training.append((seen.step, seen.value))
    return cells, sites


def _summary(cells: Mapping[str, _Cell]) -> dict[str, dict[str, float]]:
    return {
        "metrics": {name: cell.metric for name, cell in cells.items()},
        "latest": {name: cell.latest for name, cell in cells.items() if cell.training},
    }


def main_parameters(trace: Trace) -> dict[str, ParameterFacts]:
    """Return the largest parameter of each module, matrices before vectors."""
    chosen: dict[str, ParameterFacts] = {}
    for facts in trace.parameters.values():
        other = chosen.get(facts.module)
        if other is None or _rank(facts) > _rank(other):
            chosen[facts.module] = facts
    return {module: facts for module, facts in chosen.items() if len(facts.shape) > 1}


def _rank(facts: ParameterFacts) -> tuple[bool, int]:
    return len(facts.shape) > 1, facts.numel


def tables(trace: Trace) -> tuple[tuple[ModuleRow, ...], tuple[ParameterRow, ...]]:
    """Return the modules in order of execution, and the parameters in order of the model."""
    cells, sites = _cells(trace)
    main = main_parameters(trace)
    rows: dict[str, ModuleRow] = {}
    for path, site in sites.items():
        if path and site.kind != "parameter":
            rows[path] = _module_row(trace, path, site, _summary(cells[path]))
    for path, facts in trace.modules.items():
        if path and path not in rows and facts.depth >= 0:
            rows[path] = ModuleRow(
                path=path, kind=facts.kind, depth=facts.depth, module=path, leaf=facts.leaf
            )
    for path, row in rows.items():
        ratio = cells.get(main[path].path, {}).get("gradient_ratio") if path in main else None
        if ratio is not None:
            extra = _summary({"gradient_ratio": ratio})
            rows[path] = row.model_copy(
                update={
                    "metrics": {**row.metrics, **extra["metrics"]},
                    "latest": {**row.latest, **extra["latest"]},
                }
            )
    parameters = [
        *(path for path in trace.parameters),
        *(p for p, s in sites.items() if s.kind == "parameter" and p not in trace.parameters),
    ]
    return (
        tuple(sorted(rows.values(), key=lambda row: row.depth)),
        tuple(_parameter_row(trace, path, cells.get(path, {}), sites) for path in parameters),
    )


def _module_row(
    trace: Trace, path: str, site: Site, summary: Mapping[str, dict[str, float]]
) -> ModuleRow:
    facts = trace.modules.get(path)
    return ModuleRow(
        path=path,
        kind=facts.kind if facts else site.kind,
        depth=site.depth,
        module=site.module or path,
        leaf=facts.leaf if facts else True,
        **summary,
    )


def _parameter_row(
    trace: Trace, path: str, cells: Mapping[str, _Cell], sites: Mapping[str, Site]
) -> ParameterRow:
    facts = trace.parameters.get(path)
    return ParameterRow(
        path=path,
        module=facts.module if facts else sites[path].module,
        shape=facts.shape if facts else (),
        trainable=facts.requires_grad if facts else True,
        **_summary(cells),
    )


def series_of(trace: Trace) -> dict[str, tuple[tuple[int, float], ...]]:
    """Return loss, gradient norm, learning rate and clipping, one value a step.

    Several batches of a step give their median, or the first non-finite value among them.
    """
    found: dict[str, tuple[tuple[int, float], ...]] = {}
    for name in SERIES:
        steps: dict[int, list[float]] = {}
        for seen in trace.of(name):
            steps.setdefault(seen.step, []).append(seen.value)
        if steps:
            points = [(step, _worst(values)) for step, values in sorted(steps.items())]
            found[name] = tuple(_changes(points) if name in HELD else points)
    return found


def _changes(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The first point, the last, and those that differ from the one before."""
    last = len(points) - 1
    return [
        point for i, point in enumerate(points) if i in (0, last) or point[1] != points[i - 1][1]
    ]


def _worst(values: Sequence[float]) -> float:
    for value in values:
        if not math.isfinite(value):
            return value
    return statistics.median(values)


def flow_of(flows: Iterable[Flow]) -> tuple[FlowRow, ...]:
    """Return the gradient's flow at the first observed step, one row a weight layer."""
    flows = tuple(flows)
    if not flows:
        return ()
    first = min(flow.step for flow in flows)
    places: dict[str, list[Flow]] = {}
    for flow in flows:
        if flow.step == first:
            places.setdefault(flow.site.path, []).append(flow)
    rows = [_flow_row(path, group) for path, group in places.items()]
    return tuple(sorted(rows, key=lambda row: row.depth))


def _flow_row(path: str, group: Sequence[Flow]) -> FlowRow:
    flow = sorted(group, key=lambda seen: seen.norm)[(len(group) - 1) // 2]
    return FlowRow(
        path=path,
        depth=flow.site.depth,
        norm=flow.norm,
        decades=dict(flow.decades),
        layers=dict(flow.layers),
    )
