"""Options of the reporters, numbers as words, and the console they draw on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_DRAWN = "▁▂▃▄▅▆▇█▏▎▍▌▋▊▉✗▲○✓●·─│┤×−→…⋮‹›≈‖"
_TYPED = "._-=+*%# .:-=+*x!o+o.-||x->~:<>~|"
_ASCII = str.maketrans(dict(zip(_DRAWN, _TYPED, strict=True)))


@dataclass(frozen=True, slots=True)
class Options:
    """How a report is written: `width` in columns; `verbose` leaves nothing out."""

    width: int = 80
    color: bool = False
    unicode: bool = True
    verbose: bool = False
    quiet: bool = False


def console_for(options: Options) -> Console:
    """Return a console of fixed width that guesses nothing; capture what it draws."""
    from rich.console import Console

    return Console(
        width=options.width,
        force_terminal=options.color,
        color_system="standard" if options.color else None,
        no_color=not options.color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )


def finished(text: str, options: Options) -> str:
    """Return drawn `text` without trailing blanks, in the wanted characters."""
    text = "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n") + "\n"
    return text if options.unicode else to_ascii(text)


def to_ascii(text: str) -> str:
    """Return `text` in ASCII, drawings in the nearest characters."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def number(value: object) -> str:
    """Return `value` with two significant digits, whole numbers as they are.

    Example:
        >>> number(0.034567), number(12345), number(3.14159e-9), number(float("nan"))
        ('0.035', '12,345', '3.1e-09', 'NaN')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if 1 <= size <= 4:
        return f"{round(value, 1 - size):.0f}"
    return f"{value:.2g}"


def count(n: int, noun: str) -> str:
    """Return "1 error", "2 errors"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
