"""Every exception gradlint raises on purpose.

GradlintError
├── UsageError(ValueError)        what was asked for cannot be understood      exit 2
│   ├── ConfigError               a setting is unknown or out of range
│   └── TargetNotFoundError       no model, batch, loss or optimizer there
├── TargetError(RuntimeError)     the target itself raised                     exit 3
├── NotObservedError              nothing could be observed                    exit 3
├── MetricError(ValueError)       a metric was given what it cannot measure    exit 70
├── RuleError(RuntimeError)       a rule failed                                exit 70
└── GradientHealthError           raised for the caller who asked for it
    └── UnhealthyModelError(AssertionError)   the same, of an assertion in a test
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gradlint.report import Report


class GradlintError(Exception):
    """Base of all; `exit_code` is what the command line returns for it."""

    exit_code: ClassVar[int] = 70


class UsageError(GradlintError, ValueError):
    """What was asked for cannot be understood; nothing was started."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or has a value it cannot have."""


class TargetNotFoundError(UsageError):
    """The target holds no model, or more than one, or it cannot be built."""


class TargetError(GradlintError, RuntimeError):
    """The user's own code raised while it was run."""

    exit_code = 3


class NotObservedError(GradlintError, RuntimeError):
    """The target ran, and there was nothing to observe."""

    exit_code = 3


class MetricError(GradlintError, ValueError):
    """A metric was given a tensor it is not defined for."""


class RuleError(GradlintError, RuntimeError):
    """A rule raised; the message names it."""


class GradientHealthError(GradlintError):
    """Findings at or above the asked severity; `report` holds them all."""

    exit_code = 1

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


class UnhealthyModelError(GradientHealthError, AssertionError):
    """A model that a test asserted to be healthy is not."""
