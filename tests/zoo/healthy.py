"""The healthy zoo: trainings that nothing is wrong with, of every kind we could think of."""

from __future__ import annotations

from tests.zoo import (
    healthy_dense,
    healthy_forms,
    healthy_generative,
    healthy_graphs,
    healthy_habits,
    healthy_lookalike_signals,
    healthy_lookalikes,
    healthy_losses,
    healthy_sequences,
    healthy_transformers,
    healthy_vision,
)
from tests.zoo.recipes import Recipe

PARTS = (
    healthy_dense,
    healthy_losses,
    healthy_habits,
    healthy_forms,
    healthy_lookalikes,
    healthy_lookalike_signals,
    healthy_vision,
    healthy_sequences,
    healthy_generative,
    healthy_graphs,
    healthy_transformers,
)

RECIPES: list[Recipe] = [recipe for part in PARTS for recipe in part.zoo.recipes]
