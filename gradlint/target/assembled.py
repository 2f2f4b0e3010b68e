"""The parts of a target put together: what is missing is made up or chosen, and said."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradlint.errors import TargetError
from gradlint.target.batches import Batch, Source
from gradlint.target.chosen import Chosen
from gradlint.target.drawn import Batches, completed, drawn, given
from gradlint.target.losses import bare
from gradlint.target.models import Model
from gradlint.target.names import (
    FoundOptimizer,
    Named,
    call_method_step,
    method_loader,
    method_step,
)
from gradlint.target.settle import settle
from gradlint.target.specs import Recipe
from gradlint.target.synthesize import synthesize, words
from gradlint.target.target import Target


@dataclass(frozen=True)
class Parts:
    """What was found; all but the model may be missing."""

    model: Model
    source: Source | None = None
    recipe: Recipe | None = None
    loss: Named | None = None
    step: Named | None = None
    optimizer: FoundOptimizer = field(default_factory=FoundOptimizer)
    note: str = ""


def assemble(
    parts: Parts, *, path: str, seed: int, batch_size: int | None = None, file: str | None = None
) -> Target:
    """Return the target of `parts`.

    Raises:
        UsageError: If the batch is empty.
        TargetError: If a batch or a loss has to be found and the model raises.
    """
    model, step = parts.model, parts.step
    assumed = dict(model.assumed)
    if step is None and parts.loss is None and method_step(model.sample):
        step = Named("the model's training_step", call_method_step)
    loss_fn = parts.loss.value if parts.loss is not None and step is None else None
    found = _found(parts, step is not None, loss_fn is not None, seed, batch_size)
    assumed["batch"] = f"{found.said}; {parts.note}" if parts.note else found.said
    settled = settle(
        model.sample,
        found.batches(model.sample, seed)[0],
        loss_fn=loss_fn,
        training_step=step.value if step is not None else None,
        step_name=step.name if step is not None else "",
        given=found.whole,
        seed=seed,
    )
    chosen = settled.convention.loss_fn
    if step is not None:
        assumed["loss"] = step.name
    elif parts.loss is not None:
        assumed["loss"] = parts.loss.name
    if parts.optimizer.said:
        assumed["optimizer"] = parts.optimizer.said
    return Target(
        path=path,
        object=model.name,
        build=model.build,
        rebuildable=model.rebuildable,
        batches=completed(found.batches, settled),
        loss_fn=chosen.plain if isinstance(chosen, Chosen) else bare(chosen),
        training_step=step.value if step is not None else None,
        build_optimizer=parts.optimizer.builder,
        optimizer=parts.optimizer.instance,
        synthesized=found.synthesized or bool(settled.makers),
        call=settled.convention,
        assumed=assumed | settled.assumed,
        files=(file,) if file else (),
    )


@dataclass(frozen=True)
class _Found:
    """Batches, what to say of them, whether they are made up, and whether they are whole."""

    batches: Batches
    said: str
    synthesized: bool = False
    whole: bool = True


def _found(parts: Parts, step: bool, loss: bool, seed: int, size: int | None) -> _Found:
    """The batches that are given, else the model's own, else made up."""
    sample = parts.model.sample
    if parts.source is not None:
        name = parts.source.name
        inputs = name == "example_inputs"
        return _Found(given(parts.source, loss=loss, step=step, inputs_first=inputs), name)
    if parts.recipe is not None:
        return _Found(drawn(parts.recipe), words(parts.recipe), True, False)
    loader = method_loader(sample)
    if loader is not None:
        name = "the model's train_dataloader"
        return _Found(given(Source(loader, name=name), loss=loss, step=step), name)
    example = getattr(sample, "example_input_array", None)
    if example is not None:
        return _example(example, "example_input_array", loss, step)
    try:
        recipe = synthesize(sample, seed, size)
    except TargetError:
        dummy = getattr(sample, "dummy_inputs", None)
        if dummy is None:
            raise
        return _example(dummy, "dummy_inputs", loss, step)
    return _Found(drawn(recipe), words(recipe), True, False)


def _example(example: object, name: str, loss: bool, step: bool) -> _Found:
    """Inputs that the model brings along, without targets."""
    inputs = tuple(example) if isinstance(example, list) else example
    said = f"the model's {name}"
    source = Source([Batch(inputs)], name=said)
    return _Found(given(source, loss=loss, step=step), said, whole=False)
