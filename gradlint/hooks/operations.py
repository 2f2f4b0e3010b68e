"""Operations of a captured graph, measured: activations called as functions, attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gradlint.facts import ModuleFacts
from gradlint.graph import ACTIVATIONS, Operation
from gradlint.hooks.attention import attention_weights
from gradlint.hooks.graph import CapturedGraph
from gradlint.hooks.saved import activation_of
from gradlint.hooks.windows import Windows
from gradlint.metrics import Tap, metrics_at
from gradlint.metrics.base import sampled
from gradlint.metrics.saturated_share import relative_slope
from gradlint.observation import Site

MAX_CALLS = 4
"""Calls of one module read in a step: a weight shared over time or depth is called often."""

_RECTIFIERS = frozenset({"relu", "relu6"})
_SATURATING = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardtanh"})

Put = Callable[..., None]
"""``put(metric, site, *tensors)``: measures, and keeps the scalar until it is read."""


class OperationReader:
    """Measures operations; `windows` gathers which units of rectifiers fire.

    Args:
        put: Measures a metric.
        depths: Order of first calls, by module path.
        modules: Facts of modules by path.
    """

    def __init__(
        self, put: Put, depths: Mapping[str, int], modules: Mapping[str, ModuleFacts]
    ) -> None:
        self.windows = Windows()
        self._put = put
        self._depths = depths
        self._modules = modules

    def measure(self, captured: CapturedGraph, *, detailed: bool, attention: bool) -> None:
        """Measure the operations of one forward, while their saved tensors are there."""
        reads: Counter[str] = Counter()
        for op in captured.graph:
            if op.kind in ACTIVATIONS and not op.in_loss and reads[op.site] < MAX_CALLS:
                reads[op.site] += 1
                self._activation(captured, op, detailed=detailed)
            if attention and op.kind in ("softmax", "attention"):
                self._attention(captured, op)

    def output(self, site: Site, tensor: Tensor) -> None:
        """Measure what a module or an activation returned."""
        sample = sampled(tensor)
        for metric in metrics_at(Tap.ACTIVATION):
            self._put(metric, site, sample)
        for metric in metrics_at(Tap.WHOLE_ACTIVATION):
            self._put(metric, site, tensor)

    def _activation(self, captured: CapturedGraph, op: Operation, *, detailed: bool) -> None:
        saturating = op.kind in _SATURATING or ":" in op.site
        if op.kind not in _RECTIFIERS and not (saturating and detailed):
            return
        activation = activation_of(captured, op)
        if activation is None or not readable(activation):
            return
        site = self.site_of(op)
        if ":" in op.site and detailed:
            self.output(site, activation)
        if op.kind in _SATURATING and detailed:
            low, high = op.attributes.get("min", -1.0), op.attributes.get("max", 1.0)
            slope = relative_slope(op.kind, activation, low, high)
            for metric in metrics_at(Tap.SIGMOIDAL) if slope is not None else ():
                self._put(metric, site, slope)
        elif op.kind in _RECTIFIERS:
            self.windows.add(captured.graph, op, site, activation)

    def _attention(self, captured: CapturedGraph, op: Operation) -> None:
        weights = attention_weights(captured, op)
        if weights is not None:
            site = Site(op.site, op.kind, self._depths.get(op.site, 0), op.site)
            for metric in metrics_at(Tap.ATTENTION):
                self._put(metric, site, weights)

    def site_of(self, op: Operation) -> Site:
        """Return the site of an operation."""
        path = op.site
        module = path.partition(":")[0]
        facts = self._modules.get(path)
        kind = op.kind if facts is None else facts.kind
        return Site(path, kind, self._depths.get(module, 0), module)


def readable(tensor: Tensor) -> bool:
    """Whether a tensor has entries that a metric can read."""
    return (
        (tensor.is_floating_point() or tensor.is_complex())
        and tensor.numel() > 0
        and not tensor.is_meta
        and not tensor.is_nested
        and tensor.layout is torch.strided
    )
