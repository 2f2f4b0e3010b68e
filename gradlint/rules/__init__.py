"""The rules: every module in this folder that defines a `Rule` is one. No torch here."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from gradlint.rules.base import Rule

__all__ = ["Rule", "all_rules", "find_rule"]


@cache
def all_rules() -> tuple[type[Rule], ...]:
    """Return every rule class, ordered by code."""
    found: list[type[Rule]] = []
    for module_info in pkgutil.iter_modules(__path__):
        if module_info.name == "base" or module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        found.extend(
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, Rule)
            and value.__module__ == module.__name__
        )
    return tuple(sorted(found, key=lambda rule: rule.code))


def find_rule(text: str) -> type[Rule] | None:
    """Return the rule with the code or the name `text` (upper or lower case), or None."""
    wanted = text.strip().lower()
    for rule in all_rules():
        if wanted in (rule.code.lower(), rule.name):
            return rule
    return None
