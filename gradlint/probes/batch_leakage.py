"""Does the output of one sample depend on another's input? A few passes in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.trial import copied

LEAST = 4
"""Samples below which a batch axis is not told from others."""


class _Rows:
    """Keeps the first output of every leaf module that has one row for each sample."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tensors: dict[str, Tensor] = {}
        self._state: Tensor | None = None

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Note the random state in which the model starts."""
        if self._state is None:
            self._state = torch.get_rng_state()

    def random_state(self, default: Tensor) -> Tensor:
        """Return the random state in which the model started."""
        return default if self._state is None else self._state

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep what the module returned."""
        found = _with_rows(output, self.size)
        if found is not None and path not in self.tensors:
            self.tensors[path] = found.detach().clone()


def batch_leakage(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], inputs: Any
) -> Mapping[str, Any] | None:
    """Replace single samples by others, and turn the batch around, on a copy of `model`.

    A model that treats samples alike, even if it compares them, returns the outputs in the
    batch's order, whatever that is. One that takes rows apart and puts them together wrongly
    does not.

    Args:
        model: The model; unchanged.
        run: Calls a model on inputs, always with the same random state.
        inputs: A batch's inputs; every tensor has one row for each sample.

    Returns:
        ``leak`` (largest relative change of any other sample's output when one sample is
        replaced), ``order`` (relative change of the outputs, put back in order, when the
        batch is turned around), ``rows``, and ``module`` (the first in which other samples
        change, or None); None where that cannot be told, as where samples leak in a model
        that draws random numbers: its noise is not turned around with the batch.
    """
    size = _rows(inputs)
    if size is None:
        return None
    twin = copied(model, model).eval()

    draws = False

    def outputs(given: Any) -> dict[str, Tensor]:
        nonlocal draws
        rows = _Rows(size)
        start = torch.get_rng_state()
        with torch.no_grad(), HookManager(twin, rows):
            run(twin, given)
        draws = draws or not torch.equal(rows.random_state(start), torch.get_rng_state())
        return rows.tensors

    before = outputs(inputs)
    again = outputs(inputs)
    if "" not in before or not all(_apart(before[p], again[p]) == 0 for p in before if p in again):
        return None
    leak, module = 0.0, None
    for row in (0, size // 2):
        after = outputs(_replaced(inputs, row, (row + size // 3 + 1) % size))
        others = [i for i in range(size) if i != row]
        changed = {
            path: _apart(before[path][others], after[path][others])
            for path in before
            if path in after and after[path].shape == before[path].shape
        }
        if changed.get("", 0.0) > leak:
            leak = changed[""]
            module = next((path for path, change in changed.items() if path and change > 0), None)
    if not leak:
        return {"leak": 0.0, "order": 0.0, "rows": size, "module": None}
    if draws:
        return None
    turned = outputs(tree_map(lambda x: x.flip(0) if _is_batched(x, size) else x, inputs))
    order = _apart(before[""], turned[""].flip(0)) if "" in turned else 0.0
    return {"leak": leak, "order": order, "rows": size, "module": module}


def _rows(inputs: Any) -> int | None:
    """Return the number of samples, if every tensor has as many rows."""
    sizes = {t.shape[0] if t.ndim else 0 for _, t in named_tensors(inputs, "input")}
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if size >= LEAST else None


def _is_batched(leaf: Any, size: int) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == size


def _replaced(inputs: Any, row: int, other: int) -> Any:
    """Return `inputs` with one row a copy of another."""

    def replace_row(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.clone()
        leaf[row] = leaf[other]
        return leaf

    return tree_map(replace_row, inputs)


def _with_rows(output: Any, size: int) -> Tensor | None:
    tensors = [t for _, t in named_tensors(output, "output") if t.is_floating_point()]
    return next((t for t in tensors if _is_batched(t, size)), None)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return how far two tensors are apart, relative to the first; NaN counts as no change."""
    size = torch.linalg.vector_norm(one, dtype=torch.float64)
    apart = torch.linalg.vector_norm(other.to(one.dtype) - one, dtype=torch.float64)
    value = float(apart / size) if size > 0 else float(apart)
    return value if value == value else 0.0
