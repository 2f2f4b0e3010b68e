"""GL106: residual streams that outgrow their depth."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gradlint.finding import Severity
from gradlint.graph import Operation
from gradlint.rules.growing_residual import GrowingResidual
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import ModuleFacts, OptimizerFacts, Trace


def stack(
    rms: list[float], *, norm: str = "", scale: bool = False, join: str = "add", **facts: Any
) -> Trace:
    """Blocks ``x + f(x)`` whose outputs have these RMS values; `norm` follows each sum."""
    operations = [Operation(0, "linear", "", "stem")]
    modules = []
    broadcast = facts.pop("broadcast", False)
    rates = facts.pop("rates", [])
    calls = facts.pop("calls", 1)
    for i in range(len(rms)):
        path = f"blocks.{i}"
        below = len(operations) - 1
        operations.append(Operation(below + 1, "linear", "", f"{path}.fc", inputs=(below,)))
        skip = below
        if scale:
            operations.append(Operation(below + 2, "scale", "", path, inputs=(below,)))
            skip = below + 2
        operations.append(
            Operation(
                len(operations), join, "", path, (skip, below + 1),
                attributes={"broadcast": broadcast},
            )
        )  # fmt: skip
        if norm:
            operations.append(
                Operation(len(operations), norm, "", f"{path}.norm", (len(operations) - 1,))
            )
        modules.append(ModuleFacts(path, "Block", depth=i, calls=calls, leaf=False))
    seen = [observe("activation_rms", f"blocks.{i}", [v] * 3, step=0) for i, v in enumerate(rms)]
    return trace_of(
        *seen, observe("learning_rate", "", rates), operations=operations, modules=modules, **facts
    )


def geometric(factor: float, blocks: int) -> list[float]:
    return [factor**i for i in range(blocks)]


def root(blocks: int) -> list[float]:
    return [math.sqrt(i + 1) for i in range(blocks)]


@pytest.mark.parametrize(
    ("rms", "severity"),
    [
        pytest.param(geometric(math.sqrt(2), 50), Severity.ERROR, id="he-without-normalization"),
        pytest.param(geometric(1.4, 12), Severity.WARNING, id="twelve-blocks"),
        pytest.param(root(48), None, id="pre-ln-grows-by-the-root"),
        pytest.param([float(i + 1) for i in range(48)], None, id="linear-growth"),
        pytest.param([1.0] * 24, None, id="post-norm-or-zero-branches"),
        pytest.param(geometric(1.03, 24), None, id="torch-default-branches"),
        pytest.param(geometric(3.0, 5), None, id="too-few-blocks"),
        pytest.param([0.01] + [1.0] * 20, None, id="small-embedding-first"),
        pytest.param([1.0] * 19 + [100.0], None, id="single-large-block"),
        pytest.param([*geometric(10.0, 20), math.inf], Severity.ERROR, id="overflow"),
        pytest.param([*geometric(10.0, 20), math.nan], Severity.ERROR, id="overflow-to-nan"),
        pytest.param([math.nan] * 12, None, id="nan-throughout"),
        pytest.param([0.0] * 12, None, id="zeros"),
    ],
)
def test_flags_streams_that_grow_faster_than_the_root_of_depth(
    rms: list[float], severity: Severity | None
) -> None:
    found = findings_of(GrowingResidual(), stack(rms))

    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_exactly_at_the_limit_is_silent() -> None:
    at = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 100.0]
    limit = 10 / math.sqrt(9)

    assert not findings_of(GrowingResidual(max_growth=limit), stack(at))
    assert findings_of(GrowingResidual(max_growth=0.99 * limit), stack(at))


@pytest.mark.parametrize(
    "changes",
    [{"join": "mul"}, {"broadcast": True}, {"calls": 4}, {"pretrained": True}],
    ids=["no-residual", "broadcast-add", "called-often", "loaded"],
)
def test_silent_where_it_is_no_stack_of_residual_blocks(changes: dict[str, Any]) -> None:
    assert not findings_of(GrowingResidual(), stack(geometric(1.4, 24), **changes))


ADAM = OptimizerFacts("Adam", ({"lr": 1e-3},))


@pytest.mark.parametrize(
    ("blocks", "changes", "severity"),
    [
        pytest.param(12, {}, None, id="exactly-at-the-limit"),
        pytest.param(13, {}, Severity.NOTE, id="check-sees-no-schedule"),
        pytest.param(13, {"norm": ""}, None, id="pre-ln"),
        pytest.param(13, {"norm": "batch_norm"}, None, id="batch-normalization"),
        pytest.param(13, {"scale": True}, None, id="deepnorm"),
        pytest.param(13, {"command": "run"}, Severity.WARNING, id="level-rate"),
        pytest.param(
            13, {"command": "run", "rates": [1e-5, 1e-4, 1e-3]}, None, id="rate-that-rises"
        ),
        pytest.param(
            13, {"command": "run", "optimizer": None}, Severity.NOTE, id="no-optimizer-seen"
        ),
        pytest.param(49, {}, Severity.WARNING, id="needs-a-scale"),
        pytest.param(49, {"scale": True}, None, id="deep-with-scale"),
    ],
)
def test_flags_deep_post_norm_stacks(
    blocks: int, changes: dict[str, Any], severity: Severity | None
) -> None:
    settings: dict[str, Any] = {"norm": "layer_norm", "optimizer": ADAM, "rates": [1e-3] * 3}

    found = findings_of(GrowingResidual(), stack([1.0] * blocks, **(settings | changes)))

    assert [f.severity for f in found] == ([] if severity is None else [severity])


def test_the_message_of_growth_names_blocks_and_limit() -> None:
    (found,) = findings_of(GrowingResidual(), stack(geometric(2.0, 9)))

    assert found.message == (
        "residual stream's RMS grows from 1 to 2.6e+02 over 9 Block blocks (limit 6 times)"
    )
    assert found.modules == tuple(f"blocks.{i}" for i in range(9))


def test_the_message_of_post_norm_names_the_depth() -> None:
    trace = stack([1.0] * 24, norm="layer_norm", command="run", optimizer=ADAM, rates=[1e-3] * 3)

    (found,) = findings_of(GrowingResidual(), trace)

    assert found.message == (
        "24 Post-LN blocks (Block) train at a learning rate that does not warm up (limit 12 blocks)"
    )
