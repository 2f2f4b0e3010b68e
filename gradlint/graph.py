"""Operation and Graph: the computation as plain data, with the questions rules ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gradlint.finding import Source

RECTIFIERS = frozenset({"relu", "leaky_relu", "prelu", "relu6", "rrelu"})
SIGMOIDAL = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign", "logsigmoid"})
SMOOTH = frozenset({"gelu", "silu", "elu", "selu", "celu", "mish", "softplus", "hardswish", "glu"})
ACTIVATIONS = RECTIFIERS | SIGMOIDAL | SMOOTH
NORMALIZATIONS = frozenset(
    {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "normalize"}
)
WEIGHTED = frozenset({"linear", "conv", "conv_transpose", "bilinear", "rnn"})
SOFTMAXES = frozenset({"softmax", "log_softmax"})
LOSSES = frozenset(
    {"nll", "mse", "smooth_l1", "huber", "bce", "bce_with_logits", "ctc", "kl_div", "soft_margin"}
)
SHAPES = frozenset(
    {
        "view",
        "transpose",
        "expand",
        "cast",
        "clone",
        "squeeze",
        "slice",
        "index",
        "concat",
        "split",
        "mask",
    }
)
POOLS = frozenset({"max_pool", "avg_pool", "mean", "sum", "upsample", "embedding", "pad", "amax"})
STRUCTURAL = SHAPES | POOLS | frozenset({"dropout"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the forward pass, seen through its node of the backward graph.

    `id` counts in forward order, so every input has a smaller id. `inputs` are the
    operations it reads; a parameter is not an operation: `parameters` are the paths of
    those it reads directly (through a transposition or a view, too). `missing` is the
    number of tensor inputs that need no gradient (data, constants, frozen weights).
    """

    id: int
    kind: str
    name: str
    module: str | None = None
    inputs: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()
    missing: int = 0
    shape: tuple[int, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    in_loss: bool = False
    site: str = ""
    source: Source | None = None
    call: int = 0


@dataclass(frozen=True)
class Graph:
    """All operations between the inputs and the loss, in forward order."""

    operations: tuple[Operation, ...] = ()

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    @cached_property
    def by_id(self) -> Mapping[int, Operation]:
        """Operations by `id`."""
        return {op.id: op for op in self.operations}

    @cached_property
    def consumers(self) -> Mapping[int, tuple[Operation, ...]]:
        """Operation id to the operations that read its output."""
        readers: dict[int, list[Operation]] = {op.id: [] for op in self.operations}
        for op in self.operations:
            for source in dict.fromkeys(op.inputs):
                readers[source].append(op)
        return {key: tuple(value) for key, value in readers.items()}

    def of_kind(self, *kinds: str) -> tuple[Operation, ...]:
        """Operations whose kind is one of `kinds`."""
        return tuple(op for op in self.operations if op.kind in kinds)

    def reading(self, parameter: str) -> tuple[Operation, ...]:
        """Operations that read the parameter at path `parameter`."""
        return self._readers.get(parameter, ())

    @cached_property
    def _readers(self) -> Mapping[str, tuple[Operation, ...]]:
        readers: dict[str, list[Operation]] = {}
        for op in self.operations:
            for path in op.parameters:
                readers.setdefault(path, []).append(op)
        return {path: tuple(ops) for path, ops in readers.items()}

    def inputs_of(self, op: Operation) -> tuple[Operation, ...]:
        """Operations that `op` reads."""
        return tuple(self.by_id[i] for i in op.inputs)

    def ahead(self, op: Operation, through: Callable[[Operation], bool]) -> tuple[Operation, ...]:
        """First operations after `op`, looking past those for which `through` holds."""
        return self._frontier(self.consumers[op.id], lambda o: self.consumers[o.id], through)

    def behind(self, op: Operation, through: Callable[[Operation], bool]) -> tuple[Operation, ...]:
        """Last operations in front of `op`, looking past those for which `through` holds."""
        return self._frontier(self.inputs_of(op), self.inputs_of, through)

    @staticmethod
    def _frontier(
        start: tuple[Operation, ...],
        step: Callable[[Operation], tuple[Operation, ...]],
        through: Callable[[Operation], bool],
    ) -> tuple[Operation, ...]:
        found: dict[int, Operation] = {}
        seen: set[int] = set()
        stack = list(reversed(start))
        while stack:
            op = stack.pop()
            if op.id in seen:
                continue
            seen.add(op.id)
            if through(op):
                stack.extend(reversed(step(op)))
            else:
                found[op.id] = op
        return tuple(found.values())

    def following(self, op: Operation) -> tuple[Operation, ...]:
        """What `op` feeds, past shapes, dropout, pooling: activations, weights, adds, losses."""
        return self.ahead(op, lambda o: o.kind in STRUCTURAL)

    def preceding(self, op: Operation) -> tuple[Operation, ...]:
        """What feeds `op`, past shapes, dropout, pooling."""
        return self.behind(op, lambda o: o.kind in STRUCTURAL)

    def descendants(self, op: Operation) -> Iterator[Operation]:
        """Every operation that depends on `op`, itself left out, in forward order."""
        reached = {op.id}
        for other in self.operations:
            if other.id > op.id and any(i in reached for i in other.inputs):
                reached.add(other.id)
                yield other

    def ancestors(self, op: Operation) -> Iterator[Operation]:
        """Every operation that `op` depends on, itself left out, nearest first."""
        reached = set(op.inputs)
        for other in reversed(self.operations):
            if other.id in reached:
                reached.update(other.inputs)
                yield other

    @property
    def losses(self) -> tuple[Operation, ...]:
        """Operations torch itself knows as losses (``nll``, ``mse``, ``bce`` …)."""
        return self.of_kind(*LOSSES)

    @cached_property
    def output_ids(self) -> frozenset[int]:
        """Model operations whose result leaves the model for the loss side."""
        return frozenset(
            i
            for op in self.operations
            if op.in_loss
            for i in op.inputs
            if not self.by_id[i].in_loss
        )
