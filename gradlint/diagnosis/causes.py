"""Causes: which finding explains which, by a stated mechanism."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gradlint.finding import Finding, Severity


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


@dataclass(frozen=True, slots=True)
class Linked:
    """A finding with its place in the diagnosis: indices into the same sequence."""

    finding: Finding
    cause: int | None = None
    symptoms: tuple[int, ...] = ()
    because: str = ""


_STUCK = "GL206 GL609 GL610 GL611"
_PROGRESS = f"{_STUCK} GL402"
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


def _given_a_constant(cause: Finding, symptom: Finding) -> bool:
    """Whether the layers of `symptom` are given what does not change with the input."""
    return bool(cause.evidence.get("constant_input")) and cause.depth <= symptom.depth


def _maximizes(cause: Finding, symptom: Finding) -> bool:
    return bool(cause.evidence.get("maximize"))


def _holds_nothing(cause: Finding, symptom: Finding) -> bool:
    """Whether the optimizer holds none of the model's parameters."""
    return cause.evidence.get("held") == 0


def _normalizes(cause: Finding, symptom: Finding) -> bool:
    """Whether it is a normalization that was switched off; its gradients may be anything."""
    return "Norm" in str(cause.evidence.get("kind", "")) and _not_the_rate(cause, symptom)


def _not_the_rate(cause: Finding, symptom: Finding) -> bool:
    """Whether steps are long or short by their gradients: the rate alone does not make them."""
    return not symptom.evidence.get("rate_suffices")


def _from_the_start(cause: Finding, symptom: Finding) -> bool:
    """Whether it was so before any update, and steps are long by their gradients."""
    return cause.step == 0 and _not_the_rate(cause, symptom)


def _not_the_rate_alone(cause: Finding, symptom: Finding) -> bool:
    """The same, but weights that start small are changed much by any rate."""
    return symptom.code == "GL401" or _not_the_rate(cause, symptom)


def _from_the_data(cause: Finding, symptom: Finding) -> bool:
    """Whether the scale of inputs or targets can have done that.

    It sets the size of the gradient at the output, not how weights make it grow from there.
    Targets are as large as inputs where they are the same data, and leave an activation's
    range by their scale alone where they have one sign.
    """
    if symptom.code == "GL615":
        inputs, targets = cause.evidence.get("scale", 1.0), symptom.evidence.get("target", 1.0)
        return bool(0.5 * inputs < targets < 2 * inputs)
    if symptom.code == "GL603":
        least = symptom.evidence.get("target_minimum")
        return least is None or (cause.code == "GL615" and least >= 0)
    decades = symptom.evidence.get("decades")
    if symptom.code == "GL302" and isinstance(decades, Mapping):
        by_data = {kind: n for kind, n in decades.items() if kind not in ("structural", "weights")}
        return float(decades.get("weights", 0.0)) < max(by_data.values(), default=0.0)
    return _not_the_rate(cause, symptom)


def _elsewhere(cause: Finding, symptom: Finding) -> bool:
    """Whether the symptom is of a part that was found outside of the cause's model."""
    if not cause.module or not symptom.module:
        return False
    return cause.module.partition(".")[0] != symptom.module.partition(".")[0]


def _not_before(cause: Finding, symptom: Finding) -> bool:
    """Whether the cause was there when the symptom was: steps 0 and 1 see the same weights.

    Of the weights themselves, whether it is in them.
    """
    if symptom.code == "GL102" and cause.evidence.get("phase") != "parameter":
        return False
    return symptom.step is None or (cause.step or 0) <= max(symptom.step, 1)


def _given(finding: Finding) -> bool:
    """Whether it is a setting, or was in the data: nothing in a run brings that about."""
    in_data = finding.evidence.get("phase") in ("input", "target") and (finding.step or 0) <= 1
    return bool(finding.evidence.get("maximize")) or in_data


MECHANISMS: tuple[Mechanism, ...] = (
    _mechanism(
        "constant-input",
        "GL206",
        "GL201 GL202 GL304",
        "units that are given a constant fire always or never",
        _given_a_constant,
    ),
    _mechanism(
        "maximizing",
        "GL609",
        f"GL201 GL202 GL206 GL302 GL306 GL401 GL501 {_SCALE}",
        "an optimizer told to maximize makes loss and weights grow without bound",
        _maximizes,
        by_updates=True,
    ),
    _mechanism(
        "piled-up-gradients",
        "GL704",
        f"GL201 GL202 GL302 GL306 GL401 GL403 GL410 GL501 {_SCALE} {_PROGRESS}",
        "gradients that are never cleared pile up: every step follows the sum of all before it",
        _not_the_rate,
        by_updates=True,
    ),
    _mechanism(
        "foreign-optimizer",
        "GL703",
        "GL302 GL303 GL304 GL306 GL704 GL705",
        "an optimizer of other parameters does not clear the model's gradients",
        _holds_nothing,
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
        f"GL001 GL303 GL406 GL701 {_PROGRESS}",
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
        _elsewhere,
    ),
    _mechanism(
        "input-scale",
        "GL606",
        f"GL104 GL107 GL201 GL202 GL301 GL302 GL306 GL401 GL501 GL615 {_SCALE} {_PROGRESS}",
        "large inputs make large pre-activations, which saturate, die or overflow",
        _from_the_data,
    ),
    _mechanism(
        "target-scale",
        "GL615 GL605",
        f"GL302 GL306 GL401 GL501 GL603 {_SCALE} {_PROGRESS}",
        "targets far from the output make a large loss and large gradients",
        _from_the_data,
    ),
    _mechanism(
        "wrong-loss",
        "GL601 GL602 GL603 GL604 GL605",
        f"GL105 GL201 GL202 GL301 GL303 GL304 GL501 GL603 {_PROGRESS}",
        "a loss that gets what it does not expect has a small or a wrong gradient",
        _from_the_data,
    ),
    _mechanism(
        "symmetry",
        "GL102",
        f"GL101 GL103 GL111 GL201 GL301 GL501 {_SCALE} {_PROGRESS}",
        "identical units get identical gradients and stay one unit",
        _not_the_rate,
    ),
    _mechanism(
        "initialization",
        "GL101 GL108",
        f"GL103 GL104 GL106 GL107 GL201 GL202 GL301 GL302 GL401 GL501 {_SCALE} {_PROGRESS}",
        "a weight scale that does not keep the signal's size changes it at every layer",
        _not_the_rate_alone,
    ),
    _mechanism(
        "bias",
        "GL111",
        f"GL201 GL202 GL301 {_SCALE} {_PROGRESS}",
        "a large bias pushes units onto the flat part of their activation",
        _not_the_rate,
    ),
    _mechanism(
        "small-signal",
        "GL103",
        f"GL301 GL501 {_SCALE} {_PROGRESS}",
        "a signal that has vanished carries no information and no gradient",
        _not_the_rate,
    ),
    _mechanism(
        "large-signal",
        "GL104 GL106",
        f"GL107 GL201 GL202 GL301 GL302 GL306 GL401 GL501 {_SCALE} {_PROGRESS}",
        "a signal that grows with depth saturates, overflows and makes large gradients",
        _not_the_rate,
    ),
    _mechanism(
        "normalization",
        "GL801 GL802 GL809 GL109 GL113 GL808",
        f"GL201 GL301 GL302 {_SCALE} {_PROGRESS}",
        "what is normalized over too little, or over the wrong axis, is a constant",
        _not_the_rate,
    ),
    _mechanism(
        "evaluation-mode",
        "GL710",
        f"GL103 GL104 GL106 GL201 GL202 GL301 GL302 GL306 GL401 GL806 GL807 {_SCALE} {_PROGRESS}",
        "in evaluation mode BatchNorm does not normalize by the batch",
        _normalizes,
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
        _not_the_rate,
    ),
    _mechanism(
        "flat-activation",
        "GL202 GL201",
        f"GL203 GL204 GL301 GL303 GL304 {_PROGRESS}",
        "the derivative is zero where the activation is flat",
        _not_the_rate,
    ),
    _mechanism(
        "constant-features",
        "GL202",
        "GL401",
        "saturated units hand on constants, which all push what reads them the same way",
        _from_the_start,
    ),
    _mechanism(
        "weight-decay",
        "GL408",
        f"GL201 GL202 GL301 GL302 GL401 {_SCALE} {_PROGRESS}",
        "weights that decay faster than they learn shrink until the output is a constant",
        by_updates=True,
    ),
    _mechanism(
        "clipped-scale",
        "GL405",
        "GL402 GL403 GL404 GL409 GL609 GL611",
        "a limit that sees the loss scale cuts every gradient to next to nothing",
        _not_the_rate,
    ),
    _mechanism(
        "choking",
        "GL403 GL404",
        "GL402 GL609 GL611",
        "gradients cut far below their size make steps that move nothing",
        _not_the_rate,
    ),
    _mechanism(
        "schedule",
        "GL412",
        "GL402 GL609 GL611",
        "at a learning rate that is gone no weight moves",
    ),
    _mechanism(
        "learning-rate",
        "GL401",
        f"GL201 GL202 GL301 GL302 GL306 GL407 GL409 GL410 GL501 {_SCALE} {_PROGRESS}",
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
        _not_the_rate,
    ),
    _mechanism(
        "large-gradient",
        "GL302",
        f"GL306 GL401 GL501 {_SCALE} {_PROGRESS}",
        "large gradients make large steps, and in the end numbers that are not finite",
        _not_the_rate,
    ),
    _mechanism(
        "non-finite",
        "GL501",
        f"GL102 GL201 GL202 GL301 GL302 GL306 {_SCALE} {_PROGRESS}",
        "every number computed from NaN is NaN",
        _not_before,
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
        "GL402 GL406 GL609 GL611",
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
        "no-learning",
        "GL402 GL206",
        "GL609 GL610 GL611",
        "without updates, or without a look at the input, the loss stays",
    ),
)
"""Every mechanism, nearest the origin first."""


def link(
    findings: Iterable[Finding], mechanisms: Sequence[Mechanism] = MECHANISMS
) -> tuple[Linked, ...]:
    """Order `findings`, causes first, and fold each symptom under its root cause.

    Exact facts come before statistics, then earlier steps and stages before later ones.
    A finding is a symptom if a mechanism leads to it, in any number of stages, from a
    finding that is at least a warning. Roots are ordered by the worst that they
    explain; each root's symptoms follow it.
    """
    ranked = sorted(findings, key=_rank)
    parents = [_parent(index, ranked, mechanisms) for index in range(len(ranked))]
    roots = [_root(index, parents) for index in range(len(ranked))]
    groups: dict[int, list[int]] = {}
    for index, root in enumerate(roots):
        groups.setdefault(root, [])
        if index != root:
            groups[root].append(index)

    def weight(root: int) -> tuple[int, int]:
        worst = max(ranked[i].severity for i in (root, *groups[root]))
        return (-worst, root)

    order: list[int] = []
    for root in sorted(groups, key=weight):
        order += [root, *sorted(groups[root], key=lambda i: (-ranked[i].severity, i))]
    place = {old: new for new, old in enumerate(order)}
    return tuple(
        Linked(
            ranked[old],
            cause=None if roots[old] == old else place[roots[old]],
            symptoms=tuple(sorted(place[i] for i in groups.get(old, ()))),
            because=parents[old][1] if parents[old] is not None else "",  # type: ignore[index]
        )
        for old in order
    )


def _rank(finding: Finding) -> tuple[int, bool, int, int, int, str]:
    step = finding.step or 0
    note = finding.severity is Severity.NOTE
    return (int(note), not finding.exact, step, finding.stage, finding.depth, finding.code)


def _parent(
    index: int, ranked: Sequence[Finding], mechanisms: Sequence[Mechanism]
) -> tuple[int, str] | None:
    """Return the finding that explains `ranked[index]`, and how.

    Mechanisms are asked in order, so the explanation nearest the origin wins. A pair of
    rules that explain each other is settled by rank.
    """
    symptom = ranked[index]
    if _given(symptom):
        return None
    for mechanism in mechanisms:
        for other, cause in enumerate(ranked):
            if cause.code == symptom.code or not mechanism.leads(cause, symptom):
                continue
            if cause.severity is Severity.NOTE and symptom.severity > Severity.NOTE:
                continue
            if index < other and any(m.leads(symptom, cause) for m in mechanisms):
                continue
            return other, mechanism.because
    return None


def _root(index: int, parents: Sequence[tuple[int, str] | None]) -> int:
    """Follow parents to the end; in a circle the best-ranked finding is the root."""
    path = [index]
    parent = parents[index]
    while parent is not None:
        if parent[0] in path:
            return min(path[path.index(parent[0]) :])
        path.append(parent[0])
        parent = parents[parent[0]]
    return path[-1]
