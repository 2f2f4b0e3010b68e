"""Tensors found in anything a model takes or returns, and their statistics."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from gradlint.facts import TensorFacts
from gradlint.hooks.tensor_facts import MAX_UNIQUE, merged, named_tensors, tensor_facts
from tests.strategies import DTYPES, entries, mean_of, std_of, tensors

ONE, TWO = torch.tensor([1.0]), torch.tensor([2.0])


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@dataclass
class Output:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    loss: Tensor | None = None


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (ONE, ["x"]), ((ONE, TWO), ["x[0]", "x[1]"]), ([ONE, [TWO]], ["x[0]", "x[1][0]"]),
        ({"a": ONE, "b": {"c": TWO}}, ["x[a]", "x[b][c]"]),
        (OrderedDict(a=ONE), ["x[a]"]), (Pair(ONE, TWO), ["x[0]", "x[1]"]),
        (Output(ONE, (TWO,)), ["x[logits]", "x[hidden][0]"]),
        (None, []), (3, []), ("text", []), ((ONE, None, 3, "text"), ["x[0]"]), ((), []),
        ({"boxes": [ONE, TWO]}, ["x[boxes][0]", "x[boxes][1]"]),
    ],
    ids=repr,
)  # fmt: skip
def test_tensors_are_found_and_named(value: Any, names: list[str]) -> None:
    assert [name for name, _ in named_tensors(value, "x")] == names


def test_a_model_output_of_transformers_is_looked_into() -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    output = outputs.CausalLMOutput(loss=ONE[0], logits=TWO)

    found = dict(named_tensors(output, "output"))

    assert set(found) == {"output[loss]", "output[logits]"}
    assert found["output[logits]"] is TWO


def test_a_packed_sequence_is_its_tensors() -> None:
    packed = pack_sequence([torch.randn(3, 2), torch.randn(1, 2)])

    found = named_tensors(packed, "x")

    assert found[0][1] is packed.data
    assert len(found) >= 2


@given(tensors())
def test_statistics_are_those_of_a_loop(tensor: Tensor) -> None:
    values = entries(tensor)

    facts = tensor_facts("x", tensor)

    assert facts.shape == tuple(tensor.shape)
    assert facts.minimum == min(values)
    assert facts.maximum == max(values)
    assert facts.mean == pytest.approx(mean_of(values), rel=1e-9, abs=1e-9)
    assert facts.std == pytest.approx(std_of(values), rel=1e-9, abs=1e-9)
    assert facts.unique == len(set(values))
    assert facts.whole == all(v == round(v) for v in values)
    assert facts.non_finite == 0


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64, torch.uint8, torch.bool])
def test_every_dtype_of_a_batch_has_facts(dtype: torch.dtype) -> None:
    facts = tensor_facts("x", torch.tensor([[0, 1], [1, 1]]).to(dtype))

    assert facts.dtype == str(dtype)[6:]
    assert (facts.minimum, facts.maximum, facts.mean) == (0, 1, 0.75)
    assert facts.whole
    assert facts.floating is dtype.is_floating_point
    assert facts.integral is not dtype.is_floating_point


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    facts = tensor_facts("x", torch.tensor([[1.0, math.nan], [3.0, -math.inf]]))

    assert facts.non_finite == 2
    assert (facts.minimum, facts.maximum, facts.mean) == (1, 3, 2)


def test_a_tensor_of_nothing_or_of_nan_alone_has_facts() -> None:
    assert tensor_facts("x", torch.empty(0, 3)).shape == (0, 3)
    assert tensor_facts("x", torch.full((2,), math.nan)).non_finite == 2


def test_channels_are_the_last_axis_of_a_matrix_and_the_second_of_an_image() -> None:
    matrix = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    image = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).expand(3, 2, 4, 4)

    assert tensor_facts("x", matrix).channel_means == (1, 20)
    assert tensor_facts("x", matrix).channel_stds == (1, 10)
    assert tensor_facts("x", image).channel_means == (0, 1)
    assert tensor_facts("x", image).channel_stds == (0, 0)


def test_many_values_are_counted_up_to_a_limit() -> None:
    assert tensor_facts("x", torch.arange(5000.0)).unique == MAX_UNIQUE


def test_sparse_and_complex_inputs_have_facts() -> None:
    sparse = torch.eye(3).to_sparse()

    assert tensor_facts("x", sparse).maximum == 1
    assert tensor_facts("x", torch.tensor([1 + 2j])).maximum == 2


def test_facts_hold_no_entries_of_a_batch() -> None:
    facts = tensor_facts("x", torch.randn(100, 3))

    assert not any(isinstance(getattr(facts, f.name), Tensor) for f in fields(facts))
    assert len(facts.channel_means) == 3


def test_batches_are_merged_as_if_they_were_one() -> None:
    first, second = torch.randn(2, 50, 3).unbind(0)
    both = tensor_facts("x", torch.cat([first, second]))

    (facts,) = merged([(tensor_facts("x", first),), (tensor_facts("x", second),)])

    assert (facts.minimum, facts.maximum) == (both.minimum, both.maximum)
    assert facts.mean == pytest.approx(both.mean)
    assert facts.std == pytest.approx(both.std)
    assert facts.shape == (50, 3)


def test_merging_nothing_is_nothing() -> None:
    assert merged([]) == ()
    assert merged([()]) == ()


def test_frames_are_alike_and_samples_are_not() -> None:
    torch.manual_seed(0)
    samples = torch.randn(64, 10, 4) + torch.randn(10, 4)  # with something in common
    frames = torch.randn(64, 10, 4).cumsum(0)

    alone, film = (tensor_facts("x", x).neighbors for x in (samples, frames))

    assert alone is not None
    assert film is not None
    assert abs(alone) < 0.1
    assert film > 0.7


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.randn(64, 4), id="features"),
        pytest.param(torch.randn(3, 4, 4), id="three-samples"),
        pytest.param(torch.zeros(8, 4, 4, dtype=torch.int64), id="tokens"),
        pytest.param(torch.full((8, 4, 4), torch.nan), id="not-a-number"),
    ],
)
def test_of_other_tensors_neighbors_are_not_compared(tensor) -> None:
    assert tensor_facts("x", tensor).neighbors is None


def test_equal_samples_are_not_alike_beyond_what_all_have_in_common() -> None:
    assert tensor_facts("x", torch.ones(8, 4, 4)).neighbors == 0.0


def test_batches_are_compared_by_their_mean_and_only_where_all_were() -> None:
    def alike(*values: float | None) -> float | None:
        facts = [(TensorFacts("x", (8, 4, 4), "float32", neighbors=v),) for v in values]
        return merged(facts)[0].neighbors

    assert alike(0.1, 0.3) == pytest.approx(0.2)
    assert alike(0.1, None) is None


def test_quantiles_are_the_middles_of_twenty_parts() -> None:
    facts = tensor_facts("target", torch.arange(200.0)[torch.randperm(200)])

    assert facts.quantiles == tuple(float(5 + 10 * part) for part in range(20))
    assert facts.unique == 200


def test_quantiles_of_batches_are_averaged() -> None:
    first, second = (tensor_facts("y", shift + torch.arange(20.0)) for shift in (0.0, 10.0))

    (together,) = merged([(first,), (second,)])

    assert together.quantiles == tuple(float(5 + part) for part in range(20))
