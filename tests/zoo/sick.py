"""The sick zoo: programs with one planted fault each, and what a linter has to say first.

The expectations were written down before gradlint judged any of these programs; where one was
changed afterwards, the recipe says why.
"""

from __future__ import annotations

import importlib

from tests.zoo.sick_recipe import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe"]

for part in ("init", "signal", "loss", "wiring", "numbers"):
    importlib.import_module(f"tests.zoo.sick_{part}")
