"""Which batches hold one label only."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradlint.hooks.tensor_facts import tensor_facts
from gradlint.probes.target_values import target_values
from gradlint.trace import TensorFacts


def labels(*batches: list[int]) -> list[tuple[TensorFacts, ...]]:
    found: list[Tensor] = [torch.tensor(batch) for batch in batches]
    return [(tensor_facts("target", batch),) for batch in found]


@pytest.mark.parametrize(
    ("batches", "constant", "values", "fewest", "total", "ignored"),
    [
        pytest.param([[1, 1, 1], [2, 2]], 2, 2, 2, 5, False, id="sorted"),
        pytest.param([[1, 2, 1], [2, 2, 2]], 1, 1, 3, 6, False, id="one-of-two"),
        pytest.param([[-100, 0, 0], [-100, -100, 0]], 2, 1, 1, 3, True, id="padding-is-left"),
        pytest.param([[-100, 3, 3], [3, 3, 3]], 2, 1, 2, 5, True, id="some-ignored"),
        pytest.param([[-100, 3, 4], [-100, 4, 3]], 0, 0, 3, 6, False, id="several-are-left"),
        pytest.param([[-1, 3, 3], [-1, 3, 3]], 0, 0, 3, 6, False, id="a-label-of-its-own"),
    ],
)
def test_labels_that_losses_ignore_count_for_nothing(
    batches: list[list[int]], constant: int, values: int, fewest: int, total: int, ignored: bool
) -> None:
    assert target_values(labels(*batches)) == {
        "batches": len(batches),
        "constant": constant,
        "values": values,
        "fewest": fewest,
        "all": total,
        "ignored": ignored,
    }


def test_several_targets_of_a_batch_tell_nothing() -> None:
    (one,) = labels([1, 1])

    assert target_values([(*one, *one)]) is None
    assert target_values([]) is None
