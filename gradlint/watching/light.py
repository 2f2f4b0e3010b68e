"""Light: samples of one step, staged while it runs and reduced together at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook

from gradlint.hooks.inert import Inert
from gradlint.hooks.manager import observable
from gradlint.hooks.ranks import class_of
from gradlint.hooks.sites import is_lazy
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.metrics.base import dense
from gradlint.observation import Site

SAMPLE = 4096
"""Entries staged of each tensor: the update ratio's error is then below 1.3 % at the median
tensor of an MLP, 6 % at its worst (tests/benchmarks/ has the measurement)."""

ACTIVATION_METRICS = (
    "activation_mean", "activation_std", "activation_rms", "activation_abs_max",
    "activation_zero_share",
)  # fmt: skip


class Owner(Protocol):
    """What a hook of ours reports to: time spent, and mistakes."""

    own: float

    def fail(self, error: BaseException) -> None:
        """Stop watching."""


@dataclass
class Layout:
    """What the columns of one row of numbers stand for."""

    columns: list[tuple[str, Site]] = field(default_factory=list)


class _Stage:
    """The hook of one module: stages its output, and the gradient that comes back to it."""

    def __init__(self, light: Light, index: int) -> None:
        self.light = light
        self.index = index

        def gradient(gradient: Tensor) -> None:
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
        modules: Leaf modules by path.
        parameters: Parameters by path.
        depths: Order of first calls, by module path.
        owner: Whom hooks report to.
    """

    def __init__(
        self,
        modules: Sequence[tuple[str, nn.Module]],
        parameters: Sequence[tuple[str, nn.Parameter]],
        depths: Mapping[str, int],
        owner: Owner,
    ) -> None:
        self.owner = owner
        self.in_backward = False
        self._depths = depths
        self._sites = [
            Site(path, class_of(module).__name__, depths.get(path, 0), path)
            for path, module in modules
        ]
        self._handles: list[RemovableHandle] = [
            module.register_forward_hook(_Stage(self, index))
            for index, (_, module) in enumerate(modules)
        ]
        self._rows: dict[int, Tensor] = {}
        self._gradients: dict[int, tuple[Tensor, int]] = {}
        self._parameters = [(path, p) for path, p in parameters if not is_lazy(p) and p.numel()]
        self._before: list[Tensor] = []
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
            self._rows[stage.index] = sample(tensor).clone()
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
            self._gradients[index] = (sample(gradient).clone(), gradient.numel())
        except Exception as error:
            self.owner.fail(error)
        finally:
            self.owner.own += time.perf_counter() - started

    def gradients(self, without: Collection[int]) -> list[Tensor]:
        """Measure gradients and weights as the optimizer's step finds them.

        What was measured when backward ended does not do: `GradScaler.unscale_` and
        ``gradient.data.clamp_`` change a gradient and leave its version as it was.

        Args:
            without: Parameters of other optimizers, by ``id``.

        Returns:
            The gradients' norms.
        """
        held = self._held(without)
        self._with_gradient = [index for index, _ in held]
        self._gradient_norms = norms([local(gradient) for _, gradient in held])
        self._norms = norms([local(p) for _, p in self._parameters])
        return self._gradient_norms

    def _held(self, without: Collection[int] = ()) -> list[tuple[int, Tensor]]:
        found = [(index, p, p.grad) for index, (_, p) in enumerate(self._parameters)]
        return [
            (index, gradient)
            for index, parameter, gradient in found
            if gradient is not None and gradient.numel() and id(parameter) not in without
        ]

    def before_update(self) -> None:
        """Keep a sample of every weight that may move."""
        self._moving = self._with_gradient or [index for index, _ in self._held()]
        with torch.no_grad():
            self._before = [self._weight(index).clone() for index in self._moving]

    def _weight(self, index: int) -> Tensor:
        # Anew each time: a sample may be a copy, and `parameter.data` another tensor since.
        return sample(local(self._parameters[index][1]))

    # -- when it is over --------------------------------------------------------------

    def reduce(self, scale: Tensor | None = None) -> tuple[list[Tensor], Layout]:
        """Return all numbers of the step, one tensor for each kind, and what they stand for.

        Args:
            scale: Loss scale that the activation gradients still carry.
        """
        layout = Layout()
        found: list[Tensor] = []
        with torch.no_grad():
            self._reduce_activations(found, layout)
            self._reduce_gradients(found, layout, scale)
            self._reduce_parameters(found, layout)
        return found, layout

    def _reduce_activations(self, found: list[Tensor], layout: Layout) -> None:
        for group in _by_device(self._rows):
            rows, lengths = _padded([self._rows[i] for i in group])
            mean = rows.sum(1) / lengths
            largest = torch.maximum(rows.amax(1), -rows.amin(1))
            square = rows.square().sum(1) / lengths
            # In float64 the mean may be a million times the spread before this loses it.
            std = (square - mean.square()).clamp_min_(0.0).sqrt_()
            zeros = 1 - rows.sign().abs_().sum(1) / lengths  # padding has no sign
            for name, values in zip(
                ACTIVATION_METRICS, (mean, std, square.sqrt(), largest, zeros), strict=True
            ):
                found.append(values)
                layout.columns += [(name, self._sites[i]) for i in group]

    def _reduce_gradients(self, found: list[Tensor], layout: Layout, scale: Tensor | None) -> None:
        samples = {i: row for i, (row, _) in self._gradients.items()}
        for group in _by_device(samples):
            rows, lengths = _padded([samples[i] for i in group])
            counts = [float(self._gradients[i][1]) for i in group]
            # A sample's mean square stands for the whole's.
            share = torch.tensor(counts, dtype=rows.dtype, device=rows.device) / lengths
            values = (rows.square().sum(1) * share).sqrt_()
            found.append(values if scale is None else values / scale.to(values.device))
            layout.columns += [("activation_grad_norm", self._sites[i]) for i in group]

    def _reduce_parameters(self, found: list[Tensor], layout: Layout) -> None:
        sites = [self._site(path) for path, _ in self._parameters]
        held = self._with_gradient
        if self._norms:
            weights = _column(self._norms, self._norms[0].device)
            found.append(weights)
            layout.columns += [("weight_norm", site) for site in sites]
            if held:
                own = weights[torch.tensor(held, device=weights.device)]
                grads = _column(self._gradient_norms, weights.device)
                found += [grads, _ratio(grads, own)]
                layout.columns += [("gradient_norm", sites[i]) for i in held]
                layout.columns += [("gradient_ratio", sites[i]) for i in held]
        if self._before:
            before = norms(self._before)
            after = [self._weight(index) for index in self._moving]
            change = norms(list(torch._foreach_sub(after, self._before)))
            home = before[0].device
            found.append(_ratio(_column(change, home), _column(before, home)))
            layout.columns += [("update_to_weight_ratio", sites[i]) for i in self._moving]

    def _site(self, path: str) -> Site:
        module = path.rpartition(".")[0]
        return Site(path, "parameter", self._depths.get(module, len(self._depths)), module)

    def close(self) -> None:
        """Remove every hook and drop every sample."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._rows.clear()
        self._gradients.clear()
        self._parameters = []
        self._before = []
        self._norms = []
        self._gradient_norms = []


def _first(output: Any) -> Tensor | None:
    return next((t for _, t in named_tensors(output, "output") if t.is_floating_point()), None)


def _readable(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_nested
    return plain and tensor.is_floating_point() and tensor.numel() > 0


def local(tensor: Tensor) -> Tensor:
    """Return the part of a distributed tensor that is here, dense and real; others as they are."""
    tensor = tensor.detach()
    part = getattr(tensor, "_local_tensor", None)
    if isinstance(part, Tensor):
        return part
    if tensor.is_sparse or tensor.is_complex() or tensor.layout is not torch.strided:
        return dense(tensor)
    return tensor


def sample(tensor: Tensor) -> Tensor:
    """Return at most `SAMPLE` entries of `tensor`, flat; a view where its memory allows.

    Entries are taken at a fixed stride, so that no random number is drawn.
    """
    tensor = tensor.detach()
    count = tensor.numel()
    stride = _stride(count)
    if tensor.is_contiguous():
        taken = -(-count // stride)
        return tensor.as_strided((min(taken, SAMPLE),), (stride,), tensor.storage_offset())
    if count > 4 * SAMPLE and tensor.ndim >= 2 and tensor.shape[0] > 4:
        tensor = tensor[:: tensor.shape[0] // 4]  # copying all of it would cost more than it tells
        stride = _stride(tensor.numel())
    return tensor.reshape(-1)[::stride][:SAMPLE]


def _stride(count: int) -> int:
    """Return a stride that comes by every index of every axis: it shares no factor with them."""
    stride = max(1, count // SAMPLE)
    for nearby in range(stride, max(0, stride - 16), -1):
        if math.gcd(nearby, count) == 1:
            return nearby
    return stride


def _by_device(rows: Mapping[int, Tensor]) -> list[list[int]]:
    groups: dict[torch.device, list[int]] = {}
    for index in sorted(rows):
        groups.setdefault(rows[index].device, []).append(index)
    return list(groups.values())


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return rows below each other in float64, padded with zeros, and their lengths."""
    dtype = torch.float32 if rows[0].device.type == "mps" else torch.float64
    together = torch.nn.utils.rnn.pad_sequence([row.to(dtype) for row in rows], batch_first=True)
    lengths = torch.tensor([row.numel() for row in rows], dtype=dtype, device=rows[0].device)
    return together, lengths


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the norm of each tensor; in float32 at least."""
    if not tensors:
        return []
    plain = all(t.dtype in (torch.float32, torch.float64) for t in tensors)
    if plain and all(t.device == tensors[0].device for t in tensors):
        return list(torch._foreach_norm(list(tensors)))
    return [torch.linalg.vector_norm(t, dtype=torch.float32) for t in tensors]


def _column(scalars: Sequence[Tensor], home: torch.device) -> Tensor:
    """Return scalars as one vector in float64."""
    dtype = torch.float32 if home.type == "mps" else torch.float64
    same = {(s.dtype, s.device) for s in scalars} == {(scalars[0].dtype, home)}
    moved = scalars if same else [s.to(home, dtype) for s in scalars]
    return torch.stack([*moved]).to(dtype)


def _ratio(numbers: Tensor, sizes: Tensor) -> Tensor:
    """Return a quotient that is NaN, which is left out later, where there is no size."""
    return torch.where(sizes > 0, numbers / sizes, torch.full_like(sizes, math.nan))
