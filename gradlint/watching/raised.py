"""What ended a loop, where a loss of torch's raised it: what that loss was given."""

from __future__ import annotations

from contextlib import suppress

from gradlint.facts import LossFacts
from gradlint.hooks.loss import from_error

ASSERTED = (
    "a kernel on the device failed an assertion, and nothing after it can be read: an index, a "
    "label or a probability out of range does that; a run on the CPU, or one with "
    "CUDA_LAUNCH_BLOCKING=1, shows where"
)
"""What is known where an accelerator tells of an assertion: it does so late, and of no place."""


def is_of_device(error: BaseException | None) -> bool:
    """Whether `error` tells of an assertion that a kernel failed before, wherever it came up."""
    return isinstance(error, RuntimeError) and "device-side assert" in str(error)


def raised_in_loss(error: BaseException | None) -> tuple[Exception, LossFacts] | None:
    """Return the exception of a loss that ended the loop, and what entered that loss.

    A script that tells of an exception itself and then ends itself ended of it. Nothing of
    the exception is kept or changed, and nothing is read from any device but the processor's
    own: after an exception another one may not answer.

    Args:
        error: What came out of the loop.
    """
    if isinstance(error, SystemExit):
        error = error.__context__ if error.code else None
    if not isinstance(error, Exception):
        return None
    with suppress(Exception):  # the loop's own exception is the one to see
        found = from_error(error)
        if found is not None:
            return error, found
    return None
