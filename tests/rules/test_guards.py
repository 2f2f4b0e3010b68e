"""Every guard of the rules is held by a test: without it, that test fails."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.finding_guards import guards_of
from tests.rules.guards import ROOT

UNNOTICED: dict[str, str] = {}
"""Guards without which all tests pass, with the reason why that is so."""


def names(path: Path, source: str) -> list[str]:
    path.write_text(source)
    return [guard.name for guard in guards_of(path)]


def test_a_guard_is_an_if_that_only_leaves_and_each_part_of_it(tmp_path: Path) -> None:
    found = names(
        tmp_path / "rule.py",
        "class Rule:\n"
        "    def check(self, xs):\n"
        "        for x in xs:\n"
        "            if x < 0 or x > 9:\n"
        "                continue\n"
        "            if x and xs:\n"
        "                print(x)\n"
        "        def inner():\n"
        "            if xs:\n"
        "                return\n",
    )

    assert found == [
        "rule.py:Rule.check: x < 0",
        "rule.py:Rule.check: x > 9",
        "rule.py:Rule.check.inner: xs",
    ]


def test_what_must_not_hold_besides_is_a_guard(tmp_path: Path) -> None:
    found = names(
        tmp_path / "rule.py",
        "def check(xs, far):\n"
        "    near = [x for x in xs if not far(x) if x]\n"
        "    if near and not xs[0] and xs[1]:\n"
        "        return sum(near) if not near else 0\n",
    )

    assert found == [
        "rule.py:check: if not far(x)",
        "rule.py:check: and not xs[0]",
        "rule.py:check: near and (not xs[0]) and xs[1]",
    ]


def test_a_predicate_is_a_guard_both_ways_and_a_name_is_not_given_twice(tmp_path: Path) -> None:
    found = names(
        tmp_path / "rule.py",
        "def _feeds(x: int) -> bool:\n"
        "    if not x:\n"
        "        return False\n"
        "    if not x:\n"
        "        return False\n"
        "    return True\n"
        "def says(x: int) -> bool:\n"
        "    return True\n",
    )

    assert found == [
        "rule.py:_feeds is True",
        "rule.py:_feeds is False",
        "rule.py:_feeds: not x",
        "rule.py:_feeds: not x #2",
    ]


@pytest.mark.parametrize("test", ["x > 1", "x > 1 and total", "not total"])
def test_a_function_runs_as_if_the_guard_were_not_there(tmp_path: Path, test: str) -> None:
    path = tmp_path / "rule.py"
    path.write_text(
        "def outer(total):\n"
        "    def check(x):\n"
        f"        if {test}:\n"
        "            return None\n"
        "        return x\n"
        "    return check(2)\n"
    )
    (guard,) = guards_of(path)

    def outer(total: int) -> int | None:
        return None

    outer.__code__ = guard.code

    assert guard.name == f"rule.py:outer.check: {ast.unparse(ast.parse(test))}"
    assert [outer(0), outer(1)] == [2, 2]


@pytest.mark.slow
def test_a_test_notices_every_guard() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rules.guards", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    noticed: dict[str, str | None] = json.loads(done.stdout)

    assert len(noticed) > 500
    assert {name for name, test in noticed.items() if test is None} == set(UNNOTICED)
