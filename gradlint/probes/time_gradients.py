"""How far back in time does a recurrent layer's gradient reach? One pass forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.trial import copied

LEAST = 8
"""Time steps in front of the last one that is read, below which nothing can vanish."""


class _Inputs:
    """Keeps what each recurrent layer is given, and has it require a gradient."""

    def __init__(self) -> None:
        self.given: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Keep the sequence a recurrent layer is given."""
        if not isinstance(module, nn.RNNBase) or module.bidirectional:
            return
        self.calls[path] = self.calls.get(path, 0) + 1
        tensors = [t for _, t in named_tensors(inputs, "input")]
        if not tensors or tensors[0].ndim != 3 or not tensors[0].is_floating_point():
            return
        if tensors[0].is_leaf:
            tensors[0].requires_grad_()  # the batch is a copy
        self.given[path] = tensors[0]

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Nothing to do."""


def time_gradients(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], batches: Sequence[Any]
) -> Mapping[str, Any] | None:
    """Measure the loss's gradient at every time step of what recurrent layers are given.

    Works with fused layers, which show no time step of their own: the input of a step gets its
    gradient through all the steps after it.

    Args:
        model: The model after training; unchanged.
        run: Calls a model on a batch, which it may change, and returns the loss first.
        batches: Batches of the training, at least one.

    Returns:
        By module path, for each recurrent layer of one direction that is called once in a
        forward: ``steps`` (from the first to the one with the largest gradient), ``ratio`` (of
        the median norm over the first quarter of them to the largest), ``kind``; None if there
        is none with enough steps.
    """
    if not any(isinstance(m, nn.RNNBase) and not m.bidirectional for m in model.modules()):
        return None
    twin = copied(model, model)
    inputs = _Inputs()
    with HookManager(twin, inputs):
        loss = run(twin, batches[0])[0]
    paths = [path for path, calls in inputs.calls.items() if calls == 1 and path in inputs.given]
    paths = [path for path in paths if inputs.given[path].requires_grad]
    if not paths:
        return None
    gradients = torch.autograd.grad(loss, [inputs.given[p] for p in paths], allow_unused=True)
    found: dict[str, Any] = {}
    modules = dict(twin.named_modules())
    for path, gradient in zip(paths, gradients, strict=True):
        module = modules[path]
        if gradient is None or not isinstance(module, nn.RNNBase):
            continue
        others = (0, 2) if module.batch_first else (1, 2)
        norms = torch.linalg.vector_norm(gradient.to(torch.float64), dim=others)  # (T,)
        largest = int(norms.argmax())
        if largest < LEAST or not torch.isfinite(norms).all() or norms[largest] == 0:
            continue
        early = norms[: max(1, largest // 4)].median()
        found[path] = {
            "steps": largest,
            "ratio": float(early / norms[largest]),
            "kind": module.mode.split("_")[0],
        }
    return found or None
