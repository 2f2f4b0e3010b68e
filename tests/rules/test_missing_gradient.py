from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.missing_gradient import MissingGradient
from gradlint.testing import findings_of, observe, trace_of
from gradlint.trace import (
    DetachedFacts,
    Event,
    LoopFacts,
    ModuleFacts,
    Observation,
    OptimizerFacts,
    ParameterFacts,
    QuietFacts,
    TensorFacts,
    Trace,
)

BATCH = TensorFacts("input", (8, 16), "float32")


def module(path: str, depth: int, into: int, out: int, **changes: object) -> ModuleFacts:
    facts = ModuleFacts(
        path,
        "Linear",
        depth,
        calls=1,
        parameters=(f"{path}.weight", f"{path}.bias"),
        input_shape=(8, into),
        output_shape=(8, out),
    )
    return replace(facts, **changes)  # type: ignore[arg-type]


def weights(path: str, into: int, out: int, *, lost: bool = False) -> list[ParameterFacts]:
    gradient = "missing" if lost else "present"
    return [
        ParameterFacts(f"{path}.weight", (out, into), module=path, gradient=gradient),
        ParameterFacts(f"{path}.bias", (out,), module=path, gradient=gradient),
    ]


def network(modules: list[ModuleFacts], parameters: list[ParameterFacts], **facts: object) -> Trace:
    root = ModuleFacts("", "Net", 99, calls=1, leaf=False)
    return trace_of(
        modules=[root, *modules], parameters=parameters, **{"inputs": (BATCH,), **facts}
    )


def severities(trace: Trace) -> list[tuple[Severity, str | None]]:
    return [(f.severity, f.module) for f in findings_of(MissingGradient(), trace)]


CUT = network(
    [module("encoder", 0, 16, 32), module("head", 1, 32, 5)],
    [*weights("encoder", 16, 32, lost=True), *weights("head", 32, 5)],
)


def test_an_encoder_cut_off_in_front_of_the_head_is_an_error() -> None:
    assert severities(CUT) == [(Severity.ERROR, "encoder")]


def test_a_cut_behind_a_pooling_is_found_by_elimination() -> None:
    trace = network(
        [module("stem", 0, 16, 64), module("encoder", 1, 64, 96), module("head", 2, 32, 5)],
        [
            *weights("stem", 16, 64, lost=True),
            *weights("encoder", 64, 96, lost=True),
            *weights("head", 32, 5),
        ],
    )

    (found,) = findings_of(MissingGradient(), trace)

    assert found.severity is Severity.ERROR
    assert found.modules == ("stem", "encoder")


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(
            network(
                [module("body", 0, 16, 32), module("pooler", 1, 32, 32), module("head", 2, 32, 5)],
                [
                    *weights("body", 16, 32),
                    *weights("pooler", 32, 32, lost=True),
                    *weights("head", 32, 5),
                ],
            ),
            [(Severity.NOTE, "pooler")],
            id="unused-pooler",
        ),
        pytest.param(
            network(
                [module("expert", -1, 16, 32, calls=0), module("head", 1, 16, 5)],
                [*weights("expert", 16, 32, lost=True), *weights("head", 16, 5)],
            ),
            [(Severity.NOTE, "expert")],
            id="idle-expert",
        ),
        pytest.param(
            network(
                [module("first", 0, 16, 3), module("second", 1, 16, 5)],
                [*weights("first", 16, 3, lost=True), *weights("second", 16, 5)],
            ),
            [(Severity.NOTE, "first")],
            id="unused-head-beside-the-used-one",
        ),
        pytest.param(
            network(
                [module("encoder", 0, 16, 16), module("head", 1, 16, 5)],
                [*weights("encoder", 16, 16, lost=True), *weights("head", 16, 5)],
            ),
            [(Severity.WARNING, "encoder")],
            id="the-batch-has-that-size-too",
        ),
        pytest.param(
            CUT.but(facts=replace(CUT.facts, pretrained=True)),
            [(Severity.WARNING, "encoder")],
            id="pretrained-features",
        ),
    ],
)
def test_what_is_not_proven_is_no_error(trace, expected) -> None:
    assert severities(trace) == expected


def test_two_layers_in_a_row_are_no_single_one_beside_the_reader() -> None:
    trace = network(
        [module("first", 0, 16, 16), module("second", 1, 16, 16), module("head", 2, 16, 5)],
        [
            *weights("first", 16, 16, lost=True),
            *weights("second", 16, 16, lost=True),
            *weights("head", 16, 5),
        ],
    )

    (found,) = findings_of(MissingGradient(), trace)

    assert found.severity is Severity.ERROR
    assert found.modules == ("first", "second")


@pytest.mark.parametrize(
    ("measured", "expected"), [(1.0, Severity.WARNING), (0.4, Severity.ERROR)], ids=["batch", "cut"]
)
def test_what_the_reader_measures_tells_whether_it_reads_the_batch(measured, expected) -> None:
    head = weights("head", 16, 5)
    reader = Operation(0, "linear", "linear", "head", parameters=("head.weight", "head.bias"))
    trace = trace_of(
        observe("activation_rms", "head", [measured], step=0),
        observe("weight_rms", "head.weight", [0.25], step=0),
        observe("weight_rms", "head.bias", [0.0], step=0),
        operations=(reader,),
        modules=[module("encoder", 0, 16, 16), module("head", 1, 16, 5)],
        parameters=[
            *weights("encoder", 16, 16, lost=True),
            replace(head[0], fan_in=16),
            head[1],
        ],
        inputs=(replace(BATCH, std=1.0),),
    )

    assert severities(trace) == [(expected, "encoder")]


def test_what_the_optimizer_was_not_given_is_silent() -> None:
    parameters = [
        *[replace(p, in_optimizer=False) for p in weights("encoder", 16, 32, lost=True)],
        *[replace(p, in_optimizer=True) for p in weights("head", 32, 5)],
    ]
    trace = network([module("encoder", 0, 16, 32), module("head", 1, 32, 5)], parameters)

    assert severities(trace) == []


def test_a_teacher_without_gradient_is_a_note() -> None:
    modules = [module("teacher", 2, 16, 32, leaf=False), module("student", 5, 16, 32, leaf=False)]
    parameters = []
    for name, lost in (("teacher", True), ("student", False)):
        for depth, part in enumerate(("a", "b")):
            path = f"{name}.{part}"
            modules.append(module(path, depth + 3 * (name == "student"), 16, 16))
            parameters += weights(path, 16, 16, lost=lost)

    assert severities(network(modules, parameters)) == [(Severity.NOTE, "teacher")]


def test_blocks_in_a_row_are_no_copies_of_each_other() -> None:
    modules, parameters = [], []
    for i, lost in enumerate((True, False)):
        modules.append(module(f"blocks.{i}", 3 * i + 2, 32, 32, leaf=False, parameters=()))
        for depth, part in enumerate(("a", "b")):
            modules.append(module(f"blocks.{i}.{part}", 3 * i + depth, 32, 32))
            parameters += weights(f"blocks.{i}.{part}", 32, 32, lost=lost)

    assert severities(network(modules, parameters)) == [(Severity.ERROR, "blocks.0")]


def test_a_branch_added_in_as_a_constant_is_a_warning() -> None:
    trace = network(
        [module("body", 0, 16, 32), module("branch", 1, 32, 32), module("head", 2, 32, 5)],
        [
            *weights("body", 16, 32),
            *weights("branch", 32, 32, lost=True),
            *weights("head", 32, 5),
        ],
    )
    body = Operation(0, "linear", "linear", "body", shape=(8, 32))
    addition = Operation(1, "shift", "add", "", (0,), missing=1, shape=(8, 32))

    found = severities(trace.but(graph=Graph((body, addition))))

    assert found == [(Severity.WARNING, "branch")]


def test_frozen_parameters_are_not_missed() -> None:
    parameters = [
        *[replace(p, requires_grad=False) for p in weights("encoder", 16, 32, lost=True)],
        *weights("head", 32, 5),
    ]
    trace = network([module("encoder", 0, 16, 32), module("head", 1, 32, 5)], parameters)

    assert severities(trace) == []


def test_a_detached_loss_says_it_all() -> None:
    trace = CUT.but(facts=replace(CUT.facts, events=(Event("detached-loss"),)))

    assert severities(trace) == []


def test_no_gradient_at_all_is_an_error_of_the_model() -> None:
    trace = network([module("head", 0, 16, 5)], weights("head", 16, 5, lost=True))

    (found,) = findings_of(MissingGradient(), trace)

    assert found.message == "none of 2 trainable parameters received a gradient"


def test_the_message_names_the_cut() -> None:
    (found,) = findings_of(MissingGradient(), CUT)

    assert found.message == (
        "2 trainable parameters of encoder received no gradient: its output is cut from the graph "
        "before head"
    )


def test_all_well_is_silent() -> None:
    assert severities(network([module("head", 0, 16, 5)], weights("head", 16, 5))) == []
    assert severities(trace_of()) == []


def watched(
    trace: Trace, *seen: list[Observation], held: bool | None = True, **loop: object
) -> Trace:
    """`trace` as that of a watched loop, its parameters in its optimizer."""
    optimizer = None if held is None else OptimizerFacts("Adam")
    facts = LoopFacts(**{"steps": 40, "backwards": 40, **loop})  # type: ignore[arg-type]
    return trace.but(
        observations=[o for group in seen for o in group],
        parameters={k: replace(p, in_optimizer=held) for k, p in trace.parameters.items()},
        facts=replace(trace.facts, loop=facts, optimizer=optimizer),
    )


def without_root(trace: Trace) -> Trace:
    """`trace` as that of several models, labelled by what stands before the first dot."""
    return trace.but(modules={k: v for k, v in trace.modules.items() if k})


LATER = [
    *observe("gradient_norm", "encoder.weight", [0.5], start=20),
    *observe("gradient_norm", "encoder.bias", [0.5], start=20),
]


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(watched(CUT), [(Severity.ERROR, "encoder")], id="cut-in-a-loop"),
        pytest.param(
            watched(without_root(CUT)), [(Severity.ERROR, "encoder")], id="cut-between-two-models"
        ),
        pytest.param(watched(CUT, LATER), [], id="it-learned-at-another-step"),
        pytest.param(
            watched(without_root(CUT), held=None, by_hand=True),
            [(Severity.NOTE, "encoder")],
            id="a-model-beside-the-one-that-is-trained-by-hand",
        ),
        pytest.param(watched(CUT, backwards=0), [], id="evaluation"),
        pytest.param(watched(CUT, held=None), [], id="gradients-are-looked-at"),
        pytest.param(watched(CUT, held=False), [], id="an-evaluation-model"),
    ],
)
def test_in_a_loop_every_step_counts(trace, expected) -> None:
    assert severities(trace) == expected


def test_gradients_cleared_before_the_step_are_no_missing_ones() -> None:
    nothing = network([module("head", 0, 16, 5)], weights("head", 16, 5, lost=True))
    left = observe("backward_gradient_norm", "", [2.0] * 3)

    assert severities(watched(nothing, left, observe("total_gradient_norm", "", [0.0] * 3))) == []
    assert severities(watched(nothing)) == [(Severity.ERROR, "")]


def test_a_discriminator_that_runs_first_is_not_cut_from_its_generator() -> None:
    """It is nobody's partner where every optimizer steps, and it never learns."""
    noise = ModuleFacts("netG.fc", "Linear", 1, 1, parameters=("netG.fc.weight",),
                        input_shape=(8, 4), output_shape=(8, 16))  # fmt: skip
    trace = trace_of(
        modules=[
            ModuleFacts("netD", "D", 2, 1, leaf=False, input_shape=(8, 16), output_shape=(8, 1)),
            module("netD.fc", 0, 16, 1),
            ModuleFacts("netG", "G", 3, 1, leaf=False, input_shape=(8, 4), output_shape=(8, 16)),
            noise,
        ],
        parameters=[*weights("netD.fc", 16, 1, lost=True), *weights("netG.fc", 4, 16)],
        inputs=(BATCH,),
    )

    models = trace.but(modules={"": ModuleFacts("", "models", leaf=False), **trace.modules})
    both = ("Adam", "Adam")
    idle = watched(models, optimizers=both, idle_optimizers=("SGD",))

    assert severities(watched(trace)) == [(Severity.NOTE, "netD")]
    assert severities(watched(models)) == [(Severity.NOTE, "netD")]
    assert severities(idle) == [(Severity.NOTE, "netD")]
    assert severities(watched(models, optimizers=both)) == [(Severity.ERROR, "netD")]


def test_a_model_found_while_it_ran_comes_before_what_reads_it() -> None:
    trace = trace_of(
        modules=[
            module("encoder.fc", 0, 16, 32),
            module("decoder.fc", 1, 32, 16),
            module("encoder", 2, 16, 32, leaf=False, parameters=()),
            module("decoder", 3, 32, 16, leaf=False, parameters=()),
        ],
        parameters=[*weights("encoder.fc", 16, 32, lost=True), *weights("decoder.fc", 32, 16)],
        inputs=(BATCH,),
    )

    assert severities(watched(trace)) == [(Severity.ERROR, "encoder")]


def test_a_part_that_did_not_run_is_not_what_the_reader_reads() -> None:
    trace = network(
        [module("expert", -1, 16, 32, calls=0), module("head", 1, 32, 5)],
        [*weights("expert", 16, 32, lost=True), *weights("head", 32, 5)],
    )

    (found,) = findings_of(MissingGradient(), trace)

    assert found.severity is Severity.NOTE
    assert found.message.endswith("the module was not called")


def test_a_reader_whose_input_is_not_known_proves_no_cut() -> None:
    head = module("head", 1, 32, 5, input_shape=None)

    trace = network([module("encoder", 0, 16, 32), head], list(CUT.parameters.values()))

    assert severities(trace) == [(Severity.NOTE, "encoder")]


TWO = {"optimizers": ("Adam", "Adam")}


def test_an_unused_part_of_a_model_is_not_stepped_in_vain() -> None:
    trace = network(
        [module("body", 0, 16, 32), module("pooler", 1, 32, 32), module("head", 2, 32, 5)],
        [*weights("body", 16, 32), *weights("pooler", 32, 32, lost=True), *weights("head", 32, 5)],
    )

    assert severities(watched(trace, **TWO)) == [(Severity.NOTE, "pooler")]


def test_a_model_that_never_ran_is_not_stepped_in_vain() -> None:
    trace = trace_of(
        modules=[
            ModuleFacts("", "models", leaf=False),
            ModuleFacts("spare", "Net", calls=0, leaf=False),
            module("spare.fc", -1, 16, 4, calls=0),
            ModuleFacts("net", "Net", 1, 1, leaf=False),
            module("net.fc", 0, 16, 5),
        ],
        parameters=[*weights("spare.fc", 16, 4, lost=True), *weights("net.fc", 16, 5)],
        inputs=(BATCH,),
    )

    assert severities(watched(trace, **TWO)) == [(Severity.NOTE, "spare")]


def test_a_copy_that_runs_first_is_no_cut() -> None:
    """A teacher whose output has the size of what the student reads."""
    modules = [module("teacher", 2, 16, 16, leaf=False), module("student", 5, 16, 16, leaf=False)]
    parameters = []
    for name, lost in (("teacher", True), ("student", False)):
        for depth, part in enumerate(("a", "b", "c")):
            path = f"{name}.{part}"
            modules.append(module(path, depth + 3 * (name == "student"), 16, 16))
            parameters += weights(path, 16, 16, lost=lost)

    assert severities(network(modules, parameters)) == [(Severity.NOTE, "teacher")]


def by_elimination(*between: ModuleFacts, frozen: tuple[ParameterFacts, ...] = ()) -> Trace:
    """Something of another size than the encoder's output is read by the head."""
    return network(
        [module("encoder", 1, 64, 96), *between, module("head", 3, 32, 5)],
        [*weights("encoder", 64, 96, lost=True), *frozen, *weights("head", 32, 5)],
    )


def test_what_something_else_can_have_made_is_no_proven_cut() -> None:
    fixed = tuple(replace(p, requires_grad=False) for p in weights("fixed", 96, 32))
    beside = network(
        [module("side", 1, 32, 96), module("head", 2, 32, 5)],
        [*weights("side", 32, 96, lost=True), *weights("head", 32, 5)],
    )

    assert severities(by_elimination()) == [(Severity.ERROR, "encoder")]
    assert severities(by_elimination(module("fixed", 2, 96, 32), frozen=fixed)) == [
        (Severity.NOTE, "encoder")
    ]
    assert severities(beside) == [(Severity.NOTE, "side")]


def test_a_constant_of_the_loss_is_no_branch() -> None:
    trace = network(
        [module("body", 0, 16, 32), module("branch", 1, 32, 32), module("head", 2, 32, 5)],
        [*weights("body", 16, 32), *weights("branch", 32, 32, lost=True), *weights("head", 32, 5)],
    )
    body = Operation(0, "linear", "linear", "body", shape=(8, 32))
    shift = Operation(1, "shift", "add", "", (0,), missing=1, shape=(8, 32), in_loss=True)

    assert severities(trace.but(graph=Graph((body, shift)))) == [(Severity.NOTE, "branch")]


def test_a_loss_of_a_new_tensor_says_it_all() -> None:
    new, summed = Operation(0, "input", ""), Operation(1, "sum", "", None, (0,), in_loss=True)
    nothing = watched(network([module("head", 0, 16, 5)], weights("head", 16, 5, lost=True)))

    assert severities(nothing) == [(Severity.ERROR, "")]
    assert severities(nothing.but(graph=Graph((new, summed)))) == []


SIZE, LARGEST = 0.1, 0.173


def in_parts(
    *seen: list[Observation],
    held: bool | None = True,
    training: bool = True,
    spread: float = SIZE,
    kind: str = "Linear",
    width: int = 32,
    given: tuple[int, ...] = (8, 32),
    copy: bool = False,
    pretrained: bool = False,
    **loop: object,
) -> Trace:
    """A loop that calls an encoder, which gets no gradient, and a head, which does."""
    quiet = ModuleFacts("encoder", kind, -1, 0, training=training)
    head = module("head", 0, 32, 5, input_shape=given)
    others = weights("head", 32, 5)
    lost = weights("encoder", width, 32, lost=True)
    if copy:
        lost += [replace(lost[0], path="encoder.more", shape=(2, 2))]
        others = [replace(p, path=p.path.replace("encoder", "head")) for p in lost]
        others = [replace(p, module="head", gradient="present") for p in others]
    measured = [
        *observe("weight_std", "encoder.weight", [spread], step=0),
        *observe("weight_abs_max", "encoder.weight", [LARGEST], step=0),
    ]
    trace = network([quiet, head], [*lost, *others], pretrained=pretrained)
    return watched(trace, measured, *seen, held=held, **loop)


LINK = {"detached": (DetachedFacts("encoder", "head"),)}
QUIET = {"quiet": (QuietFacts("encoder", 3, (8, 16), ((8, 32),)),)}


def ran(steps: int, given: tuple[int, ...], *made: tuple[int, ...]) -> dict[str, object]:
    return {"quiet": (QuietFacts("encoder", steps, given, made),)}


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        pytest.param(in_parts(**LINK), Severity.ERROR, id="detached"),
        pytest.param(in_parts(**QUIET), Severity.WARNING, id="no-grad"),
        pytest.param(in_parts(**ran(3, (8, 9), (8, 4, 32))), Severity.WARNING, id="mean-of-tokens"),
        pytest.param(
            in_parts(**ran(3, (8, 9), (4, 4), (8, 32, 4, 4))), Severity.WARNING, id="pooled"
        ),
        pytest.param(in_parts(), Severity.NOTE, id="unused"),
        pytest.param(
            in_parts(detached=(DetachedFacts("encoder", "other"),)),
            Severity.NOTE,
            id="read-by-none",
        ),
        pytest.param(
            in_parts(detached=(DetachedFacts("other", "head"),)), Severity.NOTE, id="of-another"
        ),
        pytest.param(
            in_parts(detached=(DetachedFacts("encoder", "encoder"),)), Severity.NOTE, id="itself"
        ),
        pytest.param(in_parts(**ran(1, (8, 16), (8, 32))), Severity.NOTE, id="once"),
        pytest.param(in_parts(**ran(3, (8, 32), (8, 32))), Severity.NOTE, id="beside"),
        pytest.param(in_parts(**ran(3, (8, 16), (8, 31))), Severity.NOTE, id="other-features"),
        pytest.param(in_parts(**ran(3, (8, 16), (4, 32))), Severity.NOTE, id="other-samples"),
        pytest.param(in_parts(**ran(3, (8, 16), (8,))), Severity.NOTE, id="numbers"),
        pytest.param(in_parts(**QUIET, given=(8,)), Severity.NOTE, id="a-number-is-read"),
        pytest.param(in_parts(**LINK, pretrained=True), Severity.NOTE, id="loaded"),
        pytest.param(in_parts(**LINK, spread=0.05), Severity.NOTE, id="trained-before"),
        pytest.param(in_parts(**LINK, kind="Embedding"), Severity.NOTE, id="embedding"),
        pytest.param(in_parts(**LINK, width=4), Severity.NOTE, id="too-few-weights"),
        pytest.param(in_parts(**LINK, training=False), Severity.NOTE, id="evaluation-mode"),
        pytest.param(in_parts(**LINK, held=None, by_hand=True), Severity.NOTE, id="not-held"),
        pytest.param(
            in_parts(**LINK, idle_optimizers=("Adam",)), Severity.NOTE, id="its-turn-comes"
        ),
        pytest.param(in_parts(**LINK, copy=True), Severity.NOTE, id="teacher"),
        pytest.param(
            in_parts(observe("weight_norm", "encoder.weight", [1.0, 1.1]), **LINK),
            Severity.NOTE,
            id="codebook",
        ),
        pytest.param(
            in_parts(observe("update_to_weight_ratio", "encoder.bias", [0.1]), **LINK),
            Severity.NOTE,
            id="moved",
        ),
    ],
)
def test_parts_that_a_loop_calls_one_by_one(trace, expected) -> None:
    assert severities(trace) == [(expected, "encoder")]


def test_ones_of_a_normalization_tell_nothing_of_weights() -> None:
    trace = in_parts(
        *[observe(m, "encoder.norm", [v], step=0)
          for m, v in (("weight_std", 0.0), ("weight_abs_max", 1.0))],
        **LINK,
    )  # fmt: skip
    norm = ParameterFacts(
        "encoder.norm", (512,), module="encoder", gradient="missing", in_optimizer=True
    )
    seen = trace.but(parameters={**trace.parameters, norm.path: norm})

    assert severities(seen) == [(Severity.ERROR, "encoder")]


def test_a_part_of_which_nothing_is_known_is_a_note() -> None:
    trace = in_parts(**LINK)
    known = {path: facts for path, facts in trace.modules.items() if path != "encoder"}

    assert severities(trace.but(modules=known)) == [(Severity.NOTE, "encoder")]


def test_the_messages_name_the_reader() -> None:
    (link,) = findings_of(MissingGradient(), in_parts(**LINK))
    (quiet,) = findings_of(MissingGradient(), in_parts(**QUIET))

    assert link.message == (
        "2 trainable parameters of encoder received no gradient: head is called on its detached "
        "output"
    )
    assert quiet.message == (
        "2 trainable parameters of encoder received no gradient: it runs under no_grad in front "
        "of head, and an optimizer holds it"
    )


ACTS = {"quiet": (QuietFacts("encoder", 3, (8, 16), ((8, 3),)),)}
ALONE = (
    "2 trainable parameters of encoder received no gradient: it runs under no_grad alone, and an "
    "optimizer holds it"
)


def test_a_policy_that_only_acts_is_told_as_such_in_a_note() -> None:
    (found,) = findings_of(MissingGradient(), in_parts(**ACTS))

    assert found.severity is Severity.NOTE
    assert found.message == ALONE
    assert "Call it with gradient" in found.help


def called(trace: Trace) -> Trace:
    encoder = replace(trace.modules["encoder"], depth=3, calls=1)
    return trace.but(modules={**trace.modules, "encoder": encoder})


@pytest.mark.parametrize(
    "trace",
    [
        pytest.param(in_parts(), id="not-called"),
        pytest.param(in_parts(**ran(1, (8, 16), (8, 3))), id="once"),
        pytest.param(in_parts(quiet=(QuietFacts("other", 3, (8, 16), ((8, 3),)),)), id="another"),
        pytest.param(called(in_parts(**ACTS)), id="called-with-gradient-too"),
        pytest.param(in_parts(**ACTS, copy=True), id="a-copy"),
        pytest.param(in_parts(**ACTS, held=None, by_hand=True), id="not-held"),
        pytest.param(
            in_parts(observe("update_to_weight_ratio", "encoder.weight", [0.1]), **ACTS),
            id="an-average",
        ),
    ],
)
def test_what_is_unused_for_another_reason_is_told_otherwise(trace) -> None:
    messages = [found.message for found in findings_of(MissingGradient(), trace)]

    assert messages
    assert ALONE not in messages
    assert not any("no_grad alone" in message for message in messages)
