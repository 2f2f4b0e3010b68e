"""Inputs to try for a model: one for each argument that forward needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from gradlint.target.consumers import TRIVIAL, first_layer
from gradlint.target.layers import LENGTHS, SPATIAL, TRIAL, floats, shapes, tokens
from gradlint.target.signatures import TARGETS, Takes, forward_takes
from gradlint.target.specs import Recipe, Spec

MOST_TRIALS = 120
"""Recipes tried for one model; each trial is one forward of two samples."""

TIMES = ("t", "time", "times", "timestep", "timesteps", "step", "steps", "sigma", "noise_level")
SIZES = ("length", "lengths", "lens", "seq_len", "seq_lens", "seq_lengths", "sizes")
IDS = ("ids", "idx", "tokens", "token_ids", "input_ids", "src", "tgt", "text", "words")


ORDERED = (
    nn.RNNBase,
    nn.Conv1d,
    nn.MultiheadAttention,
    nn.Transformer,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
"""Layers that work along a sequence."""


def recipes(model: nn.Module) -> Iterator[Recipe]:
    """Inputs to try for `model`, likeliest first."""
    yield from itertools.islice(_recipes(model), MOST_TRIALS)


def _recipes(model: nn.Module) -> Iterator[Recipe]:
    known = forward_takes(model)
    needed = known.required or known.positional[:1]
    if len(needed) <= 1 and not known.required_keywords:
        yield from (Recipe((spec,)) for spec in _singles(model))
        return
    yield from _several(model, known, needed)


def _singles(model: nn.Module) -> Iterator[Spec]:
    """Inputs for a forward of one argument."""
    seen: set[Spec] = set()
    layer = first_layer(model)
    rest = [] if layer is None else list(itertools.islice(shapes(layer, model), 40))
    for spec in itertools.chain(rest, _by_registration(model), _anything(model)):
        if spec not in seen:
            seen.add(spec)
            yield spec


def _by_registration(model: nn.Module) -> Iterator[Spec]:
    """What the first layer of each kind takes, in order of registration."""
    for module in _leaf_kinds(model):
        yield from itertools.islice(shapes(module, model), 12)


def _leaf_kinds(model: nn.Module) -> list[nn.Module]:
    """The first leaf module of each kind."""
    found: dict[type, nn.Module] = {}
    for module in model.modules():
        if not any(True for _ in module.children()) and not isinstance(module, TRIVIAL):
            found.setdefault(type(module), module)
    return list(found.values())


def _anything(model: nn.Module) -> Iterator[Spec]:
    """What the model's bare parameters fit, then images and vectors of usual sizes."""
    for parameter in model.parameters(recurse=False):
        if not nn.parameter.is_lazy(parameter):
            for axis in (0, -1):
                if parameter.ndim:
                    yield floats(parameter.shape[axis])
                    yield floats(LENGTHS[0], parameter.shape[axis])
    for channels, side in itertools.product((3, 1), SPATIAL[:4]):
        yield floats(channels, side, side)
    yield from (floats(n) for n in (1, 2, 4, 8, 10, 16, 32, 64, 100, 128, 256))
    yield floats()


def _several(model: nn.Module, known: Takes, needed: tuple[str, ...]) -> Iterator[Recipe]:
    """Inputs for a forward of several: the first choice of each, the second, then mixtures."""
    arguments = (*needed, *known.required_keywords)
    usual = _varied(model)
    options = [_options(model, name) or usual for name in arguments]
    longest = max(len(specs) for specs in options)
    lines = (tuple(o[min(i, len(o) - 1)] for o in options) for i in range(longest))
    mixtures = itertools.product(*(o[:6] for o in options))
    for chosen in dict.fromkeys(itertools.chain(lines, mixtures)):
        specs = [_fitted(n, s, chosen[0]) for n, s in zip(arguments, chosen, strict=True)]
        if known.required_keywords:
            specs = [replace(s, name=n) for s, n in zip(specs, arguments, strict=True)]
        yield Recipe(tuple(specs))


def _varied(model: nn.Module) -> list[Spec]:
    """Inputs of every kind that the model's layers take, for an argument that nothing tells of."""
    by_kind = [list(itertools.islice(shapes(m, model), 2)) for m in _leaf_kinds(model)]
    firsts = [specs[0] for specs in by_kind if specs]
    seconds = [specs[1] for specs in by_kind if len(specs) > 1]
    return [*dict.fromkeys([*firsts, *seconds])] or [floats(LENGTHS[0])]


def _options(model: nn.Module, name: str) -> list[Spec]:
    """Inputs for one argument: by the layer that takes it, and by its name."""
    layer = first_layer(model, name)
    by_layer = [] if layer is None else list(itertools.islice(shapes(layer, model), 16))
    if isinstance(layer, nn.Embedding) and not any(isinstance(m, ORDERED) for m in model.modules()):
        by_layer.insert(0, tokens(layer))  # a user, an item, a category: one row a sample
    low = name.lower()
    if "mask" in low:
        length = LENGTHS[0]
        return [
            Spec((TRIAL, length), torch.bool, fixed=1),
            Spec((TRIAL, length), fixed=1),
            Spec((length, length), torch.bool, fixed=0, samples="none"),
        ]
    if low in TIMES:
        rows = getattr(layer, "num_embeddings", 100)
        whole = [Spec((TRIAL,), torch.int64, 0, rows)]
        real = [Spec((TRIAL,), None, 0, 1), Spec((TRIAL, 1), None, 0, 1)]
        return [*whole, *real] if not isinstance(layer, nn.Linear) else [*real[::-1], *whole]
    if low in SIZES:
        return [Spec((TRIAL,), torch.int64, fixed=LENGTHS[0])]
    if "edge_index" in low:
        return [Spec((2, 4 * TRIAL), torch.int64, 0, TRIAL, samples="edges")]
    if low in ("adj", "adjacency", "adj_matrix"):
        return [Spec((TRIAL, TRIAL), fixed=1 / TRIAL, samples="both")]
    if low in TARGETS and not by_layer:
        return _targets(model)
    if low in IDS and not by_layer:
        tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
        return [tokens(tables[0], n) for n in LENGTHS[:3]] if tables else []
    return by_layer


def _targets(model: nn.Module) -> list[Spec]:
    """Targets of a model that computes its own loss: classes, then numbers."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    width = layers[-1].out_features if layers else 2
    classes = [Spec((TRIAL,), torch.int64, 0, max(width, 2))]
    classes += [Spec((TRIAL, n), torch.int64, 0, max(width, 2)) for n in LENGTHS[:2]]
    numbers = [floats(width), floats()]
    return [*classes, *numbers] if width > 1 else [*numbers, *classes]


def _fitted(name: str, spec: Spec, first: Spec) -> Spec:
    """`spec` with the first input's length, where a mask or lengths go with it."""
    if len(first.shape) < 2 or spec is first:
        return spec
    length = first.shape[1]
    if name.lower() in SIZES:
        return replace(spec, fixed=length)
    if "mask" in name.lower():
        return replace(spec, shape=tuple(length if n == LENGTHS[0] else n for n in spec.shape))
    return spec
