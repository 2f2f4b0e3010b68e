"""Sites: which modules and parameters there are, what they are called, what is known of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.finding import Source
from gradlint.graph import STRUCTURAL, WEIGHTED, Graph, Operation
from gradlint.hooks.attributes import is_users
from gradlint.hooks.ranks import class_of
from gradlint.hooks.weak import joined
from gradlint.trace import ModuleFacts, OptimizerFacts, ParameterFacts

_OPTIONS = (
    "p", "eps", "momentum", "affine", "num_features", "in_features", "out_features",
    "in_channels", "out_channels", "kernel_size", "stride", "groups", "num_groups",
    "num_channels", "normalized_shape", "track_running_stats", "negative_slope", "inplace",
    "num_embeddings", "embedding_dim", "padding_idx", "input_size", "hidden_size", "num_layers",
    "nonlinearity", "dropout", "bidirectional", "dim", "elementwise_affine", "batch_first",
)  # fmt: skip
_WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def clean_path(path: str) -> str:
    """Return a module path without the names that compilation and data parallelism add."""
    return ".".join(name for name in path.split(".") if name not in _WRAPPERS)


def module_facts(
    model: nn.Module, sources: Mapping[str, Source] | None = None, label: str = ""
) -> dict[str, ModuleFacts]:
    """Return the facts of every module by its path below `label`, not called yet."""
    sources = sources or {}
    functions = function_sources(sources)
    facts: dict[str, ModuleFacts] = {}
    for inner, module in model.named_modules():
        path = joined(label, inner)
        prefix = f"{path}." if path else ""
        own = tuple(f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False))
        facts[path] = ModuleFacts(
            path=path,
            kind=class_of(module).__name__,
            training=module.training,
            leaf=next(module.children(), None) is None,
            parameters=own,
            options=_options(module),
            source=sources.get(inner),
            ours=_is_ours(class_of(module)),
            functions=functions.get(inner, {}),
        )
    return facts


def function_sources(sources: Mapping[str, Source]) -> dict[str, dict[str, Source]]:
    """Return, by module and kind, the lines of ``path:kind``: operations called as functions."""
    found: dict[str, dict[str, Source]] = {}
    for key, source in sources.items():
        path, colon, kind = key.partition(":")
        if colon:
            found.setdefault(path, {})[kind] = source
    return found


def _options(module: nn.Module) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in _OPTIONS:
        value = getattr(module, name, None)
        if isinstance(value, (bool, int, float, str)):
            options[name] = value
        elif isinstance(value, (tuple, list, torch.Size)) and all(
            isinstance(v, (int, float)) for v in value
        ):
            options[name] = tuple(value)
    options["bias"] = isinstance(getattr(module, "bias", None), Tensor)
    if _is_ours(class_of(module)) and _reads_mode(class_of(module)):
        options["reads_mode"] = True
    return options


def _reads_mode(kind: type) -> bool:
    """Whether a class's forward gives its mode to a dropout or a normalization it calls."""
    code = getattr(kind.__dict__.get("forward"), "__code__", None)
    names = set(getattr(code, "co_names", ()))
    return "training" in names and any("dropout" in n or n == "batch_norm" for n in names)


def _is_ours(kind: type) -> bool:
    home = sys.modules.get(kind.__module__)
    file = getattr(home, "__file__", None)
    return isinstance(file, str) and is_users(file)


def parameter_facts(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, label: str = ""
) -> dict[str, ParameterFacts]:
    """Return the facts of every parameter by its first path below `label`."""
    held = None
    if optimizer is not None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    paths: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        paths.setdefault(id(parameter), []).append(path)
        tensors[id(parameter)] = parameter
    facts: dict[str, ParameterFacts] = {}
    for key, (inner, *others) in paths.items():
        tensor = tensors[key]
        owner = inner.rpartition(".")[0]
        fan_in, fan_out = fans(tensor, model.get_submodule(owner))
        path, module_path = joined(label, inner), joined(label, owner)
        aliases = [joined(label, other) for other in others]
        facts[path] = ParameterFacts(
            path=path,
            shape=() if is_lazy(tensor) else tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            module=module_path,
            requires_grad=tensor.requires_grad,
            in_optimizer=None if held is None else key in held,
            aliases=tuple(aliases),
            fan_in=fan_in,
            fan_out=fan_out,
        )
    return facts


def is_lazy(tensor: Tensor) -> bool:
    """Whether a parameter waits for the first forward to learn its shape."""
    return isinstance(tensor, nn.UninitializedParameter)


def units_first(weight: Tensor, module: nn.Module | None) -> Tensor:
    """Return a weight with its units (outputs) as the first axis.

    Torch stores them first but in transposed convolutions and in transformers' `Conv1D`.
    """
    return weight.transpose(0, 1) if weight.ndim >= 2 and _units_second(module) else weight


def _units_second(module: nn.Module | None) -> bool:
    kind = "" if module is None else class_of(module).__name__
    return kind.startswith("ConvTranspose") or kind == "Conv1D"


def fans(weight: Tensor, module: nn.Module | None = None) -> tuple[int, int]:
    """Return fan in and fan out of a weight; zeros below two dimensions."""
    if is_lazy(weight) or weight.ndim < 2 or weight.numel() == 0:
        return 0, 0
    first, second, *kernel = weight.shape
    field = math.prod(kernel)
    if _units_second(module):
        first, second = second, first
    return second * field, first * field


def unit_axis(graph: Graph, op: Operation) -> int:
    """Return which axis of an activation counts units: 1 after a convolution, else the last."""
    passed = STRUCTURAL | {"batch_norm", "group_norm", "layer_norm", "rms_norm", "add", "shift"}
    passed = passed | {"parameter_add", "parameter_mul", "mul", "scale"}
    feeders = graph.behind(op, lambda o: o.kind in passed)
    rank = len(op.shape)
    convolved = any(o.kind.startswith("conv") and len(o.shape) == rank for o in feeders)
    if rank >= 3 and (convolved or (rank >= 4 and not any(o.kind in WEIGHTED for o in feeders))):
        return 1
    return rank - 1


def optimizer_facts(
    optimizer: torch.optim.Optimizer, model: nn.Module, *, probe: bool = False
) -> OptimizerFacts:
    """Return the facts of an optimizer: its groups' numbers, and whose parameters it holds."""
    own = {id(p): path for path, p in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    seen: dict[int, int] = {}
    foreign = 0
    for group in optimizer.param_groups:
        numbers = {
            key: float(value) if isinstance(value, Tensor) else value
            for key, value in group.items()
            if key != "params"
            and (
                isinstance(value, (bool, int, float))
                or (isinstance(value, Tensor) and value.numel() == 1)
            )
        }
        numbers["parameters"] = len(group["params"])
        groups.append(numbers)
        for parameter in group["params"]:
            seen[id(parameter)] = seen.get(id(parameter), 0) + 1
            foreign += id(parameter) not in own
    return OptimizerFacts(
        kind=type(optimizer).__name__,
        groups=tuple(groups),
        foreign=foreign,
        duplicates=tuple(own[key] for key, count in seen.items() if count > 1 and key in own),
        has_state=len(optimizer.state) > 0,
        probe=probe,
    )
