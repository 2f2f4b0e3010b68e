"""What a callable takes, read from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

TARGETS = (
    "labels",
    "targets",
    "target",
    "label",
    "y",
    "y_true",
    "ys",
    "tgt_labels",
    "gt",
    "ground_truth",
)
"""Names of what a model's output is compared with, likeliest first."""

OUTPUTS = (
    "outputs",
    "output",
    "out",
    "logits",
    "pred",
    "preds",
    "prediction",
    "predictions",
    "y_pred",
    "y_hat",
    "yhat",
    "input",
)
"""Names of what a model returns, as a loss function calls it."""

MODELS = ("model", "net", "network", "module", "m")
"""Names of a first parameter that takes the model itself."""


@dataclass(frozen=True, slots=True)
class Takes:
    """Parameters of a callable: their names, how many are required, and open ends."""

    positional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    keyword_only: tuple[str, ...] = ()
    required_keywords: tuple[str, ...] = ()
    any_positional: bool = False
    any_keyword: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every parameter that can be given by keyword."""
        return self.positional + self.keyword_only

    def accepts(self, count: int) -> bool:
        """Whether `count` positional arguments bind."""
        most = len(self.positional)
        fits = len(self.required) <= count and (count <= most or self.any_positional)
        return fits and not self.required_keywords

    def keywords(self, names: set[str]) -> bool:
        """Whether keyword arguments called `names` bind."""
        return self.any_keyword or names <= set(self.names)


def takes(function: Callable[..., Any]) -> Takes | None:
    """Return what `function` takes, or None if it cannot be known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = inspect.Parameter
    positional = [
        p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    keyword_only = [p for p in parameters if p.kind is kinds.KEYWORD_ONLY]
    return Takes(
        positional=tuple(p.name for p in positional),
        required=tuple(p.name for p in positional if p.default is kinds.empty),
        keyword_only=tuple(p.name for p in keyword_only),
        required_keywords=tuple(p.name for p in keyword_only if p.default is kinds.empty),
        any_positional=any(p.kind is kinds.VAR_POSITIONAL for p in parameters),
        any_keyword=any(p.kind is kinds.VAR_KEYWORD for p in parameters),
    )


def required(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the arguments without which `function` cannot be called."""
    known = takes(function)
    return known.required + known.required_keywords if known else ()


def forward_takes(model: nn.Module) -> Takes:
    """Return what the model's forward takes; anything at all if it cannot be known."""
    return takes(model.forward) or Takes(any_positional=True, any_keyword=True)


def target_keyword(model: nn.Module) -> str | None:
    """Name of the forward parameter that takes targets, of a model with its own loss."""
    known = forward_takes(model)
    optional = [n for n in known.names if n not in known.required[:1]]
    return next((name for name in TARGETS if name in optional), None)


def takes_model(function: Callable[..., Any]) -> int:
    """Number of required arguments if the first is the model itself, else 0."""
    known = takes(function)
    if known is None or not known.required or known.required[0].lower() not in MODELS:
        return 0
    return max(len(known.required), min(len(known.positional), 2))
