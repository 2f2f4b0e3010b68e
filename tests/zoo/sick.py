"""The sick zoo: programs with one planted fault each, and what a linter has to say first.

The expectations were written down before gradlint judged any of these programs; where one was
changed afterwards, the recipe says why.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

from tests.zoo import sick_recipe
from tests.zoo.sick_recipe import Recipe

__all__ = ["RECIPES", "SLOW", "Recipe"]

SLOW = frozenset({
    "adam-rate-of-one-transformer", "adam-rate-of-thirty-unet", "adamw-decay-of-fifty",
    "attention-multiplied-instead-of-divided", "attention-softmax-over-batch",
    "batchnorm-gamma-tiny", "batchnorm-in-recurrence", "bce-targets-of-255",
    "causal-mask-forgotten", "constant-autoencoder", "dead-bias-mlp", "dead-bias-vae",
    "decoder-not-in-optimizer-unet", "deep-sigmoid-autoencoder", "deep-sigmoid-cnn",
    "deep-sigmoid-functional-iris", "deep-sigmoid-mlp", "default-relu-40", "default-tanh-40",
    "denoiser-fed-zeros", "doubling-residual", "embedding-of-one-index",
    "encoder-not-in-optimizer", "equal-filters-cnn", "eval-mode-in-forward",
    "feed-forward-without-gelu", "figure-7-7-hundredth-tanh", "figure-7-7-one",
    "figure-7-7-tenth", "fresh-bert-frozen", "fresh-trunk-frozen-resnet", "fused-rnn-forgets",
    "gpt2-initializer-range-one", "head-not-in-optimizer", "head-replaced-after-optimizer",
    "heads-in-a-tuple", "house-prices-sgd", "huge-plain-cnn", "input-times-zero",
    "layernorm-gamma-30", "nll-of-logits-resnet", "no-grad-around-features", "normal-one-mlp",
    "one-activation-forgotten-cnn", "optimizer-of-a-copy", "raw-diabetes", "raw-forecast-gru",
    "raw-pixels-plain-deep-cnn", "relu-rnn-explodes", "resnet-without-norm-24",
    "rmsprop-rate-of-half-cnn", "rnn-forgets", "rnn-recurrent-weights-large",
    "row-against-column-l1-gru", "sgd-rate-of-100", "sgd-rate-of-1e-8-language-model",
    "sgd-rate-of-50-tanh-iris", "sigmoid-before-bce-with-logits-unet", "sigmoid-on-class-scores",
    "softmax-before-ce-cnn-functional", "softmax-before-ce-transformer",
    "softmax-in-language-model", "tiny-std-deep-autoencoder", "tiny-std-functional-cnn",
    "tiny-std-mlp", "tolist-behind-transformer", "unscaled-attention",
    "unscaled-attention-classifier", "view-mixes-batch-transformer", "xavier-relu-50",
    "zeros-cnn", "zeros-gru-text", "zeros-mlp",
})  # fmt: skip
"""Recipes that take half a second or more; the others take half a minute together."""

for part in ("init", "signal", "loss", "wiring", "numbers", "fit"):
    importlib.import_module(f"tests.zoo.sick_{part}")

RECIPES: list[Recipe] = [replace(r, slow=r.id in SLOW) for r in sick_recipe.RECIPES]
