from __future__ import annotations

from gradlint.finding import Severity
from gradlint.rules.duplicate_parameters import DuplicateParameters
from gradlint.testing import findings_of, trace_of
from gradlint.trace import OptimizerFacts


def test_a_parameter_listed_twice_is_a_warning() -> None:
    optimizer = OptimizerFacts("SGD", duplicates=("head.weight",))

    (found,) = findings_of(DuplicateParameters(), trace_of(optimizer=optimizer))

    assert found.severity is Severity.WARNING
    assert found.message == (
        "head.weight is listed more than once in the optimizer: it is updated twice a step"
    )
    assert found.module == "head"


def test_without_duplicates_there_is_nothing_to_say() -> None:
    assert findings_of(DuplicateParameters(), trace_of(optimizer=OptimizerFacts("SGD"))) == ()
    assert findings_of(DuplicateParameters(), trace_of()) == ()
