"""Mechanisms: how one fault brings about what other rules see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gradlint.diagnosis import conditions
from gradlint.finding import Finding


@dataclass(frozen=True, slots=True)
class Mechanism:
    """How a fault of one of the rules `causes` brings about what the rules `symptoms` see.

    `when(cause, symptom)` tells, where the codes alone do not, whether it did so here. A
    mechanism that acts `by_updates` explains nothing that stood before the first of them.
    """

    name: str
    causes: frozenset[str]
    symptoms: frozenset[str]
    because: str
    when: Callable[[Finding, Finding], bool] | None = None
    by_updates: bool = False

    def leads(self, cause: Finding, symptom: Finding) -> bool:
        """Whether `cause` brings about `symptom` in this way."""
        if cause.code not in self.causes or symptom.code not in self.symptoms:
            return False
        if self.by_updates and symptom.step == 0:
            return False
        return self.when is None or self.when(cause, symptom)


_STUCK = "GL206 GL609 GL610 GL611"
_PROGRESS = f"{_STUCK} GL402"
_TRAINING = "GL206 GL402 GL609 GL610"
"""What an optimizer's faults lead to: GL611 is seen with another one, on a fresh model."""
_SCALE = "GL105 GL203 GL204 GL303 GL304 GL504"


def _mechanism(
    name: str,
    causes: str,
    symptoms: str,
    because: str,
    when: Callable[[Finding, Finding], bool] | None = None,
    *,
    by_updates: bool = False,
) -> Mechanism:
    codes = frozenset(causes.split()), frozenset(symptoms.split())
    return Mechanism(name, *codes, because, when, by_updates)


MECHANISMS: tuple[Mechanism, ...] = (
    _mechanism(
        "constant-input",
        "GL206",
        "GL201 GL202 GL304",
        "units that are given a constant fire always or never",
        conditions.given_a_constant,
    ),
    _mechanism(
        "maximizing",
        "GL609",
        f"GL201 GL202 GL206 GL302 GL306 GL401 GL501 {_SCALE}",
        "an optimizer told to maximize makes loss and weights grow without bound",
        conditions.maximizes,
        by_updates=True,
    ),
    _mechanism(
        "piled-up-gradients",
        "GL704",
        f"GL201 GL202 GL302 GL306 GL401 GL403 GL410 GL501 {_SCALE} {_TRAINING}",
        "gradients that are never cleared pile up: every step follows the sum of all before it",
        conditions.not_the_rate,
        by_updates=True,
    ),
    _mechanism(
        "foreign-optimizer",
        "GL703",
        "GL302 GL303 GL304 GL306 GL704 GL705",
        "an optimizer of other parameters does not clear the model's gradients",
        conditions.holds_nothing,
        by_updates=True,
    ),
    _mechanism(
        "cleared-gradients",
        "GL705",
        "GL102 GL301 GL303 GL304 GL406 GL408 GL502",
        "an optimizer that sees no gradient moves by momentum and decay alone",
        by_updates=True,
    ),
    _mechanism(
        "no-update",
        "GL703 GL705 GL707 GL708",
        f"GL001 GL303 GL406 GL701 {_TRAINING}",
        "where no gradient arrives at a step, or no step is made, nothing learns",
    ),
    _mechanism(
        "held-by-none",
        "GL703 GL707",
        "GL702",
        "parameters are in no optimizer if that holds others, or was not seen to step",
    ),
    _mechanism(
        "part-left-out",
        "GL701 GL702 GL709 GL712",
        f"GL001 GL303 GL406 {_STUCK}",
        "what gets no gradient, or no update, does not learn",
    ),
    _mechanism(
        "hidden-layers",
        "GL709",
        "GL702",
        "layers that their model does not know of are not among its parameters()",
        conditions.elsewhere,
    ),
    _mechanism(
        "input-scale",
        "GL606",
        f"GL104 GL107 GL201 GL202 GL301 GL302 GL306 GL401 GL501 GL615 {_SCALE} {_PROGRESS}",
        "large inputs make large pre-activations, which saturate, die or overflow",
        conditions.from_the_data,
    ),
    _mechanism(
        "target-scale",
        "GL615 GL605",
        f"GL302 GL306 GL401 GL501 GL603 {_SCALE} {_PROGRESS}",
        "targets far from the output make a large loss and large gradients",
        conditions.from_the_data,
    ),
    _mechanism(
        "wrong-loss",
        "GL601 GL602 GL603 GL604 GL605",
        f"GL105 GL201 GL202 GL301 GL303 GL304 GL501 GL603 {_PROGRESS}",
        "a loss that gets what it does not expect has a small or a wrong gradient",
        conditions.from_the_data,
    ),
    _mechanism(
        "symmetry",
        "GL102",
        f"GL101 GL103 GL111 GL201 GL301 GL501 {_SCALE} {_PROGRESS}",
        "identical units get identical gradients and stay one unit",
        conditions.not_the_rate,
    ),
    _mechanism(
        "initialization",
        "GL101 GL108",
        f"GL103 GL104 GL106 GL107 GL201 GL202 GL301 GL302 GL401 GL501 {_SCALE} {_PROGRESS}",
        "a weight scale that does not keep the signal's size changes it at every layer",
        conditions.not_the_rate_alone,
    ),
    _mechanism(
        "bias",
        "GL111",
        f"GL201 GL202 GL301 {_SCALE} {_PROGRESS}",
        "a large bias pushes units onto the flat part of their activation",
        conditions.not_the_rate,
    ),
    _mechanism(
        "small-signal",
        "GL103",
        f"GL301 GL501 {_SCALE} {_PROGRESS}",
        "a signal that has vanished carries no information and no gradient",
        conditions.not_the_rate,
    ),
    _mechanism(
        "large-signal",
        "GL104 GL106",
        f"GL107 GL201 GL202 GL301 GL302 GL306 GL401 GL501 {_SCALE} {_PROGRESS}",
        "a signal that grows with depth saturates, overflows and makes large gradients",
        conditions.not_the_rate,
    ),
    _mechanism(
        "normalization",
        "GL801 GL802 GL809 GL109 GL113 GL808",
        f"GL201 GL301 GL302 {_SCALE} {_PROGRESS}",
        "what is normalized over too little, or over the wrong axis, is a constant",
        conditions.not_the_rate,
    ),
    _mechanism(
        "evaluation-mode",
        "GL710",
        f"GL103 GL104 GL106 GL201 GL202 GL301 GL302 GL306 GL401 GL806 GL807 {_SCALE} {_PROGRESS}",
        "in evaluation mode BatchNorm does not normalize by the batch",
        conditions.normalizes,
    ),
    _mechanism(
        "wrong-derivative",
        "GL503",
        f"GL301 GL302 GL303 GL304 {_PROGRESS}",
        "a backward that is not forward's pushes what is in front of it elsewhere",
    ),
    _mechanism(
        "mixed-samples",
        "GL608",
        _STUCK,
        "an output made from other samples has little to do with its own target",
    ),
    _mechanism(
        "one-hot-attention",
        "GL107",
        f"GL205 GL301 {_SCALE} {_PROGRESS}",
        "a softmax that is one-hot passes next to no gradient to queries and keys",
        conditions.not_the_rate,
    ),
    _mechanism(
        "flat-activation",
        "GL202 GL201",
        f"GL203 GL204 GL301 GL303 GL304 {_PROGRESS}",
        "the derivative is zero where the activation is flat",
        conditions.not_the_rate,
    ),
    _mechanism(
        "constant-features",
        "GL202",
        "GL401",
        "saturated units hand on constants, which all push what reads them the same way",
        conditions.from_the_start,
    ),
    _mechanism(
        "weight-decay",
        "GL408",
        f"GL201 GL202 GL301 GL302 GL401 {_SCALE} {_TRAINING}",
        "weights that decay faster than they learn shrink until the output is a constant",
        by_updates=True,
    ),
    _mechanism(
        "clipped-scale",
        "GL405",
        "GL402 GL403 GL404 GL409 GL609",
        "a limit that sees the loss scale cuts every gradient to next to nothing",
        conditions.not_the_rate,
    ),
    _mechanism(
        "choking",
        "GL403 GL404",
        "GL402 GL609",
        "gradients cut far below their size make steps that move nothing",
        conditions.not_the_rate,
    ),
    _mechanism(
        "schedule",
        "GL412",
        "GL402 GL609",
        "at a learning rate that is gone no weight moves",
    ),
    _mechanism(
        "learning-rate",
        "GL401",
        f"GL201 GL202 GL301 GL302 GL306 GL407 GL409 GL410 GL501 {_SCALE} {_TRAINING}",
        "steps too long make weights grow, units die and the loss rise",
        by_updates=True,
    ),
    _mechanism(
        "depth",
        "GL101 GL103 GL104 GL202 GL301 GL302",
        "GL110",
        "a chain too long for its activations is where a signal or a gradient is lost",
    ),
    _mechanism(
        "small-gradient",
        "GL301 GL305",
        f"GL304 GL303 {_PROGRESS}",
        "layers without gradient do not learn",
        conditions.not_the_rate,
    ),
    _mechanism(
        "odd-batch",
        "GL306",
        f"GL201 GL202 GL302 GL401 GL403 GL501 {_SCALE} {_PROGRESS}",
        "one batch unlike the others threw the weights where no gradient leads back from",
        conditions.of_one_batch,
    ),
    _mechanism(
        "large-gradient",
        "GL302",
        f"GL306 GL401 GL501 {_SCALE} {_PROGRESS}",
        "large gradients make large steps, and in the end numbers that are not finite",
        conditions.not_the_rate,
    ),
    _mechanism(
        "non-finite",
        "GL501",
        f"GL102 GL201 GL202 GL301 GL302 GL306 {_SCALE} {_PROGRESS}",
        "every number computed from NaN is NaN",
        conditions.not_before,
    ),
    _mechanism(
        "unchanged-weights",
        "GL406",
        _PROGRESS,
        "weights that do not change do not learn",
    ),
    _mechanism(
        "growing-weights",
        "GL504",
        "GL201 GL202 GL302 GL306 GL501 GL609 GL610",
        "weights that grow without bound make activations and gradients grow with them",
        by_updates=True,
    ),
    _mechanism(
        "skipping",
        "GL302 GL501",
        "GL409",
        "a GradScaler skips every step with a gradient that is not finite",
    ),
    _mechanism(
        "skipped",
        "GL409",
        "GL402 GL406 GL609",
        "a step that is skipped moves no weight",
    ),
    _mechanism(
        "unclipped-spikes",
        "GL410",
        "GL306",
        "nothing bounds the step where a recurrent network's loss has a cliff",
    ),
    _mechanism(
        "swings",
        "GL610",
        "GL609",
        "a loss that swings ends where it began",
    ),
    _mechanism(
        "replicas",
        "GL901",
        f"GL902 {_PROGRESS}",
        "replicas that differ compute gradients of different models",
    ),
    _mechanism(
        "odd-rank",
        "GL902",
        f"GL302 GL306 {_PROGRESS}",
        "averaged gradients carry what one rank does to all the others",
    ),
    _mechanism(
        "terms-of-different-scale",
        "GL606 GL615",
        "GL614",
        "a term of raw numbers outweighs one of normalized ones",
    ),
    _mechanism(
        "outweighed-term",
        "GL614",
        f"GL303 {_STUCK}",
        "layers that learn for one term alone do not learn for the other",
    ),
    _mechanism(
        "forgetting",
        "GL101 GL102 GL103 GL108 GL202 GL606 GL802",
        "GL305",
        "a recurrence that shrinks what it holds, or saturates, forgets geometrically",
    ),
    _mechanism(
        "below-the-format",
        "GL103 GL301",
        "GL502",
        "a gradient that has vanished is the first that a 16-bit format loses",
    ),
    _mechanism(
        "underflow",
        "GL502",
        f"GL303 GL304 GL406 {_PROGRESS}",
        "gradients flushed to zero move nothing",
    ),
    _mechanism(
        "sharpened",
        "GL302 GL401 GL504 GL606",
        "GL205",
        "queries and keys that grow make scores so large that one key takes all",
    ),
    _mechanism(
        "lagging-statistics",
        "GL302 GL401 GL504",
        "GL806",
        "running statistics cannot follow weights that change too fast",
    ),
    _mechanism(
        "linear-stack",
        "GL112",
        "GL611",
        "linear layers in a row fit no more than one does",
    ),
    _mechanism(
        "no-learning",
        "GL402 GL206",
        "GL609 GL610",
        "without updates, or without a look at the input, the loss stays",
    ),
    _mechanism(
        "blind",
        "GL206",
        "GL611",
        "an output without a look at the input is the same for every sample",
    ),
    _mechanism(
        "nothing-fitted",
        "GL611",
        "GL609 GL610",
        "what a model cannot fit by heart it does not learn",
    ),
)
"""Every mechanism, nearest the origin first."""
