"""What loss does an output reach that knows only how often each class occurs?"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradlint
from gradlint.config import Config
from gradlint.probes.constant_output import constant_output
from gradlint.target.batches import Batch
from gradlint.target.calls import Convention
from tests.zoo import sick_data
from tests.zoo.sick_hosts import Gpt

LABELS = torch.tensor([0, 0, 0, 1])
ENTROPY = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
cross_entropy = functional.cross_entropy


def probed(shape: tuple[int, ...], *labels: Tensor, loss_fn: Any = cross_entropy) -> Any:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(shape)

    batches = [Batch(torch.randn(len(wanted), 3), wanted) for wanted in labels]
    return constant_output(Model(), Convention(loss_fn), batches)


def test_it_is_the_entropy_of_the_labels() -> None:
    found = probed((4, 2), LABELS)

    assert found["loss"] == pytest.approx(ENTROPY)
    assert found["classes"] == 2


def test_classes_that_do_not_occur_cost_next_to_nothing() -> None:
    assert probed((4, 9), LABELS)["loss"] == pytest.approx(ENTROPY, abs=1e-4)


def test_the_shares_are_those_of_all_batches() -> None:
    found = probed((2, 2), LABELS[:2], LABELS[2:])

    assert found["loss"] == pytest.approx(ENTROPY)


def test_a_last_batch_is_smaller() -> None:
    rest = torch.tensor([1, 0])

    assert probed((4, 2), LABELS, rest)["loss"] == pytest.approx((0.5787 + 0.752) / 2, abs=1e-3)


def flat(output: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(output.flatten(0, 1), labels.flatten())


@pytest.mark.parametrize(
    ("shape", "labels", "loss_fn"),
    [
        pytest.param((2, 2, 2), LABELS.reshape(2, 2), flat, id="that-may-be-either-axis"),
        pytest.param((2, 6, 2), LABELS.reshape(2, 2), cross_entropy, id="pixels"),
        pytest.param((2, 2, 6), LABELS.reshape(2, 2), flat, id="tokens"),
        pytest.param((4, 6), LABELS.reshape(2, 2), lambda o, y: cross_entropy(o, y.flatten()),
                     id="tokens-in-a-row"),
    ],
)  # fmt: skip
def test_the_axis_of_the_classes_is_found(
    shape: tuple[int, ...], labels: Tensor, loss_fn: Any
) -> None:
    found = probed(shape, labels, loss_fn=loss_fn)

    if shape == (2, 2, 2):
        assert found is None
    else:
        assert found["loss"] == pytest.approx(ENTROPY, abs=1e-4)


def test_padding_and_smoothing_are_in_the_users_loss() -> None:
    padded = torch.tensor([0, 0, 0, 1, -100, -100])
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.2)

    assert probed((6, 2), padded)["loss"] == pytest.approx(ENTROPY)
    assert probed((4, 2), LABELS, loss_fn=smoothed)["loss"] > ENTROPY


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        pytest.param((4, 2), torch.zeros(4, dtype=torch.int64), id="one-class"),
        pytest.param((4, 2), torch.rand(4, 2), id="no-labels"),
        pytest.param((4, 2), torch.tensor([0, 1, 2, 3]), id="more-classes-than-outputs"),
        pytest.param((4,), LABELS, id="no-axis-of-classes"),
        pytest.param((4, 3), torch.zeros(0, dtype=torch.int64), id="no-entries"),
    ],
)
def test_where_targets_are_no_classes_it_says_nothing(
    shape: tuple[int, ...], labels: Tensor
) -> None:
    assert probed(shape, labels, loss_fn=lambda output, labels: output.sum()) is None


def test_a_loss_that_is_no_cross_entropy_says_nothing() -> None:
    def of_angles(output: Tensor, labels: Tensor) -> Tensor:
        angles = output.clamp(-1, 1).acos()
        wanted = functional.one_hot(labels, output.shape[1])
        return cross_entropy(64 * torch.cos(angles + 0.5 * wanted), labels)

    shape, labels = (6, 6), torch.arange(6)

    assert probed(shape, labels, loss_fn=of_angles) is None
    assert probed(shape, labels) is not None


def test_several_outputs_say_nothing() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.zeros(4, 2), x

    loss = Convention(lambda outputs, labels: cross_entropy(outputs[0], labels))

    assert constant_output(Two(), loss, [Batch(torch.randn(4, 3), LABELS)]) is None


@pytest.mark.parametrize(("rate", "expected"), [(0.2, {"GL401"}), (0.01, set())])
def test_check_names_the_rate_of_a_language_model_that_counts_letters(
    rate: float, expected: set[str]
) -> None:
    report = gradlint.check(
        lambda: Gpt(len(sick_data.LETTERS)),
        sick_data.characters(),
        lambda output, wanted: cross_entropy(output.transpose(1, 2), wanted),
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=rate),
        seeds=1,
        cures=False,
        steps=40,
        config=Config(),
    )

    assert {found.code for found in report.findings} == expected
