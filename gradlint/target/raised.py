"""The user's exception in one sentence: where it was raised, on what, and what to do."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gradlint.errors import TargetError
from gradlint.target.batches import Batch, describe, shape_of
from gradlint.target.user_code import frames, say, where


def in_forward(error: Exception, model: nn.Module, batch: Batch) -> TargetError:
    """Return the error of a forward pass, naming the module and the shapes."""
    at = _module(error, model)
    line = where(error)
    if at is None:
        return TargetError(
            f"forward raised {say(error)}{line} on inputs {describe(batch.inputs)}; "
            "give a batch that fits, with example_batch in the file or --input SHAPE"
        )
    path, module, given = at
    name = f"{path} ({type(module).__name__})" if path else f"the model ({type(module).__name__})"
    return TargetError(
        f"forward raised in {name} on {given}{line}: {say(error)}; inputs were "
        f"{describe(batch.inputs)}{_wanted(module)}"
    )


def in_loss(error: Exception, outputs: Any, batch: Batch) -> TargetError:
    """Return the error of a loss function, naming outputs and targets."""
    integral = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    if integral and not any(t.is_floating_point() or t.is_complex() for t in integral):
        return TargetError(
            f"expected the model to return floating-point outputs, got {describe(outputs)}: "
            "integers have no gradient; return the scores and leave argmax to inference"
        )
    targets = describe(batch.targets) if batch.targets is not None else "no targets"
    return TargetError(
        f"the loss raised {say(error)}{where(error)} on outputs {describe(outputs)} and "
        f"{'targets ' if batch.targets is not None else ''}{targets}; give a loss and a batch "
        "that fit each other"
    )


def in_step(error: Exception, name: str, model: nn.Module, batch: Batch) -> TargetError:
    """Return the error of a training step."""
    at = _module(error, model)
    inside = f" in {at[0] or 'the model'} ({type(at[1]).__name__}) on {at[2]}" if at else ""
    held = describe(batch.inputs)
    if batch.targets is not None:
        held += f" and {describe(batch.targets)}"
    return TargetError(f"{name} raised {say(error)}{where(error)}{inside}; the batch held {held}")


def modules_under_way(error: Exception) -> list[tuple[nn.Module, list[Tensor]]]:
    """Modules whose call was under way when `error` was raised, outermost first, with inputs."""
    found = []
    for frame, _ in frames(error):
        if frame.f_code.co_name == "_call_impl":
            module, given = frame.f_locals.get("self"), frame.f_locals.get("args", ())
            if isinstance(module, nn.Module):
                found.append((module, [t for t in tree_leaves(given) if isinstance(t, Tensor)]))
    return found


def _module(error: Exception, model: nn.Module) -> tuple[str, nn.Module, str] | None:
    """The innermost module whose call was under way, its path, and what it was given."""
    paths = {id(module): path for path, module in model.named_modules()}
    for module, given in reversed(modules_under_way(error)):
        if id(module) in paths:
            shapes = ", ".join(shape_of(t) for t in given)
            return paths[id(module)], module, f"input {shapes}" if shapes else "its input"
    return None


def _wanted(module: nn.Module) -> str:
    """What the module expects of its input, where that is known."""
    features = getattr(module, "in_features", None) or getattr(module, "input_size", None)
    if isinstance(features, int):
        return f"; it expects {features} features in the last axis"
    if isinstance(channels := getattr(module, "in_channels", None), int):
        return f"; it expects {channels} channels in axis 1"
    if isinstance(rows := getattr(module, "num_embeddings", None), int):
        return f"; it expects whole numbers from 0 to {rows - 1}"
    return ""
