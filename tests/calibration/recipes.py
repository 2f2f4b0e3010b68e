"""Which trainings the bench runs: the sealed part, and the zoo, on which rules were tuned."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tests.calibration.case import Case, Optimize
from tests.calibration.known import MOVED, SKIPPED, WHY
from tests.zoo.healthy import RECIPES as HEALTHY
from tests.zoo.recipes import Recipe
from tests.zoo.sick import RECIPES as SICK


@cache
def sealed() -> tuple[Case, ...]:
    """Return the cases that no rule was ever tuned on."""
    from tests.calibration import (
        sealed_adapting,
        sealed_course_loops,
        sealed_courses,
        sealed_dense,
        sealed_finetuning,
        sealed_forms,
        sealed_kaggle,
        sealed_mixtures,
        sealed_models,
        sealed_models_axes,
        sealed_models_graph,
        sealed_models_layers,
        sealed_objectives,
        sealed_objectives_rates,
        sealed_pairs,
        sealed_papers,
        sealed_papers_in_time,
        sealed_repositories,
        sealed_repository_loops,
        sealed_sequences,
        sealed_sick,
        sealed_sick_loops,
        sealed_trainers,
        sealed_trainers_cut,
        sealed_trainers_rates,
        sealed_vision,
    )

    parts = (
        sealed_dense, sealed_vision, sealed_sequences, sealed_forms, sealed_sick,
        sealed_sick_loops, sealed_mixtures, sealed_courses, sealed_course_loops, sealed_kaggle,
        sealed_trainers_cut, sealed_trainers_rates, sealed_trainers,
        sealed_models, sealed_models_axes, sealed_models_graph, sealed_pairs,
        sealed_papers, sealed_papers_in_time, sealed_repositories, sealed_repository_loops,
        sealed_finetuning, sealed_adapting,
        sealed_models_layers, sealed_objectives, sealed_objectives_rates,
    )  # fmt: skip
    cases = [_known(case) for part in parts for case in part.bench.cases]
    return tuple(replace(c, part="tuning") if c.name in MOVED else c for c in cases)


@cache
def tuning() -> tuple[Case, ...]:
    """Return the recipes of the zoo that a plain loop can train."""
    healthy = [_healthy(r) for r in HEALTHY if _plain(r) and r.name not in SKIPPED]
    sick = [
        Case(
            r.id, "sick", r.model, r.data, r.loss, r.optimizer, r.step, r.precision,
            causes=(r.causes,), fault=" ".join(sorted(r.causes)), part="tuning",
        )
        for r in SICK
        if r.id not in SKIPPED
    ]  # fmt: skip
    return tuple(_known(case) for case in [*healthy, *sick])


def every() -> tuple[Case, ...]:
    """Return all cases, the sealed ones first."""
    return (*sealed(), *tuning())


def tenth(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return every tenth case of each part and group, in their order."""
    strata: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        strata.setdefault((case.part, case.group), []).append(case)
    return tuple(case for stratum in strata.values() for case in stratum[4::10])


def _plain(recipe: Recipe) -> bool:
    """Tell whether it is a factory, draws its batches, builds its optimizer, and learns soon."""
    built = not isinstance(recipe.model, nn.Module)
    drawn = callable(recipe.batch) and callable(recipe.optimizer)
    usual = recipe.learns and not recipe.slow and not recipe.allowed
    return built and drawn and usual


def _healthy(recipe: Recipe) -> Case:
    return Case(
        recipe.name, "healthy", recipe.model, recipe.batch, recipe.loss_fn,
        _of_model(recipe.optimizer), recipe.training_step, recipe.precision,
        learns=recipe.learns, part="tuning",
    )  # fmt: skip


def _of_model(build: Callable[[Any], Optimizer]) -> Optimize:
    """Return a builder that takes a model, of one that takes a model or its parameters."""
    first = next(iter(inspect.signature(build).parameters))
    if first in ("params", "parameters", "p"):
        return lambda model: build(model.parameters())
    return build


def _known(case: Case) -> Case:
    return replace(case, why=WHY.get(case.name, case.why))
