"""Where a number first stops being finite: the step once more, operation by operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gradlint.engine import Observer
from gradlint.graph import Graph
from gradlint.hooks.gains import Gains
from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.trial import copied
from gradlint.trace import Event

_MASKS = frozenset(
    {"masked_fill", "masked_fill_", "full", "full_like", "fill", "fill_", "where", "tril",
     "triu", "scalar_tensor", "zero_", "copy_", "clone", "new_full", "lift_fresh", "detach",
     "empty", "empty_like", "new_empty", "empty_strided", "_to_copy", "constant_pad_nd",
     "max_pool2d_with_indices"}
)  # fmt: skip
"""Operations that write infinity on purpose (masks), or whose result is not filled yet."""

CAUSES = {
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
_SPOILED = {
    "softmax": "a row that is masked everywhere",
    "log_softmax": "a row that is masked everywhere",
    "sub": "infinity less infinity",
    "add": "infinity less infinity",
    "mul": "zero times infinity",
    "div": "infinity over infinity",
}
"""What makes NaN of an infinity."""

BACKWARD_CAUSES = {
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
    """Finds the first operation with finite inputs and a result that is not.

    An infinity may be meant (a mask): `spoiled` is the first operation that makes NaN of one.
    """

    def __init__(self, path: _Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.found: dict[str, Any] | None = None
        self.spoiled: dict[str, Any] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is not None:
            return result
        name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        bad = [t for t in _floats(result) if not _finite(t)]
        if not bad or name in _MASKS:
            return result
        given = _floats((args, kwargs))
        if all(_finite(t) for t in given):
            self.found = self._place(name, bad, given)
        elif self.spoiled is None and _nan(bad) and not _nan(given):
            self.spoiled = self._place(name, bad, [])
        return result

    def _place(self, name: str, bad: list[Tensor], given: list[Tensor]) -> dict[str, Any]:
        largest = max((float(t.abs().amax()) for t in given if t.numel()), default=0.0)
        base = name.strip("_")
        if not given:
            fed = _SPOILED.get(base, "an infinity")
        elif base in CAUSES and not (base == "div" and largest > 1e30):
            fed = CAUSES[base]
        else:
            fed = f"values up to {largest:.1e}"
        return {
            "module": self.path.stack[-1] if self.path.stack else None,
            "operation": base if not given else name,
            "value": "nan" if _nan(bad) else "inf",
            "fed_by": fed,
            "largest_input": largest,
        }


def _floats(value: Any) -> list[Tensor]:
    return [
        leaf
        for leaf in _pytree.tree_leaves(value)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()
    ]


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


def _nan(tensors: list[Tensor]) -> bool:
    return any(bool(torch.isnan(t.detach()).any()) for t in tensors)


def in_tensors(tensors: Mapping[str, Tensor]) -> tuple[str, str, int] | None:
    """Return the name of the first that is not finite, "nan" or "inf", and how many entries."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or tensor.is_complex()) or _finite(tensor):
            continue
        bad = int((~torch.isfinite(tensor.detach())).sum())
        return name, "nan" if _nan([tensor]) else "inf", bad
    return None


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
    twin = copied(model, model)
    now = torch.get_rng_state()
    path = _Path()
    watch = _Watch(path)
    torch.set_rng_state(state)
    try:
        with HookManager(twin, path), watch:
            run(twin)
    except Exception:  # noqa: S110 - what the target raises is reported where it is run itself
        pass
    finally:
        torch.set_rng_state(now)
    return watch.found or watch.spoiled


def in_backward(graph: Graph, gains: Gains) -> Mapping[str, Any] | None:
    """Return the operation whose own derivative made a finite gradient non-finite, or None."""
    bad: dict[int, list[float]] = {}
    for edge in gains.edges:
        if not math.isfinite(edge.norm):
            bad.setdefault(edge.source, []).append(edge.norm)
    for identity in gains.order:
        if identity in bad and math.isfinite(gains.norms.get(identity, 0.0)):
            op = graph.by_id[identity]
            return {
                "module": op.site.partition(":")[0] if op.site else op.module,
                "operation": op.kind,
                "value": "nan" if any(math.isnan(norm) for norm in bad[identity]) else "inf",
                "fed_by": BACKWARD_CAUSES.get(op.kind, f"the derivative of {op.kind}"),
            }
    return None


def in_gradients(graph: Graph, model: nn.Module) -> Mapping[str, Any] | None:
    """Return the last operation whose parameter's gradient is not finite, or None."""
    gradients = {p: w.grad for p, w in model.named_parameters() if w.grad is not None}
    for op in reversed(graph.operations):
        own = {p: gradients[p].coalesce().values() if gradients[p].is_sparse else gradients[p]
               for p in op.parameters if p in gradients}  # fmt: skip
        found = in_tensors(own)
        if found is not None:
            path, value, _ = found
            return {
                "module": op.site.partition(":")[0],
                "operation": op.kind,
                "value": value,
                "fed_by": f"the gradient of {path}",
            }
    return None


def gains_again(
    observer: Observer, run: Callable[[nn.Module], Tensor], state: Tensor
) -> tuple[Graph, Gains]:
    """Run forward and backward again on a copy, and measure every operation's gradient.

    Args:
        observer: The observer of the step; its model as it was before the forward.
        run: Runs forward and loss on a model.
        state: torch's CPU random state at the start of that forward.
    """
    twin = copied(observer.model, observer.model)
    again = Observer(twin)
    now = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        with again, again.step(0, detailed=False):
            loss = run(twin)
            again.forward_done(loss)
            again.backward(loss)
            again.read()
    except Exception:
        return Graph(), Gains()
    finally:
        torch.set_rng_state(now)
    return again.graph_of_step, again.last_gains


def origin(
    observer: Observer,
    run: Callable[[nn.Module], Tensor],
    batch: Mapping[str, Any],
    state: Tensor,
    step: int,
    loss: float,
) -> Event:
    """Return where the first number of a step that is not finite comes from.

    Args:
        observer: The observer of the step, still open, after its backward.
        run: Runs forward and loss on a model, as the step did.
        batch: "input" and "target" to what the step was given.
        state: torch's CPU random state at the start of the step's forward.
        step: Its number.
        loss: Its loss.
    """
    model = observer.model
    for phase, value in batch.items():
        given = {n: t for n, t in named_tensors(value, phase) if not _is_mask(n, t)}
        found = in_tensors(given)
        if found is not None:
            name, what, count = found
            fed = f"{count} entries of the batch"
            return _event(step, phase, {"operation": name, "value": what, "fed_by": fed})
    found = in_tensors(dict(model.named_parameters()))
    if found is not None and step > 1:
        path, what, count = found
        place = {"module": path.rpartition(".")[0], "operation": "optimizer step", "value": what}
        return _event(step - 1, "update", {**place, "fed_by": f"{count} entries of {path}"})
    if not math.isfinite(loss):
        made = in_forward(model, run, state)
        phase = "loss" if made is not None and made["module"] is None else "forward"
        unknown = {"value": "nan" if math.isnan(loss) else "inf"}
        return _event(step, phase, made or unknown)
    gains = observer.last_gains
    graph = observer.graph_of_step
    if not gains.order:
        graph, gains = gains_again(observer, run, state)
    return _event(step, "backward", in_backward(graph, gains) or in_gradients(graph, model) or {})


def _is_mask(name: str, tensor: Tensor) -> bool:
    """Whether an input is minus infinity on purpose, to be added to attention scores."""
    return "mask" in name and not bool((torch.isnan(tensor) | torch.isposinf(tensor)).any())


def _event(step: int, phase: str, found: Mapping[str, Any]) -> Event:
    detail = {"phase": phase, "operation": "", "value": "nan", "fed_by": "", **found}
    module = detail.pop("module", None)
    return Event("non-finite", step, module, detail)
