"""The autograd graph, read into plain operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from gradlint.graph import (
    STRUCTURAL,
    WEIGHTED,
    Graph,
    Operation,
)
from gradlint.hooks.attributes import attributes_of, user_line
from gradlint.hooks.calls import Call, Calls
from gradlint.hooks.finish import finish
from gradlint.hooks.kinds import base_name, is_custom, kind_of
from gradlint.hooks.ranks import class_of

Node = Any
"""An autograd node; torch gives it no public type with the fields read here."""

_ACCUMULATE = "torch::autograd::AccumulateGrad"
_PARAMETER_EXPRESSIONS = STRUCTURAL | {
    "mul", "div", "add", "sub", "neg", "exp", "sqrt", "rsqrt", "pow", "weight_norm", "tanh",
    "sigmoid", "softplus", "linalg_vector_norm", "norm", "addmm", "clamp", "log", "abs", "var",
    "std", "relu", "softmax", "reciprocal",
}  # fmt: skip
"""Operations that, on parameters alone, compute a weight (weight norm, LoRA's W + BA, a scale)."""


@dataclass
class CapturedGraph:
    """A graph with the nodes it was read from; drop it after backward, it keeps tensors alive."""

    graph: Graph
    nodes: dict[int, Node] = field(default_factory=dict)
    edges: dict[int, list[int | None]] = field(default_factory=dict)
    """Operation id to, for each entry of the node's `next_functions`, the operation there."""
    packed: frozenset[int] = frozenset()

    def saved(self, op: Operation, name: str) -> Tensor | None:
        """Return the node's saved tensor `name`, or None where it cannot be read safely."""
        if op.id in self.packed:
            return None
        try:
            value = getattr(self.nodes[op.id], f"_saved_{name}", None)
        except RuntimeError:  # freed, or changed in place since
            return None
        return value if isinstance(value, Tensor) else None


def collect(roots: Iterable[Node]) -> list[Node]:
    """Return all nodes below `roots`, each after the nodes it reads (forward order)."""
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
                continue
            if node is None or node in seen:
                continue
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions)
    numbers = [_number(node) for node in order]
    if all(n is not None for n in numbers):
        ranked = sorted(range(len(order)), key=lambda i: (numbers[i], i))
        by_number = [order[i] for i in ranked]
        if _is_topological(by_number):
            return by_number
    return order


def _number(node: Node) -> int | None:
    if node.name() == _ACCUMULATE:
        return -1
    number = getattr(node, "_sequence_nr", None)
    return number() if callable(number) else None


def _is_topological(nodes: list[Node]) -> bool:
    place = {node: i for i, node in enumerate(nodes)}
    return all(
        place[following] < place[node]
        for node in nodes
        for following, _ in node.next_functions
        if following is not None
    )


def capture(
    loss: Tensor,
    calls: Calls,
    modules: Mapping[str, nn.Module],
    parameters: Mapping[int, str],
) -> CapturedGraph:
    """Read the graph behind `loss`.

    Args:
        loss: What backward will start from; must have a `grad_fn`.
        calls: The module calls of this forward.
        modules: Modules by path.
        parameters: Parameter paths by ``id(parameter)``.

    Returns:
        The operations in forward order. Parameters and what is computed from them alone
        are not operations; they stand in `Operation.parameters`.
    """
    nodes = collect([loss.grad_fn])
    numbers = sorted(n for n in map(_number, nodes) if n is not None and n >= 0)
    owners = calls.innermost(numbers)
    reads: dict[Node, tuple[str, ...]] = {}
    ids: dict[Node, int] = {}
    captured = CapturedGraph(Graph())
    operations: list[Operation] = []
    packed: set[int] = set()
    for node in nodes:
        if node.name() == _ACCUMULATE:
            path = parameters.get(id(node.variable))
            if path is not None:
                reads[node] = (path,)
                continue
            ids[node] = len(operations)
            captured.nodes[ids[node]] = node
            captured.edges[ids[node]] = []
            operations.append(_leaf(ids[node], node, modules))
            continue
        number = _number(node)
        owner = owners.get(number) if number is not None else None
        closed = number is not None and calls.is_packed(number)
        operation, edges = _operation(
            node, len(operations), owner, reads, ids, modules, parameters, packed=closed
        )
        if operation is None:
            reads[node] = tuple(
                dict.fromkeys(p for n, _ in node.next_functions if n for p in reads.get(n, ()))
            )
            continue
        ids[node] = operation.id
        captured.nodes[operation.id] = node
        captured.edges[operation.id] = edges
        if closed:
            packed.add(operation.id)
        operations.append(operation)
    captured.packed = frozenset(packed)
    captured.graph = Graph(tuple(finish(operations, modules)))
    return captured


def _leaf(identity: int, node: Node, modules: Mapping[str, nn.Module]) -> Operation:
    """Return the operation of a tensor that needs a gradient and is no parameter of the model.

    It says whether it is a parameter all the same, or which attribute of a module it is.
    """
    leaf = node.variable
    home = attribute_of(leaf, modules)
    told: dict[str, Any] = {"parameter": True} if isinstance(leaf, nn.Parameter) else {}
    if home is not None:
        told["attribute"] = home[1]
    shape = tuple(leaf.shape)
    return Operation(id=identity, kind="input", name="input", shape=shape, attributes=told)


def attribute_of(leaf: Tensor, modules: Mapping[str, nn.Module]) -> tuple[str, str] | None:
    """Return the module and the attribute that a plain tensor is, or None."""
    if isinstance(leaf, nn.Parameter):
        return None
    for path, module in modules.items():
        for name, value in vars(module).items():
            if value is leaf:
                return path, name
    return None


def _operation(
    node: Node,
    identity: int,
    owner: Call | None,
    reads: Mapping[Node, tuple[str, ...]],
    ids: Mapping[Node, int],
    modules: Mapping[str, nn.Module],
    parameters: Mapping[int, str],
    *,
    packed: bool,
) -> tuple[Operation | None, list[int | None]]:
    """Return the operation of `node` (None if it computes a parameter), and its edges."""
    name = node.name()
    kind = kind_of(name)
    inputs: list[int] = []
    own: list[str] = []
    edges: list[int | None] = []
    missing = 0
    for following, _ in node.next_functions:
        edges.append(ids.get(following) if following is not None else None)
        if following is None:
            missing += 1
        elif following in ids:
            inputs.append(ids[following])
        else:
            own.extend(reads.get(following, ()))
    place = owner.path if owner else ""
    if own and not inputs and _computes_parameter(node, kind, missing, place, modules):
        return None, []
    attributes = attributes_of(node, kind, packed=packed)
    shape = shape_of(node)
    kind = _refine(kind, bool(own), missing, inputs, attributes)
    module = owner.path if owner else None
    if kind == "addmm":
        kind = "linear" if own or _is_linear(modules, module) else "matmul"
    if kind in WEIGHTED and (not own or _is_weight_layer(modules, module)):
        own = [*_module_parameters(modules, module, parameters), *own]
    return (
        Operation(
            id=identity,
            kind=kind,
            name=name,
            module=module,
            inputs=tuple(inputs),
            parameters=tuple(dict.fromkeys(own)),
            missing=missing,
            shape=shape,
            attributes=attributes,
            source=user_line(node),
            call=owner.index if owner else 0,
        ),
        edges,
    )


def _computes_parameter(
    node: Node, kind: str, missing: int, place: str, modules: Mapping[str, nn.Module]
) -> bool:
    """Whether a node that reads parameters and no other operation makes a parameter again.

    A tensor without gradient beside the parameter is data if it makes the result larger
    (a batch), a constant if not. What a parametrization computes is its weight.
    """
    if "parametrizations" in place.split("."):
        return True
    name = base_name(node.name())
    if name in ("Mv", "Dot", "Vdot"):
        # Spectral normalization's u·(W v). A matrix of data times a vector of weights is a
        # linear layer, and so is nn.Linear on a sample without a batch.
        weight_first = name != "Mv" or node.next_functions[0][0] is not None
        return weight_first and not _is_linear(modules, place)
    if is_custom(node.name()) or kind not in _PARAMETER_EXPRESSIONS or kind == "embedding":
        return False
    if kind == "addmm":
        return missing == 0
    if missing == 0 or kind in STRUCTURAL:
        return True
    largest = max(
        (_numel(shape_of(n, i)) for n, i in node.next_functions if n is not None), default=0
    )
    return _numel(shape_of(node)) <= largest


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def shape_of(node: Node, index: int = 0) -> tuple[int, ...]:
    """Return the shape of a node's result, or () where it does not tell."""
    try:
        return tuple(int(size) for size in node._input_metadata[index].shape)
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return ()


def _refine(
    kind: str, own: bool, missing: int, inputs: list[int], attributes: Mapping[str, Any]
) -> str:
    """Tell an addition of two signals from a bias, a product of two from a scale."""
    if kind == "clamp":
        if attributes.get("min") == 0.0 and attributes.get("max") is None:
            return "relu"
        return "hardtanh" if {"min", "max"} <= attributes.keys() else "clamp"
    if kind == "hardtanh" and (attributes.get("min"), attributes.get("max")) == (0.0, 6.0):
        return "relu6"
    if kind == "elu" and abs(float(attributes.get("alpha", 1.0)) - 1.6732632) < 1e-4:
        return "selu"
    if kind == "elu" and float(attributes.get("scale", 1.0)) != 1.0:
        return "selu"
    if kind == "conv" and attributes.get("transposed"):
        return "conv_transpose"
    if kind in ("add", "sub") and len(inputs) < 2:
        return "parameter_add" if own else "shift"
    if kind in ("mul", "div") and len(inputs) < 2:
        if own:
            return "parameter_mul"
        return "scale" if "scalar" in attributes or kind == "div" else "mask"
    if kind == "mul" and len(set(inputs)) == 1:
        return "pow"
    return kind


def _is_linear(modules: Mapping[str, nn.Module], path: str | None) -> bool:
    module = modules.get(path) if path is not None else None
    return isinstance(module, nn.Linear) or class_of(module).__name__ == "Conv1D"


def _is_weight_layer(modules: Mapping[str, nn.Module], path: str | None) -> bool:
    """Whether a module multiplies by its own weight and nothing else: one half may be frozen."""
    module = modules.get(path) if path is not None else None
    return _is_linear(modules, path) or isinstance(module, nn.modules.conv._ConvNd)


def _module_parameters(
    modules: Mapping[str, nn.Module], path: str | None, parameters: Mapping[int, str]
) -> list[str]:
    """Return a module's own parameters, a tied one by the path it is known by."""
    module = modules.get(path) if path is not None else None
    if module is None:
        return []
    own = module.parameters(recurse=False)
    return [parameters[id(p)] for p in own if id(p) in parameters]
