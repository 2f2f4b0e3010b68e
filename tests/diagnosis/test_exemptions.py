"""Exemptions: each is proven, and leaving it out makes a finding appear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from gradlint.diagnosis.exemptions import EXEMPTIONS
from gradlint.diagnosis.judge import Judgement, judge
from gradlint.finding import Finding, Severity
from gradlint.graph import Operation
from gradlint.rules.base import Rule
from gradlint.testing import observe, trace_of
from gradlint.trace import ModuleFacts, Observation, ParameterFacts, Trace


@dataclass(frozen=True)
class Suspicious(Rule):
    """Suspects every parameter of the trace, under the code it is given."""

    code: ClassVar = "GL303"
    name: ClassVar = "gradient-ratio"
    severity: ClassVar = Severity.WARNING

    def check(self, trace: Trace) -> Iterator[Finding]:
        for path, facts in trace.parameters.items():
            yield self.finding(facts.module, path, parameter=path)

    def gather(self, findings: Iterator[Finding]) -> Iterator[Finding]:
        yield from findings


def operation(
    number: int,
    kind: str,
    *inputs: int,
    parameters: tuple[str, ...] = (),
    module: str = "",
    shape: tuple[int, ...] = (8, 16),
    in_loss: bool = False,
    **attributes: object,
) -> Operation:
    return Operation(
        number, kind, kind, module, inputs, parameters, shape=shape, attributes=attributes,
        in_loss=in_loss,
    )  # fmt: skip


def matrix(path: str, rows: int = 16, columns: int = 16, **changes: object) -> ParameterFacts:
    facts = ParameterFacts(path, (rows, columns), fan_in=columns, fan_out=rows)
    return replaced(facts, module=path.rpartition(".")[0], **changes)


def vector(path: str, **changes: object) -> ParameterFacts:
    return replaced(ParameterFacts(path, (16,)), module=path.rpartition(".")[0], **changes)


def replaced(facts: ParameterFacts, **changes: object) -> ParameterFacts:
    from dataclasses import replace

    return replace(facts, **changes)  # type: ignore[arg-type]


def start(path: str, *, largest: float = 0.5, gradient: float = 0.1) -> list[Observation]:
    return [
        *observe("weight_abs_max", path, [largest], kind="parameter", step=0),
        *observe("gradient_norm", path, [gradient] * 3, kind="parameter", step=0),
    ]


def training(path: str, *gradients: float) -> list[Observation]:
    return observe("gradient_norm", path, gradients, kind="parameter")


def reasons(judgement: Judgement) -> dict[str | None, str]:
    return {e.module: e.because for e in judgement.explained}


def explained(trace: Trace, suspect: str) -> str | None:
    """Return why `suspect` is well, or None."""
    return reasons(judge(trace, [Suspicious()])).get(suspect)


def without(name: str) -> list[object]:
    return [e for e in EXEMPTIONS if e.name != name]


# -- the traces: each holds one suspect that one exemption explains -------------------------


def normalized(kind: str = "batch_norm", *, between: str = "view", **attributes: object) -> Trace:
    return trace_of(
        operations=[
            operation(0, "conv", parameters=("c.weight", "c.bias")),
            operation(1, between, 0),
            operation(2, kind, 1, parameters=("n.weight",), module="n", **attributes),
            operation(3, "linear", 2, parameters=("head.weight",)),
        ],
        modules=[ModuleFacts("n", "Norm", calls=1, options={"num_groups": 4, "num_channels": 16})],
        parameters=[vector("c.bias")],
    )


def before_normalization(kind: str = "batch_norm") -> Trace:
    trace = normalized(kind)
    return trace.but(parameters={"c.weight": matrix("c.weight")})


def attention(*, softmax_over: int = 3, rotary: bool = False) -> Trace:
    kind = "mul" if rotary else "transpose"
    shape = (2, 4, 8, 8)
    return trace_of(
        operations=[
            operation(0, "linear", parameters=("q.weight", "q.bias")),
            operation(1, "linear", parameters=("k.weight", "k.bias")),
            operation(2, "view", 0),
            operation(3, "view", 1),
            operation(4, kind, 3, shape=shape),
            operation(5, "matmul", 2, 4, shape=shape),
            operation(6, "scale", 5, shape=shape),
            operation(7, "mask", 6, shape=shape),
            operation(8, "softmax", 7, shape=shape, dim=softmax_over),
            operation(9, "linear", 8, parameters=("o.weight",)),
        ],
        parameters=[vector("k.bias")],
    )


def queries() -> Trace:
    return attention().but(parameters={"q.weight": matrix("q.weight")})


def adapter(*, largest: float = 0.0, moves: bool = True, rank: int = 4) -> Trace:
    later = 0.1 if moves else 0.0
    return trace_of(
        start("A", gradient=0.0),
        start("B", largest=largest, gradient=later),
        training("A", 0.0, later, later),
        operations=[
            operation(0, "linear", parameters=("base",)),
            operation(1, "linear", parameters=("A",)),
            operation(2, "linear", 1, parameters=("B",)),
            operation(3, "scale", 2),
            operation(4, "add", 0, 3),
            operation(5, "mse", 4, in_loss=True),
        ],
        parameters=[matrix("A", rank, 16), matrix("B", 16, rank, gradient="present")],
    ).but(parameters={"A": matrix("A", rank, 16), "B": matrix("B", 16, rank)})


def branch(*, largest: float = 0.0, later: float = 0.1, bypass: bool = False) -> Trace:
    last = operation(5, "add", 0, 4, *((1,) if bypass else ()))
    return trace_of(
        start("inner.weight", gradient=0.0),
        start("norm.weight", largest=largest),
        training("inner.weight", 0.0, later),
        operations=[
            operation(0, "linear", parameters=("stem.weight",)),
            operation(1, "conv", 0, parameters=("inner.weight",)),
            operation(2, "relu", 1),
            operation(3, "conv", 2, parameters=("outer.weight",)),
            operation(4, "batch_norm", 3, parameters=("norm.weight", "norm.bias"), module="norm"),
            last,
            operation(6, "mse", 5, in_loss=True),
        ],
        parameters=[matrix("inner.weight")],
    )


def scaled(initial: float = 1e-5, *, bypass: bool = False) -> Trace:
    return trace_of(
        start("gamma", largest=initial),
        start("inner.weight", gradient=1e-7),
        operations=[
            operation(0, "linear", parameters=("stem.weight",)),
            operation(1, "linear", 0, parameters=("inner.weight",)),
            operation(2, "parameter_mul", 1, parameters=("gamma",)),
            operation(3, "add", 0, 2, *((1,) if bypass else ())),
            operation(4, "mse", 3, in_loss=True),
        ],
        parameters=[matrix("inner.weight")],
    )


def embedding(*kinds: str) -> Trace:
    operations = [
        operation(i, kind, *((i - 1,) if i else ()), parameters=("e.weight",))
        for i, kind in enumerate(kinds)
    ]
    return trace_of(operations=operations, parameters=[matrix("e.weight")])


def unused(*, calls: int = 0, read: bool = False) -> Trace:
    return trace_of(
        operations=[operation(0, "linear", parameters=("spare.weight",) if read else ("w",))],
        modules=[ModuleFacts("spare", "Linear", calls=calls, parameters=("spare.weight",))],
        parameters=[matrix("spare.weight", gradient="missing")],
    )


def frozen(*, requires_grad: bool = False) -> Trace:
    return trace_of(parameters=[matrix("trunk.weight", requires_grad=requires_grad)])


@pytest.mark.parametrize(
    ("name", "trace", "suspect", "because"),
    [
        pytest.param(
            "bias-before-normalization", normalized(), "c.bias",
            "bias before BatchNorm: its gradient cancels exactly", id="batch-norm",
        ),
        pytest.param(
            "bias-before-normalization", normalized("instance_norm"), "c.bias",
            "bias before InstanceNorm: its gradient cancels exactly", id="instance-norm",
        ),
        pytest.param(
            "attention-key-bias", attention(), "k.bias",
            "bias of the attention keys: softmax ignores a constant, so its gradient is zero",
            id="key-bias",
        ),
        pytest.param(
            "attention-scores", queries(), "q.weight",
            "scores of a softmax: their gradient is small until what they choose between differs",
            id="queries",
        ),
        pytest.param(
            "lora", adapter(), "A",
            "low-rank adapter: no gradient while B is zero, as it starts by design", id="lora",
        ),
        pytest.param(
            "zero-initialized-branch", branch(), "inner.weight",
            "zero-initialized branch: no gradient until norm, which starts at zero, has moved",
            id="zero-gamma",
        ),
        pytest.param(
            "layer-scale", scaled(), "inner.weight",
            "layer scale: gamma holds the branch back, starting at 1e-05", id="layer-scale",
        ),
        pytest.param(
            "unused-embedding-rows", embedding("embedding"), "e.weight",
            "embedding: rows that the batch does not hold have no gradient", id="embedding",
        ),
        pytest.param(
            "scale-invariant-weight", before_normalization(), "c.weight",
            "weight before BatchNorm: the output does not depend on its size", id="invariant",
        ),
        pytest.param(
            "unused-module", unused(), "spare.weight",
            "unused module: forward does not call it, and nothing reads its parameters",
            id="unused",
        ),
        pytest.param(
            "frozen", frozen(), "trunk.weight",
            "frozen: it requires no gradient, so it is not meant to learn", id="frozen",
        ),
    ],
)  # fmt: skip
def test_an_exemption_explains_and_without_it_the_finding_appears(
    name: str, trace: Trace, suspect: str, because: str
) -> None:
    explaining = judge(trace, [Suspicious()])
    suspecting = judge(trace, [Suspicious()], without(name))  # type: ignore[arg-type]

    assert reasons(explaining)[suspect] == because
    assert suspect not in {f.parameter for f in explaining.findings}
    assert suspect in {f.parameter for f in suspecting.findings}


@pytest.mark.parametrize(
    ("trace", "suspect"),
    [
        pytest.param(normalized("layer_norm"), "c.bias", id="layer-norm-keeps-differences"),
        pytest.param(normalized("group_norm"), "c.bias", id="groups-of-several-channels"),
        pytest.param(normalized(training=False), "c.bias", id="running-statistics"),
        pytest.param(normalized(between="relu"), "c.bias", id="activation-in-between"),
        pytest.param(adapter(moves=False), "A", id="lora-of-which-both-stand-still"),
        pytest.param(branch(largest=1.0), "inner.weight", id="no-zero-in-the-branch"),
        pytest.param(branch(later=0.0), "inner.weight", id="branch-that-never-moves"),
        pytest.param(branch(bypass=True), "inner.weight", id="way-around-the-zero"),
        pytest.param(scaled(0.5), "inner.weight", id="scale-that-holds-nothing-back"),
        pytest.param(scaled(0.0), "inner.weight", id="scale-that-is-zero"),
        pytest.param(scaled(bypass=True), "inner.weight", id="way-around-the-scale"),
        pytest.param(embedding("embedding", "linear"), "e.weight", id="tied-embedding"),
        pytest.param(unused(calls=1), "spare.weight", id="called"),
        pytest.param(unused(read=True), "spare.weight", id="read-as-a-function"),
        pytest.param(frozen(requires_grad=True), "trunk.weight", id="trainable"),
    ],
)
def test_without_proof_nothing_is_explained(trace: Trace, suspect: str) -> None:
    assert explained(trace, suspect) is None


def test_group_norm_with_a_group_per_channel_is_an_instance_norm() -> None:
    trace = normalized("group_norm")
    options = {"num_groups": 16, "num_channels": 16}
    alone = trace.but(modules={"n": ModuleFacts("n", "GroupNorm", calls=1, options=options)})

    assert explained(alone, "c.bias") == "bias before GroupNorm: its gradient cancels exactly"


def test_the_query_bias_makes_scores_and_is_no_key_bias() -> None:
    trace = attention().but(parameters={"q.bias": vector("q.bias")})

    assert explained(trace, "q.bias") == explained(queries(), "q.weight") is not None


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(attention(softmax_over=2), id="softmax-over-the-queries"),
        pytest.param(attention(rotary=True), id="rotary-embedding"),
    ],
)
def test_a_key_bias_cancels_only_if_all_keys_of_a_query_share_it(trace: Trace) -> None:
    because = explained(trace, "k.bias")

    assert because is not None
    assert because.startswith("scores of a softmax")


def test_fused_attention_reads_its_keys_second() -> None:
    operations = [
        operation(0, "linear", parameters=("q.weight", "q.bias")),
        operation(1, "linear", parameters=("k.weight", "k.bias")),
        operation(2, "linear", parameters=("v.weight", "v.bias")),
        operation(3, "attention", 0, 1, 2),
    ]
    trace = trace_of(operations=operations, parameters=[vector(f"{n}.bias") for n in "qkv"])

    because = {n: explained(trace, f"{n}.bias") or "" for n in "qkv"}

    assert because["k"].startswith("bias of the attention keys")
    assert because["q"].startswith("scores of a softmax")
    assert because["v"] == ""


def test_a_wide_pair_of_layers_is_no_adapter_but_a_zero_initialized_head() -> None:
    because = explained(adapter(rank=64), "A")

    assert (
        because == "zero-initialized branch: no gradient until B, which starts at zero, has moved"
    )


def test_a_branch_is_well_at_step_0_if_its_zero_gets_a_gradient() -> None:
    trace = branch()
    untrained = trace_of(
        (o for o in trace if o.step == 0),
        operations=trace.graph,
        parameters=trace.parameters.values(),
    )

    assert explained(untrained, "inner.weight") is not None


def test_a_finding_of_a_whole_module_needs_all_of_its_parameters_explained() -> None:
    modules = [ModuleFacts("m", "Linear", parameters=("m.weight", "m.bias"))]
    facts = {
        "m.weight": matrix("m.weight", requires_grad=False),
        "m.bias": vector("m.bias", requires_grad=True),
    }
    frozen_exemption = next(e for e in EXEMPTIONS if e.name == "frozen")
    finding = Finding(
        code="GL303", rule="gradient-ratio", severity=Severity.NOTE, message="", module="m"
    )
    half = trace_of(modules=modules, parameters=facts.values())
    whole = half.but(parameters={**facts, "m.bias": vector("m.bias", requires_grad=False)})

    assert frozen_exemption.covers(half, finding) is None
    assert frozen_exemption.covers(whole, finding) is not None


def test_an_exemption_says_nothing_of_rules_it_does_not_name() -> None:
    finding = Finding(
        code="GL501", rule="non-finite", severity=Severity.ERROR, message="",
        parameter="trunk.weight",
    )  # fmt: skip

    assert all(e.covers(frozen(), finding) is None for e in EXEMPTIONS)


def test_exemptions_have_names_of_their_own() -> None:
    names = [e.name for e in EXEMPTIONS]

    assert len(set(names)) == len(names)
    assert all(e.codes for e in EXEMPTIONS)
