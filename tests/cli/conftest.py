"""The command line with a session that observes nothing and answers at once."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from typer.testing import CliRunner

from gradlint.cli import app
from gradlint.report import Report
from gradlint.reporters.sample import healthy_report, sick_report


@dataclass
class FakeSession:
    """Answers by the target's name; remembers how it was called."""

    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Callable[[], Report]] = field(default_factory=dict)

    def check_target(self, target: str, **options: Any) -> Report:
        self.calls.append((target, options))
        if target in self.answers:
            return self.answers[target]()
        return sick_report() if "sick" in target else healthy_report()

    def describe_target(self, target: str, **options: Any) -> dict[str, Any]:
        self.calls.append((target, options))
        return {"path": target, "parameters": 3, "device": None, "assumed": {"loss": "mse"}}


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    fake = FakeSession()
    module = types.ModuleType("gradlint.session")
    module.check_target = fake.check_target  # type: ignore[attr-defined]
    module.describe_target = fake.describe_target  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gradlint.session", module)
    return fake


@pytest.fixture
def run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `gradlint` in an empty folder; gives exit_code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str, **options: Any) -> Any:
        return CliRunner().invoke(app, [str(a) for a in arguments], **options)

    return invoke
