"""gradlint tells you what is wrong with the gradients of a PyTorch model, where, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradlint._version import __version__ as __version__

if TYPE_CHECKING:
    from gradlint.errors import GradientHealthError as GradientHealthError
    from gradlint.errors import GradlintError as GradlintError
    from gradlint.finding import Finding as Finding
    from gradlint.finding import Severity as Severity
    from gradlint.report import Report as Report
    from gradlint.session import check as check
    from gradlint.session import watch as watch

_HOMES = {
    "Finding": "gradlint.finding",
    "GradientHealthError": "gradlint.errors",
    "GradlintError": "gradlint.errors",
    "Report": "gradlint.report",
    "Severity": "gradlint.finding",
    "check": "gradlint.session",
    "watch": "gradlint.session",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gradlint' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
