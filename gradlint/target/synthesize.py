"""Inputs made up from the model's first layers, and found to fit by trying."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from gradlint.errors import TargetError
from gradlint.target.batches import Batch, describe, prepare
from gradlint.target.calls import forward
from gradlint.target.chosen import ending, leaves
from gradlint.target.guesses import recipes
from gradlint.target.layers import SPATIAL, TRIAL
from gradlint.target.pretrained import is_pretrained, pretrained_recipes
from gradlint.target.raised import in_forward, modules_under_way
from gradlint.target.specs import Recipe, Spec
from gradlint.target.trial import copy_of
from gradlint.target.user_code import quietly

BATCH_SIZE = 32
"""Samples of a synthesized batch, unless the model is large."""

FORWARD_BUDGET = 2e9
"""Multiply-adds of one forward pass of a synthesized batch: some 40 steps in 15 s on a laptop."""


@dataclass(frozen=True)
class Attempt:
    """What one trial came to: what was returned, or what was raised."""

    recipe: Recipe
    outputs: Any = None
    error: Exception | None = None
    cramped: bool = False


def synthesize(model: nn.Module, seed: int = 0, size: int | None = None) -> Recipe:
    """Return inputs that `model` takes.

    Raises:
        TargetError: If none were found; the likeliest trial is shown.
    """
    with quietly(seed, warn=False):
        trials = _Trials(model, seed)
        found = _within_reach(trials, _search(trials))
        alone = found.size < TRIAL  # the model takes one sample at a time
        return found if alone else found.sized(size or _size(trials, found))


class _Trials:
    """Forward passes on copies of one model."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model = model
        self.seed = seed
        lazy = any(nn.parameter.is_lazy(p) for p in model.parameters())
        self.fresh = lazy  # a failed pass leaves a lazy layer with the wrong shape
        self.copy = copy_of(model)
        self.dtype = dtype_of(model)

    def ready(self, recipe: Recipe) -> tuple[nn.Module, Any]:
        """A model that nothing has spoiled, and the inputs of `recipe` for it."""
        model = copy_of(self.model) if self.fresh else self.copy
        return model, inputs_for(model, recipe, self.seed)

    def __call__(self, recipe: Recipe) -> Attempt:
        model, inputs = self.ready(recipe)
        watching = _Cramped()
        try:
            with torch.no_grad(), watching:
                outputs = forward(model, inputs)
        except Exception as error:
            return Attempt(recipe, error=error)
        return Attempt(recipe, outputs, cramped=watching.seen)


def _search(trials: _Trials) -> Recipe:
    attempts: list[Attempt] = []
    tried: set[Recipe] = set()
    model = trials.model
    source = pretrained_recipes(model) if is_pretrained(model) else recipes(model)
    for recipe in _with_corrections(source, attempts):
        if recipe in tried:
            continue
        tried.add(recipe)
        attempt = trials(recipe)
        if attempt.error is None:
            return _roomier(trials, attempt)
        attempts.append(attempt)
    raise _none_fits(trials, attempts)


def _with_corrections(source: Iterable[Recipe], attempts: list[Attempt]) -> Iterator[Recipe]:
    """Recipes of `source`, each followed by the sizes that its failure points at."""
    corrected = 0
    for recipe in source:
        yield recipe
        if attempts and attempts[-1].recipe is recipe and corrected < 12:
            better = list(_corrected(attempts[-1]))
            corrected += bool(better)
            yield from better


def _corrected(attempt: Attempt) -> Iterator[Recipe]:
    """Sizes at which a flattened input would have fit the Linear layer that refused it."""
    spec, error = attempt.recipe.specs[0], attempt.error
    if len(attempt.recipe.specs) > 1 or error is None or len(spec.shape) < 2:
        return
    under_way = modules_under_way(error)
    if not under_way or not isinstance(under_way[-1][0], nn.Linear):
        return
    layer, given = under_way[-1]
    wanted = int(layer.in_features)  # type: ignore[arg-type]
    if not given or given[0].ndim != 2 or given[0].shape[-1] == wanted:
        return
    factor = wanted / given[0].shape[-1]
    square = len(spec.shape) == 4 and spec.shape[2] == spec.shape[3]
    if square:
        side = round(spec.shape[2] * math.sqrt(factor))
        near = [n for n in range(side - 6, side + 7) if 0 < n <= 512]
        for n in sorted(near, key=lambda n: (n not in SPATIAL, n % 2, abs(n - side))):
            yield _only(replace(spec, shape=(*spec.shape[:2], n, n)))
    elif len(spec.shape) in (2, 3):
        axis = 1 if not spec.floating or len(spec.shape) == 2 else 2
        length = round(spec.shape[axis] * factor)
        shape = list(spec.shape)
        for n in (n for n in (length, length + 1, length - 1) if 0 < n <= 100_000):
            shape[axis] = n
            yield _only(replace(spec, shape=tuple(shape)))


def _only(spec: Spec) -> Recipe:
    return Recipe((spec,))


def _roomier(trials: _Trials, found: Attempt) -> Recipe:
    """The first larger image at which no kernel sees one pixel, if `found` has such a layer.

    On one pixel a 3x3 kernel multiplies padding: eight ninths of it would get no gradient,
    which is the size's doing and not the model's.
    """
    spec = found.recipe.specs[0]
    if not found.cramped or len(found.recipe.specs) > 1 or len(spec.shape) != 4:
        return found.recipe
    for side in (n for n in (64, 96, 128, 224) if n > spec.shape[2]):
        attempt = trials(_only(replace(spec, shape=(*spec.shape[:2], side, side))))
        if attempt.error is None and not attempt.cramped:
            return attempt.recipe
    return found.recipe


REACH = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "positive": (0.0, 1.0)}


def _within_reach(trials: _Trials, recipe: Recipe) -> Recipe:
    """`recipe`, with inputs in the range of what gives them back, if the model does that."""
    spec = recipe.specs[0]
    if not spec.floating or len(recipe.specs) > 1:
        return recipe
    found = [t for t in leaves(forward(*trials.ready(recipe))) if t.is_floating_point()]
    if not found or found[0].shape != spec.shape or ending(found[0]) not in REACH:
        return recipe
    low, high = REACH[ending(found[0])]
    return replace(recipe, specs=(replace(spec, low=low, high=high),))


class _Cramped(TorchFunctionMode):
    """Notices a convolution with a kernel on an image of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d and len(args) > 1 and isinstance(args[1], Tensor):
            sides, kernel = args[0].shape[-2:], args[1].shape[-2:]
            self.seen |= max(sides) == 1 < max(kernel)
        return func(*args, **(kwargs or {}))


def _size(trials: _Trials, recipe: Recipe) -> int:
    """Samples a batch: `BATCH_SIZE`, halved while a forward pass is over the budget."""
    model, inputs = trials.ready(recipe)
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            forward(model, inputs)
        cost = counter.get_total_flops() / 2 / max(recipe.size, 1)
    except Exception:  # the counter knows no custom operations; then parameters stand in
        cost = float(sum(p.numel() for p in model.parameters()))
    size, least = BATCH_SIZE, 8 if cost < FORWARD_BUDGET / 2 else 2
    while size > least and size * cost > FORWARD_BUDGET:
        size //= 2
    return size


def _none_fits(trials: _Trials, attempts: list[Attempt]) -> TargetError:
    name = type(trials.model).__name__
    if not attempts:
        return TargetError(
            f"expected a batch for {name}, none could be synthesized; define example_batch in the "
            "file, or give --input SHAPE"
        )
    first = attempts[0]
    model = trials.copy
    error = first.error if first.error is not None else TypeError("unknown")
    failure = in_forward(error, model, Batch(inputs_for(model, first.recipe, trials.seed)))
    text = str(failure)
    if len({(type(a.error), str(a.error)) for a in attempts}) > 1:
        text += (
            f"; of {len(attempts)} synthesized inputs this is the likeliest: define example_batch "
            "in the file, or give --input SHAPE"
        )
    raised = TargetError(text)
    raised.__cause__ = error
    return raised


def dtype_of(model: nn.Module) -> torch.dtype:
    """Dtype of the model's first floating parameter."""
    kinds = (p.dtype for p in model.parameters() if p.is_floating_point() or p.is_complex())
    return next(kinds, torch.float32)


def inputs_for(model: nn.Module, recipe: Recipe, seed: int) -> Any:
    """Draw the inputs of `recipe` for `model`: its dtype, its device."""
    generator = torch.Generator().manual_seed(seed)
    return prepare(Batch(recipe.draw(generator, dtype_of(model))), model).inputs


def words(recipe: Recipe) -> str:
    """What the report says of synthesized inputs."""
    specs = [
        (f"{spec.name} " if spec.name else "")
        + describe(torch.empty(spec.shape, dtype=spec.dtype or torch.float32, device="meta"))
        for spec in recipe.specs
    ]
    return f"synthesized {', '.join(specs)}"
