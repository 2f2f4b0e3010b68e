"""`gradlint run`: what belongs to whom on the command line, the streams and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import jsonschema
import pytest

from gradlint.errors import NotObservedError
from gradlint.report import SCHEMA_FILE, Report
from gradlint.reporters.sample import healthy_report, sick_report


class Stop(BaseException):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class FakeWatching:
    """Watches nothing; hands the answer back, and remembers how it was asked."""

    answer: Any = None
    given: dict[str, Any] = field(default_factory=dict)
    finished: list[tuple[str, BaseException | None]] = field(default_factory=list)
    inside: bool = False
    failure: BaseException | None = None

    @property
    def loop(self) -> FakeWatching:
        return self

    def watcher(self, **options: Any) -> FakeWatching:
        self.given = options
        return self

    def __enter__(self) -> Self:
        self.inside = True
        return self

    def __exit__(self, *_: object) -> None:
        self.inside = False

    def finish(self, ended: str, error: BaseException | None) -> Report:
        assert not self.inside
        self.finished.append((ended, error))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer or healthy_report()


@pytest.fixture
def watching(monkeypatch):
    fake = FakeWatching()
    module = types.ModuleType("gradlint.watching")
    module.Stop = Stop
    module.Watcher = fake.watcher
    monkeypatch.setitem(sys.modules, "gradlint.watching", module)
    monkeypatch.setattr("atexit.register", lambda *_: None)
    monkeypatch.delenv("RANK", raising=False)
    return fake


@pytest.fixture
def script(run, tmp_path):
    """Write `train.py` into the working directory."""

    def write(source: str) -> None:
        (tmp_path / "train.py").write_text(source)

    return write


def test_what_follows_the_script_is_the_scripts(run, watching, script):
    script("import sys; print(sys.argv)")

    result = run("run", "--until", "5", "train.py", "--until", "x", "--", "-v", "--help")

    assert result.exit_code == 0
    assert result.stdout == "['train.py', '--until', 'x', '--', '-v', '--help']\n"
    assert watching.given["until"] == 5


def test_a_module_takes_what_follows_it(run, watching, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train.py").write_text("import sys; print(__spec__.name, sys.argv[1:])")

    result = run("run", "-q", "-m", "package.train", "-m", "--lr", "0.1")

    assert result.stdout == "package.train ['-m', '--lr', '0.1']\n"
    assert watching.given["target"]["path"] == "package.train"


def test_the_watcher_gets_what_was_asked_for(run, watching, script, tmp_path):
    script("")

    run("run", "--every", "7", "--budget", "5%", "--stop-on", "warning", "--trace", "t.jsonl",
        "--select", "GL3,GL501", "train.py")  # fmt: skip

    given = watching.given
    assert (given["every"], given["budget"], given["fail_on"]) == (7, 0.05, "warning")
    assert (str(given["trace"]), given["until"], given["discover"]) == ("t.jsonl", None, True)
    assert given["config"].select == ("GL3", "GL501")
    assert given["target"] == {"path": "train.py", "command": "run"}


def test_without_options_the_watcher_keeps_to_its_budget(run, watching, script):
    script("")

    run("run", "train.py")

    given = watching.given
    assert (given["every"], given["budget"], given["fail_on"]) == ("auto", 0.02, None)
    assert given["trace"] is None


def test_stdout_is_the_scripts_and_stderr_has_the_report(run, watching, script):
    script("import sys; print('mine'); print('log', file=sys.stderr)")
    watching.answer = sick_report()

    result = run("run", "train.py")

    assert result.stdout == "mine\n"
    assert result.stderr.startswith("log\n✗ unhealthy")
    assert result.exit_code == 1


def test_a_script_that_takes_stderr_does_not_take_the_report(run, watching, script):
    script("import io, sys; sys.kept, sys.stderr = sys.stderr, io.StringIO()")

    result = run("run", "-f", "concise", "train.py")
    del sys.kept

    assert "healthy" in result.stderr


def test_machines_read_files(run, watching, script, tmp_path):
    script("print('mine')")
    watching.answer = sick_report()

    result = run("run", "-f", "json:r.json", "-f", "concise", "train.py")

    data = json.loads((tmp_path / "r.json").read_text())
    assert data["exit_code"] == result.exit_code == 1
    assert result.stdout == "mine\n"
    assert len(result.stderr.splitlines()) == len(data["findings"])


@pytest.mark.parametrize(
    ("source", "code", "ended", "told"),
    [
        ("", 0, "", None),
        ("raise SystemExit(0)", 0, "", None),
        ("raise SystemExit(4)", 3, "", ("SystemExit", "4")),
        ("raise SystemExit('no data')", 3, "", ("SystemExit", "1")),
        ("raise ValueError('bad shape')", 3, "exception", ("ValueError", "1")),
        ("x = =", 3, "exception", ("SyntaxError", "1")),
        ("import argparse as a; a.ArgumentParser().parse_args(['-x'])", 3, "", ("SystemExit", "2")),
        ("raise KeyboardInterrupt", 130, "interrupted", ("KeyboardInterrupt", "130")),
        ("import signal; signal.raise_signal(15)", 3, "killed", ("SIGTERM", "143")),
    ],
)  # fmt: skip
def test_the_scripts_end_makes_the_exit_code(
    run, watching, script, tmp_path, source, code, ended, told
):
    script(source)
    watching.answer = healthy_report()

    result = run("run", "--exit-zero", "-f", "json:r.json", "train.py")

    assert result.exit_code == code
    assert watching.finished[0][0] == ended
    data = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(data, json.loads(SCHEMA_FILE.read_text()))
    assert data["exit_code"] == code
    if told is None:
        assert "error" not in data or data["error"] is None
    else:
        assert data["error"]["type"] == told[0]
        assert f"status: {told[1]})" in data["error"]["message"]
        keeps = ended in ("interrupted", "killed")
        assert data["verdict"] == ("healthy" if keeps else "not-observed")
        assert data["series"]["loss"], "what was found until then is kept"


def test_a_crash_shows_the_traceback_and_then_the_report(run, watching, script):
    script("def f():\n    raise ValueError('bad shape')\nf()\n")

    result = run("run", "train.py")

    trace, _, report = result.stderr.partition("ValueError: bad shape\n")
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.count("File") == 2
    assert "The target stopped: ValueError: bad shape (the script's status: 1)" in " ".join(
        report.split()
    )


@pytest.mark.parametrize("reason", ["until", "fail-on"])
def test_a_stop_leaves_the_verdict_to_the_findings(run, watching, script, monkeypatch, reason):
    script("import sys; sys.stop_here('reason')".replace("reason", reason))

    def stop_here(reason):
        raise Stop(reason)

    monkeypatch.setattr(sys, "stop_here", stop_here, raising=False)

    assert run("run", "train.py").exit_code == 0
    assert watching.finished == [(reason, None)]


def test_nothing_seen_is_exit_3_and_said(run, watching, script):
    script("print('no training')")
    watching.answer = NotObservedError("no optimizer step was seen")

    result = run("run", "train.py")

    assert result.exit_code == 3
    assert result.stderr.startswith("gradlint: train.py: no training was seen")
    assert "fault of gradlint" not in result.stderr


def test_a_fault_of_ours_is_said_and_is_not_the_scripts(run, watching, script):
    script("print('trained')")
    watching.failure = KeyError("x")

    result = run("run", "-f", "concise", "train.py")
    assert (result.exit_code, result.stdout) == (0, "trained\n")
    assert result.stderr.startswith("gradlint: watching ended early: KeyError: 'x' (a fault of")
    verbose = run("run", "-v", "-f", "concise", "train.py")
    assert verbose.stderr.startswith("KeyError: 'x'\ngradlint: watching ended early")

    watching.answer = NotObservedError("no optimizer step was seen")
    assert run("run", "train.py").exit_code == 70


def test_a_script_that_refuses_its_arguments_is_told_in_one_line(run, watching, script):
    script("import argparse as a; a.ArgumentParser().parse_args()")
    watching.answer = NotObservedError("no optimizer step was seen")

    result = run("run", "train.py", "--nope")

    assert result.exit_code == 3
    *usage, last = result.stderr.splitlines()
    assert "unrecognized arguments: --nope" in usage[-1]
    assert last.startswith("gradlint: train.py ended itself (the script's status: 2); no training")


def test_of_the_ranks_the_first_reports(run, watching, script, monkeypatch):
    watching.answer = sick_report()
    for rank, code in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        script("")
        result = run("run", "train.py")
        assert result.exit_code == code
        assert bool(result.stderr) is (rank == "0")

    script("raise SystemExit(5)")
    assert run("run", "train.py").exit_code == 5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-f", "json", "train.py"], "give json a file: -f json:FILE"),
        (["-f", "json:-", "train.py"], "give json a file: -f json:FILE"),
        (["-f", "full", "-f", "concise", "train.py"], "only one format can go to stderr"),
        (["-f", "nope", "train.py"], "no format 'nope'"),
        (["-f", "json:", "train.py"], "expected a file after 'json:'"),
        (["--budget", "2", "train.py"], "--budget: expected a share of the time such as 2%"),
        (["--budget", "0%", "train.py"], "--budget: expected a share"),
        (["--budget", "much", "train.py"], "--budget: expected a share"),
        (["--stop-on", "errors", "train.py"], "did you mean 'error'?"),
        (["--fail-on", "never!", "train.py"], "--fail-on: expected one of"),
        (["--until", "0", "train.py"], "--until"),
        (["--every", "0", "train.py"], "--every"),
        (["--trace", "nowhere/t.jsonl", "train.py"], "--trace: cannot write to"),
        (["--select", "GL9999", "train.py"], "GL9999"),
        (["--lr", "0.1", "train.py"], "No such option: --lr"),
        ([], "expected a SCRIPT: gradlint run train.py"),
        (["no.py"], "expected a script, found no file 'no.py'"),
        (["-m", "nowhere"], "found no module 'nowhere'"),
    ],
)
def test_a_usage_error_is_one_sentence_and_nothing_runs(run, watching, script, arguments, sentence):
    script("print('ran')")

    result = run("run", *arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert watching.given == {}


def test_settings_are_those_beside_the_script(run, watching, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("")
    (tmp_path / "code" / "gradlint.yaml").write_text("ignore: [GL805]\n")

    run("run", "code/train.py")
    assert watching.given["config"].ignore == ("GL805",)

    run("run", "--isolated", "code/train.py")
    assert watching.given["config"].ignore == ()


def test_settings_can_be_shown_without_running(run, watching, script):
    script("print('ran')")

    result = run("run", "--show-settings", "--select", "GL501", "train.py")

    assert "# rules that run: GL501" in result.stdout
    assert watching.given == {}


# -- as a process of its own ------------------------------------------------------------------


def gradlint(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gradlint", "run", *arguments],
        cwd=cwd, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False, timeout=120, **options,
    )  # fmt: skip


PROGRAM = """
import atexit, sys
atexit.register(print, "goodbye")
print("mine")
"""


def test_a_run_is_held_against_a_baseline_wherever_the_script_goes(run, watching, script, tmp_path):
    script("import os; os.makedirs('else', exist_ok=True); os.chdir('else')")
    watching.answer = sick_report().model_copy(update={"exit_code": 1})

    first = run("run", "--baseline", "b.json", "--update-baseline", "train.py")
    os.chdir(tmp_path)
    held = run("run", "--baseline", "b.json", "-f", "concise", "train.py")

    assert "now accepts 1 error" in first.stderr
    assert (tmp_path / "b.json").is_file()
    assert (held.exit_code, "6 silenced" in held.stderr) == (0, True)


def test_a_baseline_that_cannot_be_read_ends_it_before_the_script(run, watching, script):
    script("print('ran')")

    result = run("run", "--baseline", "b.json", "train.py")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "--update-baseline makes one" in result.stderr


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.py").write_text(PROGRAM)
    return tmp_path


def test_stdout_is_the_scripts_to_its_very_end(folder):
    result = gradlint("train.py", cwd=folder)

    assert result.returncode == 3
    assert result.stdout == "mine\ngoodbye\n"
    assert result.stderr == (
        "gradlint: train.py: no training was seen: no model's loss went backward in this process\n"
    )


@pytest.mark.parametrize("end", ["sys.stderr.close()", "import os; os.close(2)"])
def test_a_script_that_closes_its_streams_is_no_crash(folder, end):
    (folder / "train.py").write_text(f"{PROGRAM}\n{end}\n")

    result = gradlint("-f", "full", "-f", "json:r.json", "train.py", cwd=folder)

    assert result.returncode == 3
    assert json.loads((folder / "r.json").read_text())["verdict"] == "not-observed"


TRAINING = """
import os, signal, sys, time
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(int(sys.argv[1])):
    inputs = torch.randn(32, 4)
    loss = nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item(), flush=True)
{end}
"""


def train(folder: Path, end: str, *options: str) -> tuple[Any, dict[str, Any]]:
    (folder / "train.py").write_text(TRAINING.replace("{end}", end))
    outputs = ("-f", "full", "-f", "json:r.json", "--trace", "t.jsonl")
    result = gradlint(*outputs, *options, "train.py", "30", cwd=folder)
    return result, json.loads((folder / "r.json").read_text())


def test_a_script_trains_as_without_us(tmp_path):
    result, data = train(tmp_path, "")

    bare = subprocess.run(
        [sys.executable, "train.py", "30"], cwd=tmp_path, capture_output=True, text=True,
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.stdout == bare.stdout
    assert (result.returncode, data["verdict"]) == (0, "healthy")
    assert (data["target"]["command"], data["summary"]["steps"]) == ("run", 30)
    assert (tmp_path / "t.jsonl").read_text().count("\n") > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("sys.exit(7)", 3, "(the script's status: 7)"),
        ("model(torch.randn(1, 5))", 3, "RuntimeError"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 3, "SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, "KeyboardInterrupt"),
    ],
)
def test_whatever_ends_a_training_what_was_seen_is_reported(tmp_path, end, code, told):
    result, data = train(tmp_path, end)

    assert result.returncode == data["exit_code"] == code
    assert told in result.stderr
    assert data["summary"]["steps"] == 30
    assert len(data["series"]["loss"]) >= 30
    assert "gradlint/" not in result.stderr.replace(str(tmp_path), "")
    assert (tmp_path / "t.jsonl").read_text().count("\n") > 10


LABELS = """
model(torch.randn(32, 4))
nn.functional.cross_entropy(model(torch.randn(32, 4)).expand(32, 3), torch.full((32,), 3))
"""
TOLD = f"""
try:
{LABELS.replace(chr(10), chr(10) + "    ")}
except Exception as error:
    sys.exit(f"failed: {{error}}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", [LABELS, TOLD], ids=["uncaught", "told-by-the-script"])
def test_a_loss_that_raises_on_its_targets_is_the_first_finding(tmp_path, end):
    result, data = train(tmp_path, end)

    assert result.returncode == 3
    assert data["findings"][0]["code"] == "GL605"
    assert "Target 3 is out of bounds" in result.stderr


@pytest.mark.slow
def test_a_process_that_ends_at_once_leaves_its_trace(tmp_path):
    (tmp_path / "train.py").write_text(TRAINING.replace("{end}", "os._exit(6)"))

    result = gradlint("--trace", "t.jsonl", "train.py", "30", cwd=tmp_path)

    assert result.returncode == 6
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)


FORKING = """
import multiprocessing
if __name__ == "__main__":
    def more():
        for _ in range(3):
            nn.functional.mse_loss(model(inputs), inputs).backward()
            optimizer.step()
    child = multiprocessing.get_context("fork").Process(target=more)
    child.start()
    child.join()
    print("child", child.exitcode)
"""


@pytest.mark.slow
def test_a_forked_process_is_left_alone(tmp_path):
    result, data = train(tmp_path, FORKING, "--until", "31")

    assert result.stdout.endswith("child 0\n")
    assert "Stop" not in result.stderr
    assert data["summary"]["steps"] == 30


def test_until_ends_after_so_many_steps(tmp_path):
    result, data = train(tmp_path, "print('not reached')", "--until", "5")

    assert result.returncode == 0
    assert data["summary"]["steps"] == 5
    assert len(result.stdout.splitlines()) == 4  # the fifth step was its last


@pytest.mark.parametrize("arguments", [["--help"], ["no.py"], ["-f", "json", "no.py"]], ids=str)
def test_arguments_are_read_before_torch_is_imported(tmp_path, arguments):
    code = (
        "import sys; from gradlint.cli import app\n"
        f"try: app(['run', *{arguments!r}])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
