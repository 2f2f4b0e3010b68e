"""Plain values in, strict JSON values out, and back: where non-finite numbers go."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Return `value` with mappings, sequences and enums as dicts, lists and words."""
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def encode(value: Any) -> Any:
    """Return `value` without non-finite numbers.

    In a mapping such a number becomes None, with a sibling ``"<key>_nonfinite"``; in a
    list it becomes the word "nan", "inf" or "-inf".
    """
    if isinstance(value, Mapping):
        coded: dict[str, Any] = {}
        for key, item in value.items():
            if isinstance(item, float) and not math.isfinite(item):
                coded[key] = None
                coded[f"{key}_nonfinite"] = str(float(item))
            else:
                coded[key] = encode(item)
        return coded
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    return value


def decode(value: Any) -> Any:
    """Return `value` with the numbers back that `encode` took out of mappings."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    words = {
        key: value[f"{key}_nonfinite"]
        for key in value
        if value[key] is None and f"{key}_nonfinite" in value
    }
    markers = {f"{key}_nonfinite" for key in words}
    return {
        key: float(words[key]) if key in words else decode(item)
        for key, item in value.items()
        if key not in markers
    }
