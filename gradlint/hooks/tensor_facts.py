"""Statistics of inputs, outputs and targets as facts. Reads tensors back: never inside a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from gradlint.hooks.ranks import here
from gradlint.metrics.base import dense, sampled
from gradlint.trace import TensorFacts

MAX_CHANNELS = 512
MAX_ENTRIES = 1 << 22
"""Larger inputs, outputs and tensors of a loss by hand are left alone."""
MAX_UNIQUE = 1000
QUANTILES = 20


def named_tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    """Return the tensors of a batch or an output with a name each.

    A lone tensor is called `name`, others ``name[0]``, ``name[key]`` and so on. Objects
    torch's pytree does not know (dataclasses, ModelOutput) are looked into as mappings or
    by their attributes. A nested tensor has no shape and no entries of its own: it is passed
    over; of a distributed one this rank's part is returned.
    """
    if isinstance(value, Tensor):
        return [] if value.is_nested else [(name, here(value))]
    if isinstance(value, Mapping):
        return [t for key, item in value.items() for t in named_tensors(item, f"{name}[{key}]")]
    if isinstance(value, (list, tuple)):
        return [t for i, item in enumerate(value) for t in named_tensors(item, f"{name}[{i}]")]
    if hasattr(value, "__dataclass_fields__"):
        return [
            t
            for key in value.__dataclass_fields__
            for t in named_tensors(getattr(value, key, None), f"{name}[{key}]")
        ]
    leaves = _pytree.tree_leaves(value)
    if len(leaves) == 1 and leaves[0] is value:
        return []
    return [t for i, item in enumerate(leaves) for t in named_tensors(item, f"{name}[{i}]")]


def tensor_facts(name: str, tensor: Tensor) -> TensorFacts:
    """Return the statistics of one tensor; none of its entries but minimum and maximum."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    values = dense(tensor)
    if values.numel() == 0:
        return TensorFacts(name, shape, dtype)
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    finite_mask = torch.isfinite(values) if values.is_floating_point() else None
    bad = 0 if finite_mask is None else round(number((~finite_mask).sum()))
    entries = sampled(values)
    if bad:
        entries = entries[torch.isfinite(entries)]
        finite = values[finite_mask]
    else:
        finite = values
    if finite.numel() == 0 or entries.numel() == 0:
        return TensorFacts(name, shape, dtype, non_finite=bad)
    ordered = entries.sort().values
    unique = 1 + round(number((ordered[1:] != ordered[:-1]).sum()))
    means, stds = _channels(values) if values.is_floating_point() and not bad else ((), ())
    return TensorFacts(
        name=name,
        shape=shape,
        dtype=dtype,
        minimum=number(finite.amin()),
        maximum=number(finite.amax()),
        mean=number(entries.mean()),
        std=number(entries.std(correction=0)),
        non_finite=bad,
        whole=bool(number((entries == entries.round()).all())),
        unique=min(unique, MAX_UNIQUE),
        channel_means=means,
        channel_stds=stds,
        neighbors=None if bad else _neighbors(values),
        quantiles=_quantiles(ordered),
    )


def number(scalar: Tensor) -> float:
    """Return the value of a tensor of one entry.

    Unlike `Tensor.item` it is no dispatched operation, so that watching adds none.
    """
    value: float = scalar.reshape(1).tolist()[0]
    return value


def readable(tensor: Tensor) -> bool:
    """Whether entries can be read: of a nested, sparse, distributed or fake tensor they cannot."""
    own = type(tensor) is Tensor and tensor.layout == torch.strided
    real = own and not (tensor.is_complex() or tensor.is_meta or tensor.is_nested)
    return real and 0 < tensor.numel() <= MAX_ENTRIES


def _quantiles(ordered: Tensor) -> tuple[float, ...]:
    """Return the entries in the middle of each of `QUANTILES` equal parts."""
    if not ordered.is_floating_point():
        return ()
    count = ordered.numel()
    places = [(2 * part + 1) * count // (2 * QUANTILES) for part in range(QUANTILES)]
    return tuple(ordered[places].tolist())


def _channels(values: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and spread of each feature: last axis up to rank 3, axis 1 above."""
    if values.ndim < 2:
        return (), ()
    axis = 1 if values.ndim >= 4 else values.ndim - 1
    count = values.shape[axis]
    if not 1 <= count <= MAX_CHANNELS or values.numel() // count < 2:
        return (), ()
    rows = values.movedim(axis, 0).reshape(count, -1)
    rows = rows[:, :: max(1, rows.shape[1] // 4096)].to(torch.float64)
    return tuple(rows.mean(dim=1).tolist()), tuple(rows.std(dim=1, correction=0).tolist())


def _neighbors(values: Tensor) -> float | None:
    """Return how alike an entry of axis 0 and the next are, beyond what all have in common."""
    if values.ndim < 3 or values.shape[0] < 4 or not values.is_floating_point():
        return None
    rows = values.reshape(values.shape[0], -1)
    rows = rows[:, :: max(1, rows.shape[1] // 1024)].to(torch.float64)
    rows = rows - rows.mean(dim=0)
    together = (rows[1:] * rows[:-1]).sum() / rows.square().sum().clamp_min(1e-300)
    return number(together) * len(rows) / (len(rows) - 1)


def merged(facts: Iterable[tuple[TensorFacts, ...]]) -> tuple[TensorFacts, ...]:
    """Merge the facts of several batches, tensor by tensor (same position, same name)."""
    batches = [batch for batch in facts if batch]
    if not batches:
        return ()
    result: list[TensorFacts] = []
    for same in zip(*batches, strict=False):
        first = same[0]
        count = len(same)
        mean = math.fsum(f.mean for f in same) / count
        near = [f.neighbors for f in same]
        spread = math.fsum(f.std**2 + (f.mean - mean) ** 2 for f in same) / count
        result.append(
            replace(
                first,
                minimum=min(f.minimum for f in same),
                maximum=max(f.maximum for f in same),
                mean=mean,
                std=math.sqrt(spread),
                non_finite=sum(f.non_finite for f in same),
                whole=all(f.whole for f in same),
                unique=max(f.unique for f in same),
                neighbors=None if None in near else math.fsum(near) / count,
                quantiles=_mean_of([f.quantiles for f in same]),
            )
        )
    return tuple(result)


def _mean_of(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Return the mean of rows, place by place; nothing where one is missing."""
    if len({len(row) for row in rows}) != 1:
        return ()
    return tuple(math.fsum(column) / len(rows) for column in zip(*rows, strict=True))
