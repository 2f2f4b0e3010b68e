"""What every test starts from: one thread, fixed seeds, reproducible examples."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile(
    "gradlint", deadline=None, derandomize=True, database=None, max_examples=25
)
settings.load_profile("gradlint")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed every random state a test draws from."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
