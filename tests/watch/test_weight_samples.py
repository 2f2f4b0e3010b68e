"""Weight samples kept from step to step: they show the weight that is there, not one that was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradlint.watching.sampling import sample
from gradlint.watching.weight_samples import WeightSamples


def changed(samples: WeightSamples, parameter: nn.Parameter, *, by: float) -> Tensor:
    with torch.no_grad():
        samples.keep([parameter], [0])
        parameter.add_(by)
        return samples.change([parameter], [0])[0]


@pytest.mark.parametrize("shape", [(7,), (10,), (512, 300), (4, 3, 3, 3)])
def test_what_an_update_changes_is_seen_at_every_step(shape: tuple[int, ...]) -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(shape))

    for _ in range(3):
        change = changed(samples, parameter, by=2.0)

        assert change.shape == sample(parameter).shape
        assert (change == 2).all()


def test_copies_hold_what_the_weight_was_before_the_update() -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.arange(6.0).reshape(2, 3))

    with torch.no_grad():
        (kept,) = samples.keep([parameter], [0])
        parameter.mul_(3)

    assert kept.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_parameter_given_another_tensor_is_seen_in_its_new_place() -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(8))
    changed(samples, parameter, by=1.0)

    parameter.data = torch.full((8,), 5.0)
    with torch.no_grad():
        (kept,) = samples.keep([parameter], [0])

    assert kept.tolist() == [5.0] * 8


def test_another_type_or_length_in_the_same_place_gets_a_copy_of_its_own() -> None:
    samples = WeightSamples()
    changed(samples, nn.Parameter(torch.zeros(8)), by=1.0)

    for other in (torch.ones(5), torch.ones(8, dtype=torch.float64)):
        with torch.no_grad():
            (kept,) = samples.keep([nn.Parameter(other)], [0])

        assert kept.dtype == other.dtype
        assert kept.tolist() == other.tolist()


def test_a_transposed_weight_is_sampled_anew() -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(6, 4).t())

    for _ in range(2):
        assert (changed(samples, parameter, by=1.0) == 1).all()


def test_memory_given_back_between_two_steps_is_not_read() -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(100_000))
    changed(samples, parameter, by=1.0)

    storage = parameter.untyped_storage()
    storage.resize_(0)  # as those do that keep weights elsewhere
    parameter.data = torch.full((100_000,), 3.0)

    assert (changed(samples, parameter, by=1.0) == 1).all()


def test_a_weight_that_moves_within_a_step_is_seen_where_it_is() -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(8))
    with torch.no_grad():
        samples.keep([parameter], [0])
        parameter.data = torch.full((8,), 5.0)

        (change,) = samples.change([parameter], [0])

    assert change.tolist() == [5.0] * 8


@pytest.mark.parametrize("dropped", [False, True])
def test_no_view_outlives_a_step(dropped: bool) -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(6, 4))
    with torch.no_grad():
        samples.keep([parameter], [0])
        _ = samples.drop() if dropped else samples.change([parameter], [0])

    assert samples._views == []


def test_copies_made_in_inference_mode_do_not_end_the_watching() -> None:
    samples, parameter = WeightSamples(), nn.Parameter(torch.zeros(8))
    with torch.inference_mode():
        samples.keep([parameter], [0])

    assert (changed(samples, parameter, by=2.0) == 2).all()
