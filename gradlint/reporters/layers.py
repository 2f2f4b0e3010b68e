"""The health of a model layer by layer, in execution order, with its two profiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.report_records import ModuleRow
from gradlint.reporters import charts
from gradlint.reporters.base import Options, number

STD_BAND = (0.5, 2.0)
RATIO_BAND = (1e-3, 1e-1)
"""The documented bands: shown for every layer, judged by rules alone."""
LEGEND = "std 0.5 to 2, ‖gradient‖/‖weight‖ 1e-3 to 1e-1"

FEW_GAPS = 2
SHORT, LONG = 8, 16
"""Rows shown of a healthy and of a sick model, where it has more."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight layer with the activation behind it."""

    path: str
    kind: str
    activation: str
    std: float | None
    rms: float | None
    ratio: float | None
    dead: float | None
    gradient: float | None
    places: frozenset[str]


def layers_of(report: Report) -> list[Layer]:
    """Return the weight layers of `report`, in execution order."""
    return [_layer(group) for group in groups_of(report)]


def groups_of(report: Report) -> list[list[ModuleRow]]:
    """Return the rows of each weight layer, with those of the activations behind it."""
    groups: list[list[ModuleRow]] = []
    for row in report.modules:
        if "gradient_ratio" in row.metrics:
            groups.append([row])
        elif groups and row.leaf and _is_activation(row):
            groups[-1].append(row)
    return groups


def _is_activation(row: ModuleRow) -> bool:
    return "dead_fraction" in row.metrics or "saturated_share" in row.metrics


def _layer(group: Sequence[ModuleRow]) -> Layer:
    first, last = group[0], group[-1]
    dead = [row.latest.get("dead_fraction", row.metrics.get("dead_fraction")) for row in group]
    return Layer(
        path=first.path,
        kind=first.kind,
        activation=last.kind if len(group) > 1 else "",
        std=last.metrics.get("activation_std", first.metrics.get("activation_std")),
        rms=last.metrics.get("activation_rms", first.metrics.get("activation_rms")),
        ratio=first.latest.get("gradient_ratio", first.metrics.get("gradient_ratio")),
        dead=max((d for d in dead if d is not None), default=None),
        gradient=first.metrics.get(
            "pre_activation_grad_norm", first.metrics.get("activation_grad_norm")
        ),
        places=frozenset(p for row in group for p in (row.path, row.module)),
    )


def shown(layers: Sequence[Layer], named: frozenset[str], limit: int) -> list[int]:
    """Return which of `layers` to show: both ends, and of those in `named` an even choice."""
    if len(layers) <= limit + 2:
        return list(range(len(layers)))
    concerned = [i for i, layer in enumerate(layers) if layer.places & named]
    ends = limit // 4 if concerned else limit // 2
    chosen = {*range(ends), *range(len(layers) - ends, len(layers))}
    middle = [i for i in concerned if i not in chosen]
    room = min(limit - len(chosen), len(middle))
    chosen |= {middle[(2 * i + 1) * len(middle) // (2 * room)] for i in range(room)}
    return sorted(chosen)


def elide(path: str, width: int) -> str:
    """Return `path`, shortened in its middle to `width` characters."""
    if len(path) <= width:
        return path
    tail = (width - 1) * 2 // 3
    return f"{path[: width - 1 - tail]}…{path[len(path) - tail :]}"


def draw_layers(console: Console, report: Report, options: Options) -> None:
    """Draw the health table, and beneath it the signal and the gradient over depth."""
    layers = layers_of(report)
    if layers:
        console.print()
        _draw_table(console, layers, report, options)
        _draw_profiles(console, layers, report, options)


def _draw_table(
    console: Console, layers: Sequence[Layer], report: Report, options: Options
) -> None:
    grave = [found for found in report.findings if found.severity > Severity.NOTE]
    named = frozenset(module for found in grave for module in found.modules)
    limit = SHORT if report.verdict == "healthy" else LONG
    rows = shown(layers, named, len(layers) if options.verbose else limit)
    has_dead = any(layer.dead is not None for layer in layers)
    room = options.width - 2 - 9 - 1 - 7 - 2 - 13 - 1 - 7 - (6 if has_dead else 0) - 2
    kinds = max(len(_kinds(layers[i])) for i in rows)
    paths = min(max(len(layers[i].path) for i in rows), max(room, 12))
    kinds = kinds if paths + 1 + kinds <= room else 0

    table = Table.grid(padding=(0, 1))
    table.add_column(width=max(paths, 10), no_wrap=True)
    table.add_column(width=kinds, no_wrap=True, style="dim")
    for width in (9, 7, 0, 13, 7, 4):
        side: JustifyMethod = "right" if width in (7, 4) else "left"
        table.add_column(width=width, no_wrap=True, justify=side)
    heads = ("layer", "", "std", "", "", "grad/weight", "", "dead" if has_dead else "")
    table.add_row(*(Text(head, "dim") for head in heads))
    gaps = [i for i, (this, then) in enumerate(pairwise(rows)) if then > this + 1]
    for place, index in enumerate(rows):
        table.add_row(*_cells(layers[index], paths, kinds))
        if place in gaps and len(gaps) <= FEW_GAPS:
            table.add_row(Text(f"⋮ {rows[place + 1] - index - 1} more", "dim"))
    console.print(Padding(table, (0, 0, 0, 2)))
    part = f"{len(rows)} of {len(layers)} layers (-v: all); " if len(gaps) > FEW_GAPS else ""
    console.print(Text(f"  {part}─ marks {LEGEND}", "dim"))


def _kinds(layer: Layer) -> str:
    return f"{layer.kind} {layer.activation}".strip()


def _cells(layer: Layer, paths: int, kinds: int) -> Iterator[Text]:
    yield Text(elide(layer.path, paths))
    yield Text(_kinds(layer)[:kinds])
    yield charts.gauge(layer.std, low=1e-2, high=1e2, band=STD_BAND, width=9)
    yield _value(layer.std)
    yield Text("")
    yield charts.gauge(layer.ratio, low=1e-6, high=1e2, band=RATIO_BAND, width=13)
    yield _value(layer.ratio)
    yield Text("" if layer.dead is None else f"{layer.dead:.0%}")


def _value(value: float | None) -> Text:
    if value is None:
        return Text("")
    return Text(number(value), "" if math.isfinite(value) and value > 0 else "red")


def _draw_profiles(
    console: Console, layers: Sequence[Layer], report: Report, options: Options
) -> None:
    """Draw each profile as a line, or as a chart where it falls or grows by decades."""
    profiles = (
        ("signal", "activation RMS", [layer.rms for layer in layers]),
        ("gradient", "gradient norm", [layer.gradient for layer in layers]),
    )
    for name, unit, column in profiles:
        values = [value for value in column if value is not None]
        if len(values) < 3:
            continue
        faults = any(not math.isfinite(v) or v <= 0 for v in values)
        steep = charts.decades(values) >= 3 or (faults and charts.decades(values) > 0)
        first, last = number(values[0]), number(values[-1])
        if steep and report.verdict != "healthy":
            console.print()
            console.print(f"  {unit}: {first} at the first layer, {last} at the last")
            for line in charts.curve(values, width=min(options.width - 4, 70)):
                console.print(Text(f"  {line}", "cyan"))
        else:
            line = charts.profile(values, width=max(8, min(32, options.width - 44)))
            console.print(
                Text.assemble(f"  {name:<9}", (line, "cyan"), f"  {unit} {first} → {last}")
            )
