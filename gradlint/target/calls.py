"""One forward and one loss, by whatever convention the target follows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.errors import GradlintError, TargetError
from gradlint.target import raised
from gradlint.target.batches import Batch, joined, shape_of
from gradlint.target.signatures import forward_takes


@dataclass(frozen=True)
class Convention:
    """How a loss comes out of a model and a batch; the callable of `Target.call`.

    Of the three, `training_step(model, batch)` replaces everything, `loss_fn(outputs,
    targets)` follows a forward, and without either the model returns its own loss, with
    the targets, if `keyword` names the parameter for them, given to forward.
    """

    loss_fn: Callable[[Any, Any], Any] | None = None
    training_step: Callable[[nn.Module, Any], Any] | None = None
    keyword: str | None = None
    step_name: str = "training_step"

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any, Any]:
        """Return loss, outputs and targets of one pass.

        Raises:
            TargetError: If the user's code raises, or the loss is not a scalar tensor.
        """
        with redirect_stdout(sys.stderr):  # stdout is the report's
            return self._call(model, batch)

    def _call(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Any, Any]:
        if self.training_step is not None:
            return self._step(model, batch, self.training_step)
        outputs = self.outputs(model, batch)
        if self.loss_fn is None:
            loss = own_loss(outputs)
            if loss is None:
                raise TargetError(
                    f"expected the model to return its loss, got {kind_of(outputs)}; "
                    "give a loss: define loss_fn(outputs, targets), or --loss NAME"
                )
            return scalar(loss, "the model's own loss"), outputs, batch.targets
        try:
            loss = self.loss_fn(outputs, batch.targets)
        except GradlintError:
            raise
        except Exception as error:
            raise raised.in_loss(error, outputs, batch) from error
        return scalar(loss, "the loss"), outputs, batch.targets

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """Run forward alone.

        Raises:
            TargetError: If forward raises.
        """
        try:
            return forward(model, self._inputs(batch))
        except GradlintError:
            raise
        except Exception as error:
            raise raised.in_forward(error, model, batch) from error

    def _inputs(self, batch: Batch) -> Any:
        if self.keyword is None or batch.targets is None:
            return batch.inputs
        if isinstance(batch.inputs, Mapping):
            return {**batch.inputs, self.keyword: batch.targets}
        inputs = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
        return Arguments(inputs, {self.keyword: batch.targets})

    def _step(
        self, model: nn.Module, batch: Batch, step: Callable[[nn.Module, Any], Any]
    ) -> tuple[Tensor, Any, Any]:
        with _listening(model) as heard:
            try:
                loss = step(model, joined(batch))
            except GradlintError:
                raise
            except Exception as error:
                raise raised.in_step(error, self.step_name, model, batch) from error
        found = own_loss(loss)
        return (
            scalar(loss if found is None else found, f"what {self.step_name} returns"),
            heard[-1] if heard else None,
            batch.targets,
        )


@dataclass(frozen=True)
class Arguments:
    """Positional and keyword arguments of one call."""

    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call `model` on inputs: a tensor, positional or keyword arguments.

    A mapping or a tuple that forward cannot take apart is given as its one argument.
    """
    if isinstance(inputs, Arguments):
        return model(*inputs.positional, **inputs.keywords)
    known = forward_takes(model)
    if isinstance(inputs, Mapping):
        if known.keywords(set(inputs)) or not known.positional:
            return model(**inputs)
        return model(inputs)
    if type(inputs) is tuple:
        one = len(known.positional) == 1 and not known.any_positional
        return model(inputs) if one and len(inputs) != 1 else model(*inputs)
    if type(inputs) is list and len(known.required) > 1 and known.accepts(len(inputs)):
        return model(*inputs)
    return model(inputs)


@contextmanager
def _listening(model: nn.Module) -> Iterator[list[Any]]:
    """Collect what `model` returns; forward is put back as it was."""
    heard: list[Any] = []
    original = model.forward
    shadowed = "forward" in model.__dict__

    def listening(*args: Any, **kwargs: Any) -> Any:
        heard.append(original(*args, **kwargs))
        return heard[-1]

    model.forward = listening
    try:
        yield heard
    finally:
        del model.__dict__["forward"]
        if shadowed:
            model.forward = original


def own_loss(outputs: Any) -> Tensor | None:
    """Return the loss a model returned by itself: a scalar, ``.loss``, or one of several."""
    if isinstance(outputs, Tensor):
        return outputs if outputs.numel() == 1 and outputs.ndim == 0 else None
    loss = getattr(outputs, "loss", None)
    if loss is None and isinstance(outputs, Mapping):
        loss = outputs.get("loss")
    if isinstance(loss, Tensor):
        return loss
    if isinstance(outputs, Mapping):
        parts = list(outputs.values())
        scalars = [p for p in parts if isinstance(p, Tensor) and p.ndim == 0]
        if parts and len(scalars) == len(parts) and all(p.is_floating_point() for p in scalars):
            return torch.stack(scalars).sum()
        return None
    if isinstance(outputs, (tuple, list)):
        return next(
            (
                part
                for part in outputs
                if isinstance(part, Tensor) and part.ndim == 0 and part.is_floating_point()
            ),
            None,
        )
    return None


def scalar(loss: Any, what: str) -> Tensor:
    """Return `loss` if it is one number that can have a gradient.

    Raises:
        TargetError: If it is not a tensor, holds several numbers, or is an integer.
    """
    if not isinstance(loss, Tensor):
        raise TargetError(
            f"expected {what} to be a scalar tensor, got {kind_of(loss)}; return the loss itself"
        )
    if loss.numel() != 1:
        raise TargetError(
            f"expected {what} to be a scalar, got a tensor of shape {tuple(loss.shape)}; "
            "reduce it, for example with .mean()"
        )
    if not loss.is_floating_point():
        raise TargetError(
            f"expected {what} to be a floating-point scalar, got {loss.dtype}; an integer has no "
            "gradient: leave argmax, round and comparisons out of the loss"
        )
    return loss if loss.ndim == 0 else loss.reshape(())


def kind_of(value: Any) -> str:
    """What `value` is, for a message: dtype and shape of a tensor, else its class."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(shape_of(v) for v in value)})"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(repr, value))}"
    return f"a {type(value).__name__}"
