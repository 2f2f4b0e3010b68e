"""Inputs by specification: ``32x3x64x64``, ``8x128:int64:0..1000``, ``name=8x16``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gradlint.errors import UsageError

DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float16", "bfloat16", "float32", "float64", "complex64", "int8", "int16", "int32",
        "int64", "uint8", "bool",
    )
} | {"float": torch.float32, "double": torch.float64, "int": torch.int64, "long": torch.int64,
     "half": torch.float16}  # fmt: skip

RANGED = re.compile(r"^(-?(?:\d+\.\d+|\d+)(?:e-?\d+)?)\.\.(-?(?:\d+\.\d+|\d+)(?:e-?\d+)?)$")
FORMS = "for example 32x3x64x64, 8x128:int64:0..1000, or name=8x128:int64:0..1000"


@dataclass(frozen=True)
class Spec:
    """One input: shape with samples first, dtype, and the range its entries are drawn from.

    `fixed` fills it with one value instead, `like` with the entries of the input of that
    name. `samples` says where the number of samples stands: on the "first" axis, on "both"
    (an adjacency matrix), as the number of nodes of "edges", or in "none". `last` is the
    last entry of each sequence.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None
    low: float | None = None
    high: float | None = None
    name: str | None = None
    fixed: float | None = None
    samples: str = "first"
    like: str | None = None
    last: int | None = None

    @property
    def floating(self) -> bool:
        """Whether entries are real or complex numbers."""
        return self.dtype is None or self.dtype.is_floating_point or self.dtype.is_complex

    def sized(self, size: int) -> Spec:
        """Return the same for `size` samples."""
        if self.samples == "first":
            return replace(self, shape=(size, *self.shape[1:]))
        if self.samples == "both":
            return replace(self, shape=(size, size))
        if self.samples == "edges":
            return replace(self, shape=(2, 4 * size), high=size)
        return self

    def draw(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Return entries: N(0, 1), uniform where a range is given; `dtype` is the default.

        Whole numbers are drawn from low to high - 1, like a range of Python; 0..2 if no
        range is given.
        """
        wanted = self.dtype or dtype
        if self.fixed is not None:
            return torch.full(self.shape, self.fixed).to(wanted)
        if not self.floating:
            low = int(self.low or 0)
            high = 2 if self.high is None else int(self.high)
            drawn = torch.randint(low, high, self.shape, generator=generator).to(wanted)
            if self.last is not None:
                drawn[..., -1] = self.last
            return drawn
        if self.low is None or self.high is None:
            real = torch.complex64 if wanted.is_complex else torch.float32
            return torch.randn(self.shape, generator=generator, dtype=real).to(wanted)
        drawn = torch.rand(self.shape, generator=generator)
        return (self.low + (self.high - self.low) * drawn).to(wanted)


@dataclass(frozen=True)
class Recipe:
    """The inputs of one batch: positional unless they have names; `constants` go by keyword."""

    specs: tuple[Spec, ...]
    constants: tuple[tuple[str, Any], ...] = ()

    def draw(self, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Any:
        """Return a tensor, a tuple of positional or a dict of keyword arguments."""
        drawn = [spec.draw(generator, dtype) for spec in self.specs]
        if any(spec.name for spec in self.specs) or self.constants:
            named = {str(s.name): d for s, d in zip(self.specs, drawn, strict=True)}
            alike = {str(s.name): named[s.like].clone() for s in self.specs if s.like in named}
            return named | alike | dict(self.constants)
        return drawn[0] if len(drawn) == 1 else tuple(drawn)

    def sized(self, size: int) -> Recipe:
        """Return the same for `size` samples."""
        return replace(self, specs=tuple(spec.sized(size) for spec in self.specs))

    @property
    def size(self) -> int:
        """Number of samples."""
        return next((spec.shape[0] for spec in self.specs if spec.samples == "first"), 1)


def parse(text: str) -> Spec:
    """Return the input that `text` specifies.

    Raises:
        UsageError: If it is no specification, or the shape, dtype or range cannot be.
    """
    name, equals, rest = text.partition("=")
    if equals and not name.isidentifier():
        raise _bad(text, f"{name!r} is no name of an argument")
    parts = (rest if equals else text).split(":")
    if len(parts) > 3 or not re.fullmatch(r"\d+(x\d+)*", parts[0]):
        raise _bad(text, f"{parts[0]!r} is no shape")
    shape = tuple(int(size) for size in parts[0].split("x"))
    if 0 in shape:
        raise _bad(text, "a shape with 0 holds no entries")
    dtype, low, high = None, None, None
    for part in parts[1:]:
        if (bounds := RANGED.match(part)) and low is None:
            low, high = (float(bound) for bound in bounds.groups())
        elif part in DTYPES and dtype is None and low is None:
            dtype = DTYPES[part]
        else:
            raise _bad(text, f"{part!r} is neither a dtype ({', '.join(DTYPES)}) nor a range")
    if low is not None and high is not None and low >= high:
        raise _bad(text, f"the range {low:g}..{high:g} is empty")
    return Spec(shape, dtype, low, high, name if equals else None)


def parse_all(texts: Sequence[str]) -> Recipe:
    """Return the inputs that several specifications give together.

    Raises:
        UsageError: If one is no specification, or some have names and some have not.
    """
    specs = tuple(parse(text) for text in texts)
    names = [spec.name for spec in specs if spec.name is not None]
    if names and len(names) < len(specs):
        raise UsageError(
            "expected all of --input or none of them to have a name, got both; write "
            "--input name=SHAPE for each"
        )
    if len(set(names)) < len(names):
        raise UsageError(f"expected each --input to have a name of its own, got {', '.join(names)}")
    return Recipe(specs)


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"expected --input SHAPE[:DTYPE][:LOW..HIGH], got {text!r}: {why}; {FORMS}")
