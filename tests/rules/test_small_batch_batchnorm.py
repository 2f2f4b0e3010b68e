from __future__ import annotations

import pytest

from gradlint.finding import Severity
from gradlint.rules.small_batch_batchnorm import SmallBatchBatchnorm
from gradlint.testing import findings_of, trace_of
from gradlint.trace import Event, ModuleFacts, Trace


def norm(*shape: int, kind: str = "BatchNorm2d", training: bool = True, **facts: object) -> Trace:
    module = ModuleFacts("bn", kind, 1, calls=1, training=training, input_shape=shape)
    return trace_of(modules=(module,), **facts)


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(norm(4, 8, kind="BatchNorm1d"), Severity.WARNING, id="few-samples"),
        pytest.param(norm(7, 8, kind="BatchNorm1d"), Severity.WARNING, id="just-below"),
        pytest.param(norm(8, 8, kind="BatchNorm1d"), Severity.NOTE, id="exactly-at-the-limit"),
        pytest.param(norm(31, 8, kind="BatchNorm1d"), Severity.NOTE, id="just-below-a-note"),
        pytest.param(norm(32, 8, kind="BatchNorm1d"), None, id="exactly-at-the-limit-of-a-note"),
        pytest.param(norm(2, 8, 4, 4), None, id="positions-count"),
        pytest.param(norm(1, 8, 1, 1), Severity.ERROR, id="one-value"),
        pytest.param(norm(1, 8, 11, kind="BatchNorm1d"), Severity.WARNING, id="of-one-sample"),
        pytest.param(norm(1, 8, 4, 8), None, id="one-sample-of-many-positions"),
        pytest.param(norm(4, 8, 1, 1, training=False), None, id="eval-mode"),
        pytest.param(norm(4, 8, kind="SyncBatchNorm"), None, id="all-ranks-count"),
        pytest.param(norm(4, 8, kind="LayerNorm"), None, id="another-normalization"),
        pytest.param(norm(4, 8, synthesized=True), None, id="our-own-batch-size"),
        pytest.param(trace_of(modules=(ModuleFacts("bn", "BatchNorm1d"),)), None, id="not-called"),
    ],
)
def test_values_per_channel_are_counted(trace, expected) -> None:
    found = findings_of(SmallBatchBatchnorm(), trace)

    assert [f.severity for f in found] == ([] if expected is None else [expected])


def test_what_torch_raises_is_named() -> None:
    detail = {"phase": "forward", "message": "Expected more than 1 value per channel when training"}
    trace = trace_of(events=(Event("exception", module="bn", detail=detail),))

    (found,) = findings_of(SmallBatchBatchnorm(), trace)

    assert found.severity is Severity.ERROR
    assert found.module == "bn"


def test_the_message_counts_the_values() -> None:
    (found,) = findings_of(SmallBatchBatchnorm(), norm(2, 8, 1, 3))
    (note,) = findings_of(SmallBatchBatchnorm(), norm(2, 8, 3, 3))

    assert found.message == "BatchNorm estimates its statistics from 6 values a channel (limit 8)"
    assert note.message == "BatchNorm estimates its statistics from 18 values a channel (limit 32)"


def test_the_message_says_that_they_are_of_one_sample() -> None:
    (found,) = findings_of(SmallBatchBatchnorm(), norm(1, 8, 11, kind="BatchNorm1d"))

    assert found.message == (
        "BatchNorm estimates its statistics from 11 values a channel, all of one sample (limit 32)"
    )
