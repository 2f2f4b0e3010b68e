"""The user's lines behind operations, by torch's own record of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def with_lines() -> Iterator[None]:
    """Make every autograd node created inside know the stack that created it.

    That is what anomaly detection does in the forward; its checks in the backward are off,
    and its warning about speed is not for the user, who did not ask for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Anomaly Detection has been enabled.*")
        mode = torch.autograd.set_detect_anomaly(True, check_nan=False)
    with mode:
        yield
