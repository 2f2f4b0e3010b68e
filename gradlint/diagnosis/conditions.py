"""Conditions of mechanisms: what, besides their codes, two findings must have in common.

Each takes the cause and the symptom and tells whether the one can have brought about the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradlint.finding import Finding


def given_a_constant(cause: Finding, symptom: Finding) -> bool:
    """Whether the layers of `symptom` are given what does not change with the input."""
    return bool(cause.evidence.get("constant_input")) and cause.depth <= symptom.depth


def maximizes(cause: Finding, symptom: Finding) -> bool:
    """Whether the optimizer was told to maximize."""
    return bool(cause.evidence.get("maximize"))


def holds_nothing(cause: Finding, symptom: Finding) -> bool:
    """Whether the optimizer holds none of the model's parameters."""
    return cause.evidence.get("held") == 0


def normalizes(cause: Finding, symptom: Finding) -> bool:
    """Whether it is a normalization that was switched off; its gradients may be anything."""
    return "Norm" in str(cause.evidence.get("kind", "")) and not_the_rate(cause, symptom)


def not_the_rate(cause: Finding, symptom: Finding) -> bool:
    """Whether steps are long or short by their gradients: the rate alone does not make them."""
    return not symptom.evidence.get("rate_suffices")


def from_the_start(cause: Finding, symptom: Finding) -> bool:
    """Whether it was so before any update, and steps are long by their gradients."""
    return cause.step == 0 and not_the_rate(cause, symptom)


def not_the_rate_alone(cause: Finding, symptom: Finding) -> bool:
    """As `not_the_rate`, but weights that start small are changed much by any rate."""
    return symptom.code == "GL401" or not_the_rate(cause, symptom)


def from_the_data(cause: Finding, symptom: Finding) -> bool:
    """Whether the scale of inputs or targets can have done that.

    It sets the size of the gradient at the output, not how weights make it grow from there.
    Targets are as large as inputs where they are the same data, and leave an activation's
    range by their scale alone where they have one sign. Small numbers do not overflow: what
    divides by them has to guard against zero.
    """
    if symptom.code == "GL501" and cause.code == "GL606":
        return bool(cause.evidence.get("scale", 1.0) >= 1.0)
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
    return not_the_rate(cause, symptom)


def elsewhere(cause: Finding, symptom: Finding) -> bool:
    """Whether the symptom is of a part that was found outside of the cause's model."""
    if not cause.module or not symptom.module:
        return False
    return cause.module.partition(".")[0] != symptom.module.partition(".")[0]


def not_before(cause: Finding, symptom: Finding) -> bool:
    """Whether the cause was there when the symptom was: steps 0 and 1 see the same weights.

    Of the weights themselves, whether it is in them.
    """
    if symptom.code == "GL102" and cause.evidence.get("phase") != "parameter":
        return False
    return symptom.step is None or (cause.step or 0) <= max(symptom.step, 1)


def of_one_batch(cause: Finding, symptom: Finding) -> bool:
    """Whether a batch unlike the others ruined the run, and `symptom` was not there before."""
    if not cause.evidence.get("of_one_batch"):
        return False
    return symptom.step is None or symptom.step + 5 >= (cause.step or 0)
