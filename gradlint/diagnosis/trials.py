"""Trials: a proposed cure, applied to a copy and trained from the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gradlint.diagnosis.causes import Linked
from gradlint.diagnosis.judge import Judgement
from gradlint.diagnosis.remedies import REMEDIES, Patient, Remedy
from gradlint.errors import GradlintError
from gradlint.finding import Cure, Finding, Severity
from gradlint.plan import Plan, prepared
from gradlint.target.target import Target
from gradlint.trace import Trace
from gradlint.training import Training

MOST_CAUSES = 2
"""Causes for which cures are tried: each trial costs a training."""


def try_cures(
    linked: Sequence[Linked],
    trace: Trace,
    target: Target,
    plan: Plan,
    seed: int,
    device: str | None,
    seeded: Callable[[int], None],
    judged: Callable[[Trace], Judgement],
) -> tuple[Linked, ...]:
    """Return `linked` with a verified cure at each cause for which one was found.

    A cure is verified if, trained from the same seed, the finding is gone and no error is
    new. A cure that fails its trial is not shown.
    """
    before = {found.code for found in (item.finding for item in linked)}
    treated = 0
    result: list[Linked] = []
    for item in linked:
        serious = item.cause is None and item.finding.severity > Severity.NOTE
        remedies = [r for r in REMEDIES if item.finding.code in r.codes] if serious else []
        if remedies and treated < MOST_CAUSES:
            treated += 1
            for remedy in remedies:
                plan.tell(f"trying a cure: {remedy.summary}", treated / MOST_CAUSES)
                seeded(seed)
                after = _trial(remedy, item.finding, target, plan, seed, device)
                if after is None:
                    continue
                codes = {f.code: f.severity for f in judged(after).findings}
                new_errors = {
                    c for c, level in codes.items() if level is Severity.ERROR and c not in before
                }
                if item.finding.code not in codes and not new_errors:
                    cure = Cure(
                        summary=remedy.summary,
                        code=remedy.code,
                        verified=True,
                        before=_summary(trace),
                        after=_summary(after),
                    )
                    item = replace(item, finding=item.finding.but(cure=cure))
                    break
        result.append(item)
    return tuple(result)


def _trial(
    remedy: Remedy, finding: Finding, target: Target, plan: Plan, seed: int, device: str | None
) -> Trace | None:
    """Apply `remedy` to a fresh model, train it, and return what was observed."""
    try:
        model, given, target = prepared(target, device)
        patient = Patient(model, target.batches(model, seed), target.call, finding)
        if not remedy.apply(patient):
            return None
        optimizer = given
        if target.build_optimizer is not None:
            optimizer = target.build_optimizer(model)
        if optimizer is not None:
            for group in optimizer.param_groups:
                group["lr"] = group.get("lr", 0.0) * patient.learning_rate_factor
        training = Training(target, model, optimizer, plan, seed)
        training.batches = patient.batches
        run = training.run()
    except (GradlintError, RuntimeError, AttributeError, TypeError, ValueError):
        return None  # a cure that does not fit this model is no cure for it
    return None if run.error is not None else run.trace


def _summary(trace: Trace) -> dict[str, Any]:
    """Return the numbers by which a reader sees that a cure works."""
    losses = [v for v in trace.of("loss").values if math.isfinite(v)]
    numbers: dict[str, Any] = {}
    if losses:
        numbers["loss"] = float(f"{losses[-1]:.3g}")
    initial = [flow for flow in trace.facts.flows if flow.step == 0]
    if initial:
        numbers["gradient_decades"] = round(initial[0].blamed, 1)
    return numbers
