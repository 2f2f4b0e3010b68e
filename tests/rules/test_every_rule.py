"""What must hold of every rule, also of those not written yet."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradlint
from gradlint.config import Config
from gradlint.diagnosis.exemptions import EXEMPTIONS
from gradlint.diagnosis.mechanisms import MECHANISMS
from gradlint.explain import page
from gradlint.metrics import all_metrics
from gradlint.report import Report
from gradlint.rules import Rule, all_rules
from gradlint.testing import documented_programs, findings_of, trace_of

HEADINGS = [
    "## What it does",
    "## Why is this bad?",
    "## Example",
    "## When it is wrong",
    "## References",
]
ROOT = Path(__file__).parents[2]

every_rule = pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.name)


def judged(program: str) -> Report:
    """Run a documented program and check the model it defines."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": functional}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(program, "<example>", "exec"), names)
        return gradlint.check(
            names["model"],
            names.get("batch"),
            names.get("loss_fn"),
            names.get("optimizer"),
            training_step=names.get("training_step"),
            seeds=1,
            cures=False,
            steps=40,  # whatever the machine's speed
            config=Config(),
        )


def test_codes_and_names_are_unique() -> None:
    assert len({rule.code for rule in all_rules()}) == len(all_rules())
    assert len({rule.name for rule in all_rules()}) == len(all_rules())


@every_rule
def test_code_name_and_file_agree(rule: type[Rule]) -> None:
    assert re.fullmatch(r"GL\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.__module__ == f"gradlint.rules.{rule.name.replace('-', '_')}"
    assert (ROOT / "tests" / "rules" / f"test_{rule.name.replace('-', '_')}.py").is_file()


@every_rule
def test_metrics_exist(rule: type[Rule]) -> None:
    assert set(rule.metrics) <= set(all_metrics())


@every_rule
def test_headings_are_present_and_in_order(rule: type[Rule]) -> None:
    text = inspect.cleandoc(rule.__doc__ or "")

    assert re.findall(r"^## .*$", text, re.MULTILINE) == HEADINGS
    assert len(text.partition("\n")[0]) <= 100


@every_rule
def test_every_option_is_explained(rule: type[Rule]) -> None:
    unexplained = [f.name for f in fields(rule) if f"`{f.name}`" not in (rule.__doc__ or "")]

    assert unexplained == []


@every_rule
def test_help_says_what_to_do(rule: type[Rule]) -> None:
    assert rule.help.endswith(".")
    assert not re.search(r"\b(may|might|possibly|perhaps)\b", rule.help)


@every_rule
def test_the_page_holds_help_and_options(rule: type[Rule]) -> None:
    text = page(rule)

    assert text.startswith(f"# {rule.code} {rule.name}")
    assert rule.help in text


@every_rule
def test_an_empty_trace_is_no_finding(rule: type[Rule]) -> None:
    assert findings_of(rule(), trace_of()) == ()


SLOW = {"vanishing-signal", "exploding-signal", "growing-residual"}
"""Rules whose examples are deep networks, tried at every cure; in CI alone."""


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=rule.name, marks=[pytest.mark.slow] if rule.name in SLOW else [])
        for rule in all_rules()
    ],
)
def test_the_example_is_flagged_and_the_cure_is_silent(rule: type[Rule]) -> None:
    sick, cured = documented_programs(rule)
    if "--against" in sick:
        pytest.skip("two runs: tests/rules/test_regression.py")
    if "for step in range(" in sick:
        pytest.skip("a loop: run by tests/watch/test_documented_loops.py")

    assert rule.code in {found.code for found in judged(sick).findings}
    assert rule.code not in {found.code for found in judged(cured).findings}


def test_rules_do_not_import_torch_or_the_observing_side() -> None:
    forbidden = ("torch", "gradlint.hooks", "gradlint.metrics", "gradlint.engine")
    for file in (ROOT / "gradlint" / "rules").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(m.startswith(forbidden) for m in modules), file.name


def test_mechanisms_and_exemptions_name_codes_of_the_catalogue() -> None:
    pattern = re.compile(r"GL\d{3}")
    named = {c for m in MECHANISMS for c in (*m.causes, *m.symptoms)}
    named |= {code for exemption in EXEMPTIONS for code in exemption.codes}

    assert all(pattern.fullmatch(code) for code in named)
    assert len({m.name for m in MECHANISMS}) == len(MECHANISMS)
    assert len({e.name for e in EXEMPTIONS}) == len(EXEMPTIONS)


def test_the_readme_table_is_current() -> None:
    from gradlint.explain import with_catalogue

    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert with_catalogue(readme) == readme, "run: python -m gradlint.explain --readme"
