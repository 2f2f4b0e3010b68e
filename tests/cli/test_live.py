"""The live view: drawn on a terminal, never elsewhere, and never too often."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from gradlint.cli.live_view import LiveView, live_view, moment_of
from gradlint.reporters.live import Moment, farthest, panel
from gradlint.watching import Watcher
from tests.watch.loops import gpt, mlp, unfailed

SCRIPT = """
import torch
from torch import nn
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for i in range(30):
    x = torch.randn(16, 4)
    optimizer.zero_grad()
    (model(x) - x[:, :1]).square().mean().backward()
    optimizer.step()
print("the script's own line")
"""


def drawn(moment: Moment) -> str:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(panel(moment))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_it_shows_what_is_known_of_a_loop() -> None:
    training = gpt()
    watcher = Watcher(training.model, training.optimizer)
    with watcher:
        for _ in range(12):
            training.step()
        moment = moment_of(watcher)
    unfailed(watcher)

    assert moment.step == 12
    assert len(moment.loss) == 12
    assert moment.clipped is not None
    assert not any(path.startswith("model.") for path in moment.ratios)
    assert not any(path.endswith("bias") for path in moment.ratios)
    text = drawn(moment)
    assert all(word in text for word in ("step", "loss", "gradient norm", "learning rate"))


def test_an_empty_loop_and_numbers_that_are_not_finite_can_be_drawn() -> None:
    assert "step" in drawn(Moment())
    text = drawn(Moment(step=3, loss=[1.0, float("nan")], norm=[float("inf")], said=["GL501 x"]))
    assert "nan" in text
    assert "GL501" in text


def test_the_worst_layers_are_those_farthest_outside_the_band() -> None:
    ratios = {"inside": 0.01, "small": 1e-7, "large": 3.0, "frozen": 0.0}

    assert [path for path, _ in farthest(ratios, 3)] == ["small", "large"]


def test_drawing_waits_for_its_share_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("gradlint.cli.live_view.time.monotonic", lambda: now[0])
    times: list[float] = []

    class Slow:
        def update(self, shown: object, *, refresh: bool) -> None:
            times.append(now[0])
            now[0] += 0.1

    view = LiveView(Slow())  # type: ignore[arg-type]
    watcher = Watcher(mlp().model)
    while now[0] < 50:
        view.moved(watcher)
        now[0] += 0.01

    assert len(times) == 3  # 0.1 s each, half a percent of the time


def test_there_is_no_view_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with live_view(True) as view:
        assert view is None


def test_the_script_keeps_its_stdout_where_only_stderr_is_a_terminal(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "gradlint", "run", "--live", str(script)],
        stdout=subprocess.PIPE, stderr=slave, text=True, check=False,
        env={**os.environ, "TERM": "xterm", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    os.close(slave)
    shown = os.read(master, 1 << 20).decode()
    os.close(master)

    assert done.returncode == 0
    assert done.stdout == "the script's own line\n"
    assert "healthy" in shown
