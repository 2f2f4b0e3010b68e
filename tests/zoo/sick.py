"""The sick zoo: programs with one planted fault each, and what a linter has to say first.

The expectations were written down before gradlint judged any of these programs; where one was
changed afterwards, the recipe says why.
"""

from __future__ import annotations

from tests.zoo import sick_init, sick_loss, sick_numbers, sick_signal, sick_wiring
from tests.zoo.sick_recipe import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe"]

assert len({recipe.id for recipe in RECIPES}) == len(RECIPES)
assert (sick_init, sick_signal, sick_loss, sick_wiring, sick_numbers)
