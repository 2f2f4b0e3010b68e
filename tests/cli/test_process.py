"""The command line as a process of its own: what it imports, how fast, how clean its stdout is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from torch import nn

print("from the user's file")
os.system("echo from a subprocess")
sys.stderr.write("an error line\\n")
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
"""


def gradlint(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "gradlint", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def test_stdout_carries_the_report_alone(tmp_path):
    (tmp_path / "model.py").write_text(PROGRAM)

    result = gradlint("check", "model.py", "--steps", "0", "-f", "json", cwd=tmp_path)

    data = json.loads(result.stdout)
    assert result.returncode == data["exit_code"]
    assert data["target"]["path"] == "model.py"
    assert "from the user's file" in result.stderr
    assert "from a subprocess" in result.stderr
    assert "Traceback" not in result.stderr


TALKATIVE = """
import atexit, threading, time, sys
from torch import nn

def talk():
    while True:
        print("tick")
        time.sleep(0.001)

threading.Thread(target=talk, daemon=True).start()
atexit.register(lambda: print("goodbye"))
atexit.register(lambda: sys.__stdout__.write("goodbye"))
model = nn.Linear(4, 2)
"""


def test_what_runs_beside_and_after_the_report_stays_out_of_it(tmp_path):
    (tmp_path / "model.py").write_text(TALKATIVE)

    result = gradlint("check", "model.py", "--steps", "0", "-f", "json", cwd=tmp_path)

    assert json.loads(result.stdout)["verdict"] == "healthy"
    assert "goodbye" in result.stderr


def test_an_interruption_is_said_in_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "model.py").write_text("raise KeyboardInterrupt")

    result = gradlint("check", "model.py", cwd=tmp_path)

    assert result.returncode == 130
    assert (result.stdout, result.stderr) == ("", "gradlint: interrupted\n")
    assert [file.name for file in tmp_path.iterdir()] == ["model.py"]


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("check model.py --steps 0 >/dev/full", 2),
        pytest.param("check model.py --steps 0 >&-", 0, marks=pytest.mark.slow),
        pytest.param("check model.py --steps 0 2>&-", 0, marks=pytest.mark.slow),
        pytest.param("check model.py --steps 0 -f json >&- 2>&-", 0, marks=pytest.mark.slow),
        ("check nowhere.py 2>&-", 2),
    ],
)
def test_streams_that_are_closed_or_full_are_no_crash(tmp_path, shell, code):
    (tmp_path / "model.py").write_text("from torch import nn\nmodel = nn.Linear(4, 2)\n")

    result = subprocess.run(
        f"{sys.executable} -m gradlint {shell}", shell=True, cwd=tmp_path, check=False,
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    assert result.returncode == code
    assert "fault of gradlint" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["check", "--help"], ["rules"], ["explain", "GL603"], ["explain", "nope"]],
    ids=" ".join,
)
def test_what_needs_no_model_imports_no_torch(arguments, tmp_path):
    code = (
        "import sys; from gradlint.cli import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr


def test_a_usage_error_is_told_before_torch_is_imported(tmp_path):
    code = (
        "import sys; from gradlint.cli import app\n"
        "try: app(['check', 'm.py', '--select', 'dead'])\n"
        "except SystemExit as end: assert end.code == 2\n"
        "sys.exit('torch' in sys.modules)"
    )

    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)

    assert result.returncode == 0


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    command = f"{sys.executable} -m gradlint explain --all | head -n 1; exit ${{PIPESTATUS[0]}}"

    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.stdout.startswith("# GL")
    assert result.stderr == ""
