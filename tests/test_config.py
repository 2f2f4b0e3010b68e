"""Settings: where they are found, how rules are chosen, what is refused and how."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from gradlint import selection
from gradlint.config import (
    Config,
    active_rules,
    apply_severity,
    find_config,
    load_config,
    module_ignores,
    parse_config,
    read_config,
    take_suppressed,
)
from gradlint.diagnosis.judge import judge
from gradlint.errors import ConfigError
from gradlint.finding import Finding, Severity
from gradlint.rules.base import Rule
from gradlint.testing import trace_of
from gradlint.trace import Trace


@dataclass(frozen=True)
class DeadUnits(Rule):
    """Units that never fire."""

    code: ClassVar = "GL201"
    name: ClassVar = "dead-units"
    severity: ClassVar = Severity.WARNING

    max_fraction: float = 0.5
    min_steps: int = 5
    kinds: tuple[str, ...] = ("relu",)
    strict: bool = False

    def check(self, trace: Trace) -> Iterator[Finding]:
        for module in ("encoder.0", "encoder.1", "head"):
            yield self.finding(module, f"{module} is dead")


@dataclass(frozen=True)
class Vanishing(Rule):
    """A gradient that vanishes."""

    code: ClassVar = "GL301"
    name: ClassVar = "vanishing-gradient"
    severity: ClassVar = Severity.ERROR

    def check(self, trace: Trace) -> Iterator[Finding]:
        yield from ()


@dataclass(frozen=True)
class Exploding(Rule):
    """A gradient that explodes."""

    code: ClassVar = "GL302"
    name: ClassVar = "exploding-gradient"
    severity: ClassVar = Severity.ERROR

    def check(self, trace: Trace) -> Iterator[Finding]:
        yield from ()


@pytest.fixture(autouse=True)
def three_rules(monkeypatch):
    monkeypatch.setattr(selection, "all_rules", lambda: (DeadUnits, Vanishing, Exploding))


def codes(config: Config) -> list[str]:
    return [rule.code for rule in active_rules(config)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, ["GL201", "GL301", "GL302"], id="all"),
        pytest.param({"select": ["GL3"]}, ["GL301", "GL302"], id="prefix"),
        pytest.param({"select": ["gl301"]}, ["GL301"], id="any-case"),
        pytest.param({"select": ["dead-units"]}, ["GL201"], id="name"),
        pytest.param({"select": []}, [], id="none"),
        pytest.param({"ignore": ["GL3"]}, ["GL201"], id="ignore"),
        pytest.param({"select": ["GL3"], "ignore": ["GL301"]}, ["GL302"], id="longer-ignore-wins"),
        pytest.param({"select": ["GL301"], "ignore": ["GL3"]}, ["GL301"], id="longer-select-wins"),
        pytest.param({"select": ["GL301"], "ignore": ["GL301"]}, [], id="ignore-wins-a-draw"),
        pytest.param({"ignore": ["ALL"], "select": ["GL2"]}, ["GL201"], id="all-is-weakest"),
        pytest.param(
            {"select": ["GL2"], "extend-select": ["GL301"]}, ["GL201", "GL301"], id="extended"
        ),
    ],
)
def test_the_longest_selector_decides_which_rules_run(settings, expected):
    assert codes(parse_config(settings)) == expected


def test_options_reach_the_rule_by_name_or_code_in_either_spelling():
    (rule,) = active_rules(
        parse_config(
            {
                "select": ["GL201"],
                "rules": {
                    "dead-units": {"max-fraction": 1, "kinds": ["elu"]},
                    "GL201": {"min_steps": 3},
                },
            }
        )
    )

    assert rule == DeadUnits(max_fraction=1.0, min_steps=3, kinds=("elu",))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"selct": []}, "no setting 'selct'; did you mean 'select'?"),
        ({"fail_onn": "error"}, "no setting 'fail_onn'; did you mean 'fail-on'?"),
        ({"target": {"modle": "x"}}, "no setting of 'target' 'modle'; did you mean 'model'?"),
        ({"select": ["dead-unit"]}, "no rule 'dead-unit'; did you mean 'dead-units'?"),
        ({"ignore": ["GL9"]}, "no rule 'GL9'; 'gradlint rules' lists all"),
        ({"severity": {"GL7": "note"}}, "no rule 'GL7'; 'gradlint rules' lists all"),
        ({"per-module-ignores": {"a.*": ["GL7"]}}, "no rule 'GL7'; 'gradlint rules' lists all"),
        ({"rules": {"dead": {}}}, "no rule 'dead'; 'gradlint rules' lists all"),
        ({"rules": {"GL3": {}}}, "expected one rule, by its name or code, got 'GL3'"),
        (
            {"rules": {"dead-units": {"max_fractoin": 1}}},
            "no option of rule 'dead-units' 'max_fractoin'; did you mean 'max_fraction'?",
        ),
        (
            {"rules": {"GL301": {"limit": 1}}},
            "rule 'vanishing-gradient' has no options, got 'limit'",
        ),
        (
            {"rules": {"GL201": {"min_steps": 1.5}}},
            "expected an int for option 'min_steps' of rule 'dead-units', got 1.5",
        ),
        (
            {"rules": {"GL201": {"max_fraction": True}}},
            "expected a float for option 'max_fraction' of rule 'dead-units', got True",
        ),
        (
            {"rules": {"GL201": {"kinds": "elu"}}},
            "expected a list for option 'kinds' of rule 'dead-units', got 'elu'",
        ),
        ({"select": "GL3"}, "expected a valid list for 'select', got 'GL3'"),
        (
            {"fail-on": "eror"},
            "expected 'error', 'warning', 'note' or 'never' for 'fail-on', got 'eror'",
        ),
        (
            {"severity": {"GL3": "fatal"}},
            "expected 'error', 'warning' or 'note' for 'severity.GL3', got 'fatal'",
        ),
    ],
)
def test_what_is_unknown_is_refused_with_the_file_and_what_was_meant(settings, sentence):
    with pytest.raises(ConfigError) as raised:
        parse_config(settings, "gradlint.yaml")

    assert str(raised.value) == f"{sentence} (in gradlint.yaml)"


def test_settings_are_found_in_the_closest_folder_that_has_any(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.gradlint]\nignore = ['GL3']\n")
    inner = tmp_path / "package"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[tool.other]\n")

    assert load_config(inner).ignore == ("GL3",)
    found = find_config(inner)
    assert found is not None
    assert found.path == tmp_path / "pyproject.toml"


def test_files_of_outer_folders_are_not_merged(tmp_path):
    (tmp_path / "gradlint.yaml").write_text("ignore: [GL3]\n")
    inner = tmp_path / "package"
    inner.mkdir()
    (inner / ".gradlint.yaml").write_text("fail-on: warning\n")

    config = load_config(inner)

    assert (config.ignore, config.fail_on) == ((), "warning")


def test_yaml_wins_over_toml_beside_it_and_says_so(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.gradlint]\nignore = ['GL3']\n")
    (tmp_path / "gradlint.yaml").write_text("ignore: [GL2]\n")

    found = find_config(tmp_path)

    assert found is not None
    assert read_config(found.path).ignore == ("GL2",)
    assert found.notes == (
        f"settings come from {tmp_path / 'gradlint.yaml'}; "
        f"{tmp_path / 'pyproject.toml'} is not read",
    )


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("gradlint.yaml", "select: [", "cannot be read"),
        ("gradlint.yaml", "- GL3\n", "expected settings as 'key: value'"),
        ("pyproject.toml", "[tool.gradlint\n", "cannot be read"),
        ("pyproject.toml", "[tool]\ngradlint = 3\n", "expected a table [tool.gradlint]"),
        ("pyproject.toml", "[tool.ruff]\n", "expected a section [tool.gradlint]"),
    ],
)
def test_a_file_that_holds_no_settings_is_named(tmp_path, name, text, part):
    (tmp_path / name).write_text(text)

    with pytest.raises(ConfigError) as raised:
        read_config(tmp_path / name)

    assert part in str(raised.value)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_yaml_file_means_the_defaults(tmp_path):
    (tmp_path / "gradlint.yaml").write_text("# nothing yet\n")

    assert load_config(tmp_path) == Config()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a configuration file"):
        read_config(tmp_path / "nope.toml")


def test_settings_written_out_are_read_back_the_same():
    config = parse_config(
        {"select": ["GL3"], "severity": {"GL301": "note"}, "target": {"input": ["4x3"], "lr": 0.1}}
    )

    assert parse_config(config.settings()) == config


def test_severities_are_overridden_by_the_longest_selector():
    findings = [
        Finding(code=code, rule="r", severity=Severity.ERROR, message="m")
        for code in ("GL201", "GL301", "GL302")
    ]
    config = parse_config({"severity": {"GL301": "note", "GL3": "warning"}})

    changed = apply_severity(findings, config)

    assert [f.severity for f in changed] == [Severity.ERROR, Severity.NOTE, Severity.WARNING]


def test_modules_are_ignored_place_by_place_and_told_as_suppressed():
    config = parse_config({"select": ["GL201"], "per-module-ignores": {"encoder.*": ["GL2"]}})

    judgement = judge(trace_of(), active_rules(config), module_ignores(config))
    judgement, suppressed = take_suppressed(judgement)

    assert [f.modules for f in judgement.findings] == [("head",)]
    assert [(s.code, s.module, s.by) for s in suppressed] == [
        ("GL201", "encoder.0", "config"),
        ("GL201", "encoder.1", "config"),
    ]
    assert judgement.explained == ()


def test_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().fail_on = "note"  # type: ignore[misc]


def test_reading_settings_does_not_import_torch():
    code = "import sys, gradlint.config as c; c.load_config('.'); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
