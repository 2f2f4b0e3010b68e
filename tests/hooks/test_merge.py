"""Facts of several batches as facts of one."""

from __future__ import annotations

from gradlint.graph import Graph, Operation
from gradlint.hooks.merge import Places, merged_losses
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


def test_a_loss_of_other_classes_stays_another() -> None:
    found = [LossFacts("cross_entropy", classes=n, operation=3) for n in (4, 10, 4)]
    assert [facts.classes for facts in merged_losses(found)] == [4, 10]


def behind(path: str) -> Graph:
    """A loss over the output of one layer."""
    layer = Operation(0, "linear", path, inputs=(), parameters=(f"{path}.weight",))
    return Graph((layer, Operation(1, "mse", "", inputs=(0,), in_loss=True)))


def test_losses_of_heads_that_train_in_turns_are_told_apart() -> None:
    places, first = Places(), behind("a")
    loss = LossFacts("mse", operation=1)

    def place(graph: Graph) -> int | None:
        return places.placed([loss], graph, first)[0].operation

    assert place(first) == place(behind("a")) == 1
    assert place(behind("b")) == place(behind("b")) == -1
    assert place(behind("c")) == -2
    assert places.placed([LossFacts("l1")], behind("b"), first)[0].operation is None
