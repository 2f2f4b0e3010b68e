"""What entered the loss: out of torch's own nodes, out of the call, out of a loss by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.engine import Observer
from gradlint.hooks.loss import from_call, from_graph, kind_of_callable
from gradlint.trace import LossFacts

LABELS = torch.tensor([0, 1, 2, 1])
WANTED = torch.randn(4, 3)


def facts_of(
    loss: Callable[[Tensor], Tensor], target: Tensor, last: nn.Module | None = None
) -> list[LossFacts]:
    model = nn.Sequential(nn.Linear(6, 3), last or nn.Identity())
    with Observer(model) as observer, observer.step(0):
        output = model(torch.randn(4, 6))
        observer.forward_done(loss(output))
        assert observer.captured is not None
        return from_graph(observer.captured, [output], [target])


@pytest.mark.parametrize(
    ("loss", "target", "kind"),
    [
        (lambda o: F.cross_entropy(o, LABELS), LABELS, "cross_entropy"),
        (lambda o: F.mse_loss(o, WANTED), WANTED, "mse"),
        (lambda o: F.smooth_l1_loss(o, WANTED), WANTED, "smooth_l1"),
        (lambda o: F.huber_loss(o, WANTED), WANTED, "huber"),
        (lambda o: F.l1_loss(o, WANTED), WANTED, "l1"),
        (lambda o: ((o - WANTED) ** 2).mean(), WANTED, "mse"),
        (lambda o: (o - WANTED).square().mean(), WANTED, "mse"),
        (lambda o: (WANTED - o).abs().mean(), WANTED, "l1"),
        (lambda o: F.cross_entropy(o, WANTED.softmax(1)), WANTED, "cross_entropy"),
        (lambda o: F.binary_cross_entropy_with_logits(o, WANTED.sigmoid()), WANTED,
         "bce_with_logits"),
    ],
)  # fmt: skip
def test_a_loss_is_recognized(loss: Callable[[Tensor], Tensor], target: Tensor, kind: str) -> None:
    found = facts_of(loss, target)

    assert [facts.kind for facts in found] == [kind]
    assert found[0].reduction == "mean"
    assert found[0].output is not None
    assert found[0].output.shape == (4, 3)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o: -(WANTED.softmax(1) * F.log_softmax(o, 1)).sum(1).mean(),
        lambda o: (F.log_softmax(o, 1).neg() * WANTED.softmax(1)).sum(1).mean(),
        lambda o: (-WANTED.softmax(1) * F.log_softmax(o, 1)).sum(1).mean(),
    ],
)
def test_what_weighs_the_log_probabilities_is_the_target(
    loss: Callable[[Tensor], Tensor],
) -> None:
    (found,) = facts_of(loss, WANTED)  # scores of documents, say, whose softmax is learned

    assert found.kind == "cross_entropy"
    assert found.target is not None
    assert found.target.mean == pytest.approx(1 / 3)
    assert found.target.minimum > 0


def test_weights_of_the_classes_leave_probabilities_as_they_are() -> None:
    rows = F.one_hot(LABELS, 3).float()
    weights = torch.tensor([0.5, 2.0, 4.0])

    (found,) = facts_of(lambda o: -(rows * weights * F.log_softmax(o, 1)).sum(1).mean(), rows)

    assert found.target is not None
    assert found.target.mean == pytest.approx(1 / 3)


def test_a_weight_of_each_row_is_no_target() -> None:
    weights = torch.rand(4, 1)

    (found,) = facts_of(lambda o: -(weights * F.log_softmax(o, 1)).sum(1).mean(), WANTED)

    assert found.target is not None
    assert found.target.mean == pytest.approx(float(WANTED.mean()))


def test_a_loss_nobody_knows_is_not_guessed() -> None:
    assert facts_of(lambda o: o.logsumexp(0).sum(), LABELS) == []


def test_labels_made_to_rows_in_a_loss_by_hand_are_not_what_it_compares_with() -> None:
    def brier(output: Tensor) -> Tensor:
        return ((F.one_hot(LABELS, 3).float() - output) ** 2).sum(1).mean()

    (found,) = facts_of(brier, LABELS, nn.Softmax(1))
    (plain,) = facts_of(lambda o: ((o[:, 0] - LABELS) ** 2).mean(), LABELS)
    (pairs,) = facts_of(lambda o: ((o - LABELS[:, None]) ** 2).mean(), LABELS[:, None])

    assert found.target is not None
    assert (found.target.shape, found.target.maximum) == ((4, 3), 1.0)
    assert plain.target is not None
    assert plain.target.shape == (4,)
    assert pairs.target is not None
    assert pairs.target.shape == (4, 1)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_reduction_is_told(reduction: str) -> None:
    (torchs,) = facts_of(lambda o: F.cross_entropy(o, LABELS, reduction=reduction), LABELS)
    (by_hand,) = facts_of(lambda o: getattr((o - WANTED) ** 2, reduction)(), WANTED)

    assert torchs.reduction == by_hand.reduction == reduction


def test_cross_entropy_is_shown_the_logits_and_the_labels() -> None:
    (facts,) = facts_of(lambda o: F.cross_entropy(o, LABELS, ignore_index=2), LABELS)

    assert facts.classes == 3
    assert facts.ignore_index == 2
    assert facts.target is not None
    assert (facts.target.minimum, facts.target.maximum, facts.target.unique) == (0, 2, 3)
    assert facts.row_sum_min is not None
    assert facts.row_sum_max - facts.row_sum_min > 1e-3  # logits are no probabilities


def test_a_softmax_in_front_of_cross_entropy_shows_in_the_rows() -> None:
    (facts,) = facts_of(lambda o: F.cross_entropy(o, LABELS), LABELS, nn.Softmax(dim=1))

    assert facts.kind == "cross_entropy"
    assert facts.row_sum_min == pytest.approx(1)
    assert facts.row_sum_max == pytest.approx(1)


def test_a_log_softmax_of_the_models_in_front_of_nll_is_cross_entropy() -> None:
    (facts,) = facts_of(lambda o: F.nll_loss(o, LABELS), LABELS, nn.LogSoftmax(dim=1))

    assert facts.kind == "cross_entropy"


@pytest.mark.parametrize("last", [nn.Identity(), nn.LogSoftmax(dim=0)], ids=repr)
def test_what_is_no_log_probability_in_front_of_nll_shows_in_the_rows(last: nn.Module) -> None:
    (facts,) = facts_of(lambda o: F.nll_loss(o, LABELS), LABELS, last)

    assert facts.kind == "nll"
    assert facts.row_sum_max != pytest.approx(1)


def test_log_probabilities_by_another_way_sum_to_one() -> None:
    def by_hand(output: Tensor) -> Tensor:
        return F.nll_loss(output - output.logsumexp(1, keepdim=True), LABELS)

    (facts,) = facts_of(by_hand, LABELS)

    assert facts.kind == "nll"
    assert facts.row_sum_min == pytest.approx(1)
    assert facts.row_sum_max == pytest.approx(1)


def test_bce_is_shown_what_entered_it() -> None:
    (facts,) = facts_of(lambda o: F.binary_cross_entropy(o, WANTED.sigmoid()), WANTED, nn.Sigmoid())

    assert facts.kind == "bce"
    assert facts.output is not None
    assert 0 < facts.output.minimum < facts.output.maximum < 1


@pytest.mark.parametrize(
    ("loss_fn", "kind"),
    [
        (nn.CrossEntropyLoss(), "cross_entropy"), (F.cross_entropy, "cross_entropy"),
        (nn.MSELoss(), "mse"), (F.mse_loss, "mse"), (nn.BCEWithLogitsLoss(), "bce_with_logits"),
        (F.l1_loss, "l1"), (nn.KLDivLoss(), "kl_div"), (lambda o, t: o, "other"),
        (nn.TripletMarginLoss(), "other"),
    ],
)  # fmt: skip
def test_a_callable_of_torchs_is_known(loss_fn: object, kind: str) -> None:
    assert kind_of_callable(loss_fn) == kind


def test_a_function_of_the_users_with_torchs_name_is_not_torchs() -> None:
    def mse_loss(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).sum()

    assert kind_of_callable(mse_loss) == "other"


def test_a_call_that_would_raise_still_has_facts() -> None:
    facts = from_call(nn.CrossEntropyLoss(reduction="sum"), WANTED, torch.tensor([0, 5, 1, 1]))

    assert facts is not None
    assert facts.kind == "cross_entropy"
    assert facts.reduction == "sum"
    assert facts.classes == 3
    assert facts.target is not None
    assert facts.target.maximum == 5
    assert from_call(nn.CrossEntropyLoss(), {"logits": WANTED}, LABELS) is None


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_target_repeated_for_each_output_is_told_as_it_was_given() -> None:
    column = torch.tensor([[0.0], [1.0], [2.0], [1.0]])

    (repeated,) = facts_of(lambda o: F.mse_loss(o, column), column)
    (own,) = facts_of(lambda o: F.mse_loss(o, WANTED), WANTED)
    (square,) = facts_of(lambda o: F.mse_loss(o[:, :1], column[:, 0]), column)

    assert repeated.target is not None
    assert repeated.target.shape == (4, 1)
    assert own.target is not None
    assert own.target.shape == (4, 3)
    assert square.target is not None
    assert square.target.shape == (4, 4)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_row_repeated_for_as_many_samples_is_told_as_it_was_given() -> None:
    def shape(target: Tensor) -> tuple[int, ...]:
        (facts,) = facts_of(lambda o: F.mse_loss(o[:3], target), target)
        assert facts.target is not None
        return facts.target.shape

    assert shape(torch.tensor([0.0, 1.0, 2.0])) == (3,)
    assert shape(torch.zeros(1, 1)) == (3, 3)
    assert shape(torch.zeros(3, 3)) == (3, 3)
    (wide,) = facts_of(lambda o: F.mse_loss(o, torch.zeros(3)), WANTED)
    assert wide.target is not None
    assert wide.target.shape == (4, 3)


@pytest.mark.parametrize(("last", "total"), [(nn.LogSoftmax(1), 1.0), (nn.Identity(), 3.0)])
def test_ctc_shows_whether_its_rows_are_log_probabilities(last: nn.Module, total: float) -> None:
    def ctc(output: Tensor) -> Tensor:
        lengths = torch.tensor([4])
        return F.ctc_loss(output[:, None], torch.tensor([[1, 2]]), lengths, torch.tensor([2]))

    (found,) = facts_of(ctc, LABELS, last)

    assert found.kind == "ctc"
    assert found.row_sum_max == pytest.approx(1.0) if total == 1.0 else found.row_sum_max != 1.0


@pytest.mark.parametrize(
    "loss",
    [
        lambda o: F.cross_entropy(o, LABELS),
        lambda o: -(F.log_softmax(o, 1)[range(4), LABELS] * WANTED[:, 0]).mean(),
        lambda o: -(F.log_softmax(o[:3] / 2, 1) * WANTED[:3].softmax(1)).sum(1).mean(),
    ],
    ids=["of-torch", "policy", "by-hand"],
)
def test_the_output_of_another_model_called_later_is_not_what_entered(
    loss: Callable[[Tensor], Tensor],
) -> None:
    model, value, other = nn.Linear(6, 3), torch.randn(4, 1), torch.randn(4, 3)
    with Observer(model) as observer, observer.step(0):
        output = model(torch.randn(4, 6))
        observer.forward_done(loss(output))
        assert observer.captured is not None
        (facts,) = from_graph(observer.captured, [value, other, output], [])
        unseen = from_graph(observer.captured, [value, other], [])

    assert (facts.kind, facts.classes) == ("cross_entropy", 3)
    assert facts.output is not None
    assert facts.output.maximum == pytest.approx(float(output.detach().max()))
    shown = [f.output.maximum for f in unseen if f.output is not None]
    assert not {float(t.max()) for t in (value, other)} & set(shown)
