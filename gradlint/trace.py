"""Site, Observation, facts and Trace: what was measured, as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from gradlint.finding import Source
from gradlint.graph import Graph, Operation


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the model where numbers are read.

    `path` is a module path as in `named_modules()`, a parameter path as in
    `named_parameters()`, or, for an operation called as a function, the module it
    follows and its kind: ``"fc1:relu"``. `module` is always a real module path.
    `depth` is the order of the first call in forward; 0 is nearest the input.
    """

    path: str
    kind: str
    depth: int = 0
    module: str = ""


MODEL = Site("", "model")
"""Site of what concerns the whole run: loss, total gradient norm."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One value of one metric. Step 0 is the initialization; training counts from 1."""

    metric: str
    site: Site
    step: int
    value: float


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
    source: Source | None = None
    ours: bool = False
    """Whether the class is defined in the user's own code."""


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
    softmax in front, of exp(output) for "nll" (1 proves log-probabilities).
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
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    synthesized: bool = False
    """Whether gradlint made up the batch: rules on the data stay silent."""
    pretrained: bool = False
    """Whether the weights were loaded or trained before: rules on initialization stay silent."""
    batch_size: int | None = None
    tasks: frozenset[str] = frozenset()


class Trace:
    """What was measured in one run; narrows by `of`, `at`, `initial`, `training`."""

    def __init__(
        self,
        observations: Iterable[Observation] = (),
        *,
        modules: Mapping[str, ModuleFacts] | None = None,
        parameters: Mapping[str, ParameterFacts] | None = None,
        graph: Graph | None = None,
        facts: Facts | None = None,
    ) -> None:
        self.observations: tuple[Observation, ...] = tuple(observations)
        self.modules: Mapping[str, ModuleFacts] = modules or {}
        self.parameters: Mapping[str, ParameterFacts] = parameters or {}
        self.graph = graph or Graph()
        self.facts = facts or Facts()
        self._narrowed: dict[str, Trace] = {}

    def _narrow(self, observations: Iterable[Observation]) -> Trace:
        return Trace(
            observations,
            modules=self.modules,
            parameters=self.parameters,
            graph=self.graph,
            facts=self.facts,
        )

    def __len__(self) -> int:
        return len(self.observations)

    def __iter__(self) -> Iterator[Observation]:
        return iter(self.observations)

    @cached_property
    def _by_metric(self) -> Mapping[str, list[Observation]]:
        index: dict[str, list[Observation]] = {}
        for seen in self.observations:
            index.setdefault(seen.metric, []).append(seen)
        return index

    @cached_property
    def _by_path(self) -> Mapping[str, list[Observation]]:
        index: dict[str, list[Observation]] = {}
        for seen in self.observations:
            index.setdefault(seen.site.path, []).append(seen)
        return index

    def of(self, metric: str) -> Trace:
        """Observations of one metric."""
        if metric not in self._narrowed:
            self._narrowed[metric] = self._narrow(self._by_metric.get(metric, ()))
        return self._narrowed[metric]

    def at(self, site: Site | str) -> Trace:
        """Observations at one site."""
        path = site if isinstance(site, str) else site.path
        return self._narrow(self._by_path.get(path, ()))

    @cached_property
    def initial(self) -> Trace:
        """Observations of step 0, before any update (several batches)."""
        return self._narrow(o for o in self.observations if o.step == 0)

    @cached_property
    def training(self) -> Trace:
        """Observations of steps 1 and later."""
        return self._narrow(o for o in self.observations if o.step > 0)

    def since(self, step: int) -> Trace:
        """Observations of step `step` and later."""
        return self._narrow(o for o in self.observations if o.step >= step)

    @cached_property
    def metrics(self) -> frozenset[str]:
        """Names of the metrics observed."""
        return frozenset(self._by_metric)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Sites observed, in order of depth."""
        unique = dict.fromkeys(o.site for o in self.observations)
        return tuple(sorted(unique, key=lambda site: site.depth))

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Steps observed, each once, ascending."""
        return tuple(sorted({o.step for o in self.observations}))

    @cached_property
    def values(self) -> tuple[float, ...]:
        """Values in the order they were observed."""
        return tuple(o.value for o in self.observations)

    @property
    def median(self) -> float:
        """Median value; NaN when nothing was observed."""
        return statistics.median(self.values) if self.values else float("nan")

    @property
    def last(self) -> float:
        """Latest value; NaN when nothing was observed."""
        return self.values[-1] if self.values else float("nan")

    @property
    def first(self) -> float:
        """Earliest value; NaN when nothing was observed."""
        return self.values[0] if self.values else float("nan")

    def events(self, name: str) -> tuple[Event, ...]:
        """Events called `name`."""
        return tuple(e for e in self.facts.events if e.name == name)

    def module_kind(self, path: str) -> str:
        """Class name of the module at `path`; empty when unknown."""
        facts = self.modules.get(path)
        return facts.kind if facts else ""

    def weight_layers(self) -> tuple[Operation, ...]:
        """Operations of the model that multiply by a weight, in forward order."""
        from gradlint.graph import WEIGHTED

        return tuple(op for op in self.graph if op.kind in WEIGHTED and not op.in_loss)

    def but(self, *, facts: Facts | None = None, **changes: Any) -> Trace:
        """Return a copy with other facts (or other fields, by keyword)."""
        return Trace(
            changes.get("observations", self.observations),
            modules=changes.get("modules", self.modules),
            parameters=changes.get("parameters", self.parameters),
            graph=changes.get("graph", self.graph),
            facts=facts or self.facts,
        )


def with_facts(facts: Facts, **changes: Any) -> Facts:
    """Return `facts` with `changes` applied."""
    return replace(facts, **changes)


def merge_observations(traces: Sequence[Trace]) -> tuple[Observation, ...]:
    """All observations of several traces, in order of step."""
    return tuple(sorted((o for t in traces for o in t), key=lambda o: o.step))
