"""The loss gradlint chooses: from the shapes and ranges of outputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gradlint.errors import TargetError
from gradlint.target.batches import describe
from gradlint.target.calls import kind_of


def _last_axis(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def _probabilities(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.nll_loss(scores.clamp_min(torch.finfo(scores.dtype).tiny).log(), targets)


def _probabilities_last(scores: Tensor, targets: Tensor) -> Tensor:
    return _probabilities(scores.flatten(0, -2), targets.flatten())


def _log_last(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.nll_loss(scores.flatten(0, -2), targets.flatten())


def _column(scores: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(scores, targets.flatten())


def _like(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def compare(scores: Tensor, targets: Tensor) -> Tensor:
        return loss(scores, targets.to(scores.dtype).reshape(scores.shape))

    return compare


def _complex(scores: Tensor, targets: Tensor) -> Tensor:
    return (scores - targets.reshape(scores.shape)).abs().square().mean()


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "cross_entropy, class axis last": _last_axis,
    "cross_entropy, one class a row": _column,
    "nll_loss": functional.nll_loss,
    "nll_loss, class axis last": _log_last,
    "nll_loss of the log": _probabilities,
    "nll_loss of the log, class axis last": _probabilities_last,
    "binary_cross_entropy": _like(functional.binary_cross_entropy),
    "binary_cross_entropy_with_logits": _like(functional.binary_cross_entropy_with_logits),
    "mse_loss": _like(functional.mse_loss),
    "mean squared modulus": _complex,
}
"""Losses that are chosen, under the names the report shows."""

STRUCTURAL = {
    "ViewBackward0",
    "UnsafeViewBackward0",
    "ReshapeAliasBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "SqueezeBackward2",
    "UnsqueezeBackward0",
    "TransposeBackward0",
    "PermuteBackward0",
    "SelectBackward0",
    "SliceBackward0",
    "CloneBackward0",
    "AliasBackward0",
    "ToCopyBackward0",
}

ENDINGS = {
    "SigmoidBackward0": "sigmoid",
    "SoftmaxBackward0": "softmax",
    "LogSoftmaxBackward0": "log_softmax",
    "LogSigmoidBackward0": "negative",
    "TanhBackward0": "tanh",
    "ReluBackward0": "positive",
    "SoftplusBackward0": "positive",
    "ExpBackward0": "positive",
    "LeakyReluBackward0": "",
}


def ending(output: Tensor) -> str:
    """The range of the last function: "sigmoid", "softmax", "log_softmax", "tanh", …, or ""."""
    node = output.grad_fn
    for _ in range(8):
        if node is None:
            return ""
        if node.name() not in STRUCTURAL:
            return ENDINGS.get(node.name(), "")
        node = node.next_functions[0][0]
    return ""


def leaves(value: Any) -> list[Tensor]:
    """Tensors in what a model returned: tuples, mappings and data classes taken apart."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for entry in value.values() for t in leaves(entry)]
    if isinstance(value, (tuple, list)):
        return [t for entry in value for t in leaves(entry)]
    if is_dataclass(value):
        return [t for f in fields(value) for t in leaves(getattr(value, f.name, None))]
    return []


def learnable(outputs: Any, size: int | None = None) -> list[tuple[int, Tensor]]:
    """Outputs a loss can be put on, with their place among all: floating, a row a sample.

    `size` is the number of samples; of outputs with other first axes (a recurrent state)
    only the first output is taken, and of those without a gradient none, if any has one.

    Raises:
        TargetError: If there is none.
    """
    tensors = leaves(outputs)
    floating = [
        (i, t)
        for i, t in enumerate(tensors)
        if (t.is_floating_point() or t.is_complex()) and t.numel()
    ]
    if not floating:
        seen = describe(outputs) if tensors else kind_of(outputs)
        raise TargetError(
            f"expected the model to return floating-point outputs, got {seen}"
            + (
                ": integers have no gradient; return the scores and leave argmax to inference"
                if tensors
                else "; return a tensor, or a tuple or dict of tensors"
            )
        )
    if any(t.requires_grad for _, t in floating):
        floating = [(i, t) for i, t in floating if t.requires_grad]
    first = floating[0][1]
    rows = size if size is not None else (first.shape[0] if first.ndim else None)
    return [floating[0], *((i, t) for i, t in floating[1:] if t.ndim and t.shape[0] == rows)]


@dataclass(frozen=True)
class Chosen:
    """A chosen loss: the sum, over the outputs it is put on, of one loss each.

    `parts` holds places among the outputs' tensors and names of `LOSSES`.
    """

    parts: tuple[tuple[int, str], ...]

    @property
    def plain(self) -> Callable[[Any, Any], Any]:
        """The loss of torch's that it is, if it is just one of them; else itself."""
        place, kind = self.parts[0]
        own = getattr(functional, kind, None)
        return own if own is not None and place == 0 and len(self.parts) == 1 else self

    @property
    def __name__(self) -> str:
        """What the report shows."""
        return " + ".join(dict.fromkeys(kind for _, kind in self.parts))

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """Return the loss of `outputs` against `targets`, a tuple if the outputs are several."""
        tensors = leaves(outputs)
        wanted = (targets,) if len(self.parts) == 1 else targets
        losses = [
            LOSSES[kind](tensors[place], target)
            for (place, kind), target in zip(self.parts, wanted, strict=True)
        ]
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def choose(outputs: Any, targets: Any) -> Chosen:
    """Return the loss that fits given targets.

    Raises:
        TargetError: If none does, or the outputs have no gradient.
    """
    if isinstance(targets, (tuple, list)) and all(isinstance(t, Tensor) for t in targets):
        found = learnable(outputs)
        if len(found) >= len(targets) > 0:
            pairs = zip(found, targets, strict=False)
            return Chosen(tuple((i, kind_for(output, target)) for (i, output), target in pairs))
    if isinstance(targets, Tensor):
        place, output = learnable(outputs)[0]
        return Chosen(((place, kind_for(output, targets)),))
    raise TargetError(
        f"expected a loss for outputs {describe(outputs)} and targets {describe(targets)}; "
        "define loss_fn(outputs, targets) in the target's file, or give --loss NAME"
    )


def kind_for(output: Tensor, target: Tensor) -> str:
    """Name of the loss in `LOSSES` that fits one output and one given target.

    Raises:
        TargetError: If the shapes fit no loss.
    """
    last = ending(output)
    if output.is_complex():
        return "mean squared modulus"
    same = target.numel() == output.numel() and target.shape[:1] == output.shape[:1]
    if not target.is_floating_point() and target.dtype is not torch.bool:
        classes = _classes(output, target, last)
        if classes:
            return classes
    if same and (target.dtype is torch.bool or bool(((target == 0) | (target == 1)).all())):
        rows = target.ndim == 2 and target.shape[1] > 1 and last != "sigmoid"
        if rows and target.is_floating_point() and bool((target.sum(1) == 1).all()):
            return "cross_entropy"
        return "binary_cross_entropy" + ("" if last == "sigmoid" else "_with_logits")
    if same:
        return "mse_loss"
    raise TargetError(
        f"expected targets that fit the outputs {describe(output)}, got {describe(target)}; "
        "define loss_fn(outputs, targets) in the target's file, or give --loss NAME"
    )


def _classes(output: Tensor, target: Tensor, last: str) -> str:
    """Name of the class loss for whole-number targets; empty if they are no classes."""
    if output.ndim < 2:
        return ""
    base = {"softmax": "nll_loss of the log", "log_softmax": "nll_loss"}.get(last, "cross_entropy")
    if output.shape[1] > 1 and target.shape == output.shape[:1] + output.shape[2:]:
        return base
    if output.ndim > 2 and output.shape[-1] > 1 and target.shape == output.shape[:-1]:
        return f"{base}, class axis last"
    if output.ndim == 2 and output.shape[1] > 1 and target.shape == (output.shape[0], 1):
        return "cross_entropy, one class a row"
    return ""
