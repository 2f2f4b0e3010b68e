"""From ``path.py``, ``path.py:name`` or ``package.module:name`` to a target."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradlint.errors import UsageError
from gradlint.target import names
from gradlint.target.assembled import Parts, assemble
from gradlint.target.batches import BATCH_SIZE, Source
from gradlint.target.models import find_model
from gradlint.target.module_file import Imported, import_target
from gradlint.target.specs import Recipe, parse_all
from gradlint.target.target import Target
from gradlint.target.user_code import eagerly


def locate(
    target: str,
    *,
    inputs: Sequence[str] = (),
    loss: str | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    device: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    batch: str | None = None,
    training_step: str | None = None,
) -> Target:
    """Import what `target` names, and find its model, batches, loss and optimizer.

    Args:
        target: ``path.py``, ``path.py:name`` or ``package.module:name``.
        inputs: Specifications of inputs, as in ``32x3x64x64``; they replace the file's batch.
        loss: Name of a loss, of the file or of torch; it replaces the file's, and a
            training step too.
        optimizer: Name of an optimizer, of the file or of torch.
        lr: Learning rate, whatever the optimizer is.
        device: Device the caller will move the model to; here it is only checked.
        seed: Seed of what is built and tried here.
        batch_size: Samples of a synthesized batch, or of one drawn from a data set.
        batch: Name of the file's batch, loader or function; the usual names by default.
        training_step: Name of the file's ``step(model, batch)``.

    Returns:
        The target; `assumed` says what was found and what was made up.

    Raises:
        UsageError: If the file, the model or one of the names is not there.
        TargetError: If the model raises on a batch it has to be tried on.
    """
    _check_options(lr, batch_size, device)
    recipe = parse_all(inputs) if inputs else None
    found = import_target(target)
    with eagerly():
        return _located(found, recipe, loss, optimizer, lr, seed, batch_size, batch, training_step)


def _located(
    found: Imported,
    recipe: Recipe | None,
    loss: str | None,
    optimizer: str | None,
    lr: float | None,
    seed: int,
    batch_size: int | None,
    batch: str | None,
    training_step: str | None,
) -> Target:
    """The target of an imported module; see `locate`."""
    model = find_model(found, seed)
    found.trained.forbid(model.sample)
    named, note = (None, "") if recipe is not None else names.find_batch(found, batch)
    source = None
    if named is not None:
        source = Source(named.value, batch_size or BATCH_SIZE, named.name)
    parts = Parts(
        model=model,
        source=source,
        recipe=recipe,
        loss=names.find_loss(found, loss),
        step=names.find_step(found, training_step) if loss is None else None,
        optimizer=names.find_optimizer(found, model, optimizer, lr),
        note=note,
    )
    file = getattr(found.module, "__file__", None)
    return assemble(parts, path=found.path, seed=seed, batch_size=batch_size, file=file)


def _check_options(lr: float | None, batch_size: int | None, device: str | None) -> None:
    if lr is not None and not 0 <= lr < float("inf"):
        raise UsageError(f"expected --lr to be a number from 0 up, got {lr!r}; for example 1e-3")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"expected --batch-size to be 1 or more, got {batch_size!r}")
    if device is None:
        return
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UsageError(
            f"expected --device to be a device of torch, got {device!r}; for example cpu or cuda:0"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("expected a CUDA device for --device cuda, torch finds none; use cpu")
