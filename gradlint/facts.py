"""Facts: what is known of a run besides the numbers at its sites and steps, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradlint.finding import Source
from gradlint.graph import Operation
from gradlint.loop_facts import LoopFacts
from gradlint.observation import Site


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What is known of a module without measuring it.

    `calls` is the number of calls in one forward pass. `options` holds the constructor's
    numbers that rules ask for (``p``, ``eps``, ``num_features``, ``momentum`` …).
    """

    path: str
    kind: str
    depth: int = -1
    calls: int = 0
    training: bool = True
    leaf: bool = True
    parameters: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    input_given: bool = False
    """Whether its first input is one of the model's own, all of it and as it is."""
    source: Source | None = None
    ours: bool = False
    """Whether the class is defined in the user's own code."""
    functions: Mapping[str, Source] = field(default_factory=dict)
    """Lines at which the class calls an operation as a function, where it does so only once."""


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """What is known of a parameter without measuring it.

    `gradient` says what backward left: "present", "missing" (``.grad is None``).
    `aliases` are the other paths of a tied tensor; `in_optimizer` is None if no
    optimizer was seen.
    """

    path: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    module: str = ""
    requires_grad: bool = True
    gradient: str = "present"
    in_optimizer: bool | None = None
    aliases: tuple[str, ...] = ()
    fan_in: int = 0
    fan_out: int = 0
    since: int = 0
    """Step since which it is seen in the place of another that an optimizer held; 0 if it is the
    first one there."""
    unloaded: bool = False
    """Whether it is as it was made, and a state dict that was loaded into its model held it under
    another name."""
    loaded: bool = False
    """Whether it was given values before its optimizer's first step, in a watched loop: by a state
    dict, or, where it is frozen, from another model's weights."""

    @property
    def numel(self) -> int:
        """Number of entries."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """Statistics of one tensor of a batch, an output or a target; never its entries.

    `whole` says that all entries are whole numbers, `unique` is their number of distinct
    values (capped at 1000). `channel_stds` and `channel_means` are per feature (last
    axis of a matrix, axis 1 of an image), at most 512 of them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    minimum: float = 0.0
    maximum: float = 0.0
    mean: float = 0.0
    std: float = 0.0
    non_finite: int = 0
    whole: bool = False
    unique: int = 0
    channel_means: tuple[float, ...] = ()
    channel_stds: tuple[float, ...] = ()
    neighbors: float | None = None
    """Correlation of an entry of axis 0 with the next, where there are three axes or more: near
    0 for independent samples, near 1 for the frames of a film."""
    quantiles: tuple[float, ...] = ()
    """Entries at 2.5 %, 7.5 % … 97.5 % of all in their order; empty where they are not known."""

    @property
    def floating(self) -> bool:
        """Whether the dtype is a floating one."""
        return "float" in self.dtype

    @property
    def integral(self) -> bool:
        """Whether the dtype is an integer or boolean one."""
        return not self.floating and "complex" not in self.dtype


@dataclass(frozen=True, slots=True)
class LossFacts:
    """One loss operation: what entered it and how it reduces.

    `kind` is one of "cross_entropy" (log-softmax and NLL), "nll", "bce",
    "bce_with_logits", "mse", "l1", "smooth_l1", "huber", "kl_div", "other".
    `row_sum_min/max` are over the class axis of the output: of the probabilities for a
    softmax in front, of exp(output) for "nll" (1 proves log-probabilities). `operation` is
    below zero where the loss stands in the graph of another step than the trace's; `before`
    then holds what it judges, from the nearest layers to the loss itself.
    """

    kind: str
    reduction: str = "mean"
    output: TensorFacts | None = None
    target: TensorFacts | None = None
    classes: int | None = None
    ignore_index: int | None = None
    operation: int | None = None
    row_sum_min: float | None = None
    row_sum_max: float | None = None
    step: int = 0
    before: tuple[Operation, ...] = ()


@dataclass(frozen=True, slots=True)
class OptimizerFacts:
    """The optimizer: its class, its groups' numbers, parameters that are not the model's."""

    kind: str
    groups: tuple[Mapping[str, Any], ...] = ()
    foreign: int = 0
    duplicates: tuple[str, ...] = ()
    has_state: bool = False
    probe: bool = False
    """True for gradlint's own optimizer, used when the user gave none."""

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """Learning rate of each group that has one."""
        return tuple(float(g["lr"]) for g in self.groups if "lr" in g)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at one place and time.

    Names in use, with their details:

    - "non-finite": `phase` ("input", "target", "parameter", "forward", "loss", "backward",
      "update"), `operation` (a kind, as in the graph, or torch's name), `value` ("nan" or
      "inf"), `fed_by` (what entered: "log of 0", "values up to 1e+38").
    - "exception": `phase` ("forward", "loss", "backward", "optimizer"), `type`, `message`.
    - "detached-loss", "loss-not-scalar" (`shape`).
    - "unregistered-module": `attribute`, `kind`, `parameters` (their number), `container`.
    - "plain-tensor": an attribute that is no parameter and wants a gradient, is no zeros, and
      was the same at the end (`attribute`, `parameters`: its entries).
    - "made-anew": matrices in the graph that are parameters of no model, others at every one of
      so many `forwards`, and gone after each (`shapes`).
    """

    name: str
    step: int = 0
    module: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flow:
    """Where the gradient's norm went between the model's output and one weight layer.

    Decades are log10 factors. `decades` maps a kind ("weights", "Sigmoid", "residual",
    "structural" …) to its share, `layers` maps a module path to its share without the
    structural part; `decades` sum to log10(target norm / output norm) exactly.
    """

    step: int
    site: Site
    decades: Mapping[str, float]
    layers: Mapping[str, float] = field(default_factory=dict)
    norm: float = 0.0
    output_norm: float = 0.0

    @property
    def total(self) -> float:
        """Decades lost or won, structural operations included."""
        return sum(self.decades.values())

    @property
    def blamed(self) -> float:
        """Decades lost or won outside structural operations and the loss."""
        return sum(v for k, v in self.decades.items() if k not in ("structural", "loss"))


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """The graph of a later step, one of another network than those before: a student's, say.

    It leads to parameters that no graph before it led to. Inputs, targets, outputs and losses
    are those of that step; the losses' operations are of this graph.
    """

    step: int
    operations: tuple[Operation, ...] = ()
    inputs: tuple[TensorFacts, ...] = ()
    targets: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    losses: tuple[LossFacts, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything about a run that is not a number at a site and a step."""

    command: str = "check"
    inputs: tuple[TensorFacts, ...] = ()
    targets: tuple[TensorFacts, ...] = ()
    outputs: tuple[TensorFacts, ...] = ()
    losses: tuple[LossFacts, ...] = ()
    optimizer: OptimizerFacts | None = None
    events: tuple[Event, ...] = ()
    flows: tuple[Flow, ...] = ()
    later: tuple[GraphFacts, ...] = ()
    """Graphs of other networks that a loop trains later, or in turns."""
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    synthesized: bool = False
    """Whether gradlint made up the batch: rules on the data stay silent."""
    pretrained: bool = False
    """Whether the weights were loaded or trained before: rules on initialization stay silent."""
    batch_size: int | None = None
    loop: LoopFacts | None = None
    """How a watched loop went; None under `check`."""
    tasks: frozenset[str] = frozenset()
