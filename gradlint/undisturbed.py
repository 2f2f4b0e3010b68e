"""undisturbed: whatever is tried inside, the caller's random states are as they were."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from gradlint.errors import UsageError
from gradlint.target.user_code import eagerly


def seed_all(seed: int) -> None:
    """Seed every random state a model may draw from: Python's, torch's, NumPy's if it is there."""
    random.seed(seed)
    torch.manual_seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


@contextmanager
def undisturbed(device: str | None) -> Iterator[None]:
    """Leave every random state as it was: Python's, NumPy's, torch's on every device.

    Raises:
        UsageError: If this machine has no `device`.
    """
    python_state = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state: Mapping[str, Any] | tuple[Any, ...] | None = None
    if numpy is not None:
        numpy_state = numpy.random.get_state()
    grad = torch.is_grad_enabled()
    if device is not None:
        _known_device(device)
    with torch.random.fork_rng(), torch.inference_mode(False), torch.enable_grad(), eagerly():
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)
            torch.set_grad_enabled(grad)


def _known_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        available = ["cpu"] + [
            name for name in ("cuda", "mps", "xpu")
            if getattr(getattr(torch, name, None), "is_available", lambda: False)()
        ]  # fmt: skip
        raise UsageError(
            f"expected a device of this machine, got {device!r}; available: {', '.join(available)}"
        ) from error
