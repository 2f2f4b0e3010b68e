"""Inputs and labels of transformers' models, read from their configuration alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gradlint.target.layers import TRIAL
from gradlint.target.signatures import Takes, forward_takes
from gradlint.target.specs import Recipe, Spec

LENGTH = 32
"""Tokens of a synthesized text."""

CHOICES = 4
"""Answers to choose among in a synthesized question."""


def is_pretrained(model: nn.Module) -> bool:
    """Whether the model is one of transformers', or derived from one."""
    return any(
        base.__name__ == "PreTrainedModel" and base.__module__.startswith("transformers.")
        for base in type(model).__mro__
    )


class _Config:
    """A configuration and its parts, for text, images and sound, asked as one."""

    def __init__(self, config: Any) -> None:
        names = ("text_config", "encoder", "vision_config", "audio_config", "decoder")
        parts = [getattr(config, name, None) for name in names]
        self.parts = [config, *(p for p in parts if p is not None and not isinstance(p, str))]

    def first(self, *names: str) -> Any:
        """The first of the options `names` that any part has."""
        for part, name in itertools.product(self.parts, names):
            value = part.get(name) if isinstance(part, dict) else getattr(part, name, None)
            if value is not None and not callable(value):
                return value
        return None

    def number(self, default: int, *names: str) -> int:
        """The first of the options `names` that is a number, or the first of a pair."""
        value = self.first(*names)
        if isinstance(value, (tuple, list)) and value:
            value = value[0]
        return value if isinstance(value, int) else default


def pretrained_recipes(model: nn.Module) -> Iterator[Recipe]:
    """Keyword inputs to try, with labels where forward takes some, likeliest first."""
    several = list(_recipes(model))
    yield from several
    yield from (recipe.sized(1) for recipe in several)  # without padding some take one text only


def _recipes(model: nn.Module) -> Iterator[Recipe]:
    known = forward_takes(model)
    config = _Config(getattr(model, "config", None))
    inputs = _inputs(model, known, config)
    constants = (("return_loss", True),) if "return_loss" in known.names else ()
    for labels in _labels(model, known, config, inputs):
        yield Recipe((*inputs, *labels), constants)
        if "decoder_input_ids" in known.names:
            yield Recipe((*inputs, *labels, _tokens("decoder_input_ids", config)), constants)


def _inputs(model: nn.Module, known: Takes, config: _Config) -> list[Spec]:
    """The inputs that the model's kind reads: its main one, and text with images."""
    wanted = [str(getattr(model, "main_input_name", "input_ids"))]
    both = "pixel_values" in known.names and "input_ids" in known.names
    if both and config.first("vision_config") is not None:
        wanted = ["input_ids", "pixel_values"]
    specs = [_spec(name, config) for name in wanted]
    if "MultipleChoice" in type(model).__name__:
        specs = [replace(s, shape=(TRIAL, CHOICES, *s.shape[1:])) for s in specs]
    return specs


def _spec(name: str, config: _Config) -> Spec:
    if name == "pixel_values":
        side = config.first("image_size") or 64
        height, width = side if isinstance(side, (tuple, list)) else (side, side)
        return Spec((TRIAL, config.number(3, "num_channels"), height, width), name=name)
    if name == "input_features":
        frames = 2 * config.number(1500, "max_source_positions")
        return Spec((TRIAL, config.number(80, "num_mel_bins"), frames), name=name)
    if name == "input_values":
        return Spec((TRIAL, 4000), name=name)
    return _tokens(name, config)


def _tokens(name: str, config: _Config) -> Spec:
    """Random tokens, without the first few, which usually mark ends and padding."""
    rows = config.number(1000, "vocab_size")
    longest = config.number(LENGTH, "max_position_embeddings", "n_positions", "max_seq_len")
    special = [config.first(f"{n}_token_id") for n in ("pad", "bos", "eos")]
    marks = [n for n in special if isinstance(n, int) and n < rows // 2]
    low = max(marks, default=-1) + 1
    last = special[2] if special[2] in marks and special[2] != special[0] else None
    return Spec((TRIAL, min(LENGTH, max(longest, 2))), torch.int64, low, rows, name, last=last)


def _labels(
    model: nn.Module, known: Takes, config: _Config, inputs: list[Spec]
) -> Iterator[list[Spec]]:
    """Labels to try: by the task in the class's name; at last none."""
    name, first = type(model).__name__, inputs[0]
    if "start_positions" in known.names:
        names = ("start_positions", "end_positions")
        yield [Spec((TRIAL,), torch.int64, 0, first.shape[-1], n) for n in names]
    if "labels" in known.names:
        more = []
        if "next_sentence_label" in known.names:
            more = [Spec((TRIAL,), torch.int64, 0, 2, "next_sentence_label")]
        yield from ([spec, *more] for spec in _tasks(name, config, first))
    yield []


def _tasks(name: str, config: _Config, first: Spec) -> list[Spec]:
    """What `labels` are in the tasks of transformers' model classes."""
    count = config.number(2, "num_labels")
    rows = config.number(1000, "vocab_size")
    labels = Spec((TRIAL,), torch.int64, 0, max(count, 2), "labels")
    numbers = Spec((TRIAL,) if count == 1 else (TRIAL, count), name="labels")
    each = replace(labels, shape=first.shape)
    maps = replace(labels, shape=(TRIAL, *first.shape[2:]))
    same = Spec(first.shape, torch.int64, first.low, rows, "labels", like=first.name)
    short = Spec((TRIAL, 8), torch.int64, 3, rows, "labels")
    if "MultipleChoice" in name:
        return [replace(labels, high=CHOICES)]
    if "TokenClassification" in name:
        return [each]
    if "Segmentation" in name:
        return [maps]
    if "Classification" in name or "SentencePrediction" in name:
        return [numbers, labels] if count == 1 else [labels, numbers]
    return [short, labels, maps] if first.floating else [same, labels, each, short]
