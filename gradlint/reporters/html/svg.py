"""SVG by hand: elements, scales with ticks, a panel with axes, a band and lines.

Colors are classes of `style.css`, so that a drawing follows the page into the dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile

from markupsafe import Markup

from gradlint.reporters.base import number

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
Point = tuple[float, float]


def tag(name: str, *inside: str | Markup, **attributes: object) -> Markup:
    """Return an element; everything in it that is no markup is escaped.

    Attributes lose a trailing underscore, and other underscores become hyphens.
    """
    named = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    body = Markup("").join(inside)
    return Markup("<{0}{1}>{2}</{0}>").format(name, named, body)


def _short(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def drawing(
    title: str, description: str, parts: Iterable[Markup], *, width: int, height: int
) -> Markup:
    """Return an SVG that scales with the page, with its alternatives for those who hear it."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"{title}. {description}",
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "") -> Markup:
    """Return words at a place."""
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=class_ or None)


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to heights, linear or logarithmic; what is beyond it is at its edge."""

    low: float
    high: float
    log: bool = False
    zero: bool = False
    """Whether the lowest decade of a logarithmic scale stands for zeros."""
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM

    @classmethod
    def over(
        cls, values: Iterable[float], *, log: bool, least: float = 2.0, most: float = 24.0
    ) -> Scale:
        """Return a scale that holds `values`; a logarithmic one spans whole decades.

        `least` decades at least, so that what is level looks level; `most` at most, the
        lowest are then beyond it. A linear scale starts at 0 where all are positive.
        """
        values = list(values)
        finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        if log:
            zero = any(v == 0 for v in values)
            logs = [math.log10(v) for v in finite] or [0.0]
            return cls._of_decades(logs, least, most, zero=zero)
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        if 0 < low < high / 2:
            low = 0.0
        if high <= low:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        return cls(low, high + (high - low) * 0.05)

    @classmethod
    def _of_decades(cls, logs: Sequence[float], least: float, most: float, *, zero: bool) -> Scale:
        low, high = math.floor(min(logs)), math.ceil(max(logs))
        middle = (min(logs) + max(logs)) / 2
        while high - low < least:
            low, high = (low - 1, high) if middle - low < high - middle else (low, high + 1)
        return cls(max(low, high - most) - zero, high, log=True, zero=zero)

    def y(self, value: float) -> float:
        """Return the height of `value`."""
        if self.log:
            value = math.log10(value) if value > 0 else -math.inf
        share = (value - self.low) / (self.high - self.low)
        return self.bottom - max(0.0, min(1.0, share)) * (self.bottom - self.top)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round values and their labels, at most six."""
        if self.log:
            step = max(1, math.ceil((self.high - self.low) / 5))
            first = math.ceil(self.low / step) * step
            powers = [*range(first, math.floor(self.high) + 1, step)]
            if self.zero:
                powers = [p for p in powers if p > self.low]
            return [(0.0, "0")] * self.zero + [(10.0**p, _power(p)) for p in powers]
        step_size = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step_size - 1e-9)
        last = math.floor(self.high / step_size + 1e-9)
        return [(i * step_size, _plain(i * step_size)) for i in range(first, last + 1)]


def _power(power: int) -> str:
    return {-2: "0.01", -1: "0.1", 0: "1", 1: "10", 2: "100"}.get(power, f"1e{power}")


def _plain(value: float) -> str:
    return f"{value:.6g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.3g}"


def _round_step(least: float) -> float:
    size = 10.0 ** math.floor(math.log10(least))
    return float(next(m * size for m in (1, 2, 5, 10) if m * size >= least * 0.999))


@dataclass(slots=True)
class Panel:
    """A drawing with a vertical scale, to which bands and lines are added."""

    scale: Scale
    first: float = 0.0
    last: float = 1.0
    width: int = WIDTH
    parts: list[Markup] = field(default_factory=list)

    def x(self, place: float) -> float:
        """Return where `place` lies from left to right."""
        span = (self.last - self.first) or 1.0
        return LEFT + 4 + (place - self.first) / span * (self.width - LEFT - RIGHT - 8)

    def band(self, low: float, high: float, words: str) -> None:
        """Shade what is healthy; zeros are not."""
        if self.scale.zero:
            low = max(low, 10.0 ** (self.scale.low + 1))
        top, bottom = self.scale.y(high), self.scale.y(low)
        right = self.width - RIGHT
        if bottom - top > 0.5:
            box = {"x": LEFT, "y": top, "width": right - LEFT, "height": bottom - top}
            self.parts.append(tag("rect", tag("title", words), class_="band", **box))

    def axes(self, start: str = "", end: str = "", middle: str = "") -> None:
        """Draw the scale, and names beneath both ends."""
        right, bottom = self.width - RIGHT, self.scale.bottom
        for value, label in self.scale.ticks():
            y = self.scale.y(value)
            self.parts += [
                tag("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid"),
                text(LEFT - 6, y + 3.5, label, anchor="end"),
            ]
        self.parts += [
            tag("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"),
            text(LEFT, bottom + 16, start),
            text(right, bottom + 16, end, anchor="end"),
            text((LEFT + right) / 2, bottom + 16, middle, anchor="middle", class_="dim"),
        ]

    def line(self, points: Sequence[Point], class_: str) -> None:
        """Draw a line; it breaks where a value is not finite, and a cross says so.

        On a logarithmic scale zeros lie on its floor.
        """
        for finite, group in groupby(points, key=lambda p: math.isfinite(p[1])):
            places = [(self.x(x), y) for x, y in group]
            if finite:
                path = " ".join(f"{x:.1f},{self.scale.y(y):.1f}" for x, y in places)
                self.parts.append(tag("polyline", points=path, class_=class_))
            else:
                self._cross(places[0][0], places[0][1])

    def _cross(self, x: float, value: float) -> None:
        y = self.scale.top + 6
        path = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8"
        self.parts.append(tag("path", tag("title", number(value)), d=path, class_="cross"))

    def dots(
        self, points: Sequence[Point], words: Callable[[int], str], class_: str, r: float = 3.2
    ) -> None:
        """Draw each finite point, with what is said of it when it is pointed at."""
        self.parts += [
            tag("circle", tag("title", words(i)), cx=self.x(x), cy=self.scale.y(y), r=r,
                class_=class_)
            for i, (x, y) in enumerate(points)
            if math.isfinite(y)
        ]  # fmt: skip

    def drawn(self, title: str, description: str) -> Markup:
        """Return the drawing."""
        return drawing(title, description, self.parts, width=self.width, height=HEIGHT)


def signed(value: float) -> str:
    """Return decades with one digit and their sign; none for what is nearly zero."""
    words = f"{value:+.1f}"
    return "0" if words in ("+0.0", "-0.0") else words.replace("-", "−")


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return `paths` without the parts that all of them begin with."""
    paths = list(paths)
    split = [path.split(".") for path in paths]
    owners = [each[:-1] for each in split]
    shared = takewhile(lambda parts: len(set(parts)) == 1, zip(*owners, strict=False))
    common = len(list(shared)) if len(paths) > 1 else 0
    return {
        path: ".".join(parts[common:]) or "model" for path, parts in zip(paths, split, strict=True)
    }


def tail(words: str, width: int) -> str:
    """Return the end of `words`, where paths differ."""
    return words if len(words) <= width else f"…{words[1 - width :]}"
