from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.summed_loss import SummedLoss
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import LossFacts


@pytest.mark.parametrize(
    ("reduction", "kinds", "flagged"),
    [
        ("sum", ("linear", "mse"), True),
        ("mean", ("linear", "mse"), False),
        ("none", ("linear", "mse"), False),
        ("sum", ("linear", "mse", "div"), False),
        ("sum", ("linear", "mse", "scale"), False),
    ],
)
def test_a_sum_that_nothing_divides_is_noted(reduction, kinds, flagged) -> None:
    trace = trace_of(losses=(LossFacts("mse", reduction, operation=1),), operations=chain(*kinds))

    found = findings_of(SummedLoss(), trace)

    assert [f.severity for f in found] == ([Severity.NOTE] if flagged else [])


def test_the_message_names_the_loss() -> None:
    (found,) = findings_of(SummedLoss(), trace_of(losses=(LossFacts("mse", "sum"),)))

    assert found.message == (
        "mse is summed over the batch: its gradient scales with the batch size"
    )


def test_without_a_loss_there_is_nothing_to_say() -> None:
    assert findings_of(SummedLoss(), trace_of()) == ()
