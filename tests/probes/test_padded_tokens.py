"""Does the output depend on padded tokens, or on where the padding is alone?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlint
from gradlint.probes.padded_tokens import padded_tokens

N, T = 8, 10


class Reader(nn.Module):
    """A class token of its own that attends to what a mask, made of the tokens, shows."""

    def __init__(self, *, inverted: bool = False) -> None:
        super().__init__()
        self.embed, self.project = nn.Embedding(20, 6, padding_idx=0), nn.Linear(3, 6)
        self.query, self.head, self.inverted = (
            nn.Parameter(torch.randn(6)),
            nn.Linear(6, 2),
            inverted,
        )

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        real = ids.is_floating_point()
        h = self.project(ids) if real else self.embed(ids)
        hidden = (ids == 0).all(-1) if real else ids == 0
        hidden = ~hidden if self.inverted else hidden
        scores = (h @ self.query).masked_fill(hidden, -1e9)
        return self.head((scores.softmax(1)[:, :, None] * h).sum(1) + self.query)


def lengths() -> Tensor:
    return torch.randint(5, T - 1, (N, 1), generator=torch.Generator().manual_seed(0))


def texts() -> Tensor:
    """Texts of different lengths; zeros behind them are padding."""
    ids = torch.randint(2, 20, (N, T), generator=torch.Generator().manual_seed(1))
    return ids.masked_fill(torch.arange(T) >= lengths(), 0)


def series() -> Tensor:
    """The same of vectors."""
    x = torch.randn(N, T, 3, generator=torch.Generator().manual_seed(1))
    return x.masked_fill((torch.arange(T) >= lengths())[:, :, None], 0.0)


def probed(model: nn.Module, inputs: Any) -> Mapping[str, Any] | None:
    def run(model: nn.Module, inputs: Any) -> Any:
        return model(**inputs) if isinstance(inputs, dict) else model(inputs)

    return padded_tokens(model, run, inputs)


def long_ones_too() -> Tensor:
    """Half of the texts are as long as there is room."""
    return torch.where(torch.arange(N)[:, None] < N // 2, texts(), texts().clamp(min=2))


def named() -> dict[str, Tensor]:
    return {"ids": texts(), "lengths": lengths()[:, 0]}


MADE = [texts, series, named, long_ones_too, lambda: texts().flip(1), lambda: series().flip(1)]


@pytest.mark.parametrize("make", MADE)
def test_a_mask_that_shows_the_tokens_lets_them_through(make: Any) -> None:
    found = probed(Reader(), make())

    assert found is not None
    assert found["change"] > 1e-3
    assert found["tokens"] > 2 * N
    assert found["padding"] == 0


@pytest.mark.parametrize("make", MADE)
def test_an_inverted_mask_hides_them_all(make: Any) -> None:
    inputs = make()
    found = probed(Reader(inverted=True), inputs)

    assert found is not None
    assert (found["change"] > 1e-6) is (make is long_ones_too)  # those texts have no padding
    assert found["of"] == ("input[ids]" if isinstance(inputs, dict) else "input")


def test_a_class_token_among_the_tokens_stays_where_it_is() -> None:
    class First(Reader):
        def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
            return super().forward(ids) + self.head(self.embed(ids[:, 0]))

    ids = texts()
    ids[:, 0] = 1
    found = probed(First(inverted=True), ids)

    assert found is not None
    assert found["change"] == 0.0


def inside(ids: Tensor) -> Tensor:
    ids[0, 1] = 0
    return ids


def all_alike(ids: Tensor) -> Tensor:
    return torch.where(ids == 0, 0, 3)


def of_one_length(ids: Tensor) -> Tensor:
    return torch.where(torch.arange(T) < 5, ids, 0)


def of_few(ids: Tensor) -> Tensor:
    """Three of eight texts are padded."""
    rows = torch.arange(N)[:, None]
    return torch.where(rows < 3, ids, 2 + torch.arange(T) + rows)


def with_an_image(ids: Tensor) -> dict[str, Tensor]:
    return {"ids": ids, "lengths": torch.randn(N, 3, 4)}


def with_numbers(ids: Tensor) -> dict[str, Tensor]:
    return {"ids": ids, "lengths": torch.randn(N)}


def with_a_table(ids: Tensor) -> dict[str, Tensor]:
    return {"ids": ids, "lengths": torch.arange(3 * N).reshape(N, 3)}


def with_a_mask(ids: Tensor) -> dict[str, Tensor]:
    return {"ids": ids, "lengths": (ids > 0).long()}


@pytest.mark.parametrize(
    "changed",
    [
        inside, all_alike, of_one_length, of_few, with_an_image, with_numbers, with_a_table,
        with_a_mask, lambda ids: ids.float(), lambda ids: ids > 0, lambda ids: ids[:, :0],
        lambda ids: series()[:, :, 0], lambda ids: torch.complex(series(), series()),
        lambda ids: ids[0], lambda ids: torch.randint(2, 20, (N, T)),
    ],
)  # fmt: skip
def test_inputs_that_are_not_padded_or_not_alone_are_not_asked_about(changed: Any) -> None:
    assert probed(Reader(), changed(texts())) is None


def test_what_is_given_of_each_token_is_exchanged_with_it() -> None:
    class Two(Reader):
        def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
            assert lengths is not None
            return super().forward(torch.where(ids == 0, 0, lengths))

    found = probed(Two(), {"ids": texts(), "lengths": 2 * texts() % 19})

    assert found is not None
    assert found["change"] > 1e-3


def test_outputs_that_are_not_finite_cannot_be_compared() -> None:
    model = Reader()
    nn.init.constant_(model.head.bias, float("nan"))

    assert probed(model, texts()) is None


@pytest.mark.parametrize("inverted", [False, True])
def test_under_check_it_is_an_input_that_is_ignored(inverted: bool) -> None:
    torch.manual_seed(0)
    labels = torch.arange(N) % 2

    report = gradlint.check(
        Reader(inverted=inverted), (texts(), labels), nn.functional.cross_entropy, steps=8, seeds=1
    )

    assert [f.code for f in report.findings if f.code == "GL206"] == ["GL206"] * inverted
