"""What is known of single cases: those that taught a rule, and those still judged wrongly."""

from __future__ import annotations

MOVED: frozenset[str] = frozenset()
"""Sealed cases that taught a rule, and count as tuning since."""

SKIPPED: frozenset[str] = frozenset()
"""Recipes of the zoo that the plain loop cannot train as it is."""

WHY: dict[str, dict[str, str]] = {}
"""Why a case is still judged wrongly, in one line, by mode; "" stands for every mode."""
