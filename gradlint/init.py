"""Initializers that look at the network: by following activation, by unit variance, by depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradlint.errors import UsageError
from gradlint.graph import NORMALIZATIONS, RECTIFIERS, SMOOTH, STRUCTURAL, Graph, Operation
from gradlint.hooks.calls import Calls
from gradlint.hooks.graph import capture
from gradlint.hooks.manager import HookManager
from gradlint.hooks.sites import units_first
from gradlint.hooks.tensor_facts import named_tensors

__all__ = ["by_activation_", "lsuv_", "scale_residual_branches_"]

_WEIGHT_LAYERS = ("linear", "conv", "conv_transpose")


class _Recorder:
    """Calls and the output of one forward."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.output: Any = None

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        self.calls.enter(path)

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self.calls.leave(path)
        if not path:
            self.output = output


def graph_of(model: nn.Module, run: Callable[[], Any]) -> Graph:
    """Return the operations of `run`, which calls `model`; buffers and gradients stay.

    Raises:
        UsageError: If nothing in the output depends on a trainable parameter.
    """
    recorder = _Recorder()
    names = {id(p): path for path, p in model.named_parameters()}
    with _buffers_kept(model), HookManager(model, recorder), torch.enable_grad():
        run()
        tensors = [t for _, t in named_tensors(recorder.output, "output") if t.requires_grad]
        if not tensors or not any(p.requires_grad for p in model.parameters()):
            raise UsageError(
                "expected an output that depends on trainable parameters, got none; call "
                "requires_grad_() on the layers to initialize"
            )
        total = torch.stack([t.real.sum() if t.is_complex() else t.sum() for t in tensors]).sum()
    return capture(total, recorder.calls, dict(model.named_modules()), names).graph


def _forward(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    """Return a forward through whose inputs gradients flow, so that residuals on them show."""
    args, kwargs = tree_map(_differentiable, (args, kwargs))
    return lambda: model(*args, **kwargs)


def _differentiable(leaf: Any) -> Any:
    """Return a tensor through which a residual connection from the input can be seen."""
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().clone().requires_grad_()
    return leaf


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        for name, buffer in model.named_buffers():
            if name in kept and buffer.shape == kept[name].shape:
                buffer.data.copy_(kept[name])


def wanted_gain(graph: Graph, op: Operation) -> float:
    """Return the gain that keeps the signal's variance through what follows a weight layer.

    √2 (with the slope) before the ReLU family and its smooth kin, 1 before tanh, sigmoid,
    SELU, another weight, a normalization or the output.

    Source:
        He et al. (2015), equation 14; LeCun et al. (1998), section 4.6; Klambauer et al. (2017).
    """
    through = STRUCTURAL | NORMALIZATIONS | {"parameter_add", "shift"}
    following = graph.ahead(op, lambda o: o.kind in through)
    for after in following:
        if after.kind in RECTIFIERS:
            slope = float(after.attributes.get("slope", 0.0))
            return math.sqrt(2 / (1 + slope**2))
        if after.kind in SMOOTH - {"selu", "glu", "softplus"}:
            return math.sqrt(2)
    return 1.0


@torch.no_grad()
def by_activation_(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Re-initialize every linear and convolution layer for the activation that follows it.

    He (normal, fan in) before the ReLU family, LeCun (normal, fan in) before everything
    else; biases become zero. The following activation is read from the autograd graph of
    ``model(*args, **kwargs)``, so functional activations count. The last layers of
    residual branches keep their scale if they were zero on purpose.

    Args:
        model: Changed in place.
        args: Inputs of one forward.
        kwargs: Keyword inputs of one forward.

    Returns:
        `model`.

    Source:
        He et al. (2015), "Delving deep into rectifiers", section 2.2; reference [0], 4.3.2.
    """
    return initialize_by_activation_(model, graph_of(model, _forward(model, args, kwargs)))


@torch.no_grad()
def initialize_by_activation_(model: nn.Module, graph: Graph) -> nn.Module:
    """Do what `by_activation_` says, for a graph at hand."""
    parameters = dict(model.named_parameters())
    for op in _weight_layers(graph):
        module = model.get_submodule(op.module or "")
        gain = wanted_gain(graph, op)
        for path in op.parameters:
            parameter = parameters[path]
            if parameter.ndim < 2:
                parameter.zero_()
            elif bool(parameter.any()):
                ordered = units_first(parameter, module)
                fan_in = ordered.numel() // ordered.shape[0]
                parameter.normal_(std=gain / math.sqrt(fan_in))
    return model


@torch.no_grad()
def lsuv_(
    model: nn.Module, *args: Any, tolerance: float = 0.05, rounds: int = 10, **kwargs: Any
) -> nn.Module:
    """Layer-sequential unit-variance: orthogonal weights, scaled until outputs have variance 1.

    Args:
        model: Changed in place.
        args: Inputs of one forward; a batch of real data.
        tolerance: Accepted distance of an output's variance from 1.
        rounds: Most forwards spent on one layer.
        kwargs: Keyword inputs of one forward.

    Returns:
        `model`.

    Source:
        Mishkin & Matas (2016), "All you need is a good init", algorithm 1.
    """
    layers = list(
        dict.fromkeys(
            op.module for op in _weight_layers(graph_of(model, _forward(model, args, kwargs)))
        )
    )
    for path in layers:
        module = model.get_submodule(path or "")
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim < 2:
            continue
        nn.init.orthogonal_(weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)
        for _ in range(rounds):
            variance = _output_variance(model, module, lambda: model(*args, **kwargs))
            if variance is None or variance <= 0 or abs(variance - 1) <= tolerance:
                break
            weight.div_(math.sqrt(variance))
    return model


def _output_variance(model: nn.Module, module: nn.Module, run: Callable[[], Any]) -> float | None:
    seen: list[Tensor] = []

    class Keep:
        def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
            pass

        def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
            seen.extend(t for _, t in named_tensors(output, "output") if t.is_floating_point())

    with _buffers_kept(model), HookManager(module, Keep()):
        run()
    return float(seen[-1].var(correction=0)) if seen else None


@torch.no_grad()
def scale_residual_branches_(model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Scale the last weight of every residual branch by 1/√(number of branches).

    The residual stream then keeps its size over the depth.

    Args:
        model: Changed in place.
        args: Inputs of one forward.
        kwargs: Keyword inputs of one forward.

    Returns:
        `model`.

    Source:
        Radford et al. (2019), "Language models are unsupervised multitask learners",
        section 2.3; reference [0], section 4.6.3.
    """
    graph = graph_of(model, _forward(model, args, kwargs))
    parameters = dict(model.named_parameters())
    last: list[Operation] = []
    for add in graph.of_kind("add"):
        if len(add.inputs) != 2:
            continue
        one, other = graph.inputs_of(add)
        for branch, trunk in ((one, other), (other, one)):
            inside = {o.id for o in graph.ancestors(branch)}
            if trunk.id in inside or branch.id in _reach(graph, trunk):
                ends = graph.behind(add, lambda o: o.kind in STRUCTURAL | {"parameter_add"})
                last += [o for o in ends if o.kind in _WEIGHT_LAYERS and trunk.id != o.id]
                break
    weights = dict.fromkeys(path for op in last for path in op.parameters)
    scale = 1 / math.sqrt(max(1, len(last)))
    for path in weights:
        if parameters[path].ndim >= 2:
            parameters[path].mul_(scale)
    return model


def _reach(graph: Graph, op: Operation) -> set[int]:
    return {o.id for o in graph.descendants(op)}


def _weight_layers(graph: Graph) -> tuple[Operation, ...]:
    return graph.of_kind(*_WEIGHT_LAYERS)
