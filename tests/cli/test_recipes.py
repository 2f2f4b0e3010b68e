"""The recipes in the README and the hook: their commands run and write what is uploaded."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]


def block(key: str) -> dict:
    return next(found[key] for found in BLOCKS if key in found)


def commands(steps: list[str]) -> list[list[str]]:
    return [shlex.split(step)[1:] for step in steps if step.startswith("gradlint ")]


def test_the_github_job_annotates_and_uploads_what_it_wrote(run, session, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    steps = block("jobs")["gradients"]["steps"]
    ((*arguments,),) = commands([step.get("run", "") for step in steps])
    upload = next(step for step in steps if "upload-sarif" in step.get("uses", ""))

    result = run(*[a.replace("model.py", "sick.py") for a in arguments])

    assert result.exit_code == 1
    assert result.stdout.startswith("::error file=")
    assert (tmp_path / upload["with"]["sarif_file"]).is_file()
    assert "unhealthy" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_the_gitlab_job_writes_its_reports(run, session, tmp_path):
    job = block("gradients")
    ((*arguments,),) = commands(job["script"])

    assert run(*arguments).exit_code == 0
    for file in job["artifacts"]["reports"].values():
        assert (tmp_path / file).is_file()


def test_the_hook_checks_the_target_of_the_settings(run, session, tmp_path):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    (tmp_path / "pyproject.toml").write_text('[tool.gradlint.target]\npath = "sick.py"\n')

    assert hook["pass_filenames"] is False
    assert run(*hook["entry"].split()[1:]).exit_code == 1
    assert [target for target, _ in session.calls] == ["sick.py"]


@pytest.mark.parametrize(
    "line",
    [c for c in re.findall(r"^gradlint check .*", README, re.MULTILINE) if "baseline" in c],
)
def test_the_commands_on_baselines_run(run, session, line):
    run("check", "model.py", "--baseline", "accepted.json", "--update-baseline")

    assert run(*shlex.split(line, comments=True)[1:]).exit_code == 0
