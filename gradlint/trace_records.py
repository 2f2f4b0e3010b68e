"""Records of a trace file: frozen dataclasses as JSON values, and back, exactly.

What a field may hold is read off its type: a tuple is a JSON array, a mapping an object, a
non-finite float one of the words "nan", "inf", "-inf". Where a field may hold anything
(options of a module, attributes of an operation), what JSON cannot tell apart is tagged:
``{"!tuple": [3, 3]}``, ``{"!float": "inf"}``, ``{"!set": [...]}``, ``{"!map": [[1, "a"]]}``.
"""

from __future__ import annotations

import enum
import math
import types
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

Codec = Callable[[Any], Any]

WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""How non-finite numbers are written; JSON has none."""

LONGEST = 200
"""Characters kept of what is neither a number, a word nor a collection of them."""


def number_out(value: float) -> float | str:
    """Return `value`, or the word for it if it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def number_in(value: Any) -> float:
    """Return the number that `number_out` made `value` of.

    Raises:
        ValueError: If it made none such.
    """
    if isinstance(value, str):
        if value not in WORDS:
            raise ValueError(f"expected a number, got {value!r}")
        return WORDS[value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"expected a number, got {value!r}")
    return value


def record_out(value: Any, *, whole: bool = False) -> dict[str, Any]:
    """Return a dataclass instance as a JSON object.

    Fields that are empty, and are so by default, are left out unless `whole`.

    Example:
        >>> from gradlint.trace import ModuleFacts
        >>> record_out(ModuleFacts("fc1", "Linear", options={"size": (3, 3)}))["options"]
        {'size': {'!tuple': [3, 3]}}
    """
    coded: dict[str, Any] = {}
    kind: Any = type(value)
    for name, default, encode, _ in _plan(kind):
        held = getattr(value, name)
        if whole or not (_is_empty(held) and _is_empty(default) and held == default):
            coded[name] = encode(held)
    return coded


def record_in(kind: Any, data: Any) -> Any:
    """Return the instance of the dataclass `kind` that `record_out` made `data` of.

    Fields that `kind` does not know are left out; those that `data` does not have get
    their default.

    Raises:
        ValueError: If a field is missing or holds what it cannot hold.
    """
    if not isinstance(data, dict):
        raise ValueError(f"expected an object, got {data!r:.40}")
    given: dict[str, Any] = {}
    for name, default, _, decode in _plan(kind):
        if name in data:
            given[name] = decode(data[name])
        elif default is MISSING:
            raise ValueError(f"expected a field {name!r}")
    return kind(**given)


@cache
def codec(kind: Any) -> tuple[Codec, Codec]:
    """Return the functions that write and read a value of the type `kind`."""
    if kind is Any:
        return free_out, free_in
    if kind is float:
        return (lambda v: number_out(v) if isinstance(v, float) else v), number_in
    if kind in (int, str, bool):
        return _same, _checked(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return record_out, lambda data: record_in(kind, data)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType) and type(None) in parts and len(parts) == 2:
        return _optional(next(part for part in parts if part is not type(None)))
    if origin in (tuple, frozenset):
        return _collection(origin, parts[0])
    if origin is Mapping:
        return _mapping(parts[1])
    raise TypeError(f"a trace has no way to write {kind!r}")


def _same(value: Any) -> Any:
    return value


def _checked(kind: type[Any]) -> Codec:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"expected {kind.__name__}, got {value!r:.40}")
        return value

    return decode


def _optional(kind: Any) -> tuple[Codec, Codec]:
    encode, decode = codec(kind)
    return (
        lambda value: None if value is None else encode(value),
        lambda value: None if value is None else decode(value),
    )


def _collection(kind: Any, item: Any) -> tuple[Codec, Codec]:
    encode, decode = codec(item)

    def write(values: Iterable[Any]) -> list[Any]:
        return [encode(v) for v in (sorted(values) if kind is frozenset else values)]

    def read(values: Any) -> Any:
        return kind(decode(value) for value in _of(list, values))

    return write, read


def _mapping(item: Any) -> tuple[Codec, Codec]:
    encode, decode = codec(item)

    def write(values: Mapping[str, Any]) -> dict[str, Any]:
        return {str(key): encode(value) for key, value in values.items()}

    def read(values: Any) -> dict[str, Any]:
        return {key: decode(value) for key, value in _of(dict, values).items()}

    return write, read


def _of(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, got {value!r:.40}")
    return value


@cache
def _plan(kind: Any) -> tuple[tuple[str, Any, Codec, Codec], ...]:
    hints = get_type_hints(kind)
    return tuple((f.name, _default(f), *codec(hints[f.name])) for f in fields(kind) if f.init)


def _default(entry: Field[Any]) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _is_empty(value: Any) -> bool:
    return value is None or (not value and not isinstance(value, float))


def free_out(value: Any) -> Any:
    """Return any plain value as JSON; what is not plain becomes a word, a tensor its kind."""
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"!float": str(float(value))}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("!") for key in value):
            return {key: free_out(item) for key, item in value.items()}
        return {"!map": [[free_out(key), free_out(item)] for key, item in value.items()]}
    if isinstance(value, list):
        return [free_out(item) for item in value]
    if isinstance(value, tuple):
        return {"!tuple": [free_out(item) for item in value]}
    if isinstance(value, AbstractSet):
        return {"!set": [free_out(item) for item in sorted(value, key=str)]}
    return f"<{type(value).__name__}>" if hasattr(value, "shape") else str(value)[:LONGEST]


def free_in(value: Any) -> Any:
    """Return the plain value that `free_out` made `value` of.

    Raises:
        ValueError: If a tag is unknown.
    """
    if isinstance(value, list):
        return [free_in(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("!"):
        return {key: free_in(item) for key, item in value.items()}
    held = value[tag]
    if tag == "!float":
        return number_in(held)
    items = [free_in(item) for item in _of(list, held)]
    if tag == "!tuple":
        return tuple(items)
    if tag == "!set":
        return frozenset(items)
    if tag == "!map":
        return dict(items)
    raise ValueError(f"unknown tag {tag!r}")
