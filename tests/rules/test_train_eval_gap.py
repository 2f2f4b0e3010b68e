"""GL807 train-eval-gap."""

from __future__ import annotations

from typing import Any

import pytest

from gradlint.diagnosis.judge import judge
from gradlint.rules.train_eval_gap import TrainEvalGap
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, Trace

CALL = {
    "function": "F.dropout",
    "why": "default",
    "module": "head",
    "rate": 0.5,
    "on_purpose": False,
    "library": False,
    "file": "model.py",
    "line": 12,
}


def seen(*calls: dict[str, Any], change: float = 0.37) -> Trace:
    return trace_of(
        observe("loss", "", [2.0, 1.0, 0.9]),
        modules=[ModuleFacts("head", "Head", 3, calls=1)],
        probes={"evaluation-mode": {"change": change, "calls": [CALL | call for call in calls]}},
    )


def severities(trace: Trace) -> list[str]:
    return [found.severity.label for found in findings_of(TrainEvalGap(), trace)]


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(seen({}), ["warning"], id="training-not-given"),
        pytest.param(seen({"why": "always"}), ["warning"], id="attention-without-a-mode"),
        pytest.param(seen({"why": "hidden"}), ["warning"], id="a-module-eval-does-not-reach"),
        pytest.param(seen({"why": "given"}), ["note"], id="said-so"),
        pytest.param(seen({"on_purpose": True}), ["note"], id="monte-carlo-dropout"),
        pytest.param(seen({"library": True}), ["note"], id="an-installed-package"),
        pytest.param(seen({"why": "statistics"}, change=0.0), ["note"], id="batch-norm"),
        pytest.param(seen({}, {"line": 14}), ["warning"], id="two-lines-are-one-finding"),
        pytest.param(seen({}, {"why": "given"}), ["warning", "note"], id="one-of-each"),
        pytest.param(seen({}, change=0.0), [], id="nothing-reaches-the-output"),
        pytest.param(seen(change=0.0), [], id="no-such-call"),
    ],
)
def test_flags_what_acts_as_in_training(trace: Trace, expected: list[str]) -> None:
    assert severities(trace) == expected


def test_the_message_says_what_why_and_how_much() -> None:
    (found,) = findings_of(TrainEvalGap(), seen({}))

    assert found.message == (
        "F.dropout drops 0.5 of its entries in evaluation mode, too: `training` is not given, "
        "and True by default; without such calls outputs change by 0.37 of their size"
    )
    assert (found.module, found.step) == ("head", 3)
    assert found.source is not None
    assert (found.source.file, found.source.line) == ("model.py", 12)


def test_without_a_line_it_has_no_source() -> None:
    (found,) = findings_of(TrainEvalGap(), seen({"file": "", "line": 0}))

    assert found.source is None


def test_of_statistics_it_says_what_evaluation_changes() -> None:
    (found,) = findings_of(TrainEvalGap(), seen({"function": "F.batch_norm", "why": "statistics"}))

    assert found.message.startswith("F.batch_norm normalizes by the batch in evaluation mode, too")
    assert "F.batch_norm" in found.help


def test_is_skipped_where_nothing_was_evaluated() -> None:
    skipped = judge(trace_of(), [TrainEvalGap()]).skipped

    assert skipped == {"GL807": "the model was not run in evaluation mode"}
