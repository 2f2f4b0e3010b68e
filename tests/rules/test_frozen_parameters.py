from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.frozen_parameters import FrozenParameters
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    Event,
    LoopFacts,
    LossFacts,
    ModuleFacts,
    OptimizerFacts,
    ParameterFacts,
    TensorFacts,
    Trace,
)


def trace(
    *,
    frozen: tuple[str, ...] = ("body",),
    gain: float = 1 / sqrt(3),
    mean: float = 0.0,
    sizes: tuple[int, int] = (64, 32),
    kind: str = "Linear",
    held: tuple[str, ...] | None = None,
    inputs: tuple[tuple[int, ...], tuple[int, ...]] = ((8, 16), (8, 32)),
    **facts: object,
) -> Trace:
    """A body and a head, square weights of `sizes`; weights of `gain` / √fan-in."""
    parameters, modules, observed = [], [], []
    for i, (path, size) in enumerate(zip(("body", "head"), sizes, strict=True)):
        modules.append(ModuleFacts(path, kind, i, 1, input_shape=inputs[i]))
        parameters.append(
            ParameterFacts(
                f"{path}.weight",
                (size, size),
                module=path,
                requires_grad=path not in frozen,
                in_optimizer=None if held is None else path in held,
                fan_in=size,
                fan_out=size,
            )
        )
        for metric, value in (
            ("init_gain", gain),
            ("weight_std", gain / sqrt(size)),
            ("weight_mean", mean),
        ):
            observed.append(observe(metric, f"{path}.weight", [value], step=0, module=path))
    optimizer = None if held is None else OptimizerFacts("SGD")
    return trace_of(
        *observed,
        parameters=parameters,
        modules=modules,
        optimizer=optimizer,
        inputs=(TensorFacts("input", (8, 16), "float32"),),
        **facts,
    )


LABELED = LossFacts("cross_entropy", target=TensorFacts("target", (8,), "int64"))


COMPARED = (
    Operation(0, "log_softmax", "LogSoftmaxBackward0", in_loss=True),
    Operation(1, "nll", "NllLossBackward0", inputs=(0,), in_loss=True),
    Operation(2, "kl_div", "KlDivBackward0", inputs=(0,), in_loss=True),
)


RESHAPED = (
    Operation(0, "view", "ViewBackward0", in_loss=True),
    Operation(1, "log_softmax", "LogSoftmaxBackward0", inputs=(0,), in_loss=True),
    Operation(2, "nll", "NllLossBackward0", inputs=(1,), in_loss=True),
)


def severities(observed: Trace) -> list[Severity]:
    return [f.severity for f in findings_of(FrozenParameters(), observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(trace(), [Severity.ERROR], id="fresh-and-most-of-the-model"),
        pytest.param(trace(gain=sqrt(2)), [Severity.ERROR], id="kaiming"),
        pytest.param(trace(gain=0.02 * 8), [Severity.ERROR], id="as-transformers-start"),
        pytest.param(trace(gain=0.8), [Severity.NOTE], id="trained-weights"),
        pytest.param(trace(mean=0.05), [Severity.NOTE], id="not-centered"),
        pytest.param(trace(pretrained=True), [Severity.NOTE], id="loaded-weights"),
        pytest.param(
            trace(inputs=((8, 16), (8, 16))), [Severity.NOTE], id="a-teacher-beside-the-student"
        ),
        pytest.param(
            trace(inputs=((8, 16), (8, 16)), losses=(LABELED,), operations=COMPARED[:2]),
            [Severity.ERROR],
            id="the-size-of-the-batch-and-no-teacher",
        ),
        pytest.param(
            trace(inputs=((8, 16), (8, 16)), losses=(LABELED,), operations=RESHAPED),
            [Severity.ERROR],
            id="the-loss-reshapes-what-it-compares",
        ),
        pytest.param(
            trace(inputs=((8, 16), (8, 16)), losses=(LABELED,), operations=COMPARED),
            [Severity.NOTE],
            id="labels-and-a-teacher",
        ),
        pytest.param(trace(kind="Embedding"), [Severity.NOTE], id="word-vectors"),
        pytest.param(trace(sizes=(32, 32)), [Severity.NOTE], id="exactly-half"),
        pytest.param(trace(sizes=(33, 32)), [Severity.ERROR], id="just-over-half"),
        pytest.param(trace(frozen=("body", "head")), [Severity.ERROR], id="everything"),
        pytest.param(
            trace(held=("body",), pretrained=True), [Severity.ERROR], id="all-the-optimizer-holds"
        ),
        pytest.param(
            trace(held=("head",), pretrained=True), [Severity.NOTE], id="the-head-is-trained"
        ),
        pytest.param(trace(frozen=()), [], id="nothing-frozen"),
        pytest.param(trace_of(), [], id="nothing"),
    ],
)
def test_frozen_weights_are_a_note_unless_nothing_good_is_kept(observed, expected) -> None:
    assert severities(observed) == expected


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (
            trace(),
            "frozen weights with the spread of a fresh initialization are 80% of the model (limit "
            "50%)",
        ),
        (trace(frozen=("body", "head")), "all 2 parameters of the model are frozen"),
        (
            trace(held=("body",), pretrained=True),
            "all 1 parameters that the optimizer holds are frozen",
        ),
        (trace(pretrained=True), "1 parameter is frozen in body"),
    ],
)
def test_the_message_counts(observed, message) -> None:
    assert findings_of(FrozenParameters(), observed)[0].message == message


@pytest.mark.parametrize(
    ("path", "largest"), [("lora_a", 0.1), ("up", 0.0)], ids=["by-name", "a-zero-matrix"]
)
def test_what_adapters_are_added_to_is_a_note(path, largest) -> None:
    base = trace(gain=1.0)
    adapter = ParameterFacts(f"head.{path}", (32, 4), module="head", fan_in=4)
    seen = observe("weight_abs_max", adapter.path, [largest], step=0, module="head")

    adapted = trace_of(
        base,
        seen,
        parameters=(*base.parameters.values(), adapter),
        modules=base.modules.values(),
        inputs=base.facts.inputs,
    )

    assert severities(base) == [Severity.ERROR]
    assert severities(adapted) == [Severity.NOTE]


def test_frozen_layers_behind_trained_ones_stand_in_the_graph() -> None:
    beside = trace(inputs=((8, 16), (8, 16)))
    frozen = Operation(0, "linear", "linear", "body", parameters=("body.weight",))

    found = findings_of(FrozenParameters(), beside.but(graph=Graph((frozen,))))

    assert [f.severity for f in found] == [Severity.ERROR]


def watched(observed: Trace, *, foreign: int = 0, optimizer: bool = True, **facts: object) -> Trace:
    """`observed` as that of a watched loop of several models."""
    given = OptimizerFacts("Adam", foreign=foreign) if optimizer else None
    loop = LoopFacts(steps=20, backwards=20)
    return observed.but(facts=replace(observed.facts, loop=loop, optimizer=given, **facts))


IN_TURN = observe("gradient_norm", "body.weight", [0.5, 0.4], module="body")
ALL = trace(frozen=("body", "head"))


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(watched(ALL), [Severity.ERROR], id="everything"),
        pytest.param(watched(ALL, foreign=1), [Severity.NOTE], id="an-image-is-optimized"),
        pytest.param(
            watched(trace(held=("body",)), foreign=1, pretrained=True),
            [Severity.NOTE],
            id="held-beside-an-image",
        ),
        pytest.param(watched(ALL, optimizer=False), [Severity.NOTE], id="evaluation"),
        pytest.param(
            watched(ALL, foreign=1, events=(Event("detached-loss"),)),
            [Severity.ERROR],
            id="and-no-gradient-for-anything",
        ),
        pytest.param(watched(trace()), [Severity.NOTE], id="a-frozen-model-beside"),
        pytest.param(
            watched(trace().but(modules={"": ModuleFacts("", "Net"), **trace().modules})),
            [Severity.ERROR],
            id="a-fresh-frozen-trunk",
        ),
        pytest.param(
            watched(trace().but(observations=(*trace().observations, *IN_TURN))),
            [],
            id="frozen-in-turn-as-in-a-gan",
        ),
    ],
)
def test_in_a_loop_what_is_frozen_may_serve_something_else(observed, expected) -> None:
    assert severities(observed) == expected


def test_a_few_numbers_have_the_spread_of_a_recipe_by_chance() -> None:
    assert severities(trace(sizes=(16, 4))) == [Severity.ERROR]
    assert severities(trace(sizes=(15, 4))) == [Severity.NOTE]


def test_a_vector_of_the_spread_of_transformers_is_no_fresh_weight() -> None:
    observed = trace(gain=0.02 * 8)
    vector = replace(observed.parameters["body.weight"], shape=(4096,))

    kept = observed.but(parameters={**observed.parameters, "body.weight": vector})

    assert severities(kept) == [Severity.NOTE]


def test_a_bias_that_starts_at_zero_is_no_adapter() -> None:
    base = trace(gain=1.0)
    bias = ParameterFacts("head.bias", (32,), module="head")
    seen = observe("weight_abs_max", "head.bias", [0.0], step=0, module="head")

    biased = base.but(
        observations=(*base, *seen), parameters={**base.parameters, "head.bias": bias}
    )

    assert severities(biased) == [Severity.ERROR]


@pytest.mark.parametrize("body", [True, False])
def test_what_a_state_dict_held_under_another_name_is_an_error(body: bool) -> None:
    observed = trace(frozen=("body",))
    whole = observed.parameters["body.weight"]
    bias = ParameterFacts("body.bias", (64,), module="body", requires_grad=False)
    lost = {p.path: replace(p, unloaded=p is whole or body) for p in (whole, bias)}
    observed = observed.but(parameters={**observed.parameters, **lost}, observations=())

    (found,) = findings_of(FrozenParameters(), observed)

    assert found.severity is (Severity.ERROR if body else Severity.NOTE)
    assert found.module == "body"
    assert ("under other names" in found.message) is body


def two_models(*, loaded: bool = False, copied: bool = False, head: bool = True) -> Trace:
    """A model that was trained, and another one with a frozen body."""
    modules = [ModuleFacts("", "models", 0, 1)]
    parameters, observed = [], []
    sizes = {"a.body": 64, "a.head": 64, "b.body" if copied else "b.trunk": 64, "b.head": 16}
    for depth, (path, size) in enumerate(sizes.items()):
        frozen = path.startswith("b.") and not (head and path == "b.head")
        modules.append(ModuleFacts(path, "Linear", depth, 1, input_shape=(8, 32 + depth)))
        parameters.append(
            ParameterFacts(
                f"{path}.weight",
                (size, size),
                module=path,
                requires_grad=not frozen,
                fan_in=size,
                fan_out=size,
                loaded=loaded,
            )
        )
        for metric, value in (("init_gain", 1.0), ("weight_std", size**-0.5), ("weight_mean", 0)):
            site = f"{path}.weight"
            observed.append(observe(metric, site, [value], step=0, module=path))
    loop = LoopFacts(steps=50, observed=40, backwards=50)
    behind = [
        Operation(0, "linear", "linear", "b.head", parameters=("b.trunk.weight", "b.head.weight"))
    ]
    operations = () if head else behind
    return trace_of(
        *observed, parameters=parameters, modules=modules, loop=loop, operations=operations
    )


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        pytest.param(two_models(), [Severity.ERROR], id="a-share-of-its-own-model"),
        pytest.param(two_models(copied=True), [Severity.ERROR], id="of-another-models-shape"),
        pytest.param(two_models(loaded=True), [Severity.NOTE], id="loaded-between"),
        pytest.param(two_models(head=False), [Severity.NOTE], id="a-network-that-judges"),
    ],
)
def test_each_of_several_models_is_judged_by_itself(observed, expected) -> None:
    found = findings_of(FrozenParameters(), observed)

    assert [f.severity for f in found] == expected
    if expected == [Severity.ERROR]:
        assert "of b (limit" in found[0].message


def test_a_frozen_copy_of_what_learns_beside_it_is_a_target() -> None:
    names = ("online.one.weight", "online.two.weight", "online.three.weight")
    names += tuple(name.replace("online", label) for label in ("target", "older") for name in names)
    observed, parameters, modules = [], [], [ModuleFacts("", "Twin", 0, 1)]
    for depth, name in enumerate(names):
        module = name.rpartition(".")[0]
        modules.append(ModuleFacts(module, "Linear", depth, 1, input_shape=(8, 64)))
        parameters.append(
            ParameterFacts(
                name, (64, 64), module=module, requires_grad="online" in name, fan_in=64, fan_out=64
            )
        )
        spread = (("init_gain", 1.0), ("weight_std", 0.125), ("weight_mean", 0.0))
        observed += [observe(m, name, [v], step=0, module=module) for m, v in spread]
    operations = [Operation(0, "linear", "linear", parameters=names[3:])]

    def judged(parameters: list[ParameterFacts]) -> list[Severity]:
        return severities(
            trace_of(*observed, parameters=parameters, modules=modules, operations=operations)
        )

    assert set(judged(parameters)) == {Severity.NOTE}
    other = [replace(p, shape=(32, 128)) if p.requires_grad else p for p in parameters[:1]]
    assert judged([*other, *parameters[3:]]) == [Severity.ERROR]


def test_a_target_that_follows_another_model_is_another_rules() -> None:
    moving = observe("frozen_change", "b.trunk.weight", [0.1, 0.1], module="b.trunk")
    still = two_models()

    (found,) = findings_of(
        FrozenParameters(), still.but(observations=[*still.observations, *moving])
    )

    assert found.severity is Severity.NOTE
