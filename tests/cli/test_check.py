"""`gradlint check`: exit codes, what goes where, what is refused and how."""

from __future__ import annotations

import json
import sys

import pytest

from gradlint.errors import NotObservedError, RuleError, TargetError, TargetNotFoundError
from gradlint.reporters.sample import healthy_report, sick_report
from gradlint.rules import all_rules


def raising(error):
    def answer():
        raise error

    return answer


@pytest.mark.parametrize(("target", "code"), [("healthy.py", 0), ("sick.py", 1)])
def test_findings_make_the_exit_code(run, session, target, code):
    assert run("check", target).exit_code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TargetNotFoundError("no model in m.py; define one, or name it: m.py:NAME"), 2),
        (TargetError("forward raised ValueError: bad shape"), 3),
        (NotObservedError("nothing was observed"), 3),
        (SystemExit(4), 3),
        (RuleError("rule GL301 failed: KeyError('x')"), 70),
        (KeyError("x"), 70),
        (RuntimeError("\nfirst line\nthe rest of a dump\n" * 99), 70),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_failure_is_one_sentence_and_an_exit_code(run, session, error, code):
    session.answers["m.py"] = raising(error)

    result = run("check", "m.py")

    assert result.exit_code == code
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("gradlint: ")
    assert "Traceback" not in result.stderr
    assert len(result.stderr) < 500
    assert ("fault of gradlint itself" in result.stderr) is (code == 70)


def test_verbose_shows_the_traceback_and_the_cause(run, session):
    try:
        try:
            raise ValueError("in the user's forward")
        except ValueError as cause:
            raise TargetError("forward raised") from cause
    except TargetError as error:
        session.answers["m.py"] = raising(error)

    result = run("check", "m.py", "-v")

    assert result.exit_code == 3
    assert "ValueError: in the user's forward" in result.stderr
    assert result.stderr.endswith("gradlint: forward raised\n")


def test_a_failure_is_a_report_for_machines(run, session):
    session.answers["m.py"] = raising(TargetError("forward raised"))

    result = run("check", "m.py", "-f", "json")

    data = json.loads(result.stdout)
    assert (data["verdict"], data["exit_code"], result.exit_code) == ("not-observed", 3, 3)
    assert data["error"]["message"] == "forward raised"


def test_several_targets_are_a_json_array_and_the_worst_exit_code(run, session):
    session.answers["lost.py"] = raising(TargetNotFoundError("no such file 'lost.py'"))

    result = run("check", "healthy.py", "lost.py", "sick.py", "-f", "json")

    assert result.exit_code == 2
    assert [d["verdict"] for d in json.loads(result.stdout)] == [
        "healthy",
        "not-observed",
        "unhealthy",
    ]


def test_one_failing_target_does_not_hide_the_reports_of_the_others(run, session):
    session.answers["lost.py"] = raising(TargetError("it raised"))

    result = run("check", "lost.py", "sick.py")

    assert "✗ unhealthy" in result.stdout
    assert result.stderr == "gradlint: lost.py: it raised\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check"], "expected a TARGET: gradlint check model.py"),
        (["check", "m.py", "-f", "jsn"], "--format: no format 'jsn'; did you mean 'json'? "),
        (["check", "m.py", "-f", "yaml"], "available: full, concise, "),
        (["check", "m.py", "-f", "json", "-f", "full"], "--format: only one format can go to"),
        (["check", "m.py", "-f", "json:"], "--format: expected a file after 'json:'"),
        (["check", "m.py", "-f", "json:no/r.json"], "--format: cannot write to 'no"),
        (["check", "m.py", "--fail-on", "eror"], "got 'eror'; did you mean 'error'?"),
        (["check", "m.py", "--device", "gpu"], "--device: expected one of cpu, cuda, cuda:N"),
        (["check", "m.py", "--device", "cuda:N"], "--device: expected a number for N"),
        (["check", "m.py", "--precision", "bf15"], "got 'bf15'; did you mean 'bf16'?"),
        (["check", "m.py", "--color", "alway"], "got 'alway'; did you mean 'always'?"),
        (["check", "m.py", "--lr", "0"], "--lr: expected a number above 0, got 0.0"),
        (["check", "m.py", "--lr", "nan"], "--lr: expected a number above 0, got nan"),
        (["check", "m.py", "--lr", "fast"], "--lr"),
        (["check", "m.py", "--steps", "-1"], "--steps"),
        (["check", "m.py", "--batch-size", "0"], "--batch-size"),
        (["check", "m.py", "--seed", "x"], "--seed"),
        (["check", "m.py", "--stepz", "3"], "--stepz"),
        (["check", "m.py", "--select", "bounded-outputs"], "did you mean 'bounded-output'?"),
        (["check", "m.py", "--ignore", "GL999"], "no rule 'GL999'; 'gradlint rules' lists all"),
        (["check", "m.py", "--extend-select", "X"], "no rule 'X'"),
        (["check", "m.py", "--config", "no.toml"], "expected a configuration file at 'no.toml'"),
        (["chek", "m.py"], "'check'"),
        (["explain"], "expected one rule to explain, or --all"),
        (["explain", "bounded-outpt"], "no rule 'bounded-outpt'; did you mean 'bounded-output'?"),
        (["rules", "GL999"], "no rule 'GL999'"),
        (["rules", "-f", "xml"], "--format: expected one of full, markdown, json, got 'xml'"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_exit_code_2(run, session, arguments, sentence):
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert sentence in result.stderr
    assert session.calls == []


def test_options_reach_the_session(run, session):
    run(
        *("check", "m.py:net", "--input", "4x3", "--input", "mask=4", "--loss", "mse"),
        *("--optimizer", "sgd", "--lr", "0.5", "--batch-size", "8", "--steps", "0"),
        *("--seed", "7", "--seeds", "1", "--device", "cuda:1", "--precision", "bf16"),
    )

    ((target, options),) = session.calls
    config = options.pop("config")
    assert target == "m.py:net"
    assert config.fail_on == "error"
    assert options == {
        "inputs": ("4x3", "mask=4"),
        "loss": "mse",
        "optimizer": "sgd",
        "lr": 0.5,
        "batch_size": 8,
        "steps": 0,
        "seed": 7,
        "seeds": 1,
        "device": "cuda:1",
        "precision": "bf16",
        "progress": None,
    }


def test_what_is_not_asked_for_is_left_to_the_session(run, session):
    run("check", "m.py")

    ((_, options),) = session.calls
    assert set(options) == {"config", "inputs", "seed", "progress"}


def test_settings_come_from_the_targets_folder_and_the_command_line_wins(run, session, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "m.py").write_text("")
    (folder / "gradlint.yaml").write_text(
        "ignore: [GL1]\nfail-on: warning\n"
        "target: {model: net, input: [4x3], loss: mse, lr: 0.1, batch-size: 4}\n"
    )

    run("check", "inner/m.py", "--loss", "l1", "--fail-on", "note", "--ignore", "GL6")

    ((target, options),) = session.calls
    assert target == "inner/m.py:net"
    assert options["config"].ignore == ("GL1", "GL6")
    assert options["config"].fail_on == "note"
    assert (options["loss"], options["inputs"]) == ("l1", ("4x3",))
    assert (options["lr"], options["batch_size"]) == (0.1, 4)


def test_the_settings_own_target_is_checked_where_none_is_named(run, session, tmp_path):
    (tmp_path / "gradlint.yaml").write_text("target: {path: models/m.py}\n")

    run("check")

    assert [target for target, _ in session.calls] == ["models/m.py"]


def test_what_is_selected_by_name_is_not_ignored_because_of_a_file(run, session, tmp_path):
    (tmp_path / "gradlint.yaml").write_text("ignore: [GL603]\n")

    run("check", "m.py", "--select", "GL603,GL601")

    config = session.calls[0][1]["config"]
    assert (config.select, config.ignore) == (("GL603", "GL601"), ())


def test_isolated_reads_no_file(run, session, tmp_path):
    (tmp_path / "gradlint.yaml").write_text("nonsense: 1\n")

    assert run("check", "m.py", "--isolated").exit_code == 0
    assert run("check", "m.py").exit_code == 2


def test_exit_zero_asks_for_no_failure(run, session):
    run("check", "m.py", "--exit-zero")

    assert session.calls[0][1]["config"].fail_on == "never"


def test_a_note_about_shadowed_settings_goes_to_stderr_unless_quiet(run, session, tmp_path):
    (tmp_path / "gradlint.yaml").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.gradlint]\n")

    assert "pyproject.toml is not read" in run("check", "m.py").stderr
    assert run("check", "m.py", "-q").stderr == ""


def test_show_settings_prints_what_holds_and_checks_nothing(run, session, tmp_path):
    (tmp_path / "gradlint.yaml").write_text("select: [GL603]\n")

    result = run("check", "m.py", "--show-settings", "--fail-on", "note")

    assert result.exit_code == 0
    assert f"# from {tmp_path / 'gradlint.yaml'}" in result.stdout
    assert "fail-on: note" in result.stdout
    assert "# rules that run: GL603" in result.stdout
    assert session.calls == []


def test_what_the_target_prints_goes_to_stderr(run, session):
    def noisy():
        print("epoch 1")
        sys.stdout.write("loss 2\n")
        return healthy_report()

    session.answers["m.py"] = noisy
    result = run("check", "m.py", "-f", "json")

    assert json.loads(result.stdout)["verdict"] == "healthy"
    assert "epoch 1\nloss 2\n" in result.stderr


def test_the_target_does_not_see_our_arguments(run, session, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gradlint", "check", "dir/m.py:net"])
    seen = []
    session.answers["dir/m.py:net"] = lambda: seen.append(list(sys.argv)) or healthy_report()

    run("check", "dir/m.py:net")

    assert seen == [["dir/m.py"]]
    assert sys.argv == ["gradlint", "check", "dir/m.py:net"]


def test_formats_go_to_files_and_one_to_stdout(run, session, tmp_path):
    result = run("check", "sick.py", "-f", "concise", "-f", "json:r.json", "-f", "full:r.txt")

    assert result.stdout.startswith("deep_sigmoid.py:12: GL301")
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "unhealthy"
    assert (tmp_path / "r.txt").read_text(encoding="utf-8").startswith("✗ unhealthy")


def test_a_report_into_a_file_leaves_stdout_empty(run, session):
    assert run("check", "sick.py", "-f", "json:r.json").stdout == ""


def test_a_file_has_no_color_even_where_color_is_asked_for(run, session, tmp_path):
    result = run("check", "sick.py", "--color", "always", "-f", "full:r.txt", "-f", "full")

    assert "\x1b[" in result.stdout
    assert "\x1b[" not in (tmp_path / "r.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "environment", "colored"),
    [
        ([], {}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_color_only_on_a_terminal_or_where_asked_for(run, session, arguments, environment, colored):
    result = run("check", "sick.py", *arguments, env={"TERM": "xterm", **environment})

    assert ("\x1b[" in result.stdout) is colored


def test_the_report_is_as_wide_as_the_terminal_up_to_a_limit(run, session):
    def width(columns):
        text = run("check", "sick.py", env={"COLUMNS": str(columns)}).stdout
        return max(map(len, text.splitlines()))

    assert width(60) <= 60
    assert width(300) <= 100


def test_quiet_and_verbose_reach_the_report(run, session):
    session.answers["m.py"] = sick_report

    assert "layers.6" not in run("check", "m.py", "-q").stdout
    assert "GL802: no recurrence" in run("check", "m.py", "-v").stdout


def test_dry_run_tells_what_was_found_and_assumed(run, session):
    result = run("check", "m.py", "--dry-run")

    assert result.exit_code == 0
    assert "assumed loss  mse" in result.stdout
    assert "device" not in result.stdout
    data = json.loads(run("check", "m.py", "--dry-run", "-f", "json").stdout)
    assert data["assumed"] == {"loss": "mse"}


def test_nothing_found_in_a_dry_run_is_an_error_too(run, session, monkeypatch):
    module = sys.modules["gradlint.session"]

    def lost(target, **_):
        raise TargetNotFoundError(f"no such file {target!r}")

    monkeypatch.setattr(module, "describe_target", lost)
    result = run("check", "m.py", "--dry-run")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "gradlint: no such file 'm.py'\n"


def test_an_interruption_ends_it_with_130(run, session):
    session.answers["m.py"] = raising(KeyboardInterrupt())

    assert run("check", "m.py").exit_code == 130


def test_rules_lists_every_rule_once(run):
    result = run("rules")

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        rule.code for rule in all_rules()
    ]


def test_rules_can_be_narrowed_and_read_by_machines(run):
    data = json.loads(run("rules", "GL603", "-f", "json").stdout)

    assert [entry["name"] for entry in data] == ["bounded-output"]
    assert data[0]["options"]["error_excess"] == 1.0
    assert run("rules", "-f", "markdown").stdout.startswith("| code | name |")


@pytest.mark.parametrize("wanted", ["GL603", "gl603", "bounded-output"])
def test_explain_takes_a_code_or_a_name(run, wanted):
    result = run("explain", wanted)

    assert result.exit_code == 0
    assert result.stdout.startswith("# GL603 bounded-output\n")
    assert "## When it is wrong" in result.stdout


def test_explain_all_explains_all(run):
    text = run("explain", "--all").stdout

    assert all(f"# {rule.code} {rule.name}\n" in text for rule in all_rules())


def test_without_a_command_the_help_is_shown(run):
    result = run()

    assert result.exit_code == 2
    assert "check" in result.stdout
    assert "explain" in result.stdout
