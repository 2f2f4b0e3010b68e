"""Targets gradlint makes up, where none were given: what each output is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlint.errors import GradlintError
from gradlint.target.chosen import Chosen, ending, learnable, leaves
from gradlint.target.losses import Fitted, main_tensor


@dataclass(frozen=True)
class Made:
    """How to make the targets of one output; `shape` is that output's, samples first."""

    how: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self, inputs: Any, generator: torch.Generator) -> Tensor:
        """Return targets for a batch of inputs, on the inputs' device."""
        held = [t for t in leaves(inputs) if t.ndim]
        size = held[0].shape[0] if held else self.shape[0]
        made = MAKERS[self.how](self, (size, *self.shape[1:]), held, generator)
        return made.to(held[0].device) if held else made


def _classes(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    return torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


def _last(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    return torch.randint(shape[-1], shape[:-1], generator=generator)


def _binary(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    return torch.randint(2, shape, generator=generator).to(made.dtype)


def _normal(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    if made.dtype.is_complex:
        return torch.randn(shape, generator=generator, dtype=made.dtype)
    return torch.randn(shape, generator=generator).to(made.dtype)


def _positive(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    return _normal(made, shape, _, generator).abs()


def _negative(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    return -_normal(made, shape, _, generator).abs()


def _bounded(made: Made, shape: tuple[int, ...], _: Any, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 1.8 - 0.9).to(made.dtype)


def _input(
    made: Made, shape: tuple[int, ...], held: list[Tensor], generator: torch.Generator
) -> Tensor:
    return held[0].clone()


def _next(
    made: Made, shape: tuple[int, ...], held: list[Tensor], generator: torch.Generator
) -> Tensor:
    return held[0].roll(-1, dims=-1)


MAKERS: Mapping[str, Callable[[Made, tuple[int, ...], Any, torch.Generator], Tensor]] = {
    "class labels": _classes,
    "class labels a position": _last,
    "0 or 1": _binary,
    "N(0, 1)": _normal,
    "|N(0, 1)|": _positive,
    "-|N(0, 1)|": _negative,
    "uniform in (-0.9, 0.9)": _bounded,
    "the inputs": _input,
    "the next token": _next,
}
"""How targets are made, under the words the report shows."""


def plan(outputs: Any, inputs: Any, vocabulary: frozenset[int]) -> tuple[Chosen, list[Made]]:
    """Return the loss and the targets that come most naturally to what a model returned.

    `vocabulary` holds the sizes of the model's embeddings: scores over one of them, one row
    for each token of the input, are a language model's.

    Raises:
        TargetError: If the outputs have no gradient.
    """
    held = [t for t in leaves(inputs) if t.ndim]
    size = held[0].shape[0] if held else None
    found = learnable(outputs, size)
    parts: list[tuple[int, str]] = []
    makers: list[Made] = []
    for place, output in found:
        if makers and _weights(output):
            continue  # attention maps, gates: by-products, not predictions
        kind, how = natural(output, held, vocabulary)
        if makers and makers[0].how == "the inputs" and how == "class labels":
            kind, how = "mse_loss", "N(0, 1)"
        parts.append((place, kind))
        makers.append(Made(how, tuple(output.shape), output.dtype))
    return Chosen(tuple(parts)), makers


def _weights(output: Tensor) -> bool:
    """Whether rows of the last axis sum to 1."""
    if output.is_complex() or output.ndim < 2 or output.shape[-1] < 2:
        return False
    rows = output.detach().float().sum(-1)
    return bool((rows - 1).abs().max() < 1e-3) and bool(output.detach().min() >= 0)


def natural(output: Tensor, held: list[Tensor], vocabulary: frozenset[int]) -> tuple[str, str]:
    """Return the loss and the kind of targets that fit one output best."""
    last = ending(output)
    if output.is_complex():
        return "mean squared modulus", "N(0, 1)"
    first = held[0] if held else None
    tokens = first is not None and not first.is_floating_point()
    classes = {"softmax": "nll_loss of the log", "log_softmax": "nll_loss"}.get(
        last, "cross_entropy"
    )
    if tokens and first is not None and output.ndim == 3 and output.shape[:-1] == first.shape:
        known = output.shape[-1] in vocabulary and first.shape[-1] > 1
        known = known and int(first.max()) < output.shape[-1]
        if known or last in ("softmax", "log_softmax"):
            how = "the next token" if known else "class labels a position"
            return f"{classes}, class axis last", how
        return "mse_loss", "N(0, 1)"
    if first is not None and not tokens and output.shape == first.shape and output.ndim > 1:
        unit = float(first.min()) >= 0 and float(first.max()) <= 1
        return ("binary_cross_entropy" if last == "sigmoid" and unit else "mse_loss"), "the inputs"
    if last == "sigmoid":
        return "binary_cross_entropy", "0 or 1"
    if output.ndim == 2 and output.shape[1] > 1 and last not in ("tanh", "positive", "negative"):
        return classes, "class labels"
    if first is not None and output.ndim in (4, 5) and output.shape[2:] == first.shape[2:]:
        if output.shape[1] > 1:
            return classes, "class labels"
        return "binary_cross_entropy_with_logits", "0 or 1"
    ranges = {
        "tanh": "uniform in (-0.9, 0.9)",
        "positive": "|N(0, 1)|",
        "negative": "-|N(0, 1)|",
    }
    return "mse_loss", ranges.get(last, "N(0, 1)")


PER_CLASS = ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss", "multi_margin_loss")
BINARY = ("binary_cross_entropy", "BCELoss", "BCEWithLogitsLoss", "soft_margin_loss")


def candidates(
    outputs: Any, inputs: Any, vocabulary: frozenset[int], loss: Any
) -> Iterator[list[Made]]:
    """Targets to try on a given loss, likeliest first."""
    name = getattr(loss, "__name__", "")
    scores = main_tensor(outputs)
    if not isinstance(scores, Tensor) or not scores.ndim:
        return
    held = [t for t in leaves(inputs) if t.ndim]
    shape, dtype = tuple(scores.shape), scores.dtype
    whole = bool(held) and held[0].shape == scores.shape
    floats = ["the inputs"] if whole and held[0].is_floating_point() else []
    floats.append(natural(scores, [], frozenset())[1])
    floats = [f if f != "class labels" else "N(0, 1)" for f in floats] + ["N(0, 1)"]
    classes = ["class labels", "class labels a position"] if len(shape) > 1 else []
    if held and not held[0].is_floating_point() and shape[:-1] == tuple(held[0].shape):
        known = shape[-1] in vocabulary
        classes = ["the next token" if known else "class labels a position"]
    orders: list[str]
    if name in PER_CLASS:
        orders = classes
    elif name.startswith(BINARY):
        orders = ["0 or 1"]
    elif isinstance(loss, Fitted):
        orders = floats
    else:
        try:
            yield plan(outputs, inputs, vocabulary)[1]
        except GradlintError:
            return
        orders = [*classes, *floats, "0 or 1"]
    for how in dict.fromkeys(orders):
        yield [Made(how, shape, dtype)]


def make(makers: list[Made], inputs: Any, generator: torch.Generator) -> Any:
    """Return the targets of one batch: a tensor, or a tuple of them for several outputs."""
    made = tuple(maker(inputs, generator) for maker in makers)
    return made[0] if len(made) == 1 else made
