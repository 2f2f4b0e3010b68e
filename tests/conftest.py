"""What every test starts from: one thread, fixed seeds, reproducible examples."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(autouse=True)
def no_program_of_another_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget the modules a test imported from its own folder.

    Two tests may each write a package ``pkg``; which of them a process runs first is chance.
    """
    before, path = set(sys.modules), [*sys.path]
    yield
    written = tmp_path_factory.getbasetemp().resolve()
    sys.path[:] = path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and written in Path(file).resolve().parents:
            del sys.modules[name]


def pytest_collection_finish() -> None:
    """Keep what imports made out of the searches that watching makes among all objects.

    There are a third of a million of them here, and a search for each of a thousand loops.
    """
    gc.collect()
    gc.freeze()
