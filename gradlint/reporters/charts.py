"""Small drawings in text: bars, gauges, sparklines and curves on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

LEVELS = "▁▂▃▄▅▆▇█"
EIGHTHS = "▏▎▍▌▋▊▉█"
NOT_FINITE = "×"
ZERO = "0"
LEVEL = 4 / 7
"""Where on its scale a level line is drawn: on a block, not between two."""


def bar(share: float, width: int) -> str:
    """Return a horizontal bar of `share` (0 to 1) of `width` columns, in eighths."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if eighths == 0 and share > 0:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return "█" * full + (EIGHTHS[rest - 1] if rest else "")


def gauge(
    value: float | None, *, low: float, high: float, band: tuple[float, float], width: int
) -> Text:
    """Return where `value` lies between `low` and `high`, on a logarithmic scale.

    The band is drawn as a line, what is outside of it as dots; a value beyond the scale
    shows as an arrow at its end.
    """
    span = math.log10(high / low)

    def column(x: float) -> int:
        return round(math.log10(x / low) / span * (width - 1))

    left, right = column(band[0]), column(band[1])
    scale = Text("".join("─" if left <= i <= right else "·" for i in range(width)), "dim")
    if value is None or math.isnan(value):
        return scale
    inside = band[0] <= value <= band[1]
    mark, place = "●", 0
    if value > high:
        mark, place = "›", width - 1
    elif value < low:
        mark, place = "‹", 0
    else:
        place = column(value)
    marked = Text(mark, "green" if inside else "yellow")
    return Text.assemble(scale[:place], marked, scale[place + 1 :])


def _logs(values: Sequence[float]) -> list[float]:
    return [math.log10(v) for v in values if math.isfinite(v) and v > 0]


def decades(values: Sequence[float]) -> float:
    """Return how many decades the positive, finite ones of `values` span."""
    logs = _logs(values)
    return max(logs) - min(logs) if logs else 0.0


def buckets(values: Sequence[float], width: int) -> list[float]:
    """Return at most `width` values: the geometric means of neighbors, faults kept."""
    if len(values) <= width:
        return list(values)
    groups: list[list[float]] = [[] for _ in range(width)]
    for i, value in enumerate(values):
        groups[i * width // len(values)].append(value)
    return [_mean(group) for group in groups]


def _mean(group: Sequence[float]) -> float:
    for value in group:
        if not math.isfinite(value):
            return value
    logs = _logs(group)
    return 10 ** (sum(logs) / len(logs)) if logs else 0.0


def profile(values: Sequence[float], width: int = 40, least: float = 2.0) -> str:
    """Return one row of blocks for positive `values`, on a logarithmic scale.

    The scale spans `least` decades at least, so that what is level looks level.
    """
    values = buckets(values, width)
    low, high = _range(values, least)
    return "".join(_symbol(v) or LEVELS[_level(v, low, high, len(LEVELS) - 1)] for v in values)


def sparkline(values: Sequence[float], width: int) -> str:
    """Return one row of blocks for `values` of any sign, on a linear scale.

    What changes by less than a twentieth of itself looks level.
    """
    values = [values[i * len(values) // width] for i in range(width)][: len(values)]
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    least = max(abs(low), abs(high)) / 20 or 1.0
    slack = max(0.0, least - (high - low))
    span = high - low + slack
    return "".join(
        LEVELS[round((v - low + slack * LEVEL) / span * 7)] if math.isfinite(v) else NOT_FINITE
        for v in values
    )


def _range(values: Sequence[float], least: float) -> tuple[float, float]:
    logs = _logs(values) or [0.0]
    low, high = min(logs), max(logs)
    slack = max(0.0, least - (high - low))
    return low - slack * LEVEL, high + slack * (1 - LEVEL)


def _level(value: float, low: float, high: float, top: int) -> int:
    return round((math.log10(value) - low) / (high - low) * top)


def _symbol(value: float) -> str:
    if not math.isfinite(value):
        return NOT_FINITE
    return ZERO if value <= 0 else ""


def curve(values: Sequence[float], *, width: int, height: int = 5) -> list[str]:
    """Return a bar chart of positive `values` on a logarithmic scale, with a labeled axis."""
    label = 6
    values = buckets(values, max(8, width - label - 2))
    stretch = max(1, min(4, (width - label - 2) // len(values)))
    low, high = _range(values, 1.0)
    rows = []
    for row in reversed(range(height)):
        cells = "".join(_cell(v, row, height, low, high) * stretch for v in values)
        power = round(low + (high - low) * row / (height - 1))
        named = row in (0, height - 1, height // 2)
        rows.append((f"1e{power:+03d} ┤" if named else "      │") + cells)
    return rows


def _cell(value: float, row: int, height: int, low: float, high: float) -> str:
    symbol = _symbol(value)
    if symbol:
        return symbol if row == 0 else " "
    eighths = 1 + _level(value, low, high, height * 8 - 1)
    rest = eighths - row * 8
    return " " if rest <= 0 else LEVELS[min(rest, 8) - 1]
