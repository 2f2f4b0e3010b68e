"""Site and Observation: a place in the model, and one value read there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the model where numbers are read.

    `path` is a module path as in `named_modules()`, a parameter path as in
    `named_parameters()`, or, for an operation called as a function, the module it
    follows and its kind: ``"fc1:relu"``. `module` is always a real module path.
    `depth` is the order of the first call in forward; 0 is nearest the input.
    """

    path: str
    kind: str
    depth: int = 0
    module: str = ""


MODEL = Site("", "model")
"""Site of what concerns the whole run: loss, total gradient norm."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One value of one metric. Step 0 is the initialization; training counts from 1."""

    metric: str
    site: Site
    step: int
    value: float
