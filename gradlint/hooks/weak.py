"""Modules and parameters by path, held weakly: watching a model must not keep it alive."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Generic, TypeVar

T = TypeVar("T")


def joined(label: str, path: str) -> str:
    """Return `path` below `label`; either may be empty."""
    return f"{label}.{path}" if label and path else label or path


class WeakMap(MutableMapping[str, T], Generic[T]):
    """A mapping of paths to objects that forgets an object when nobody else holds it."""

    def __init__(self, items: Mapping[str, T] | None = None) -> None:
        self._refs: dict[str, weakref.ref[T]] = {}
        if items is not None:
            self.update(items)

    def __getitem__(self, path: str) -> T:
        found = self._refs[path]()
        if found is None:
            raise KeyError(path)
        return found

    def __setitem__(self, path: str, value: T) -> None:
        self._refs[path] = weakref.ref(value)

    def __delitem__(self, path: str) -> None:
        del self._refs[path]

    def __iter__(self) -> Iterator[str]:
        return iter([path for path, ref in self._refs.items() if ref() is not None])

    def __len__(self) -> int:
        return sum(ref() is not None for ref in self._refs.values())
