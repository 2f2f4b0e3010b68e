"""Plan: what the numbers of light steps stand for, kept from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradlint.observation import Site
from gradlint.watching.weight_samples import WeightSamples

MAX_LAYOUTS = 16
"""Kinds of rows remembered; a loop of two models alternates between two."""

ACTIVATION_METRICS = (
    "activation_mean", "activation_std", "activation_rms", "activation_abs_max",
    "activation_zero_share",
)  # fmt: skip


@dataclass
class Layout:
    """What the columns of one row of numbers stand for; rows alike share one."""

    columns: list[tuple[str, Site]] = field(default_factory=list)


class Plan:
    """Names of what light steps sample: kept from step to step, where nothing is changed.

    Args:
        modules: Paths and classes of leaf modules.
        parameters: Paths of parameters.
        depths: Order of first calls, by module path.
    """

    def __init__(
        self,
        modules: list[tuple[str, str]],
        parameters: Sequence[str],
        depths: Mapping[str, int],
    ) -> None:
        self.modules = modules
        self.parameters = parameters
        self.calls = len(depths)
        self.sites = [Site(path, kind, depths.get(path, 0), path) for path, kind in modules]
        owners = [path.rpartition(".")[0] for path in parameters]
        self.parameter_sites = [
            Site(path, "parameter", depths.get(owner, len(depths)), owner)
            for path, owner in zip(parameters, owners, strict=True)
        ]
        self.weights: list[float] | None = None
        """Norms of the parameters, as they were last measured."""
        self.samples = WeightSamples()
        self._layouts: dict[Any, Layout] = {}

    def fits(
        self, modules: Sequence[tuple[str, str]], parameters: Sequence[str], calls: int
    ) -> bool:
        """Whether the plan is of these modules and parameters."""
        same = self.modules == modules and self.parameters == parameters
        return same and self.calls == calls

    def layout(self, key: Any, make: Callable[[], Layout]) -> Layout:
        """Return the layout of rows such as `key` tells."""
        known = self._layouts.get(key)
        if known is None:
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            known = self._layouts[key] = make()
        return known
