from __future__ import annotations

from collections.abc import Sequence

import pytest

from gradlint.finding import Severity
from gradlint.rules.frozen_but_moving import FrozenButMoving
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import LoopFacts, ModuleFacts, ParameterFacts, Trace

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def trace(
    *paths: str,
    held: bool | None = True,
    gradient: str = "present",
    changes: Sequence[float] = (1e-3,) * 4,
    gradients: Sequence[float] = (),
    shape: tuple[int, ...] = (8, 8),
    kind: str = "Linear",
    trained: Sequence[str] = ("head.weight",),
    by_hand: bool = False,
    models: int = 1,
) -> Trace:
    """Frozen parameters at `paths` that change, beside trained ones."""
    frozen = paths or ("trunk.weight",)
    parameters = [
        ParameterFacts(p, shape, module=p.rpartition(".")[0], requires_grad=False,
                       gradient=gradient, in_optimizer=held)
        for p in frozen
    ] + [
        ParameterFacts(p, shape, module=p.rpartition(".")[0], in_optimizer=True) for p in trained
    ]  # fmt: skip
    homes = dict.fromkeys(p.module for p in parameters)
    return trace_of(
        *[observe("frozen_change", p, changes, kind="parameter", start=2) for p in frozen],
        *[observe("gradient_norm", p, gradients, kind="parameter") for p in frozen],
        modules=[
            *([ModuleFacts("", "Net", 9, leaf=False)] if models == 1 else []),
            *[ModuleFacts(h, kind, i) for i, h in enumerate(homes)],
        ],
        parameters=parameters,
        loop=LoopFacts(steps=50, backwards=50, by_hand=by_hand),
    )


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(FrozenButMoving(), observed)]


ONLINE = ("online.a.weight", "online.b.weight", "online.c.weight")
SECOND = ("second.a.weight", "second.b.weight", "second.c.weight")


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(), [ERROR], id="by-the-optimizer"),
        pytest.param(trace(gradients=[2.0, 0.5, 0.5, 0.5]), [ERROR], id="a-stale-gradient"),
        pytest.param(trace(gradients=[2.0, 0.0, 0.0, 0.0]), [ERROR], id="zero-not-none"),
        pytest.param(trace(held=False), [WARNING], id="by-something-else"),
        pytest.param(trace(gradient="missing"), [WARNING], id="held-and-passed-over"),
        pytest.param(trace(*SECOND, trained=ONLINE), [NOTE], id="a-twin-that-is-trained"),
        pytest.param(
            trace("q2.0.weight", trained=("q1.0.weight",), held=False, models=2),
            [NOTE],
            id="another-model",
        ),
        pytest.param(trace("target_net.0.weight", held=False), [NOTE], id="target-network"),
        pytest.param(trace("ema_model.0.weight", held=False), [NOTE], id="ema"),
        pytest.param(trace("encoder_k.fc.weight", gradient="missing"), [NOTE], id="moco"),
        pytest.param(
            trace("codebook.weight", gradient="missing"), [NOTE], id="a-table-in-a-linear-layer"
        ),
        pytest.param(
            trace("flow.matrix", gradient="missing", kind="Actnorm"), [NOTE], id="of-no-layer"
        ),
        pytest.param(
            trace("quantizer.codebook", gradient="missing", kind="Quantizer"), [NOTE], id="codebook"
        ),
        pytest.param(
            trace("norm.center", shape=(8,), gradient="missing", kind="Norm"), [NOTE], id="a-vector"
        ),
        pytest.param(trace(held=None, by_hand=True), [NOTE], id="evolution-by-hand"),
        pytest.param(trace(changes=[0.0] * 6), [], id="frozen-for-good"),
        pytest.param(trace(changes=[1e-3, 0.0, 0.0, 1e-3]), [], id="loaded-again-at-times"),
        pytest.param(
            trace(gradients=[2.0, 1.5, 1.7, 1.2, 1.1]), [], id="frozen-in-turn-as-in-a-gan"
        ),
        pytest.param(trace_of(observe("frozen_change", "a.weight", [1.0] * 5)), [], id="check"),
    ],
)
def test_what_is_frozen_is_to_stay(observed, expected) -> None:
    assert severities(observed) == expected


def test_the_message_gives_the_largest_change() -> None:
    (found,) = findings_of(FrozenButMoving(), trace(changes=[1e-3, 2e-3, 5e-4]))

    assert found.parameter == "trunk.weight"
    assert found.message == (
        "1 frozen parameter of trunk moves, by up to 0.002 of the size between observed steps: the "
        "optimizer holds them with a gradient from before"
    )
