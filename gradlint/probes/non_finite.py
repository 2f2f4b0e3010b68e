"""Where a number first stops being finite: the forward once more, operation by operation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gradlint.graph import Graph
from gradlint.hooks.gains import Gains
from gradlint.hooks.manager import HookManager

_MASKS = frozenset(
    {"masked_fill", "masked_fill_", "full", "full_like", "fill", "fill_", "where", "tril",
     "triu", "scalar_tensor", "zero_", "copy_", "clone", "new_full", "lift_fresh", "detach",
     "empty", "empty_like", "new_empty", "empty_strided", "_to_copy", "constant_pad_nd",
     "max_pool2d_with_indices"}
)  # fmt: skip
"""Operations that write infinity on purpose (masks), or whose result is not filled yet."""

_CAUSES = {
    "log": "log of a number ≤ 0",
    "log2": "log of a number ≤ 0",
    "log10": "log of a number ≤ 0",
    "log1p": "log of a number ≤ 0",
    "sqrt": "√ of a negative number",
    "rsqrt": "1/√ of a number ≤ 0",
    "div": "division by zero",
    "reciprocal": "division by zero",
    "exp": "exp of a large number",
    "pow": "a power out of range",
    "acos": "arccos outside [-1, 1]",
    "asin": "arcsin outside [-1, 1]",
}
_BACKWARD_CAUSES = {
    "sqrt": "the derivative of √ at 0",
    "rsqrt": "the derivative of 1/√ at 0",
    "log": "the derivative of log at 0",
    "div": "a division by zero",
    "pow": "the derivative of a power at 0",
    "linalg_vector_norm": "the derivative of a norm at 0",
    "norm": "the derivative of a norm at 0",
    "cdist": "the derivative of a distance at 0",
    "std": "the derivative of a standard deviation at 0",
    "acos": "the derivative of arccos at ±1",
    "asin": "the derivative of arcsin at ±1",
}


class _Path:
    """The module that runs."""

    def __init__(self) -> None:
        self.stack: list[str] = []

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.stack.append(path)

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if path in self.stack:
            del self.stack[self.stack.index(path) :]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds the first operation with finite inputs and a result that is not."""

    def __init__(self, path: _Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.found: dict[str, Any] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is not None:
            return result
        name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        bad = [t for t in _floats(result) if not _finite(t)]
        if not bad or name in _MASKS:
            return result
        given = _floats((args, kwargs))
        if any(not _finite(t) for t in given):
            return result
        largest = max((float(t.abs().amax()) for t in given if t.numel()), default=0.0)
        fed = _CAUSES.get(name.rstrip("_"), f"values up to {largest:.1e}")
        if name.rstrip("_") == "div" and largest > 1e30:
            fed = f"values up to {largest:.1e}"
        self.found = {
            "module": self.path.stack[-1] if self.path.stack else None,
            "operation": name,
            "value": "nan" if any(bool(torch.isnan(t).any()) for t in bad) else "inf",
            "fed_by": fed,
            "largest_input": largest,
        }
        return result


def _floats(value: Any) -> list[Tensor]:
    return [
        leaf
        for leaf in _pytree.tree_leaves(value)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()
    ]


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


def in_forward(
    model: nn.Module, run: Callable[[nn.Module], Any], state: Tensor
) -> Mapping[str, Any] | None:
    """Run the forward again on a copy, with the random state of the first time.

    Args:
        model: The model as it was before the forward; unchanged.
        run: Runs forward and loss on a model.
        state: torch's CPU random state at the start of that forward.

    Returns:
        ``module``, ``operation``, ``value``, ``fed_by``, ``largest_input``; None if every
        number was finite.
    """
    twin = copy.deepcopy(model)
    now = torch.get_rng_state()
    path = _Path()
    watch = _Watch(path)
    torch.set_rng_state(state)
    try:
        with HookManager(twin, path), watch:
            run(twin)
    except Exception:  # what the target raises is reported where it is run for itself
        if watch.found is None:
            return None
    finally:
        torch.set_rng_state(now)
    return watch.found


def in_backward(graph: Graph, gains: Gains) -> Mapping[str, Any] | None:
    """Return the operation whose own derivative made a finite gradient non-finite, or None."""
    bad_edges = {e.source for e in gains.edges if not _is_finite(e.norm)}
    for identity in gains.order:
        norm = gains.norms.get(identity, 0.0)
        if not _is_finite(norm):
            continue
        op = graph.by_id[identity]
        if identity in bad_edges:
            return {
                "module": op.site.partition(":")[0] if op.site else op.module,
                "operation": op.kind,
                "value": "nan",
                "fed_by": _BACKWARD_CAUSES.get(op.kind, f"the derivative of {op.kind}"),
            }
    return None


def _is_finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
