"""What is wrong with the targets of one loss, told from shapes, dtypes and ranges."""

from __future__ import annotations

from math import prod

from gradlint.finding import Severity
from gradlint.trace import LossFacts, TensorFacts

Fault = tuple[str, str, Severity]
"""Message, help, severity."""

Shape = tuple[int, ...]


def not_indices(seen: LossFacts, target: TensorFacts, output: TensorFacts) -> Fault | None:
    """Say why the targets of a loss that raised are no class indices."""
    expected = output.shape[:1] + output.shape[2:] if len(output.shape) > 1 else ()
    if target.integral:
        if target.shape == output.shape and len(output.shape) > 1:
            return (
                f"the targets are whole numbers of the output's shape {output.shape} (one-hot); "
                f"{seen.kind} wants class indices of shape {expected}",
                "Pass class indices: targets.argmax(dim=1).",
                Severity.ERROR,
            )
        if target.shape != expected and prod(target.shape) == prod(expected):
            return (
                f"the targets have shape {target.shape}, {seen.kind} wants {expected}",
                f"Reshape the targets to {expected}.",
                Severity.ERROR,
            )
        if target.shape != expected:
            return (
                f"the targets have shape {target.shape}, the output {output.shape}: {seen.kind} "
                f"wants targets of shape {expected}",
                "Give each row of scores one target: look for a reshape that changes how many "
                "rows there are, and for a batch size written into the model.",
                Severity.ERROR,
            )
        return None
    if seen.kind == "nll" or target.shape == expected:
        return (
            f"the targets are {target.dtype} of shape {target.shape}; {seen.kind} wants class "
            f"indices, int64 of shape {expected}",
            "Pass class indices: targets.long(), or argmax of one-hot rows.",
            Severity.ERROR,
        )
    if target.shape != output.shape:
        return (
            f"the targets are {target.dtype} of shape {target.shape}, the output {output.shape}: "
            f"{seen.kind} wants probabilities of the output's shape, or class indices",
            "Give each output a row of as many probabilities as it has classes.",
            Severity.ERROR,
        )
    return None


def class_labels(seen: LossFacts, target: TensorFacts, output: TensorFacts) -> Fault | None:
    """Say why labels, or rows of probabilities, are outside what the loss takes."""
    classes = seen.classes or 0
    if target.integral:
        return _labels(seen, target, classes)
    if target.shape != output.shape:
        return None
    total = target.mean * classes
    if target.minimum < -1e-3 or total > 1.05:
        return (
            f"rows of targets sum to {total:.2g} on average (smallest entry "
            f"{target.minimum:.2g}): cross-entropy takes them for probabilities",
            "Make each row sum to 1; for several labels at once use BCEWithLogitsLoss.",
            Severity.WARNING,
        )
    return None


def _labels(seen: LossFacts, target: TensorFacts, classes: int) -> Fault | None:
    ignored = -100 if seen.ignore_index is None else seen.ignore_index
    low, high = target.minimum, target.maximum
    if classes == 2 and ignored in (0, 1) and low == 0 and high == 1:
        return (
            f"ignore_index={ignored} leaves out one of two classes: the labels that are left are "
            f"all {1 - ignored}",
            "Remove ignore_index, or mark what is to be left out with a label that is no class.",
            Severity.ERROR,
        )
    below = low < 0 and low != ignored
    above = high >= classes and high != ignored
    if not (below or above) or (different_labels(seen) or 0) > classes:  # that is GL604's to say
        return None
    return (
        f"class labels run from {low:.0f} to {high:.0f}, {classes} outputs allow 0…{classes - 1}",
        "Number the classes from 0, or set ignore_index to the label that is to be left out.",
        Severity.ERROR,
    )


def binary(target: TensorFacts) -> Fault | None:
    """Say why targets are none of binary cross-entropy."""
    low, high = target.minimum, target.maximum
    excess = max(-low, high - 1)
    if excess <= 1e-6:
        return None
    return (
        f"binary targets run from {low:.2g} to {high:.2g}, binary cross-entropy wants 0…1",
        "Map the targets to 0…1.",
        Severity.ERROR if excess > 0.5 else Severity.WARNING,
    )


def shapes_differ(kind: str, output: Shape, target: Shape) -> Fault:
    """Say that a loss which takes one target for each output was given others."""
    name = "binary cross-entropy" if kind.startswith("bce") else kind
    return (
        f"the targets have shape {target}, the output {output}: {name} wants one target for each "
        "output",
        "Give both the same shape: outputs.squeeze(-1), or targets.unsqueeze(-1).",
        Severity.ERROR,
    )


def broadcasts(output: Shape, target: Shape) -> Fault:
    """Say that the difference of two shapes is a table of all pairs."""
    return (
        f"output {output} and targets {target} broadcast to {outer(output, target)}: every "
        "output is compared with every target",
        "Give both the same shape: outputs.squeeze(-1), or targets.unsqueeze(-1).",
        Severity.ERROR,
    )


def class_numbers(output: TensorFacts, target: TensorFacts) -> Fault | None:
    """Say that a column of class numbers was repeated for each of as many scores."""
    classes = output.shape[-1] if len(output.shape) > 1 else 0
    if target.shape != (*output.shape[:-1], 1) or not target.whole:
        return None
    every = target.minimum == 0 and target.maximum == classes - 1
    if not every or not 3 <= (target.unique or 0) <= classes:
        return None
    return (
        f"the targets {target.shape} are numbers from 0 to {classes - 1}, the output "
        f"{output.shape} has {classes} columns: each of them learns the number of the class",
        "Use cross_entropy on the scores and the class numbers, or compare with "
        "one_hot(targets, classes).",
        Severity.ERROR,
    )


def a_row_for_all(output: TensorFacts, target: TensorFacts, *, a_batch: bool) -> Fault | None:
    """Say that one target a sample lies along the outputs of a sample, of which there are as many.

    Where it is not known to be the batch's (``a_batch``), class numbers of which some come twice
    tell so: a row that is meant for all samples is no list of classes.
    """
    count = output.shape[-1] if output.shape else 0
    if count < 2 or output.shape != (count, count) or target.shape != (count,):
        return None
    classes = target.whole and target.minimum >= 0 and target.maximum < count
    if not a_batch and not (classes and 3 <= target.unique < count):
        return None
    return (
        f"the targets {target.shape} are repeated for each of {count} samples of the output "
        f"{output.shape}: target i is compared with output i of every sample",
        "Use cross_entropy for class numbers; for one number a sample give the model one output, "
        "and both the same shape.",
        Severity.ERROR,
    )


def signs(name: str, target: TensorFacts) -> Fault | None:
    """Say that targets which are to be −1 and 1 are 0 and 1."""
    if not target.whole or target.minimum != 0 or target.maximum != 1:
        return None
    return (
        f"the targets are 0 and 1, {name} wants -1 and 1: of a target of 0 the loss is a constant",
        "Pass 2 * targets - 1.",
        Severity.ERROR,
    )


def fit(first: Shape, second: Shape) -> bool:
    """Whether two shapes broadcast, to whatever."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def outer(first: Shape, second: Shape) -> Shape | None:
    """Return the shape both broadcast to, if it is larger than either; else None."""
    rank = max(len(first), len(second))
    padded = [(1,) * (rank - len(shape)) + shape for shape in (first, second)]
    result: list[int] = []
    for a, b in zip(*padded, strict=True):
        if a != b and 1 not in (a, b):
            return None
        result.append(max(a, b))
    larger = prod(result) > max(prod(first), prod(second))
    return tuple(result) if larger else None


def different_labels(seen: LossFacts) -> int | None:
    """Return how many different class labels the targets hold, those ignored left out.

    None where the targets are not class labels.
    """
    target, output = seen.target, seen.output
    if target is None or not target.integral or not target.unique:
        return None
    if output is not None and len(target.shape) >= len(output.shape) > 1:
        return None
    ignored = -100 if seen.ignore_index is None else seen.ignore_index
    return target.unique - int(target.minimum <= ignored <= target.maximum)
