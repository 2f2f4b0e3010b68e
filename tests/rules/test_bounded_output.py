from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.bounded_output import BoundedOutput
from gradlint.testing import chain, findings_of, trace_of
from gradlint.trace import LossFacts, TensorFacts, Trace


def values(low: float, high: float, mean: float = 0.0, std: float = 1.0) -> TensorFacts:
    return TensorFacts("values", (32, 1), "float32", low, high, mean, std)


INSIDE = values(0.0, 0.9, 0.4, 0.2)


def regression(
    *kinds: str, target: TensorFacts, output: TensorFacts | None = INSIDE, **facts: object
) -> Trace:
    operations = chain(*kinds, "mse")
    loss = LossFacts("mse", output=output, target=target, operation=len(kinds))
    return trace_of(operations=operations, losses=(loss,), **facts)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(values(-2.5, 2.5), Severity.ERROR, id="half-out-of-reach"),
        pytest.param(values(0.0, 7.0, 3.0), None, id="counts"),
        pytest.param(values(-0.25, 4.0, 2.0), None, id="exactly-at-the-limit"),
        pytest.param(values(-0.26, 4.0, 2.0), Severity.WARNING, id="just-over-it"),
        pytest.param(values(-3.0, 4.0, 2.1), Severity.WARNING, id="an-outlier-far-from-the-bulk"),
        pytest.param(values(-3.0, -3.0, -3.0, 0.0), Severity.ERROR, id="constant-targets"),
    ],
)
def test_a_relu_in_front_of_mse_is_judged_by_the_targets(target, expected) -> None:
    found = findings_of(BoundedOutput(), regression("linear", "relu", target=target))

    assert [f.severity for f in found] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("kinds", "flagged"),
    [
        (("linear", "sigmoid"), True),
        (("linear", "tanh", "view"), True),
        (("linear", "sigmoid", "avg_pool"), True),
        (("linear", "sigmoid", "scale"), False),
        (("linear", "tanh", "shift"), False),
        (("linear", "sigmoid", "linear"), False),
        (("linear",), False),
        (("linear", "leaky_relu"), False),
    ],
)
def test_only_the_last_function_bounds_the_output(kinds, flagged) -> None:
    trace = regression(*kinds, target=values(-9.0, 9.0, 0.0, 3.0))

    assert bool(findings_of(BoundedOutput(), trace)) is flagged


def test_an_autoencoder_of_pixels_is_healthy() -> None:
    pixels = values(0.0, 1.0, 0.5, 0.3)

    assert findings_of(BoundedOutput(), regression("linear", "sigmoid", target=pixels)) == ()
    centered = values(-1.0, 1.0, 0.0, 0.5)
    trace = regression("linear", "tanh", target=centered, output=values(-0.9, 0.9))
    assert findings_of(BoundedOutput(), trace) == ()


def test_outputs_and_targets_may_be_swapped_in_the_call() -> None:
    trace = regression("linear", "relu", target=INSIDE, output=values(-2.5, 2.5))

    assert [f.severity for f in findings_of(BoundedOutput(), trace)] == [Severity.ERROR]


def test_a_bound_that_the_output_itself_leaves_is_not_believed() -> None:
    wide = values(-5.0, 5.0)

    assert (
        findings_of(BoundedOutput(), regression("linear", "relu", target=wide, output=wide)) == ()
    )


def test_made_up_targets_say_nothing() -> None:
    trace = regression("linear", "relu", target=values(-2.5, 2.5), synthesized=True)

    assert findings_of(BoundedOutput(), trace) == ()


def classification(kind: str, *kinds: str) -> Trace:
    tail = ("log_softmax", "nll") if kind == "cross_entropy" else (kind,)
    operations = chain(*kinds, *tail)
    return trace_of(operations=operations, losses=(LossFacts(kind, operation=len(operations) - 1),))


@pytest.mark.parametrize(
    ("kind", "kinds", "expected"),
    [
        ("cross_entropy", ("linear", "relu"), Severity.WARNING),
        ("cross_entropy", ("linear", "tanh"), Severity.WARNING),
        ("bce_with_logits", ("linear", "relu"), Severity.ERROR),
        ("bce_with_logits", ("linear", "tanh"), Severity.WARNING),
        ("cross_entropy", ("conv", "relu", "avg_pool", "view"), None),
        ("cross_entropy", ("linear", "tanh", "scale"), None),
        ("cross_entropy", ("linear", "relu", "linear"), None),
        ("bce", ("linear", "relu"), None),
    ],
)
def test_logits_are_to_be_unbounded(kind, kinds, expected) -> None:
    found = findings_of(BoundedOutput(), classification(kind, *kinds))

    assert [f.severity for f in found] == ([] if expected is None else [expected])


def test_the_message_names_both_ranges() -> None:
    trace = regression("linear", "relu", target=values(-2.5, 2.5))

    (found,) = findings_of(BoundedOutput(), trace)

    assert found.message == "relu gives values in 0 and above, the targets reach from -2.5 to 2.5"
    assert found.module == "1"


def test_an_output_with_an_unbounded_part_is_silent() -> None:
    for kind, target in (("mse", values(-2.5, 2.5)), ("bce_with_logits", None)):
        operations = (
            Operation(0, "linear", "", "0"),
            Operation(1, "relu", "", "1", (0,)),
            Operation(2, "linear", "", "2"),
            Operation(3, "concat", "", "", (1, 2)),
            Operation(4, kind, "", None, (3,), in_loss=True),
        )
        loss = LossFacts(kind, output=INSIDE, target=target, operation=4)

        assert findings_of(BoundedOutput(), trace_of(operations=operations, losses=(loss,))) == ()


def test_a_prediction_that_is_not_known_is_silent() -> None:
    loss = LossFacts("mse", output=INSIDE, target=values(-2.5, 2.5))

    assert findings_of(BoundedOutput(), trace_of(losses=(loss,))) == ()


@pytest.mark.parametrize("output", [None, replace(INSIDE, non_finite=3)], ids=["unknown", "nan"])
def test_an_output_that_tells_nothing_is_silent(output: TensorFacts | None) -> None:
    trace = regression("linear", "relu", target=values(-2.5, 2.5), output=output)

    assert findings_of(BoundedOutput(), trace) == ()


@pytest.mark.parametrize(
    ("quantiles", "flagged"),
    [
        pytest.param((-0.3, -0.1, 0.0, 0.1, 0.5, 1.2), False, id="noise-around-pixels"),
        pytest.param((-1.5, -0.5, 0.0, 0.5, 1.0, 1.5), True, id="half-below-zero"),
        pytest.param((-0.734, 0.0, 0.2, 0.4, 0.6, 0.8), False, id="just-below-the-limit"),
        pytest.param((-0.736, 0.0, 0.2, 0.4, 0.6, 0.8), True, id="just-above-it"),
        pytest.param((), True, id="not-known"),
    ],
)
def test_what_a_bound_costs_is_what_counts(quantiles: tuple[float, ...], flagged: bool) -> None:
    target = replace(values(-2.5, 2.5), quantiles=quantiles)

    found = findings_of(BoundedOutput(), regression("linear", "relu", target=target))

    assert bool(found) is flagged


@pytest.mark.parametrize("quantiles", [(), (-3.0,) * 20], ids=["not-known", "known"])
def test_constant_targets_out_of_reach_are_flagged(quantiles: tuple[float, ...]) -> None:
    target = replace(values(-3.0, -3.0, -3.0, 0.0), quantiles=quantiles)

    assert findings_of(BoundedOutput(), regression("linear", "relu", target=target))
