"""Nothing is said of what is well: no error, no warning, and few notes."""

from __future__ import annotations

import statistics

import pytest

import gradlint
from gradlint.finding import Severity
from gradlint.report import Report
from tests.zoo.healthy import RECIPES, Recipe

MAX_NOTES = 2
"""Notes on a healthy training; more are noise."""


def fall(report: Report) -> float:
    """Share by which the loss fell from initialization to the last quarter of the steps."""
    losses = report.series["loss"]
    first = statistics.mean(value for step, value in losses if step == 0)
    after = [value for step, value in losses if step > 0]
    late = statistics.mean(after[-max(3, len(after) // 4) :])
    return (first - late) / abs(first)


def parameter(number: int, recipe: Recipe) -> object:
    """Return a test's parameter: every fourth recipe, and no slow one, is in the default run."""
    slow = recipe.slow or number % 4
    return pytest.param(recipe, id=recipe.name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("recipe", [parameter(n, r) for n, r in enumerate(RECIPES)])
def test_a_healthy_training_is_left_alone(recipe: Recipe) -> None:
    report = gradlint.check(**{"steps": 40, **recipe.arguments()})

    said = [f"{f.severity.label} {f.code} {f.module}: {f.message}" for f in report.findings]
    alarms = {f.code for f in report.findings if f.severity > Severity.NOTE}
    assert alarms <= recipe.allowed.keys(), said
    assert len(said) <= MAX_NOTES, said
    if recipe.learns and recipe.batch is not None:
        assert fall(report) > 0.02


def test_every_recipe_has_its_own_name() -> None:
    names = [recipe.name for recipe in RECIPES]

    assert len(set(names)) == len(names) > 150
