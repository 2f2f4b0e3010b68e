"""Light: samples of one step, staged while it runs and reduced together at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from gradlint.hooks.inert import Inert
from gradlint.hooks.manager import observable
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.observation import MODEL, Site
from gradlint.watching.plan import ACTIVATION_METRICS, Layout, Plan
from gradlint.watching.sampling import local, norms, staged


class Owner(Protocol):
    """What a hook of ours reports to: time spent, and mistakes."""

    own: float

    def fail(self, error: BaseException) -> None:
        """Stop watching."""


Numbers = tuple[list[Tensor], Layout, Callable[[list[float]], list[float]]]
"""What one step gave, on its device; what it stands for; and what the host does with it."""


class _Stage:
    """The hook of one module: stages its output, and the gradient that comes back to it."""

    def __init__(self, light: Light, index: int) -> None:
        self.light = light
        self.index = index

        def gradient(gradient: Tensor | None) -> None:
            if gradient is not None:  # one of several outputs, of which nothing was made
                light.stage_gradient(index, gradient)

        # A model that keeps its output can be saved without a warning of our hook.
        unserializable_hook(gradient)  # type: ignore[no-untyped-call]
        self.gradient = gradient

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.light.stage(self, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return (Inert, ())


class Light:
    """Samples of one step.

    Args:
        modules: Leaf modules, in the plan's order.
        parameters: Parameters, in the plan's order.
        plan: Their names.
        owner: Whom hooks report to.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        parameters: Sequence[nn.Parameter],
        plan: Plan,
        owner: Owner,
    ) -> None:
        self.owner = owner
        self.in_backward = False
        self._plan = plan
        self._handles: list[RemovableHandle] = [
            module.register_forward_hook(_Stage(self, index))
            for index, module in enumerate(modules)
        ]
        self._rows: dict[int, Tensor] = {}
        self._gradients: dict[int, tuple[Tensor, int]] = {}
        self._parameters = parameters
        self._before: list[Tensor] = []
        self._measured = False
        self._norms: list[Tensor] = []
        self._with_gradient: list[int] = []
        self._moving: list[int] = []
        self._gradient_norms: list[Tensor] = []

    # -- while the step runs ----------------------------------------------------------

    def stage(self, stage: _Stage, output: Any) -> None:
        """Keep a sample of a module's first output in the step."""
        if stage.index in self._rows or not torch.is_grad_enabled() or not observable():
            return
        started = time.perf_counter()
        try:
            tensor = output if isinstance(output, Tensor) else _first(output)
            if tensor is None or not _readable(tensor):
                return
            self._rows[stage.index] = staged(tensor)
            if tensor.grad_fn is not None:
                handle = tensor.register_hook(stage.gradient)  # type: ignore[no-untyped-call]
                self._handles.append(handle)
        except Exception as error:
            self.owner.fail(error)
        finally:
            self.owner.own += time.perf_counter() - started

    def stage_gradient(self, index: int, gradient: Tensor) -> None:
        """Keep a sample of the gradient that came back to a module's output."""
        if not self.in_backward or index in self._gradients:
            return
        started = time.perf_counter()
        try:
            self._gradients[index] = (staged(gradient), gradient.numel())
        except Exception as error:
            self.owner.fail(error)
        finally:
            self.owner.own += time.perf_counter() - started

    def gradients(self, without: Collection[int], *, weights: bool = True) -> None:
        """Measure gradients, and weights, as the optimizer's step finds them.

        What was measured when backward ended does not do: `GradScaler.unscale_` and
        ``gradient.data.clamp_`` change a gradient and leave its version as it was.

        Args:
            without: Parameters of other optimizers, by ``id``.
            weights: Whether weights are measured, too; else they are as the plan knows them.
        """
        held = self._held(without)
        self._measured = True
        self._with_gradient = [index for index, _ in held]
        self._gradient_norms = norms([local(gradient) for _, gradient in held])
        if weights or self._plan.weights is None:
            self._norms = norms([local(p) for p in self._parameters])

    def _held(self, without: Collection[int] = ()) -> list[tuple[int, Tensor]]:
        found = [(index, p, p.grad) for index, p in enumerate(self._parameters)]
        return [
            (index, gradient)
            for index, parameter, gradient in found
            if gradient is not None and gradient.numel() and id(parameter) not in without
        ]

    def before_update(self) -> None:
        """Keep a sample of every weight that may move."""
        self._moving = self._with_gradient or [index for index, _ in self._held()]
        with torch.no_grad():
            self._before = self._plan.samples.keep(self._parameters, self._moving)

    # -- when it is over --------------------------------------------------------------

    def reduce(
        self, scale: Tensor | None = None, pending: Sequence[tuple[str, Site, int, Tensor]] = ()
    ) -> Numbers:
        """Return all numbers of the step, what they stand for, and how the host finishes them.

        Quotients are left to the host, which has the numbers anyway.

        Args:
            scale: Loss scale that the activation gradients still carry.
            pending: Numbers measured otherwise, to stand in the same row.
        """
        with torch.no_grad():
            rows = _alike(self._rows)
            found = [number for group in rows for number in _of_activations(self._rows, group)]
            gradients = {i: row for i, (row, _) in self._gradients.items()}
            backward = _alike(gradients)
            factors: list[float] = []
            for group in backward:
                together = _together([gradients[i] for i in group])
                values = torch.linalg.vector_norm(together, dim=1, dtype=_precise(together))
                found.append(values if scale is None else values / scale.to(values.device))
                # A sample's mean square stands for the whole's.
                length = together.shape[1]
                factors += [math.sqrt(self._gradients[i][1] / length) for i in group]
            before, change = self._before, list[Tensor]()
            if before:
                change = self._plan.samples.change(self._parameters, self._moving)
            sizes = norms([*before, *change])
            found += _columns([*self._norms, *self._gradient_norms, *sizes])
        found += [value.reshape(1) for *_, value in pending]
        held, moving = tuple(self._with_gradient), tuple(self._moving if self._before else ())
        others = tuple([(name, site) for name, site, *_ in pending])
        weighed = len(self._norms)
        frozen = tuple([i for i in moving if not self._parameters[i].requires_grad])
        key = (
            tuple(rows),
            tuple(backward),
            weighed > 0,
            self._measured,
            held,
            moving,
            frozen,
            others,
        )
        plan = self._plan
        layout = plan.layout(key, lambda: self._layout(*key))
        at = len(ACTIVATION_METRICS) * len(self._rows)
        total = self._measured

        def finish(values: list[float]) -> list[float]:
            start = at + len(factors)
            if weighed:
                plan.weights = values[start : start + weighed]
            weights = plan.weights or ()
            return _finished(values, factors, at, weighed, weights, held, len(moving), total)

        return found, layout, finish

    def _layout(
        self,
        rows: Sequence[Sequence[int]],
        backward: Sequence[Sequence[int]],
        weighed: bool,
        measured: bool,
        held: Sequence[int],
        moving: Sequence[int],
        frozen: Sequence[int],
        others: Sequence[tuple[str, Site]],
    ) -> Layout:
        sites, parameters = self._plan.sites, self._plan.parameter_sites
        columns = [(name, sites[i]) for group in rows for name in ACTIVATION_METRICS for i in group]
        columns += [("activation_grad_norm", sites[i]) for group in backward for i in group]
        if weighed:
            columns += [("weight_norm", site) for site in parameters]
        if measured:
            columns += [("gradient_norm", parameters[i]) for i in held]
            columns += [("gradient_ratio", parameters[i]) for i in held]
            columns.append(("total_gradient_norm", MODEL))
        for i in moving:
            kept = i in frozen  # an optimizer moves what has a gradient from before
            columns.append(("frozen_change" if kept else "update_to_weight_ratio", parameters[i]))
        return Layout([*columns, *others])

    def rest(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def close(self) -> None:
        """Remove every hook and drop every sample."""
        self.rest()
        self._rows.clear()
        self._gradients.clear()
        self._plan.samples.drop()
        self._parameters = []
        self._before = []
        self._norms = []
        self._gradient_norms = []


def _first(output: Any) -> Tensor | None:
    return next((t for _, t in named_tensors(output, "output") if t.is_floating_point()), None)


def _readable(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_nested
    return plain and tensor.is_floating_point() and tensor.numel() > 0


def _alike(rows: Mapping[int, Tensor]) -> list[tuple[int, ...]]:
    """Return the indices of rows that are on one device and of one type and length."""
    groups: dict[Any, list[int]] = {}
    for index in sorted(rows):
        row = rows[index]
        groups.setdefault((row.device, row.dtype, row.shape[0]), []).append(index)
    return [tuple(group) for group in groups.values()]


def _precise(rows: Tensor) -> torch.dtype:
    return torch.float32 if rows.device.type == "mps" else torch.float64


def _together(rows: Sequence[Tensor]) -> Tensor:
    """Return rows below each other, in float32 at least."""
    stacked = torch.stack([*rows])
    return stacked if stacked.dtype in (torch.float32, torch.float64) else stacked.float()


def _of_activations(samples: Mapping[int, Tensor], group: Sequence[int]) -> list[Tensor]:
    """Return the `ACTIVATION_METRICS` of some rows."""
    rows = _together([samples[i] for i in group])
    precise, count = _precise(rows), rows.shape[1]
    root = math.sqrt(count)
    mean = rows.sum(1, dtype=precise) / count
    largest = torch.maximum(rows.amax(1), -rows.amin(1))
    rms = torch.linalg.vector_norm(rows, dim=1, dtype=precise) / root
    # Around the mean, which may be a million times the spread.
    spread = rows - mean.to(rows.dtype).unsqueeze(1)
    std = torch.linalg.vector_norm(spread, dim=1, dtype=precise) / root
    zeros = 1 - rows.sign().abs_().sum(1) / count
    return [mean, std, rms, largest, zeros]


def _finished(
    values: list[float],
    factors: Sequence[float],
    at: int,
    weighed: int,
    weights: Sequence[float],
    held: Sequence[int],
    moving: int,
    total: bool,
) -> list[float]:
    """Return a row of numbers as its layout has them, of those that came from the device."""
    start = at + len(factors)
    after = start + weighed + len(held)
    gradients = values[start + weighed : after]
    before = values[after : after + moving]
    change = values[after + moving : after + 2 * moving]
    return [
        *values[:at],
        *[value * factor for value, factor in zip(values[at:start], factors, strict=True)],
        *values[start : start + weighed],
        *gradients,
        *[_ratio(g, weights[i]) for g, i in zip(gradients, held, strict=True)],
        *([math.hypot(*gradients)] if total else []),
        *[_ratio(c, b) for c, b in zip(change, before, strict=True)],
        *values[after + 2 * moving :],
    ]


def _columns(scalars: Sequence[Tensor]) -> list[Tensor]:
    """Return scalars as few vectors, in their order."""
    if not scalars:
        return []
    first = scalars[0]
    if all(s.device == first.device and s.dtype == first.dtype for s in scalars):
        return [torch.stack([*scalars])]
    return [s.reshape(1) for s in scalars]


def _ratio(number: float, size: float) -> float:
    """Return a quotient that is NaN, which is left out later, where there is no size."""
    return number / size if size > 0 else math.nan
