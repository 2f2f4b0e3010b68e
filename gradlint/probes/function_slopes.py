"""What a custom function's backward tells of each of its inputs, against central differences."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

DIRECTIONS = 16
"""Random directions, and as many cotangents: 256 numbers of a Jacobian, told and measured."""

MAX_ENTRIES = 1 << 18

STEP = 1e-5
"""Half of a difference, in sizes of the input."""

SAME = 1e-3
"""Of the size of what is compared: differences of two steps, a slope and its opposite."""

STRAIGHT = 1e-6
"""Change of the slopes, of their size, below which forward is linear in an input."""

JUMP = 0.25
"""What a tenth of the way changes, of what the whole way does: 0.1 unless forward jumps."""


@dataclass(frozen=True)
class Made:
    """A call of a function of the user's own, to be made again in float64.

    Attributes:
        function: The function.
        args: Its arguments, detached.
        needs: Places of those that required a gradient.
    """

    function: type[Function]
    args: tuple[Any, ...]
    needs: frozenset[int]

    @property
    def places(self) -> list[int]:
        """Places of the tensors of real numbers among the arguments."""
        return [i for i, a in enumerate(self.args) if _is_real(a)]

    def input(self, place: int) -> Tensor:
        """Return an argument in float64."""
        given: Tensor = self.args[place]
        return given.to(torch.float64)

    def name(self, place: int) -> str:
        """Return how forward calls an argument."""
        names = list(inspect.signature(self.function.forward).parameters.values())
        if self.function.setup_context is Function.setup_context:
            names = names[1:]  # without the context
        if place < len(names) and names[place].kind is not inspect.Parameter.VAR_POSITIONAL:
            return names[place].name
        return f"input {place + 1}"

    def forward(self, changed: Mapping[int, Tensor] | None = None) -> Tensor:
        """Return the output, some inputs changed."""
        given = {i: a.clone() for i, a in enumerate(self.args) if isinstance(a, Tensor)}
        given.update({i: self.input(i).clone() for i in self.places})
        given.update({i: a.clone() for i, a in (changed or {}).items()})
        args = [given.get(i, a) for i, a in enumerate(self.args)]
        result: Tensor = self.function.apply(*args)  # type: ignore[no-untyped-call]
        return result

    def backward(
        self, cotangent: Tensor, changed: Mapping[int, Tensor] | None = None
    ) -> dict[int, Tensor]:
        """Return what backward passes to the inputs, zeros where it passes nothing."""
        values = {i: self.input(i) for i in self.places} | dict(changed or {})
        leaves = {i: value.detach().clone().requires_grad_() for i, value in values.items()}
        with torch.enable_grad():
            out = self.forward(leaves)
            found = torch.autograd.grad(out, list(leaves.values()), cotangent, allow_unused=True)
        told = zip(leaves.items(), found, strict=True)
        return {i: torch.zeros_like(x) if g is None else g for (i, x), g in told}


def function_slopes(made: Made) -> dict[str, Mapping[str, Any]] | None:
    """Compare what backward passes to each input with differences of forward.

    Returns:
        By the name of the input, ``cosine`` (of what was told with what was measured),
        ``curved`` (whether forward is more than linear in it), ``right`` (whether they are
        the same) and ``opposed`` (whether they are the exact opposite, and the input does not
        only shift or weigh another); inputs to which nothing is passed are left out. None
        where forward is a step in one of them, jumps or draws, and where backward is not
        linear in what it is given or looks at what forward does not: such a backward is meant
        to be another one.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        out = made.forward()
    if max([out.numel(), *(made.input(i).numel() for i in made.places)]) > MAX_ENTRIES:
        return None
    cotangents = [drawn(out.shape) for _ in range(DIRECTIONS)]
    told = [made.backward(c) for c in cotangents]
    if not _linear(made, cotangents, told):
        return None
    found: dict[str, Mapping[str, Any]] = {}
    for place in made.places:
        x = made.input(place)
        size = float(x.square().mean().sqrt()) or 1.0
        lines = Lines(made, place, STEP * size, cotangents, [drawn(x.shape) for _ in cotangents])
        passes = any(bool(t[place].any()) for t in told)
        if not lines.smooth(x) or _jumps(made, place, x, size * drawn(x.shape)):
            return None
        measured = lines.slopes(x)
        if not measured.any():
            moved = made.backward(cotangents[0], {place: x + drawn(x.shape)})
            if passes or not all(torch.equal(moved[i], told[0][i]) for i in moved):
                return None  # a step, or what backward alone looks at
        elif passes and place in made.needs:
            claimed = lines.of([[t[place] * d for d in lines.directions] for t in told])
            elsewhere = lines.slopes(x + size * drawn(x.shape))
            opposed = _near(-claimed, measured, SAME) and out.numel() > 1
            found[made.name(place)] = {
                "cosine": float((claimed * measured).sum() / claimed.norm() / measured.norm()),
                "curved": not _near(elsewhere, measured, STRAIGHT),
                "right": _near(claimed, measured, SAME),
                "opposed": opposed and not any(_served(made, place, i) for i in made.places),
            }
    return found


@dataclass(frozen=True)
class Lines:
    """Lines through an input of a function, and cotangents of its output."""

    made: Made
    place: int
    step: float
    cotangents: list[Tensor]
    directions: list[Tensor]

    def of(self, products: list[list[Tensor]]) -> Tensor:
        """Return sums of products: a row for each cotangent."""
        return torch.stack([torch.stack([p.sum() for p in row]) for row in products])

    def slopes(self, x: Tensor, step: float | None = None, count: int = DIRECTIONS) -> Tensor:
        """Return slopes of forward at `x`: a row for each cotangent."""
        h = self.step if step is None else step
        with torch.no_grad():
            moved = [
                (
                    self.made.forward({self.place: x + h * d})
                    - self.made.forward({self.place: x - h * d})
                )
                / (2 * h)
                for d in self.directions[:count]
            ]
        return self.of([[c * m for m in moved] for c in self.cotangents])

    def smooth(self, x: Tensor) -> bool:
        """Whether the slopes do not depend on the step."""
        wide, narrow = (self.slopes(x, h, count=2) for h in (self.step, self.step / 2))
        return _near(wide, narrow, SAME)


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _linear(made: Made, cotangents: list[Tensor], told: list[dict[int, Tensor]]) -> bool:
    """Whether backward is a linear function of what it is given, always the same."""
    both = made.backward(cotangents[0] - 3 * cotangents[1])
    return all(
        torch.allclose(both[i], told[0][i] - 3 * told[1][i], rtol=1e-6, atol=1e-9 * _size(both[i]))
        for i in both
    )


def _size(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0


def _near(some: Tensor, others: Tensor, share: float) -> bool:
    return bool((some - others).norm() <= share * others.norm())


def _served(made: Made, place: int, other: int) -> bool:
    """Whether an input only shifts, weighs, or adds to another: an adversary's part."""
    if place == other:
        return False
    x, y = made.input(place), made.input(other)
    further = {place: 1.3 * x + 0.1, other: 0.7 * y - 0.1}
    with torch.no_grad():
        neither, both = made.forward(), made.forward(further)
        one, two = (made.forward({i: further[i]}) for i in (place, other))
        moved = [made.forward({i: a + 0.1}) for i, a in ((place, x), (other, y))]
        scaled = [made.forward({i: 1.3 * a}) for i, a in ((place, x), (other, y))]
    apart = ((neither * both, one * two), (neither + both, one + two))
    return any(_near(a, b, STRAIGHT) for a, b in (moved, scaled, *apart))


def _jumps(made: Made, place: int, x: Tensor, way: Tensor) -> bool:
    """Whether forward changes at once somewhere: a short way makes nearly as much of it."""
    with torch.no_grad():
        start = made.forward()
        changes = [
            max(_size(made.forward({place: x + side * h * way}) - start) for side in (1, -1))
            for h in (1e-1, 1e-2, 1e-3)
        ]
    return any(b > JUMP * a > 0 for a, b in pairwise(changes))
