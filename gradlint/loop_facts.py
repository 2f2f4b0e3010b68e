"""Facts of a training loop that was watched: what `run` and `watch` see beyond `check`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ClippingFacts:
    """How gradients were clipped.

    `kind` is "norm" (torch's clip_grad_norm_ and what calls its helper), "value"
    (clip_grad_value_) or "by-hand" (told by norms alone: smaller at the step than after
    backward). `limit` is the latest threshold, NaN for "by-hand". `tensors` is the median
    number of tensors a call was given, `calls` how many calls were seen in `steps` steps
    that had one, `scaled` how many of them came while gradients still carried a
    GradScaler's scale. The norms stand in the metrics "norm_before_clipping" and
    "clipping_limit", one value a step (of the call with the largest norm).
    """

    kind: str
    limit: float = float("nan")
    calls: int = 0
    steps: int = 0
    tensors: int = 0
    scaled: int = 0
    norm_type: float = 2.0

    @property
    def calls_per_step(self) -> float:
        """Mean number of clipping calls in a step that had one."""
        return self.calls / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class ScalerFacts:
    """A GradScaler: loss scales, and how many of the steps it was asked for it skipped."""

    first_scale: float
    last_scale: float
    steps: int = 0
    skipped: int = 0
    skipped_late: int = 0
    """Skipped in the second half of the run: the search for the first scale is over."""


@dataclass(frozen=True, slots=True)
class DiscardedFacts:
    """Backward passes whose gradients were cleared before the step they belong to.

    Of `observed` steps, `steps` applied the gradient of their last backward pass alone and threw
    away those of the `each` before it; other steps threw away another number, or none.
    """

    observed: int
    steps: int
    each: int


@dataclass(frozen=True, slots=True)
class DetachedFacts:
    """A part of a model, `reader`, was called on the output of another one, cut from its graph."""

    source: str
    reader: str


@dataclass(frozen=True, slots=True)
class QuietFacts:
    """A part in training mode that a loop calls without gradient, in `steps` steps looked at.

    Nothing was called with gradient in them before it. `output_shapes` are those of its tensors.
    """

    path: str
    steps: int = 0
    input_shape: tuple[int, ...] = ()
    output_shapes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class StrangerFacts:
    """An optimizer that steps where no watched model learns, and has nothing to apply.

    None of its `parameters`, which are no watched model's, had a gradient at any of its steps;
    `steps` counts those with a backward pass of a watched model before them.
    """

    kind: str
    steps: int = 0
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class EmptyFacts:
    """An optimizer that took over from another one, and none of whose steps had a gradient.

    It made `steps` from step `first` on, alone; at `seen` of them that were looked at a backward
    pass had gone before and left nothing. `foreign` are its parameters if no model has any of them.
    """

    kind: str
    first: int
    steps: int
    seen: int
    foreign: int = 0


@dataclass(frozen=True, slots=True)
class TermFacts:
    """A summand of the loss that leads to no parameter, but to what a model was called with.

    It was there at `seen` of the steps looked at, from step `first` on. `shape` is that of the
    tensor it leads to, which nobody learns.
    """

    first: int
    seen: int
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OriginalFacts:
    """A model that an optimizer steps, and that no gradient reaches: its copies are trained.

    None of the optimizer's `parameters`, which are all of the model's and no watched model's, had
    a gradient at any step that was looked at, and none had moved by the last of them, when it
    had made `steps`. `copies` models of the same class, `model`, with parameters of the same
    names and shapes, were called, and one at least got gradients.
    """

    kind: str
    steps: int = 0
    parameters: int = 0
    model: str = ""
    copies: int = 0


@dataclass(frozen=True, slots=True)
class RankFacts:
    """What the ranks of a distributed run say of each other.

    `diverged` names parameters whose bits differ between ranks that must agree, first seen
    at `diverged_step`. `local` holds, for each metric read before any reduction ("loss",
    "activation_grad_norm"), the median of each rank in `reported`.
    """

    world: int
    reported: tuple[int, ...] = ()
    diverged: tuple[str, ...] = ()
    diverged_step: int | None = None
    local: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoopFacts:
    """How a watched loop went.

    `steps` counts optimizer steps (or updates by hand, then `by_hand`), `backwards` the
    backward passes, `observed` the steps whose gradients were measured. `optimizers` are the class
    names of the optimizers that stepped, `idle_optimizers` of those that exist and never
    did. `schedulers` are class names of learning-rate schedulers. `streams` counts
    independent losses (a GAN has two): with more than one there is no metric "loss" at the
    model's site, but a "stream_loss" for each at the site named like its optimizer's model. Of
    phases that follow each other the first one's stands at the model's site, too.
    `compiled` are paths of modules that torch.compile runs, `blind` those whose inside
    cannot be seen because hooks came too late. `scale_unknown`: gradients carried a loss
    scale nobody told of. `ended` is "" for a loop that ended by itself, else "exception",
    "interrupted", "killed", "until" or "fail-on".
    """

    steps: int = 0
    backwards: int = 0
    observed: int = 0
    forwards: float = 0.0
    """Mean number of times models were called for one backward: an episode calls often."""
    by_hand: bool = False
    optimizers: tuple[str, ...] = ()
    idle_optimizers: tuple[str, ...] = ()
    alike: int = 0
    """How many of `optimizers` hold the very parameters of another one, and step while it does."""
    schedulers: tuple[str, ...] = ()
    strangers: tuple[StrangerFacts, ...] = ()
    """Known where nothing updated the models that were watched."""
    originals: tuple[OriginalFacts, ...] = ()
    """Known when the loop is over."""
    empty: tuple[EmptyFacts, ...] = ()
    term: TermFacts | None = None
    """A term that teaches nobody; None where there is none."""
    streams: int = 1
    summed: int = 1
    """How many losses, of a backward pass each, the first step's loss is the sum of."""
    compiled: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    scale_unknown: bool = False
    detached: tuple[DetachedFacts, ...] = ()
    quiet: tuple[QuietFacts, ...] = ()
    discarded: DiscardedFacts | None = None
    """Backward passes that came to nothing; None where there are none."""
    clipping: ClippingFacts | None = None
    scaler: ScalerFacts | None = None
    ranks: RankFacts | None = None
    ended: str = ""
    fault: str = ""
    """The exception of gradlint's own that ended the watching, before the loop did."""
    own_seconds: float = 0.0
    """CPU seconds gradlint spent; `loop_seconds` is the whole loop's."""
    loop_seconds: float = 0.0
