"""Every command in an example's docstring says what it is said to say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gradlint.cli import app

ROOT = Path(__file__).parent.parent
COMMAND = re.compile(r"^ *gradlint (?P<command>check .*?)(?: {2,}# (?P<says>.*))?$", re.MULTILINE)


def commands() -> list[object]:
    """Return what the examples say of themselves; every fourth is in the default run."""
    found: list[object] = []
    for file in sorted((ROOT / "examples").glob("*.py")):
        docstring = file.read_text(encoding="utf-8").split('"""')[1]
        for match in COMMAND.finditer(docstring):
            words = match["command"]
            marks = [] if len(found) % 4 == 0 else [pytest.mark.slow]
            says = match["says"] or "healthy"
            found.append(pytest.param(words, says, id=words[6:].strip(), marks=marks))
    return found


@pytest.mark.filterwarnings("ignore:Using a target size:UserWarning")
@pytest.mark.parametrize(("command", "says"), commands())
def test_an_example_is_judged_as_it_says(
    command: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)

    result = CliRunner().invoke(app, [*shlex.split(command), "--format", "json"])

    report = json.loads(result.stdout)
    causes = [f["code"] for f in report["findings"] if f["cause"] is None]
    serious = [f for f in report["findings"] if f["severity"] != "note"]
    if says.startswith("healthy"):
        assert not serious
        assert result.exit_code == 0
    elif says.startswith("GL"):
        assert causes[0] == says[:5]
        assert serious
    else:
        wanted = {"vanishes": {"GL101", "GL103", "GL301"}, "explodes": {"GL101", "GL104", "GL302"}}
        assert causes[0] in wanted[says.split()[0].rstrip(":")]
        assert (
            wanted[says.split()[0].rstrip(":")]
            & {"GL103", "GL104", "GL301", "GL302"}
            & {f["code"] for f in report["findings"]}
        )
        assert result.exit_code == 1


WATCHED = re.compile(r"^gradlint run (?P<command>.*?)(?: {2,}# (?P<says>.*))?$", re.MULTILINE)


def runs() -> list[object]:
    docstring = (ROOT / "examples/train_digits.py").read_text(encoding="utf-8").split('"""')[1]
    found = [match.groupdict() for match in WATCHED.finditer(docstring)]
    slow = [[pytest.mark.slow] if number else [] for number in range(len(found))]
    return [
        pytest.param(f["command"], f["says"], id=f["command"].split(".py")[-1].strip(), marks=marks)
        for f, marks in zip(found, slow, strict=True)
    ]


@pytest.mark.parametrize(("command", "says"), runs())
def test_a_watched_example_is_judged_as_it_says(command: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"

    done = subprocess.run(
        [sys.executable, "-m", "gradlint", "run", "-f", f"json:{file}", *shlex.split(command)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    report = json.loads(file.read_text(encoding="utf-8"))
    causes = [f["code"] for f in report["findings"] if f["severity"] != "note"]
    assert "epoch 4" in done.stdout
    assert done.returncode == (0 if says == "healthy" else 1), done.stderr
    assert causes[:1] == ([] if says == "healthy" else [says[:5]])


@pytest.mark.parametrize(
    "file",
    [
        "watch_loop.py",
        pytest.param("with_lightning.py", marks=pytest.mark.slow),
        pytest.param("with_transformers.py", marks=pytest.mark.slow),
    ],
)
def test_a_watched_loop_of_ones_own_prints_its_report(file: str) -> None:
    done = subprocess.run(
        [sys.executable, f"examples/{file}"], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert ": healthy (" in done.stdout


@pytest.mark.slow
def test_the_example_of_tests_passes_and_tells_of_the_sick_model() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "examples/test_model.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "3 passed, 1 xfailed" in done.stdout
    assert "::test_the_old_model_is_healthy: unhealthy: GL601" in done.stdout


def test_every_example_names_a_command() -> None:
    without = [
        file.name
        for file in (ROOT / "examples").glob("*.py")
        if not re.search(
            r"^ *(gradlint|python|pytest) ", file.read_text(encoding="utf-8").split('"""')[1], re.M
        )
    ]

    assert without == []
