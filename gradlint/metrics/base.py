"""Metric, Tap and the sample every metric may take of a large tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

SAMPLE = 1 << 18
"""Entries read of a larger tensor: the error of a mean is then std/512, of a share 0.1 %."""


class Tap(Enum):
    """Which tensors a metric is given."""

    ACTIVATION = "activation, or a sample of its entries"
    WHOLE_ACTIVATION = "activation, every entry"
    ACTIVATION_GRAD = "activation gradient"
    SIGMOIDAL = "output of a sigmoidal activation and its kind"
    RECTIFIED = "output of a rectifier"
    ATTENTION = "attention weights, queries by keys"
    WEIGHT = "weight"
    INITIAL_WEIGHT = "weight before training, of two dimensions or more"
    WEIGHT_GRAD = "weight gradient"
    INITIAL_WEIGHT_GRAD = "weight gradient before training"
    WEIGHT_AND_GRAD = "weight and its gradient"
    UPDATE = "weight before and after a step"
    RUN = "a number of the whole run, measured by the engine"


@dataclass(frozen=True, slots=True)
class Metric:
    """A measurement: its name, the tensors it reads, its unit, its function."""

    name: str
    tap: Tap
    unit: str
    function: Callable[..., Tensor]
    doc: str

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Measure; see the function's own docstring."""
        return self.function(*tensors)


def metric(tap: Tap, *, unit: str) -> Callable[[Callable[..., Tensor]], Metric]:
    """Make the decorated function a `Metric` of its own name."""

    def make(function: Callable[..., Tensor]) -> Metric:
        return Metric(function.__name__, tap, unit, function, function.__doc__ or "")

    return make


def sampled(tensor: Tensor, at_most: int = SAMPLE) -> Tensor:
    """Return at most `at_most` entries of `tensor` at a fixed stride, flat, in float64.

    Complex numbers count as two real ones, a sparse tensor as its stored values. A fixed
    stride needs no random numbers, so it cannot disturb the user's. It has no factor in
    common with the number of entries, so that it comes by every index of every axis: a
    stride of 64 would see 64 of 4096 units.
    """
    tensor = dense(tensor)
    count = tensor.numel()
    flat = tensor.reshape(-1)
    if count > at_most:
        stride = -(-count // at_most)
        while math.gcd(stride, count) > 1:
            stride += 1
        flat = flat[::stride]
    return flat.to(torch.float64)


def centered(values: Tensor) -> Tensor:
    """Return `values` less their mean, flat ones; exactly zero where all are the same.

    Taken from the first entry first: the mean of a thousand times 0.1 is not quite 0.1.
    """
    shifted = values - values[:1]
    return shifted - shifted.mean()


def spread(values: Tensor) -> Tensor:
    """Return the population standard deviation of flat `values`; NaN if there are none.

    Unlike `Tensor.std` it does not warn of an empty tensor: a sparse gradient may be one.
    """
    return centered(values).square().mean().sqrt()


def dense(tensor: Tensor) -> Tensor:
    """Return `tensor` detached, dense and real; a nested one as its entries, flat."""
    tensor = tensor.detach()
    if tensor.is_nested:
        parts = [part.reshape(-1) for part in tensor.unbind()]
        return dense(torch.cat(parts) if parts else torch.zeros(0))
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    elif tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor


def l2_norm(tensor: Tensor) -> Tensor:
    """Return the L2 norm over all entries, accumulated in float64: no overflow, no underflow.

    Args:
        tensor: Any shape, any dtype, dense or sparse, real or complex.

    Returns:
        Scalar, float64, on the device of `tensor`.
    """
    norm: Tensor = torch.linalg.vector_norm(dense(tensor), dtype=torch.float64)
    return norm
