"""What loss does an output reach that knows only how often each class occurs?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.batches import Batch


class _Constant(nn.Module):
    """Returns the same numbers whatever it is given."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the numbers."""
        return self.numbers


def constant_output(
    model: nn.Module, call: Callable[[nn.Module, Batch], Any], batches: Sequence[Batch]
) -> Mapping[str, Any] | None:
    """Give the loss of `batches` outputs that are the logarithms of their classes' shares.

    Weights of classes, smoothed labels and padding are in it, since the loss is the user's own.

    Args:
        model: The model; only the shape of its output is asked for.
        call: Runs a model and the loss on a batch, and returns loss, output and targets.
        batches: Batches of the training, at least one.

    Returns:
        ``loss`` (its mean over the batches) and ``classes`` (how many occur); None where the
        targets are no classes of the output.
    """
    with torch.no_grad():
        output = call(model, batches[0])[1]
        targets = [_labels(batch) for batch in batches]
        labels = [t for t in targets if t is not None]
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        if len(labels) < len(batches) or labels[0].numel() == 0:
            return None
        axis = _class_axis(output, labels[0])
        if axis is None:
            return None
        seen = torch.cat([t.flatten() for t in labels])
        counts = torch.bincount(seen[seen >= 0], minlength=output.shape[axis])
        if len(counts) != output.shape[axis] or int((counts > 0).sum()) < 2:
            return None  # labels of one class are a convention, as contrasts have them
        shares = counts.to(torch.float64).clamp(min=1e-6) / counts.sum()
        shape = [1] * output.ndim
        shape[axis] = -1
        numbers = shares.log().to(output).reshape(shape)
        losses = []
        for batch, wanted in zip(batches, labels, strict=True):
            if wanted.shape[1:] != labels[0].shape[1:]:
                return None
            rows = output.shape[0] * len(wanted) // len(labels[0])
            full = numbers.expand(rows, *output.shape[1:]).contiguous()
            losses.append(float(call(_Constant(full), batch)[0]))
    loss, entropy = sum(losses) / len(losses), float(-(shares * shares.log()).sum())
    if loss < 0.9 * entropy:
        return None  # no cross entropy is lower: its scores are angles, or easy samples count less
    return {"loss": loss, "classes": int((counts > 0).sum())}


def _labels(batch: Batch) -> Tensor | None:
    """Return the batch's only target, if it holds whole numbers."""
    wanted = [t for _, t in named_tensors(batch.targets, "target")]
    if len(wanted) != 1 or wanted[0].dtype != torch.int64 or wanted[0].ndim == 0:
        return None
    return wanted[0]


def _class_axis(output: Tensor, labels: Tensor) -> int | None:
    """Return the axis of `output` that counts classes, if `labels` name one of each of its rows.

    One behind the samples where that fits, the last where only that does.
    """
    if output.ndim < 2:
        return None
    if output.shape[:1] + output.shape[2:] == labels.shape:
        fits_last = output.ndim > 2 and output.shape[:-1] == labels.shape
        return None if fits_last else 1
    last = output.ndim - 1
    return last if output.numel() == labels.numel() * output.shape[last] else None
