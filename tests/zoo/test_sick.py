"""Of a program with one fault, the first finding names it, and few others stand beside it."""

from __future__ import annotations

import re

import pytest

import gradlint
from gradlint.finding import Severity
from gradlint.report import Report
from gradlint.rules import all_rules
from tests.zoo.sick import RECIPES, SLOW, Recipe

MOST_CAUSES = 3
"""Warnings and errors that no other explains: one fault is one cause, or little more."""


def check(recipe: Recipe) -> Report:
    return gradlint.check(
        recipe.model,
        recipe.data,
        recipe.loss,
        recipe.optimizer,
        training_step=recipe.step,
        precision=recipe.precision,
        cures=False,
        steps=40,  # whatever the machine's speed
    )


def marks(number: int, recipe: Recipe) -> list[pytest.MarkDecorator]:
    """Return a test's marks: every second recipe, and no slow one, is in the default run."""
    slow = [pytest.mark.slow] if recipe.slow or number % 2 else []
    missed = [pytest.mark.xfail(reason=recipe.missed, strict=True)] if recipe.missed else []
    return slow + missed


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "recipe", [pytest.param(r, id=r.id, marks=marks(n, r)) for n, r in enumerate(RECIPES)]
)
def test_the_first_finding_names_the_fault(recipe: Recipe) -> None:
    report = check(recipe)

    said = [f"{f.severity} {f.code} {f.module}: {f.message}" for f in report.findings]
    causes = [f for f in report.findings if f.cause is None and f.severity > Severity.NOTE]
    assert report.findings, "nothing was found"
    assert report.findings[0].code in recipe.causes, said
    assert len(causes) <= MOST_CAUSES, said


def test_every_recipe_has_its_own_name_and_causes() -> None:
    assert len({r.id for r in RECIPES}) == len(RECIPES) > 150
    assert {r.id for r in RECIPES} >= SLOW
    assert all(re.fullmatch(r"GL\d{3}", code) for r in RECIPES for code in r.causes)


def test_most_rules_have_a_recipe() -> None:
    """Those without watch what no single fault shows, or stand beside another cause."""
    named = {code for r in RECIPES for code in r.causes}
    assert len({rule.code for rule in all_rules()} & named) >= 35
