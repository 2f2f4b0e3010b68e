"""Ledger: what a loop's parameters really did, written down beside the watcher and compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.trace import Trace
from gradlint.watching import Watcher
from gradlint.watching.cadence import Look
from tests.watch.loops import unfailed

STEPS = 9
"""Steps of a usual test: 1-4, 6 and 9 are looked at in full, 5, 7 and 8 lightly."""

BOTH = pytest.mark.parametrize("every", ["auto", 1])

Model = nn.Module | Mapping[str, nn.Module]


class Ledger:
    """The true numbers of each step, by parameter path.

    Call `before` when the gradients are what the optimizer is about to apply, and `after`
    when it has.
    """

    def __init__(self, model: Model) -> None:
        self._models = {"": model} if isinstance(model, nn.Module) else dict(model)
        self.step = 0
        self.gradient: dict[tuple[int, str], float] = {}
        self.weight: dict[tuple[int, str], float] = {}
        self.update: dict[tuple[int, str], float] = {}
        self.total: dict[int, float] = {}
        self._weights: dict[str, Tensor] = {}

    def _parameters(self, only: Iterable[nn.Parameter] | None) -> dict[str, nn.Parameter]:
        kept = None if only is None else {id(p) for p in only}
        return {
            f"{label}.{path}" if label else path: p
            for label, model in self._models.items()
            for path, p in model.named_parameters()
            if not isinstance(p, nn.UninitializedParameter) and (kept is None or id(p) in kept)
        }

    def before(self, only: Iterable[nn.Parameter] | None = None, scale: float = 1.0) -> None:
        """Write down gradients and weights; with `only`, of one optimizer's parameters."""
        self.step += 1
        self._weights = {}
        for path, parameter in self._parameters(only).items():
            self.weight[self.step, path] = norm(parameter)
            if parameter.grad is not None:
                self.gradient[self.step, path] = norm(parameter.grad) / scale
                self._weights[path] = parameter.detach().clone()
        mine = [v for (step, _), v in self.gradient.items() if step == self.step]
        self.total[self.step] = math.hypot(*mine)

    def after(self, only: Iterable[nn.Parameter] | None = None) -> None:
        """Write down what the step changed."""
        now = self._parameters(only)
        for path, old in self._weights.items():
            self.update[self.step, path] = norm(now[path].detach() - old)

    def agrees(self, watcher: Watcher, *, looked: int | None = None, rel: float = 1e-5) -> Trace:
        """Fail where the watcher's numbers are not these; return its trace."""
        unfailed(watcher)
        trace = watcher.trace()
        assert trace.facts.loop is not None
        assert trace.facts.loop.steps == self.step
        seen = {o.step for o in trace.of("gradient_norm").training}
        assert len(seen) == (self.step if looked is None else looked)
        assert got(trace, "gradient_norm") == near(self.gradient, seen, rel)
        of_those = {key: self.weight[key] for key in got(trace, "weight_norm")}
        assert got(trace, "weight_norm") == near(of_those, seen, rel)
        totals = {o.step: o.value for o in trace.of("total_gradient_norm").training}
        assert totals == near(self.total, set(totals), rel)
        sized = {key: size for key, size in self.weight.items() if size > 0}
        ratios = {key: g / sized[key] for key, g in self.gradient.items() if key in sized}
        assert finite(got(trace, "gradient_ratio"), sized) == near(ratios, seen, rel)
        updates = {key: u / sized[key] for key, u in self.update.items() if key in sized}
        # A difference of nearly equal weights has few digits.
        assert finite(got(trace, "update_to_weight_ratio"), sized) == near(updates, seen, 1e-2)
        return trace


def norm(tensor: Tensor) -> float:
    """Return the norm of any tensor in double precision."""
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().to_dense()
    dtype = torch.complex128 if tensor.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(tensor.to(dtype)))


def got(trace: Trace, metric: str) -> dict[tuple[int, str], float]:
    """Return a metric's values by step and path; fails where a place has two in a step."""
    found: dict[tuple[int, str], float] = {}
    for seen in trace.of(metric).training:
        assert (seen.step, seen.site.path) not in found
        found[seen.step, seen.site.path] = seen.value
    return found


def near(true: Mapping[Any, float], steps: Iterable[int], rel: float) -> Any:
    """Return the true numbers of some steps, to compare others with."""
    wanted = set(steps)
    kept = {k: v for k, v in true.items() if (k[0] if isinstance(k, tuple) else k) in wanted}
    return pytest.approx(kept, rel=rel, abs=1e-9)


def finite(values: Mapping[Any, float], sized: Mapping[Any, float]) -> dict[Any, float]:
    """Leave out ratios against weights of size zero."""
    return {key: value for key, value in values.items() if key in sized}


def at(trace: Trace, metric: str, path: str) -> dict[int, list[float]]:
    """Return all values of a metric at one place, by step."""
    found: dict[int, list[float]] = {}
    for seen in trace.of(metric).at(path).training:
        found.setdefault(seen.step, []).append(seen.value)
    return found


def looks(steps: int) -> dict[Look, list[int]]:
    """Return the steps of an every-step run, by how closely they are looked at."""
    from gradlint.watching.cadence import Cadence

    cadence = Cadence(1)
    kinds = {step: cadence.next(step) for step in range(1, steps + 1)}
    return {look: [s for s, kind in kinds.items() if kind is look] for look in Look}
