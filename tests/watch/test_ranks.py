"""What ranks hand over, put together; and the steps that all of them look at."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gradlint.facts import Event, Facts, ParameterFacts
from gradlint.hooks.ranks import CHUNK, bits, pieces, whole
from gradlint.loop_facts import LoopFacts
from gradlint.observation import MODEL, Observation, Site
from gradlint.trace import Trace
from gradlint.watching.cadence import Cadence, Look
from gradlint.watching.meeting import Folder, Meeting
from gradlint.watching.merging import diverged_parameters, merged, without_shards
from gradlint.watching.parts import Check, Part, decoded, part_of
from gradlint.watching.ranks import next_stop

WEIGHT = Site("fc.weight", "parameter", 0, "fc")


def trace(loss: float, gradient: float, weight: float, *, events: tuple[Event, ...] = ()) -> Trace:
    found = [
        Observation("loss", MODEL, 1, loss),
        Observation("gradient_norm", WEIGHT, 1, gradient),
        Observation("weight_norm", WEIGHT, 1, weight),
        Observation("gradient_ratio", WEIGHT, 1, gradient / weight),
        Observation("update_to_weight_ratio", WEIGHT, 1, 0.5),
        Observation("total_gradient_norm", MODEL, 1, gradient),
        Observation("activation_std", Site("fc", "Linear", 0, "fc"), 1, 7.0),
    ]
    parameters = {"fc.weight": ParameterFacts("fc.weight", (4, 4), "float32", "fc")}
    facts = Facts(command="watch", loop=LoopFacts(steps=1), events=events)
    return Trace(found, parameters=parameters, facts=facts)


def values(found: Trace) -> dict[str, float]:
    return {seen.metric: seen.value for seen in found}


SHARES = {"fc.weight": (0, 1)}


def test_norms_of_parts_are_added_as_squares_and_losses_averaged() -> None:
    first, second = trace(1.0, 3.0, 6.0), trace(2.0, 4.0, 8.0)
    parts = [part_of(first, 0, SHARES, ()), part_of(second, 1, SHARES, ())]

    found, lost = merged(first, parts, SHARES)

    assert values(found) == pytest.approx({
        "loss": 1.5, "gradient_norm": 5.0, "weight_norm": 10.0, "gradient_ratio": 0.5,
        "update_to_weight_ratio": 0.5, "total_gradient_norm": 5.0, "activation_std": 7.0,
    })  # fmt: skip
    assert lost == []


def test_a_part_that_is_missing_leaves_no_number_and_is_told() -> None:
    first = trace(1.0, 3.0, 6.0)

    found, lost = merged(first, [part_of(first, 0, SHARES, ())], SHARES)

    assert values(found) == {"loss": 1.0, "activation_std": 7.0}
    assert lost == [
        "norms of parameters that are split over ranks are missing: parts of them are on rank 1"
    ]
    assert values(without_shards(first, SHARES, clips=False)) == values(found)


def test_numbers_of_whole_parameters_stay_as_they_are() -> None:
    first, second = trace(1.0, 3.0, 6.0), trace(2.0, 4.0, 8.0)

    found, lost = merged(first, [part_of(first, 0, {}, ()), part_of(second, 1, {}, ())], {})

    assert values(found) == {**values(first), "loss": 1.5}
    assert without_shards(first, {}, clips=False) is first
    assert lost == []


def test_ranks_that_train_something_else_have_no_say_in_the_loss() -> None:
    first, second = trace(1.0, 3.0, 6.0), trace(2.0, 4.0, 8.0)
    other = second.but(parameters={"x": ParameterFacts("x", (4, 4), "float32", "")})

    found, _ = merged(first, [part_of(first, 0, {}, ()), part_of(other, 1, {}, ())], {})

    assert values(found)["loss"] == 1.0


def test_a_step_that_one_rank_did_not_look_at_has_no_number_of_a_split_parameter() -> None:
    first, second = trace(1.0, 3.0, 6.0), trace(2.0, 4.0, 8.0)
    later = [Observation(o.metric, o.site, 2, o.value) for o in first if o.site is WEIGHT]
    first = first.but(observations=[*first, *later])

    found, _ = merged(
        first, [part_of(first, 0, SHARES, ()), part_of(second, 1, SHARES, ())], SHARES
    )

    assert {seen.step for seen in found} == {1}


def test_a_part_survives_its_journey() -> None:
    event = Event("non-finite", 3, "fc", {"phase": "forward", "value": "nan"})
    check = Check(1, "Adam", 0, {"a": (2**64 - 1, 5)}, {"a": (0, 0)}, {"b": (0, 1)})
    part = part_of(trace(math.inf, 3.0, 6.0, events=(event,)), 1, SHARES, [check])

    assert decoded(part.encoded()) == part


@pytest.mark.parametrize("broken", [b"", b"x\x9c", Part(99, 1).encoded()])
def test_a_part_that_cannot_be_read_is_a_value_error(broken: bytes) -> None:
    with pytest.raises(ValueError, match=r"incomplete|expected"):
        decoded(broken)


def nan(step: int, phase: str) -> Event:
    return Event("non-finite", step, "fc", {"phase": phase, "value": "nan"})


@pytest.mark.parametrize(
    ("mine", "other", "rank"),
    [
        (nan(3, "backward"), nan(3, "forward"), 1),
        (nan(3, "forward"), nan(3, "forward"), None),
        (nan(3, "forward"), nan(4, "forward"), None),
        (nan(4, "backward"), nan(3, "backward"), 1),
    ],
)
def test_the_rank_that_saw_the_first_bad_number_tells_where(
    mine: Event, other: Event, rank: int | None
) -> None:
    first, second = trace(1.0, 3.0, 6.0, events=(mine,)), trace(1.0, 3.0, 6.0, events=(other,))

    found, _ = merged(first, [part_of(first, 0, {}, ()), part_of(second, 1, {}, ())], {})

    assert [e.detail.get("rank") for e in found.facts.events] == [rank]


def check(weight: int, gradient: int = 1, **how: Any) -> Check:
    base: dict[str, Any] = {"step": 4, "optimizer": "Adam", "own": 3, "copies": {}, **how}
    return Check(weights={"w": (weight, 0)}, gradients={"w": (gradient, 0)}, **base)


BOTH = {"w": (0, 1)}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        (check(1), check(1), False),
        (check(1), check(2), True),  # the same gradient on other weights: somebody averaged it
        (check(1, 5), check(2, 6), False),  # nobody promised anything
        (check(1, 0), check(2, 0), False),  # no gradient at all
        (check(1, 5, copies=BOTH), check(2, 6, copies=BOTH), True),
        (check(1, copies=BOTH), check(2, own=4, copies=BOTH), False),  # elsewhere in the program
        (check(1, copies={"w": (0, 2)}), check(2, copies={"w": (1, 3)}), False),  # other parts
    ],
)
def test_replicas_are_accused_where_they_must_agree(
    first: Check, second: Check, found: bool
) -> None:
    parts = [Part(1, 0, checks=(first,)), Part(1, 1, checks=(second,))]

    assert diverged_parameters(parts) == ((("w",), 4) if found else ((), None))


def test_the_first_step_of_a_difference_is_told() -> None:
    parts = [
        Part(1, 0, checks=tuple(check(1, step=s, copies=BOTH) for s in (1, 2, 4, 8))),
        Part(1, 1, checks=tuple(check(1 + (s > 2), step=s, copies=BOTH) for s in (1, 2, 4))),
    ]

    assert diverged_parameters(parts) == (("w",), 4)


TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.complex64]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_hash_is_of_the_bits_and_their_places(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tensor = (torch.randn(6, 5, generator=generator) * 9).to(dtype)
    changed, swapped = tensor.clone(), tensor.flip(0)
    changed[3, 2] += 1

    def of(t: torch.Tensor) -> list[int]:
        return bits(t).tolist()

    assert of(tensor) == of(tensor.clone()) == of(tensor.t().contiguous().t())
    assert of(tensor)[0] != of(changed)[0]
    assert of(tensor)[0] == of(swapped)[0]
    assert of(tensor)[1] != of(swapped)[1]


def test_a_hash_tells_minus_zero_and_is_the_same_however_it_is_taken() -> None:
    big = torch.arange(CHUNK + 7, dtype=torch.int64) * 0x9E3779B97F4A7C1
    places = torch.arange(1, CHUNK + 8)

    assert bits(torch.zeros(3)).tolist() != bits(-torch.zeros(3)).tolist()
    assert bits(big).tolist() == [int(big.sum()), int((big * places).sum())]
    assert bits(torch.zeros(0)).tolist() == [0, 0]


def test_integers_survive_as_floats() -> None:
    numbers = torch.tensor([0, -1, 2**62 + 3, -(2**63)])

    again = whole(pieces(numbers).to(torch.float32).reshape(-1).tolist())

    assert again == tuple(int(n) % 2**64 for n in numbers)


def steps_looked_at(cost: float, whole: float, count: int = 600) -> dict[int, Look]:
    cadence = Cadence("auto", 0.02)
    found: dict[int, Look] = {}
    for step in range(1, count + 1):
        found[step] = look = cadence.next(step)
        if step == 1:
            cadence.align()
        own = {Look.OFF: 0.0, Look.LIGHT: cost, Look.FULL: 10 * cost}[look]
        cadence.spent(look, own, whole + own, first=step <= 40)
    return {step: look for step, look in found.items() if look is not Look.OFF}


@pytest.mark.parametrize("slower", [1.5, 3.0, 20.0])
def test_the_steps_of_a_slow_rank_are_among_those_of_a_fast_one(slower: float) -> None:
    fast, slow = steps_looked_at(1e-3, 0.05), steps_looked_at(slower * 1e-3, 0.05)

    assert slow.keys() <= fast.keys()
    assert {1, 2, 3, 40} <= slow.keys()
    assert max(slow) > 300


def test_aligned_looks_keep_to_the_budget() -> None:
    looked = steps_looked_at(1e-3, 0.05)

    spent = sum(1e-3 if look is Look.LIGHT else 1e-2 for step, look in looked.items() if step > 40)
    assert spent <= 0.02 * 0.05 * 560


def test_ranks_ask_each_other_ever_more_rarely_whether_to_stop() -> None:
    asked, step = [], 0
    while step < 64:
        step = next_stop(step)
        asked.append(step)

    assert asked == [1, 2, 4, 8, 16, 32, 48, 64]


def test_what_is_left_in_a_folder_is_found_there(tmp_path: Any) -> None:
    place = Folder(tmp_path / "ranks")
    first, *others = [Meeting(place, 0, rank, 4) for rank in range(4)]
    first.open()
    for rank, meeting in enumerate(others, start=1):
        if rank < 3:
            meeting.join()
        if rank == 1:
            assert meeting.leave(b"one", 5)
    assert others[0].ask_to_stop(8) == 8
    assert first.ask_to_stop(16) == 8
    assert others[1].asked_to_stop() == 8

    found, absent = first.collect(0.1)

    assert found == {1: b"one"}
    assert absent == {3}
    assert list(tmp_path.iterdir()) == []
