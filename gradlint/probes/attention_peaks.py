"""How sharp has attention become? One forward pass after training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from gradlint.engine import Observer
from gradlint.target.trial import copied


def attention_peaks(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], batches: Sequence[Any]
) -> Mapping[str, Any] | None:
    """Measure `attention_peak` of every attention, on a copy of the trained `model`.

    Args:
        model: The model after training; unchanged.
        run: Calls a model on a batch and returns the loss first.
        batches: Batches of the training, at least one.

    Returns:
        By the site of each attention the median over its queries of the largest weight; None
        if there is no attention, or none with enough keys.
    """
    observer = Observer(copied(model, model))
    with observer, observer.step(0, detailed=False):
        observer.forward_done(run(observer.model, batches[0])[0], gains=False)
        seen = observer.read()
    peaks = {path: value for (name, path), value in seen.items() if name == "attention_peak"}
    return {path: value for path, value in peaks.items() if value == value} or None
