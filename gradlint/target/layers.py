"""Shapes that a first layer takes: what a sample looks like, likeliest first."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from gradlint.target.specs import Spec

SPATIAL = (32, 64, 28, 224, 96, 128, 16, 8, 48, 256, 84, 299, 4)
"""Sides of images that are tried: CIFAR, small, MNIST, ImageNet, STL and powers of two."""

LENGTHS = (32, 16, 64, 8, 128, 10, 50, 100, 256, 512)
"""Lengths of sequences that are tried."""

SIGNALS = (128, 64, 256, 32, 1024, 100, 16, 4000, 16000)
"""Lengths of signals in front of a one-dimensional convolution."""

TRIAL = 2
"""Samples in a trial: one fewer and batch normalization refuses."""


def floats(*shape: int) -> Spec:
    """Floating-point entries of one sample's `shape`."""
    return Spec((TRIAL, *shape))


def tokens(layer: nn.Module, *shape: int) -> Spec:
    """Whole numbers that the embedding `layer` has rows for, its padding row left out."""
    rows = int(layer.num_embeddings)  # type: ignore[arg-type]
    low = 1 if getattr(layer, "padding_idx", None) == 0 and rows > 1 else 0
    return Spec((TRIAL, *shape), torch.int64, low, rows)


def sides(model: nn.Module, layer: nn.Module) -> tuple[int, ...]:
    """Sides of images to try; those that fill the model's position table come first."""
    stride = getattr(layer, "stride", None)
    patch = stride[0] if isinstance(stride, tuple) and isinstance(stride[0], int) else 0
    filled = []
    for length in positions(model):
        for grid in (math.isqrt(length), math.isqrt(max(length - 1, 0))):
            if patch > 1 and grid > 1 and grid * grid in (length, length - 1):
                filled.append(grid * patch)
    return tuple(dict.fromkeys([*filled, *SPATIAL]))


def positions(model: nn.Module) -> tuple[int, ...]:
    """Lengths that parameters and buffers called like positions were made for."""
    named = [*model.named_parameters(), *model.named_buffers()]
    lengths = [
        tensor.shape[-2]
        for name, tensor in named
        if "pos" in name.lower() and not nn.parameter.is_lazy(tensor) and tensor.ndim in (2, 3)
    ]
    return tuple(dict.fromkeys(n for n in lengths if 1 < n <= 4096))


def lengths(model: nn.Module) -> tuple[int, ...]:
    """Lengths of sequences to try; no longer than the model's position table first."""
    known = positions(model)
    limit = min(known, default=LENGTHS[-1])
    fitting = [n for n in LENGTHS if n <= limit]
    return tuple(dict.fromkeys([*fitting[:2], *known, *LENGTHS]))


def shapes(layer: nn.Module, model: nn.Module) -> Iterator[Spec]:
    """Inputs to try for a model whose first layer is `layer`."""
    if isinstance(layer, (nn.modules.lazy.LazyModuleMixin,)):
        yield from _lazy(layer)
        return
    times = lengths(model)
    if isinstance(layer, nn.Linear):
        yield from _features(layer.in_features, times)
    elif isinstance(layer, nn.Bilinear):
        yield floats(layer.in1_features)
    elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        yield from (tokens(layer, n) for n in times)
        yield tokens(layer)
        yield tokens(layer, 1)
    elif isinstance(layer, nn.RNNBase):
        yield from (floats(n, layer.input_size) for n in times[:4])
    elif isinstance(layer, nn.RNNCellBase):
        yield floats(layer.input_size)
    elif isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)):
        yield from _signals(layer.in_channels)
    elif isinstance(layer, nn.ConvTranspose2d):
        yield from (floats(layer.in_channels, s, s) for s in (1, 4, 8, 7, 16, 32))
    elif isinstance(layer, nn.Conv2d):
        yield from _images(layer.in_channels, sides(model, layer))
    elif isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
        for depth, side in ((16, 32), (8, 16), (16, 64), (4, 8), (32, 32), (16, 112), (1, 1)):
            yield floats(layer.in_channels, depth, side, side)
    else:
        yield from _others(layer, times)


def _features(count: int, times: tuple[int, ...]) -> Iterator[Spec]:
    yield floats(count)
    yield from (floats(n, count) for n in times)
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side > 3 and side * side * channels == count:
            yield from (floats(channels, k * side, k * side) for k in (1, 4, 8, 2, 14, 7))
            yield floats(side, side)


def _signals(channels: int) -> Iterator[Spec]:
    yield from (floats(channels, n) for n in SIGNALS)
    yield from (floats(n, channels) for n in SIGNALS[:4])
    if channels == 1:
        yield from (floats(n) for n in SIGNALS)


def _images(channels: int, tried: tuple[int, ...]) -> Iterator[Spec]:
    yield from (floats(channels, s, s) for s in tried)
    yield from (floats(s, s, channels) for s in tried[:4])
    if channels == 1:
        yield from (floats(s, s) for s in tried[:6])
        yield from (floats(s * s) for s in (28, 32, 8, 16))


def _lazy(layer: nn.Module) -> Iterator[Spec]:
    name = type(layer).__name__
    if "3d" in name:
        yield floats(3, 16, 32, 32)
    elif "2d" in name:
        yield from _images(3, SPATIAL)
        yield from _images(1, SPATIAL[:4])
    elif "1d" in name and "Conv" in name:
        yield from _signals(3)
    yield floats(64)
    yield from (floats(3, s, s) for s in (32, 28))


def _others(layer: nn.Module, times: tuple[int, ...]) -> Iterator[Spec]:
    """Layers known by an attribute: attention, transformers, normalizations."""
    width = getattr(layer, "d_model", None) or getattr(layer, "embed_dim", None)
    if isinstance(layer, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
        width = layer.self_attn.embed_dim
    elif isinstance(layer, (nn.TransformerEncoder, nn.TransformerDecoder)):
        width = layer.layers[0].self_attn.embed_dim
    if isinstance(width, int):
        yield from (floats(n, width) for n in times[:4])
        return
    normalized = getattr(layer, "normalized_shape", None)
    if isinstance(normalized, (tuple, list)):
        shape = tuple(int(n) for n in normalized)
        yield floats(*shape)
        yield from (floats(n, *shape) for n in times[:4])
    channels = getattr(layer, "num_features", None) or getattr(layer, "num_channels", None)
    if isinstance(channels, int):
        if "2d" not in type(layer).__name__:
            yield floats(channels)
            yield from (floats(channels, n) for n in times[:2])
        yield from _images(channels, SPATIAL[:6])
