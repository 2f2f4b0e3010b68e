"""Attention weights out of the graph equal those of the formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.hooks.attention import attention_weights
from gradlint.hooks.calls import Calls
from gradlint.hooks.graph import capture

MASK = torch.ones(9, 9).tril().bool()


def heads(seed: int, count: int = 3) -> Tensor:
    drawn = torch.randn(4, count, 9, 8, generator=torch.Generator().manual_seed(seed))
    return nn.Parameter(drawn)


def read(out: Tensor, kind: str) -> list[Tensor | None]:
    captured = capture(out.sum(), Calls(), {}, {})
    return [attention_weights(captured, op) for op in captured.graph if op.kind == kind]


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ({}, None),
        ({"is_causal": True}, MASK),
        ({"attn_mask": MASK}, MASK),
        ({"scale": 1.0}, None),
    ],
)
def test_fused_attention_is_computed_again(options: dict[str, Any], mask: Tensor | None) -> None:
    query, key, value = heads(0), heads(1), heads(2)
    out = functional.scaled_dot_product_attention(query, key, value, **options)

    (weights,) = read(out, "attention")

    scores = query @ key.transpose(-2, -1) * options.get("scale", 8**-0.5)
    scores = scores if mask is None else scores.masked_fill(~mask, float("-inf"))
    assert torch.allclose(weights, scores.softmax(-1).flatten(0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("attend", "found"),
    [
        pytest.param(lambda s, v: s.softmax(-1) @ v, True, id="by-hand"),
        pytest.param(lambda s, v: functional.dropout(s.softmax(-1), 0.1) @ v, True, id="dropout"),
        pytest.param(lambda s, v: s.softmax(-1), False, id="weighs-nothing"),
        pytest.param(lambda s, v: s.softmax(-1)[..., :8] * v, False, id="a-gate"),
    ],
)
def test_a_softmax_that_weighs_a_signal_is_attention(
    attend: Callable[[Tensor, Tensor], Tensor], found: bool
) -> None:
    scores = nn.Parameter(torch.randn(4, 3, 9, 9)) * 1.0
    scores = scores + 0 * heads(5)[..., :1]

    (weights,) = read(attend(scores, heads(2) * 1.0 + heads(3)), "softmax")

    assert (weights is not None) is found
    if weights is not None:
        assert torch.allclose(weights, scores.softmax(-1).flatten(0, 1))
