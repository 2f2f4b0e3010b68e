"""Does the output depend on the input at all? Two batches through one model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.trial import copied

FILLED = 1e4
"""Entries from here on are filled in where a mask hides: -1e4 in half precision, -1e9, the lowest
number there is. Beside them a change of what a mask shows is less than the rounding of a norm."""


class Outputs:
    """Keeps what the model was called with, and the first output of every module's first call.

    Of the model itself all outputs are kept.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.returned: list[Tensor] = []
        self.given: list[Tensor] | None = None

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Keep what the model is given."""
        if not path and self.given is None:
            self.given = [t.detach().clone() for _, t in named_tensors(inputs, "input")]

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep what the module returned."""
        found = [t for _, t in named_tensors(output, "output") if t.is_floating_point()]
        tensors = [t for t in found if t.ndim] or found  # a loss stands beside the output
        if tensors and path not in self.tensors:
            self.returned += [t.detach().clone() for t in tensors] if not path else []
            self.tensors[path] = tensors[0].detach().clone()


def input_ignored(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], first: Any, second: Any, steps: int
) -> Mapping[str, Any] | None:
    """Compare every module's output on two batches, in evaluation mode, on a copy of `model`.

    Args:
        model: The model after `steps` training steps; unchanged.
        run: Calls a model on a batch.
        first: A batch.
        second: Another batch with other inputs of the same shape.
        steps: Training steps made before.

    Returns:
        ``output_change`` (relative change of the model's output, as `change_of` has it),
        ``layers`` (the same by module path), ``forward_ignored_from`` (the first module
        after which nothing changes any more, or None) and ``steps``; None where the outputs
        cannot be compared, and where the model itself is given the same both times: a graph
        whose links the batches are of, or nothing at all.
    """
    twin = copied(model, model).eval()
    seen: list[dict[str, Tensor]] = []
    given: list[list[Tensor] | None] = []
    for batch in (first, second):
        outputs = Outputs()
        with torch.no_grad(), HookManager(twin, outputs):
            run(twin, batch)
        seen.append(outputs.tensors)
        given.append(outputs.given)
    if _alike(*given):
        return None
    changes: dict[str, float] = {}
    for path, before in seen[0].items():
        after = seen[1].get(path)
        if after is None or after.shape != before.shape or before.ndim == 0:
            continue
        changes[path] = change_of(before, after)
        if not math.isfinite(changes[path]):
            return None
    if "" not in changes:
        return None
    ignored_from = None
    for path in reversed([p for p in changes if p]):
        if changes[path] > 1e-9:
            break
        ignored_from = path
    return {
        "output_change": changes[""],
        "layers": {path: value for path, value in changes.items() if path},
        "forward_ignored_from": ignored_from,
        "steps": steps,
    }


def change_of(before: Tensor, after: Tensor) -> float:
    """Return ``|f(x)-f(x')| / |f(x)|``: of all entries, or of those not filled in, if that is more.

    Not a finite number where the entries are not.
    """
    before, after = before.to(torch.float64), after.to(torch.float64)
    own = before.abs() < FILLED
    whole = _relative(before, after)
    return max(whole, _relative(before[own], after[own])) if math.isfinite(whole) else whole


def _relative(before: Tensor, after: Tensor) -> float:
    size = torch.linalg.vector_norm(before)
    change = torch.linalg.vector_norm(after - before)
    if not (torch.isfinite(size) and torch.isfinite(change)):
        return math.nan
    return float(change / size) if size > 0 else float(change > 0)


def _alike(first: list[Tensor] | None, second: list[Tensor] | None) -> bool:
    """Whether two calls were given the same; calls that nobody saw may differ.

    Nothing but one number, such as zeros in the place of the batch, is no data.
    """
    if first is None or second is None or len(first) != len(second):
        return False
    if first and not any(t.numel() and bool((t != t.reshape(-1)[0]).any()) for t in first):
        return False
    return all(
        a.shape == b.shape and a.layout is b.layout is torch.strided and torch.equal(a, b)
        for a, b in zip(first, second, strict=True)
    )
