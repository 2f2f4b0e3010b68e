"""A loss that raises still says what it was given, wherever it was called."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradlint
from gradlint.hooks.loss import from_error

LOGITS, BEYOND = torch.randn(6, 3), torch.full((6,), 7)


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


@pytest.mark.parametrize(
    ("call", "kind", "shapes"),
    [
        pytest.param(
            lambda: functional.cross_entropy(LOGITS, BEYOND), "cross_entropy", ((6, 3), (6,)),
            id="labels",
        ),
        pytest.param(
            lambda: nn.NLLLoss()(LOGITS, torch.ones(6, 3).long()), "nll", ((6, 3), (6, 3)),
            id="one-hot",
        ),
        pytest.param(
            lambda: nn.BCEWithLogitsLoss()(LOGITS[:, :1], torch.ones(6)), "bce_with_logits",
            ((6, 1), (6,)), id="shapes",
        ),
    ],
)  # fmt: skip
def test_the_arguments_are_read_from_the_exception(
    call: Callable[[], object], kind: str, shapes: tuple[tuple[int, ...], ...]
) -> None:
    found = from_error(raised(call))

    assert found is not None
    assert (found.kind, found.operation) == (kind, None)
    assert (found.output.shape, found.target.shape) == shapes


def test_an_exception_of_anything_else_is_no_loss() -> None:
    assert from_error(raised(lambda: functional.linear(LOGITS, torch.randn(2, 9)))) is None
    assert from_error(None) is None


class OwnLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.fc(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def test_labels_that_a_models_own_loss_refuses_are_a_finding() -> None:
    batch = {"x": torch.randn(6, 4), "labels": torch.tensor([1, 2, 3, 1, 2, 3])}

    report = gradlint.check(OwnLoss, batch)

    assert next(f.code for f in report.findings) == "GL605"
