"""The loss that was given: by name, as a module, as a function of any common signature."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from gradlint.errors import UsageError
from gradlint.target.signatures import OUTPUTS, TARGETS, takes

Loss = Callable[[Any, Any], Any]

FUNCTIONS = (
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
)
"""Losses of torch.nn.functional that take outputs and targets."""

SHORT = {
    "bce": "binary_cross_entropy",
    "bce_loss": "binary_cross_entropy",
    "bce_with_logits": "binary_cross_entropy_with_logits",
    "bce_with_logits_loss": "binary_cross_entropy_with_logits",
    "ce": "cross_entropy",
    "crossentropy": "cross_entropy",
    "cross_entropy_loss": "cross_entropy",
    "kl_div_loss": "kl_div",
    "mae": "l1_loss",
    "mae_loss": "l1_loss",
}


def by_name(name: str) -> Loss:
    """Return the loss called `name`: a function of torch.nn.functional or a class of torch.nn.

    Raises:
        UsageError: If there is none; close names are suggested.
    """
    plain = name.lower().replace("-", "_").removeprefix("f.").removeprefix("nn.")
    plain = SHORT.get(plain, plain)
    for candidate in (plain, f"{plain}_loss"):
        if candidate in FUNCTIONS:
            return Fitted(getattr(functional, candidate))
    classes = {c.lower(): c for c in dir(nn) if c.endswith("Loss")}
    for candidate in (plain.replace("_", ""), plain.replace("_", "") + "loss"):
        if candidate in classes:
            return Fitted(instance(getattr(nn, classes[candidate])))
    known = [*FUNCTIONS, *SHORT, *classes.values()]
    close = difflib.get_close_matches(plain, [k.lower() for k in known], n=1, cutoff=0.5)
    shown = {k.lower(): k for k in known}
    hint = f"; did you mean {shown[close[0]]!r}?" if close else ""
    raise UsageError(
        f"expected --loss to name a loss of torch.nn.functional, of torch.nn, or of the target's "
        f"file, got {name!r}{hint or '; for example --loss cross_entropy'}"
    )


def instance(kind: Callable[..., Any]) -> Any:
    """Return `kind()`.

    Raises:
        UsageError: If the class needs arguments.
    """
    needed = takes(kind)
    if needed is not None and (needed.required or needed.required_keywords):
        names = ", ".join(needed.required + needed.required_keywords)
        raise UsageError(
            f"expected the loss {getattr(kind, '__name__', kind)} to be built without arguments, "
            f"it needs {names}; define loss_fn as an instance in the target's file"
        )
    return kind()


class Fitted:
    """A loss of torch's, given the tensor it wants out of what the model returns.

    Outputs that torch would refuse are made fit, and nothing else is: of a model output
    with several fields the scores are taken, and scores ``(N, T, K)`` with classes ``(N, T)``
    are compared position by position. Shapes that torch broadcasts stay as they are.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        name = getattr(loss, "__name__", type(loss).__name__)
        self.__name__ = name
        self.per_class = name in ("cross_entropy", "CrossEntropyLoss", "nll_loss", "NLLLoss")

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Return the loss of the scores in `outputs` against `targets`."""
        scores = main_tensor(outputs)
        if isinstance(targets, tuple) and targets:  # (inputs, targets, index) of a loader
            targets = targets[0]
        if (
            self.per_class
            and isinstance(scores, Tensor)
            and isinstance(targets, Tensor)
            and scores.ndim > 2
            and not targets.is_floating_point()
            and targets.shape == scores.shape[:-1]
            and targets.shape != scores.shape[:1] + scores.shape[2:]
        ):
            return self.loss(scores.flatten(0, -2), targets.flatten())
        return self.loss(scores, targets)


def main_tensor(outputs: Any) -> Any:
    """Return the scores in what a model returned: ``logits`` or the first floating tensor."""
    if isinstance(outputs, Tensor):
        return outputs
    for name in ("logits", "last_hidden_state", "out", "output", "pred", "prediction"):
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    floating = [t for t in tensors if t.is_floating_point() and t.ndim]
    return (floating or tensors or [outputs])[0]


def given(value: Any) -> Loss | None:
    """Return `value` as ``loss_fn(outputs, targets)``, or None if it is no loss.

    A class is built, a name looked up; a function that takes targets first, by the names
    of its parameters, has them swapped; one that takes outputs alone gets only those.

    Raises:
        UsageError: If a name is unknown or a class needs arguments.
    """
    if isinstance(value, str):
        return by_name(value)
    if isinstance(value, type):
        if not issubclass(value, nn.Module):
            return None
        value = instance(value)
    if isinstance(value, Tensor) or not callable(value):
        return None
    if type(value).__module__.startswith("torch.nn.modules.loss"):
        return Fitted(value)
    if getattr(value, "__module__", "") == "torch.nn.functional":
        return Fitted(value)
    return _ordered(value)


def _ordered(function: Callable[..., Any]) -> Loss | None:
    known = takes(function.forward if isinstance(function, nn.Module) else function)
    if known is None or known.any_positional:
        return function
    count = len(known.required) if len(known.required) > 1 else min(len(known.positional), 2)
    if count > 2 or known.required_keywords:
        return Unpacked(function, len(known.required))
    if count == 0:
        return None
    if count == 1:
        return OutputsOnly(function)
    first, second = (name.lower() for name in known.positional[:2])
    return Swapped(function) if first in TARGETS and second in OUTPUTS else function


class Wrapped:
    """A loss function of another signature; it keeps its name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)


class OutputsOnly(Wrapped):
    """A loss that judges outputs alone."""

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Return the loss of `outputs`."""
        return self.function(outputs)


class Swapped(Wrapped):
    """A loss that takes targets first."""

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Return the loss of `targets` and `outputs`."""
        return self.function(targets, outputs)


class Unpacked(Wrapped):
    """A loss of more than two arguments: outputs, then targets, each taken apart if a tuple."""

    def __init__(self, function: Callable[..., Any], count: int) -> None:
        super().__init__(function)
        self.count = count

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Return the loss of the outputs' and the targets' parts."""
        parts = (*_parts(outputs), *_parts(targets))
        return (
            self.function(*parts) if len(parts) == self.count else self.function(outputs, targets)
        )


def _parts(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def name_of(loss: Any) -> str:
    """What to call a loss in a report."""
    name = getattr(loss, "__name__", type(loss).__name__)
    return "a function" if name == "<lambda>" else str(name)


def bare(loss: Loss | None) -> Loss | None:
    """Return torch's own loss inside a `Fitted` one; any other as it is."""
    return loss.loss if isinstance(loss, Fitted) else loss
