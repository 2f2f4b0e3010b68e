"""Optimizers whose updates are as large for a small gradient as for a large one."""

from __future__ import annotations

import pytest

from gradlint.rules._scale_free import divides_scale_out
from gradlint.trace import OptimizerFacts


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RMSprop", "Adafactor", "Lion", "Muon"])
def test_adam_and_its_kin_divide_the_scale_out(kind: str) -> None:
    assert divides_scale_out(OptimizerFacts(kind))


@pytest.mark.parametrize("kind", ["SGD", "ASGD", "LBFGS"])
def test_plain_optimizers_keep_the_scale(kind: str) -> None:
    assert not divides_scale_out(OptimizerFacts(kind))
