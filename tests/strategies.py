"""Hypothesis strategies, dtypes and oracles' helpers shared by the tests of tensors."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

ROUNDING = 1e-12
"""Relative error allowed between two float64 sums of at most some thousand entries taken in
another order: each addition rounds by 1.1e-16, and a thousand of them by about 1e-13."""

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[6:])


def numbers(largest: float = 1e3) -> st.SearchStrategy[float]:
    """Floats that are zero or of ordinary size: neither subnormal nor absorbed in a sum."""
    sized = st.floats(2**-10, largest, width=32)
    return st.one_of(st.just(0.0), sized, sized.map(lambda x: -x))


@st.composite
def tensors(
    draw: st.DrawFn, *, min_dims: int = 1, max_dims: int = 3, min_side: int = 1, max_side: int = 6
) -> Tensor:
    """Float64 tensors of a few entries."""
    shape = draw(
        hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)
    )
    array = draw(hnp.arrays(numpy.float64, shape, elements=numbers()))
    return torch.from_numpy(array)


def factors() -> st.SearchStrategy[float]:
    """Factors other than zero, of either sign."""
    size = st.floats(1e-3, 1e3)
    return st.one_of(size, size.map(lambda x: -x))


def entries(tensor: Tensor) -> list[float]:
    """Every entry as a Python float, one by one: what an oracle loops over."""
    return [float(value) for value in tensor.detach().reshape(-1).to(torch.float64)]


def norm_of(values: list[float]) -> float:
    """The L2 norm by its definition."""
    return math.sqrt(math.fsum(value * value for value in values))


def mean_of(values: list[float]) -> float:
    """The mean by its definition."""
    return math.fsum(values) / len(values)


def std_of(values: list[float]) -> float:
    """The population standard deviation by its definition."""
    mean = mean_of(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def shuffled(tensor: Tensor) -> Tensor:
    """The same entries in another order."""
    flat = tensor.reshape(-1)
    return flat[torch.randperm(flat.numel())].reshape(tensor.shape)


def strided(tensor: Tensor) -> Tensor:
    """The same tensor, its entries apart in memory."""
    wide = tensor.new_zeros((*tensor.shape, 2))
    wide[..., 0] = tensor
    return wide[..., 0]
