"""Does the output depend on the tokens beside a mask?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradlint.probes.masked_tokens import masked_tokens

N, T = 8, 10


class Reader(nn.Module):
    """A class token that attends to what the mask shows; `hides` is the value that hides."""

    def __init__(self, hides: int = 0) -> None:
        super().__init__()
        self.embed, self.head, self.hides = nn.Embedding(20, 6), nn.Linear(6, 2), hides

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids) if not ids.is_floating_point() else ids.unsqueeze(-1).expand(N, T, 6)
        scores = (h[:, :1] * h).sum(-1).masked_fill(mask == self.hides, -1e9)
        return self.head((scores.softmax(1)[:, :, None] * h).sum(1) + h[:, 0])


def padded(*, shows: int = 1) -> dict[str, Tensor]:
    """Texts of different lengths behind a class token of 1; zeros are padding."""
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 20, (N, T), generator=g)
    padding = torch.arange(T) >= torch.randint(5, T - 1, (N, 1), generator=g)
    ids = ids.masked_fill(padding, 0)
    ids[:, 0] = 1
    return {"ids": ids, "mask": padding.long() if shows == 0 else (~padding).long()}


def run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    return model(**inputs)


def probed(model: nn.Module, inputs: dict[str, Tensor]) -> Mapping[str, Any] | None:
    torch.manual_seed(0)
    return masked_tokens(model, run, inputs)


@pytest.mark.parametrize("shows", [0, 1])
def test_a_mask_that_fits_its_model_lets_the_tokens_through(shows: int) -> None:
    found = probed(Reader(hides=1 - shows), padded(shows=shows))

    assert found is not None
    assert found["change"] > 1e-3
    assert found["tokens"] >= 2 * N / 2
    assert (found["mask"], found["of"]) == ("input[mask]", "input[ids]")


@pytest.mark.parametrize("shows", [0, 1])
def test_an_inverted_mask_hides_them_all(shows: int) -> None:
    found = probed(Reader(hides=shows), padded(shows=shows))

    assert found is not None
    assert found["change"] == 0


class Scorer(Reader):
    """Scores each token beside what the mask shows; -1e9 stands where it hides."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids)
        shown = (mask != self.hides)[:, :, None]
        pooled = (shown * h).sum(1, keepdim=True) / shown.sum(1, keepdim=True)
        return self.head(h + pooled)[:, :, 0].masked_fill(mask == 0, -1e9)


def test_scores_filled_in_beside_the_mask_hide_no_change() -> None:
    found = probed(Scorer(), padded())

    assert found is not None
    assert found["change"] > 1e-3


class Beside(Reader):
    """Returns what it is asked for beside what no token changes."""

    def __init__(self, beside: Any) -> None:
        super().__init__()
        self.beside = beside

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        return self.beside(mask.float()), super().forward(ids, mask)


@pytest.mark.parametrize("beside", [lambda mask: mask, lambda mask: 0 * mask], ids=["it", "zeros"])
def test_a_mask_returned_beside_the_scores_is_not_all_there_is(beside: Any) -> None:
    found = probed(Beside(beside), padded())

    assert found is not None
    assert found["change"] > 1e-3


def test_outputs_that_are_not_finite_cannot_be_compared() -> None:
    assert probed(Beside(lambda mask: mask.log()), padded()) is None


def test_outputs_of_another_size_each_time_cannot_be_compared() -> None:
    sizes = iter(range(4, 9))

    assert probed(Beside(lambda mask: mask[: next(sizes)]), padded()) is None


def one_hot(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "mask": nn.functional.one_hot(torch.arange(N), T)}


def all_shown(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "mask": torch.ones(N, T, dtype=torch.long)}


def none_shown(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "mask": torch.zeros(N, T, dtype=torch.long)}


def real(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "mask": inputs["mask"].float()}


def of_three_values(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "mask": 2 * inputs["mask"]}


def the_same_text(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "ids": torch.ones(N, T, dtype=torch.long)}


def of_another_shape(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**inputs, "mask": inputs["mask"][:, :1]}


@pytest.mark.parametrize(
    "changed",
    [one_hot, all_shown, none_shown, real, of_three_values, the_same_text, of_another_shape],
)
def test_masks_that_tell_nothing_are_not_asked_about(changed: Any) -> None:
    assert probed(Reader(), changed(padded())) is None


def test_a_mask_of_true_and_false_is_one() -> None:
    inputs = padded()

    assert probed(Reader(), {**inputs, "mask": inputs["mask"].bool()}) is not None


def test_every_mask_has_to_agree() -> None:
    class Two(Reader):
        def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(ids, mask)

    both = {**padded(), "kinds": torch.eye(N, T, dtype=torch.long).roll(1, 1)}
    alone = {**both, "kinds": torch.zeros(N, T, dtype=torch.long)}
    one, other = probed(Two(), both), probed(Two(), alone)

    assert one is not None
    assert other is not None
    assert one["tokens"] < other["tokens"]


def test_the_model_stays_as_it_is() -> None:
    model = Reader().train()
    before = [p.clone() for p in model.parameters()]

    probed(model, padded())

    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_outputs_of_zero_cannot_be_compared() -> None:
    model = Reader()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)

    assert probed(model, padded()) is None
