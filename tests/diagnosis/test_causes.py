"""Causes: which finding opens the report, and which are folded under it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from gradlint.diagnosis.causes import Linked, link
from gradlint.diagnosis.mechanisms import MECHANISMS, Mechanism
from gradlint.finding import Finding, Severity, Stage
from gradlint.rules import all_rules

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def said(
    code: str,
    severity: Severity = ERROR,
    *,
    exact: bool = False,
    step: int | None = None,
    stage: Stage = Stage.FORWARD,
    depth: int = 0,
) -> Finding:
    return Finding(
        code=code, rule=code.lower(), severity=severity, message=code, exact=exact, step=step,
        stage=stage, depth=depth,
    )  # fmt: skip


def leads(cause: str, symptom: str, because: str = "because") -> Mechanism:
    return Mechanism(
        f"{cause}-{symptom}", frozenset(cause.split()), frozenset(symptom.split()), because
    )


def codes(linked: tuple[Linked, ...]) -> list[str]:
    return [item.finding.code for item in linked]


def roots(linked: tuple[Linked, ...]) -> list[str]:
    return [item.finding.code for item in linked if item.cause is None]


def test_nothing_found_gives_nothing() -> None:
    assert link([]) == ()


def test_a_symptom_is_folded_under_its_cause_and_says_why() -> None:
    linked = link([said("B"), said("A")], [leads("A", "B", "A makes B")])

    assert codes(linked) == ["A", "B"]
    assert linked[0].cause is None
    assert linked[0].symptoms == (1,)
    assert linked[1].cause == 0
    assert linked[1].because == "A makes B"


def test_two_faults_that_explain_nothing_of_each_other_stay_two_causes() -> None:
    linked = link([said("A"), said("X"), said("B"), said("Y")], [leads("A", "B"), leads("X", "Y")])

    assert roots(linked) == ["A", "X"]
    assert codes(linked) == ["A", "B", "X", "Y"]
    assert [item.symptoms for item in linked] == [(1,), (), (3,), ()]


def test_a_symptom_of_a_symptom_is_folded_under_the_root() -> None:
    linked = link([said("C"), said("B"), said("A")], [leads("B", "C"), leads("A", "B")])

    assert [item.cause for item in linked] == [None, 0, 0]
    assert linked[0].symptoms == (1, 2)


def test_in_a_circle_the_exact_fact_is_the_root() -> None:
    circle = [leads("A", "B"), leads("B", "A")]

    assert roots(link([said("A"), said("B", exact=True)], circle)) == ["B"]


def test_in_a_circle_of_statistics_the_earlier_stage_is_the_root() -> None:
    circle = [leads("A", "B"), leads("B", "A")]
    early = said("B", stage=Stage.INITIALIZATION)

    assert roots(link([said("A", stage=Stage.UPDATE), early], circle)) == ["B"]


def test_a_circle_of_three_has_one_root() -> None:
    circle = [leads("A", "B"), leads("B", "C"), leads("C", "A")]

    for order in itertools.permutations("ABC"):
        linked = link([said(code) for code in order], circle)
        assert len(roots(linked)) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(said("Z", exact=True), said("A"), id="facts-before-statistics"),
        pytest.param(said("Z", step=0), said("A", step=5), id="earlier-steps-first"),
        pytest.param(
            said("Z", stage=Stage.DATA), said("A", stage=Stage.UPDATE), id="earlier-stages-first"
        ),
        pytest.param(said("Z", depth=1), said("A", depth=2), id="nearer-the-input-first"),
        pytest.param(said("Z"), said("A", WARNING, exact=True), id="errors-before-warnings"),
        pytest.param(said("Z", WARNING), said("A", NOTE, exact=True), id="notes-last"),
        pytest.param(said("A"), said("Z"), id="then-by-code"),
    ],
)
def test_causes_are_ordered(first: Finding, second: Finding) -> None:
    for given in ((first, second), (second, first)):
        assert codes(link(given, [])) == [first.code, second.code]


def test_a_cause_counts_as_much_as_the_worst_it_explains() -> None:
    linked = link([said("X"), said("A", WARNING, exact=True), said("B", ERROR)], [leads("A", "B")])

    assert codes(linked) == ["A", "B", "X"]


def test_a_note_explains_no_warning() -> None:
    linked = link([said("A", NOTE), said("B", WARNING)], [leads("A", "B")])

    assert roots(linked) == ["B", "A"]


def test_a_note_explains_a_note() -> None:
    assert roots(link([said("A", NOTE), said("B", NOTE)], [leads("A", "B")])) == ["A"]


def test_the_mechanism_nearest_the_origin_wins() -> None:
    linked = link(
        [said("A"), said("B"), said("C")], [leads("A", "C", "first"), leads("B", "C", "second")]
    )

    assert next(item for item in linked if item.finding.code == "C").because == "first"


def test_two_findings_of_one_rule_do_not_explain_each_other() -> None:
    linked = link([said("A"), said("A", WARNING)], [leads("A", "A")])

    assert [item.cause for item in linked] == [None, None]


def test_the_order_of_the_findings_given_does_not_matter() -> None:
    found = [said("GL301"), said("GL101"), said("GL201", WARNING), said("GL601", exact=True)]

    assert len({tuple(codes(link(order))) for order in itertools.permutations(found)}) == 1


def test_every_finding_is_told_exactly_once() -> None:
    found = [said(rule.code, WARNING) for rule in all_rules()]
    linked = link(found)

    assert sorted(codes(linked)) == sorted(f.code for f in found)
    for place, item in enumerate(linked):
        assert all(linked[s].cause == place for s in item.symptoms)
        assert item.cause is None or linked[item.cause].cause is None
        assert item.cause is None or place in linked[item.cause].symptoms


@pytest.mark.parametrize(
    ("constant", "depth", "root"),
    [
        pytest.param(True, 2, "GL206", id="behind-a-constant"),
        pytest.param(True, 0, "GL201", id="in-front-of-it"),
        pytest.param(False, 2, "GL201", id="a-dead-layer-makes-it"),
    ],
)
def test_dead_units_are_cause_or_symptom_of_an_ignored_input(
    constant: bool, depth: int, root: str
) -> None:
    ignored = said("GL206", exact=True, depth=1).but(evidence={"constant_input": constant})

    assert roots(link([ignored, said("GL201", depth=depth)])) == [root]


def test_a_loss_that_is_maximized_explains_the_large_updates() -> None:
    rising = said("GL609", exact=True).but(evidence={"maximize": True})

    assert roots(link([rising, said("GL401")])) == ["GL609"]
    assert roots(link([said("GL609"), said("GL401")])) == ["GL401"]


def test_saturation_and_a_loss_off_chance_do_not_explain_each_other() -> None:
    assert sorted(roots(link([said("GL202"), said("GL105")]))) == ["GL105", "GL202"]


@pytest.mark.parametrize(
    ("step", "suffices", "root"),
    [(0, False, "GL202"), (20, False, "GL401"), (0, True, "GL401")],
    ids=["from-the-start", "later", "the-rate-suffices"],
)
def test_units_saturated_from_the_start_explain_long_steps(step, suffices, root) -> None:
    large = said("GL401", step=1).but(evidence={"rate_suffices": suffices})

    assert root in roots(link([said("GL202", WARNING, step=step), large]))
    assert ("GL401" in roots(link([said("GL202", WARNING, step=step), large]))) is (root == "GL401")


def test_mechanisms_have_names_of_their_own_and_a_reason() -> None:
    assert len({m.name for m in MECHANISMS}) == len(MECHANISMS)
    assert all(m.because and m.causes and m.symptoms for m in MECHANISMS)


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        pytest.param([said("GL301"), said("GL101", WARNING)], "GL101", id="small-weights"),
        pytest.param([said("GL201"), said("GL111", WARNING)], "GL111", id="dead-by-bias"),
        pytest.param(
            [said("GL202", WARNING), said("GL606", stage=Stage.DATA)], "GL606", id="raw-pixels"
        ),
        pytest.param([said("GL206"), said("GL701", exact=True), said("GL609")], "GL701", id="cut"),
        pytest.param([said("GL501", exact=True, step=3), said("GL401")], "GL401", id="rate"),
        pytest.param([said("GL609"), said("GL601", exact=True)], "GL601", id="wrong-loss"),
        pytest.param(
            [said("GL104", step=0), said("GL501", exact=True, step=0)], "GL104", id="overflow"
        ),
        pytest.param(
            [said("GL402", WARNING), said("GL609", WARNING), said("GL412", WARNING)],
            "GL412",
            id="schedule",
        ),
        pytest.param(
            [said("GL402", WARNING), said("GL609", WARNING), said("GL403", WARNING)],
            "GL403",
            id="limit-too-small",
        ),
        pytest.param(
            [
                said("GL402", WARNING),
                said("GL403", WARNING),
                said("GL409"),
                said("GL405", exact=True),
            ],
            "GL405",
            id="clipped-before-unscale",
        ),
        pytest.param([said("GL409"), said("GL501", exact=True, step=3)], "GL501", id="skipped"),
        pytest.param([said("GL402", WARNING), said("GL409")], "GL409", id="nothing-but-skips"),
        pytest.param([said("GL306", NOTE), said("GL410", NOTE)], "GL410", id="unclipped"),
        pytest.param(
            [said("GL610", WARNING), said("GL407", NOTE), said("GL401")], "GL401", id="thrown"
        ),
        pytest.param([said("GL609", WARNING), said("GL610", WARNING)], "GL610", id="swings"),
    ],
)
def test_what_a_fault_brings_about_is_folded_under_it(found: list[Finding], cause: str) -> None:
    assert roots(link(found)) == [cause]


UPDATE, PROGRESS, WIRING = Stage.UPDATE, Stage.PROGRESS, Stage.WIRING


@pytest.mark.parametrize(
    ("cause", "symptoms"),
    [
        pytest.param(
            "GL704", ["GL302", "GL306", "GL401", "GL501", "GL504", "GL609"], id="piled-up"
        ),
        pytest.param("GL705", ["GL301", "GL402", "GL406", "GL408", "GL609", "GL701"], id="cleared"),
        pytest.param("GL707", ["GL402", "GL406", "GL609", "GL701"], id="no-step"),
        pytest.param("GL703", ["GL402", "GL609", "GL702"], id="another-model's-optimizer"),
        pytest.param("GL406", ["GL402", "GL609", "GL610"], id="unchanged"),
        pytest.param("GL504", ["GL202", "GL501", "GL609"], id="growing"),
    ],
)
def test_faults_of_the_loop_explain_what_they_bring_about(cause: str, symptoms: list[str]) -> None:
    first = said(cause, exact=True, stage=WIRING, step=1)
    found = [said(code, stage=PROGRESS, step=1) for code in symptoms]

    assert roots(link([*found, first])) == [cause]


def test_an_idle_optimizer_is_the_cause_though_it_is_a_warning() -> None:
    idle = said("GL707", WARNING, exact=True, stage=WIRING)

    assert roots(link([said("GL406", exact=True, stage=UPDATE), idle])) == ["GL707"]


def test_rounded_updates_are_the_cause_of_small_ones() -> None:
    assert roots(link([said("GL402", stage=UPDATE), said("GL406", exact=True, stage=UPDATE)])) == [
        "GL406"
    ]


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param(0, ["GL703"], id="nothing-of-the-model"),
        pytest.param(3, ["GL302", "GL703"], id="all-but-a-layer"),
    ],
)
def test_an_optimizer_of_another_model_lets_gradients_pile_up(held, expected) -> None:
    foreign = said("GL703", exact=True).but(evidence={"held": held})

    assert sorted(roots(link([foreign, said("GL302")]))) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("BatchNorm2d", ["GL710"]), ("Dropout", ["GL302", "GL710"])],
)
def test_evaluation_mode_explains_an_explosion_where_it_switches_a_normalization_off(
    kind, expected
) -> None:
    found = said("GL710", WARNING, exact=True).but(evidence={"kind": kind})

    assert sorted(roots(link([found, said("GL302")]))) == expected


def test_a_cut_and_a_wrong_loss_are_two_faults() -> None:
    found = [said("GL701", exact=True), said("GL601", exact=True), said("GL609")]

    assert sorted(roots(link(found))) == ["GL601", "GL701"]


@pytest.mark.parametrize(
    ("cause", "symptom"),
    [
        pytest.param(said("GL901", exact=True), said("GL902", WARNING), id="replicas"),
        pytest.param(said("GL902", WARNING), said("GL306", WARNING), id="one-ranks-spikes"),
        pytest.param(said("GL615", WARNING), said("GL614", WARNING), id="terms-of-raw-numbers"),
        pytest.param(said("GL614", WARNING), said("GL609", WARNING), id="an-outweighed-term"),
        pytest.param(said("GL108", WARNING), said("GL305", WARNING), id="forgetting"),
        pytest.param(said("GL301"), said("GL502", WARNING), id="vanished-below-the-format"),
        pytest.param(said("GL502", WARNING), said("GL609", WARNING), id="underflow"),
        pytest.param(said("GL401"), said("GL806", WARNING), id="statistics-that-lag"),
        pytest.param(said("GL401"), said("GL205", WARNING), id="attention-that-got-sharp"),
    ],
)
def test_one_of_the_two_is_the_cause(cause: Finding, symptom: Finding) -> None:
    assert roots(link([symptom, cause])) == [cause.code]


UNMOVED = said("GL402", WARNING, stage=UPDATE)
ITSELF = UNMOVED.but(evidence={"rate_suffices": True})


@pytest.mark.parametrize("cause", ["GL603", "GL606", "GL102", "GL101", "GL301", "GL809", "GL403"])
def test_a_rate_that_suffices_is_a_fault_of_its_own(cause: str) -> None:
    first = said(cause, stage=Stage.DATA)

    assert roots(link([first, UNMOVED])) == [cause]
    assert sorted(roots(link([first, ITSELF]))) == sorted(["GL402", cause])


@pytest.mark.parametrize("cause", ["GL701", "GL702", "GL709", "GL712"])
def test_a_part_left_out_does_not_slow_the_others(cause: str) -> None:
    assert sorted(roots(link([said(cause, exact=True), UNMOVED]))) == ["GL402", cause]


@pytest.mark.parametrize("cause", ["GL606", "GL615", "GL704", "GL302", "GL104"])
def test_long_steps_are_explained_by_gradients_unless_the_rate_suffices(cause: str) -> None:
    long = said("GL401", stage=UPDATE)
    first = said(cause, stage=Stage.DATA, step=0)

    assert roots(link([first, long])) == [cause]
    itself = long.but(evidence={"rate_suffices": True})
    assert sorted(roots(link([first, itself]))) == sorted(["GL401", cause])


def test_weights_that_start_small_are_changed_much_by_any_rate() -> None:
    long = said("GL401", stage=UPDATE).but(evidence={"rate_suffices": True})

    assert roots(link([said("GL101", WARNING), long])) == ["GL101"]


@pytest.mark.parametrize("cause", ["GL401", "GL408", "GL504", "GL704", "GL705", "GL703"])
@pytest.mark.parametrize("symptom", ["GL302", "GL201", "GL301"])
def test_what_stood_before_the_first_update_is_explained_by_none(cause: str, symptom: str) -> None:
    first = said(cause, stage=WIRING, exact=True).but(evidence={"held": 0})
    before, after = said(symptom, step=0), said(symptom, step=20)

    assert symptom in roots(link([first, before]))
    if any(m.leads(first, after) for m in MECHANISMS):
        assert roots(link([first, after])) == [cause]


def test_nan_explains_what_was_seen_with_it_or_later() -> None:
    exploding = said("GL302", step=0, stage=Stage.BACKWARD)

    assert roots(link([exploding, said("GL501", exact=True, step=1)])) == ["GL501"]
    assert roots(link([exploding, said("GL501", exact=True, step=5)])) == ["GL302"]


def test_a_gradient_that_weights_make_grow_is_none_of_the_data_s() -> None:
    by_weights = said("GL302").but(evidence={"decades": {"weights": 4.0, "structural": 5.0}})
    by_attention = said("GL302").but(evidence={"decades": {"weights": 1.0, "attention": 3.0}})

    for data in ("GL606", "GL615"):
        first = said(data, stage=Stage.DATA)
        assert sorted(roots(link([first, by_weights]))) == ["GL302", data]
        assert roots(link([first, by_attention])) == [data]


@pytest.mark.parametrize("cause", ["GL606", "GL701", "GL601", "GL102", "GL408"])
def test_nothing_explains_a_setting(cause: str) -> None:
    maximizing = said("GL609", exact=True, stage=PROGRESS).but(evidence={"maximize": True})

    assert set(roots(link([said(cause, exact=True), maximizing]))) == {"GL609", cause}


@pytest.mark.parametrize("phase", ["input", "target"])
def test_nothing_explains_nan_in_the_data(phase: str) -> None:
    in_data = said("GL501", exact=True, step=1).but(evidence={"phase": phase})

    assert sorted(roots(link([said("GL601", exact=True), in_data]))) == ["GL501", "GL601"]
    later = in_data.but(step=9)  # a target that the model itself computed
    assert roots(link([said("GL401", exact=True), later])) == ["GL401"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GL709", "GL702"), ("GL709", "GL701"), ("GL709", "GL712"), ("GL704", "GL701"),
        ("GL704", "GL702"), ("GL704", "GL712"), ("GL705", "GL702"), ("GL705", "GL712"),
        ("GL703", "GL712"), ("GL701", "GL702"), ("GL701", "GL712"),
    ],
)  # fmt: skip
def test_faults_of_the_wiring_do_not_bring_about_each_other(one: str, other: str) -> None:
    found = [said(code, exact=True, stage=WIRING) for code in (one, other)]

    assert sorted(roots(link(found))) == sorted([one, other])


def test_nan_makes_equal_units_only_of_weights_that_hold_it() -> None:
    equal = said("GL102", step=0, stage=Stage.INITIALIZATION)
    found = said("GL501", exact=True, step=0)

    assert "GL102" in roots(link([found, equal]))
    assert roots(link([found.but(evidence={"phase": "parameter"}), equal])) == ["GL501"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(150.0, ["GL606"], id="an-autoencoder's"),
        pytest.param(3e4, ["GL606", "GL615"], id="of-their-own"),
    ],
)
def test_targets_are_off_with_the_inputs_where_they_are_the_same(target, expected) -> None:
    inputs = said("GL606", stage=Stage.DATA).but(evidence={"scale": 150.0})
    targets = said("GL615", stage=Stage.DATA).but(evidence={"target": target, "output": 0.1})

    assert sorted(roots(link([inputs, targets]))) == expected


@pytest.mark.parametrize(
    ("cause", "least", "expected"),
    [
        pytest.param("GL615", 0.0, ["GL615"], id="divided-by-their-largest-they-fit"),
        pytest.param("GL615", -3.0, ["GL603", "GL615"], id="standardized-they-do-not"),
        pytest.param("GL605", 0.0, ["GL603", "GL605"], id="shapes-are-another-matter"),
    ],
)
def test_targets_leave_a_range_by_scale_alone_where_they_have_one_sign(
    cause, least, expected
) -> None:
    bounded = said("GL603", exact=True, stage=Stage.LOSS).but(evidence={"target_minimum": least})

    assert sorted(roots(link([said(cause, exact=True), bounded]))) == expected


@pytest.mark.parametrize("signal", ["GL103", "GL104"])
@pytest.mark.parametrize("fault", ["GL603", "GL606", "GL615"])
def test_a_signal_explains_neither_data_nor_a_range(signal: str, fault: str) -> None:
    assert fault in roots(link([said(signal, step=0), said(fault)]))


@pytest.mark.parametrize(
    ("hidden", "left_out", "expected"),
    [
        ("net", "layer", ["GL709"]),
        ("net", "net.head", ["GL709", "GL702"]),
        (None, "layer", ["GL709", "GL702"]),
        ("net", None, ["GL709", "GL702"]),
    ],
)
def test_layers_in_a_list_are_in_no_optimizer_because_of_it(hidden, left_out, expected) -> None:
    found = [
        replace(said("GL709", exact=True), module=hidden),
        replace(said("GL702", exact=True), module=left_out),
    ]

    assert sorted(roots(link(found)), reverse=True) == expected


@pytest.mark.parametrize(("scale", "expected"), [(255.0, ["GL606"]), (0.0, ["GL501", "GL606"])])
def test_inputs_of_zero_do_not_overflow(scale, expected) -> None:
    found = [
        replace(said("GL606", WARNING), evidence={"scale": scale}),
        said("GL501", exact=True, step=1),
    ]

    assert roots(link(found)) == expected


def test_a_batch_unlike_the_others_explains_the_growth_it_began() -> None:
    odd = said("GL306", step=11).but(evidence={"of_one_batch": True})
    growth, infinite = said("GL302", step=9), said("GL501", exact=True, step=14)
    before = said("GL302", step=2)

    assert roots(link([infinite, growth, odd])) == ["GL306"]
    assert "GL302" in roots(link([infinite, before, odd]))
    assert "GL306" not in roots(link([infinite, growth, said("GL306", step=15)]))
