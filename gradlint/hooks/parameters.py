"""The parameter side of a step: gradients, weights and what an update changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradlint.hooks.sites import is_lazy, parameter_facts, units_first
from gradlint.hooks.weak import WeakMap
from gradlint.metrics import Metric, Tap, all_metrics, metrics_at
from gradlint.trace import MODEL, ParameterFacts, Site

Put = Callable[..., None]
"""``put(metric, site, *tensors)``: measures, and keeps the scalar until it is read."""


class ParameterReader:
    """Measures the parameters of models; `facts` and `parameters` are by path."""

    def __init__(
        self, modules: Mapping[str, nn.Module], put: Put, depths: Mapping[str, int]
    ) -> None:
        self.modules = modules
        self.parameters: WeakMap[nn.Parameter] = WeakMap()
        self.facts: dict[str, ParameterFacts] = {}
        self._put = put
        self._depths = depths
        self._before: dict[str, Tensor] = {}

    def admit(
        self, model: nn.Module, optimizer: torch.optim.Optimizer | None, label: str = ""
    ) -> None:
        """Measure the parameters of `model`, too; those that were replaced are taken anew."""
        paths = {id(p): path for path, p in self.parameters.items()}
        own = dict(model.named_parameters())
        for path, facts in parameter_facts(model, optimizer, label).items():
            parameter = own[path.removeprefix(f"{label}.") if label else path]
            if paths.get(id(parameter), path) == path:  # else another model's, and known
                self.parameters[path] = parameter
                self.facts[path] = facts

    def forget(self) -> None:
        """Drop the weights kept for an update that did not come."""
        self._before = {}

    def gradients(
        self,
        *,
        initial: bool = False,
        symmetry: bool = False,
        detailed: bool = True,
        without: Collection[int] | None = None,
    ) -> None:
        """Measure every parameter's gradient, and at `initial` the weights themselves.

        Those whose ``id`` is in `without` are another optimizer's: they are left out. Where it
        is given, no gradients at all make a total norm of 0.
        """
        norms: list[Tensor] = []
        gradient_norm = all_metrics()["gradient_norm"]
        for path, parameter in self.parameters.items():
            if without is not None and id(parameter) in without:
                continue
            site = self.site(path)
            gradient = _plain(parameter.grad)
            facts = self.facts[path]
            seen = "missing" if gradient is None else "present"
            if facts.gradient != seen:
                self.facts[path] = replace(facts, gradient=seen)
            if is_lazy(parameter):
                continue
            weight = _plain(parameter.detach())
            if weight.numel() == 0:
                continue
            for metric in metrics_at(Tap.WEIGHT):
                self._put(metric, site, weight)
            if initial:
                self._measure_initial(site, weight)
            if gradient is None or gradient.numel() == 0:
                continue
            norm = gradient_norm(gradient)
            norms.append(norm)
            for metric in metrics_at(Tap.WEIGHT_GRAD):
                if metric is gradient_norm:
                    self._put(_already(metric), site, norm)
                elif detailed:
                    self._put(metric, site, gradient)
            if initial:
                for metric in metrics_at(Tap.INITIAL_WEIGHT_GRAD):
                    self._put(metric, site, gradient)
            self._measure_pair(site, weight, gradient, symmetry=initial or symmetry)
        total = all_metrics()["total_gradient_norm"]
        if norms:
            home = norms[0].device
            self._put(total, MODEL, torch.stack([n.to(home) for n in norms]))
        elif without is not None:
            self._put(total, MODEL, torch.zeros(1))

    def initial(self, path: str) -> None:
        """Measure the initialization of one that was met when its step had been looked at."""
        weight = _plain(self.parameters[path].detach())
        if not is_lazy(self.parameters[path]) and weight.numel():
            self._measure_initial(self.site(path), weight)

    def _measure_initial(self, site: Site, weight: Tensor) -> None:
        ordered = units_first(weight, self.modules.get(site.module))
        for metric in metrics_at(Tap.INITIAL_WEIGHT):
            if weight.ndim >= 2 or metric.name != "init_gain":
                self._put(metric, site, ordered)

    def _measure_pair(
        self, site: Site, parameter: Tensor, gradient: Tensor, *, symmetry: bool
    ) -> None:
        for metric in metrics_at(Tap.WEIGHT_AND_GRAD):
            if metric.name != "symmetric_share":
                self._put(metric, site, parameter, gradient)
        if symmetry:
            self._measure_symmetry(site, parameter, gradient)

    def _measure_symmetry(self, site: Site, parameter: Tensor, gradient: Tensor) -> None:
        module = self.modules.get(site.module)
        parameter, gradient = _plain(parameter.detach()), _plain(gradient.detach())
        # Rows of an embedding that the batch does not hold have no gradient, by design.
        embedding = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        if embedding or parameter.ndim < 2 or gradient.is_sparse:
            return
        weight = units_first(parameter, module)
        if weight.shape[0] >= 2:
            metric = all_metrics()["symmetric_share"]
            self._put(metric, site, weight, units_first(gradient, module))

    def symmetry(self) -> None:
        """Measure, after the last step, which units are still copies of each other."""
        for path, parameter in self.parameters.items():
            if parameter.grad is not None and parameter.numel():
                site = self.site(path)
                self._measure_symmetry(site, parameter, parameter.grad)

    def site(self, path: str) -> Site:
        """Return the site of a parameter."""
        module = path.rpartition(".")[0]
        return Site(path, "parameter", self._depths.get(module, len(self._depths)), module)

    def before_update(self) -> None:
        """Keep the weights, to tell the true update."""
        self._before = {
            path: _plain(parameter.detach()).clone()
            for path, parameter in self.parameters.items()
            if parameter.grad is not None and _plain(parameter).numel()
        }

    def after_update(self) -> None:
        """Measure what the optimizer step changed."""
        for path, before in self._before.items():
            for metric in metrics_at(Tap.UPDATE):
                after = _plain(self.parameters[path].detach())
                self._put(metric, self.site(path), before, after)
        self._before = {}


_T = TypeVar("_T", Tensor, Tensor | None)


def _plain(tensor: _T) -> _T:
    """Return this rank's part of a distributed tensor; any other as it is."""
    local = getattr(tensor, "_local_tensor", None)
    return local if isinstance(local, Tensor) else tensor


def _already(metric: Metric) -> Metric:
    """Return a metric of the same name for a value that was measured before."""
    return replace(metric, function=lambda value: value)
