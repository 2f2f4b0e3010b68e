"""Facts of several batches as facts of one."""

from __future__ import annotations

from gradlint.hooks.merge import merged_losses
from gradlint.trace import LossFacts, TensorFacts


def seen(mean: float, std: float) -> LossFacts:
    tensor = TensorFacts("", (8,), "float32", mean - std, mean + std, mean, std)
    return LossFacts("mse", output=tensor, target=tensor, operation=3)


def test_the_widest_ranges_are_kept_and_the_output_s_size_at_first() -> None:
    (found,) = merged_losses([seen(0.0, 1.0), seen(90.0, 10.0)])

    assert found.output is not None
    assert found.target is not None
    assert (found.output.minimum, found.output.maximum) == (-1.0, 100.0)
    assert (found.output.mean, found.output.std) == (0.0, 1.0)
    assert found.target.mean == 45.0


def test_another_loss_stays_another() -> None:
    assert len(merged_losses([seen(0.0, 1.0), LossFacts("l1", operation=3)])) == 2


def test_a_loss_without_output_takes_that_of_another_batch() -> None:
    (found,) = merged_losses([LossFacts("mse", operation=3), seen(2.0, 1.0)])

    assert found.output is not None
    assert found.output.mean == 2.0
