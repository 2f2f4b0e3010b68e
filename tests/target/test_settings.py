"""Names of the target's parts out of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradlint.cli import app

PROGRAM = """
import torch
from torch import nn

def make_it():
    return nn.Linear(6, 3)

def some_data():
    return torch.randn(16, 6), torch.randint(3, (16,))

def one_step(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(project: Path, batch: str) -> None:
    (project / "gradlint.yaml").write_text(
        f"target:\n  path: net.py\n  model: make_it\n  batch: {batch}\n  training-step: one_step\n"
    )


def test_all_parts_are_found_by_the_names_in_the_settings(project: Path) -> None:
    settings(project, "some_data")

    result = CliRunner().invoke(app, ["check", "--dry-run"])

    assert result.exit_code == 0
    assert "some_data" in result.stdout
    assert "one_step" in result.stdout


def test_a_name_that_is_not_there_is_one_sentence(project: Path) -> None:
    settings(project, "no_data")

    result = CliRunner().invoke(app, ["check"])

    assert result.exit_code == 2
    assert "expected batch = 'no_data' of the settings to be defined in net.py" in result.stderr
