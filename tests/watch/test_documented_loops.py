"""The rules' examples that are loops: watched as they stand, the sick one flagged, the cure not."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradlint.report import Report
from gradlint.rules import Rule, all_rules
from gradlint.testing import documented_programs
from gradlint.watching import Watcher

LOOPS = [
    pytest.param(rule, id=rule.name)
    for rule in all_rules()
    if "for step in range(" in documented_programs(rule)[0]
]


def watched(program: str) -> Report:
    """Run a documented loop as `gradlint run` would, every step looked at."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": functional}
    watcher = Watcher({}, every=1, discover=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watcher.start()
        try:
            exec(compile(program, "<example>", "exec"), names)
        finally:
            watcher.stop()
        return watcher.report


@pytest.mark.parametrize("rule", LOOPS)
def test_the_example_is_flagged_and_the_cure_is_silent(rule: type[Rule]) -> None:
    sick, cured = documented_programs(rule)
    if "torch.distributed" in sick:
        pytest.skip("several processes: see the tests of ranks")

    assert rule.code in {found.code for found in watched(sick).findings}
    assert rule.code not in {found.code for found in watched(cured).findings}
