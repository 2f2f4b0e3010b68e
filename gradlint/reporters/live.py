"""Live: what a loop does right now, as a few lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gradlint.reporters.charts import gauge, sparkline

BAND = (1e-3, 1e-1)
"""The documented band of ‖∇W‖/‖W‖: shown, not judged."""

WIDTH = 40
"""Columns of a curve."""


@dataclass(frozen=True)
class Moment:
    """What is known of a loop at one moment."""

    step: int = 0
    seconds: float = 0.0
    observed: int = 0
    loss: Sequence[float] = ()
    norm: Sequence[float] = ()
    rate: float | None = None
    clipped: float | None = None
    """Share of the steps whose gradients were clipped; None where nothing clips."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """‖∇W‖/‖W‖ of the latest looked-at step, by parameter."""
    said: Sequence[str] = ()
    """Certain faults, one line each."""


def panel(moment: Moment, *, worst: int = 3) -> RenderableType:
    """Return the lines that show `moment`; the `worst` layers are farthest from the band."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True)
    speed = moment.step / moment.seconds if moment.seconds > 0 else 0.0
    looked = f"looked at {moment.observed:,}"
    rows.add_row("step", f"{moment.step:,}", Text(f"{speed:.3g} a second · {looked}", "dim"))
    if moment.loss:
        rows.add_row("loss", f"{moment.loss[-1]:.4g}", sparkline(moment.loss, WIDTH))
    if moment.norm:
        rows.add_row("gradient norm", f"{moment.norm[-1]:.3g}", sparkline(moment.norm, WIDTH))
    if moment.rate is not None:
        rows.add_row("learning rate", f"{moment.rate:.3g}", "")
    if moment.clipped is not None:
        rows.add_row("clipped", f"{moment.clipped:.0%}", Text("of the steps", "dim"))
    for path, ratio in farthest(moment.ratios, worst):
        drawn = gauge(ratio, low=1e-6, high=1e2, band=BAND, width=21)
        rows.add_row("grad/weight", f"{ratio:.2g}", Text.assemble(drawn, "  ", (path, "dim")))
    lines: list[RenderableType] = [Text("gradlint", "bold"), rows]
    lines += [Text(f"✗ {text}", "bold red") for text in moment.said]
    return Group(*lines)


def farthest(ratios: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    """Return the `count` ratios farthest outside the band, in decades; none of those inside."""

    def outside(ratio: float) -> float:
        if not math.isfinite(ratio):
            return math.inf
        if ratio <= 0:
            return 0.0  # frozen, or not reached: the report says which
        return max(math.log10(BAND[0] / ratio), math.log10(ratio / BAND[1]), 0.0)

    known = sorted(ratios.items(), key=lambda item: -outside(item[1]))
    return [(path, ratio) for path, ratio in known[:count] if outside(ratio) > 0]
