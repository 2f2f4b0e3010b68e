"""Can the model fit one batch in which a plain network finds something?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import gradlint
from gradlint.config import Config
from gradlint.probes import batch_fit as module
from gradlint.probes.batch_fit import batch_fit
from gradlint.probes.fitting_task import task_of
from gradlint.target.batches import Batch
from gradlint.target.calls import Convention
from gradlint.undisturbed import seed_all

cross_entropy, mse = functional.cross_entropy, functional.mse_loss


def _samples(count: int = 256, width: int = 2) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(3))


X = _samples()
QUADRANTS = (X[:, 0] * X[:, 1] > 0).long()
PRODUCT = X[:, :1] * X[:, 1:]


def network(inputs: int = 2, outputs: int = 2, *last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs), *last)


def split(inputs: Any, targets: Any, size: int = 64) -> list[Batch]:
    return [Batch(inputs[i : i + size], targets[i : i + size]) for i in range(0, len(inputs), size)]


def probed(
    build: Callable[[], nn.Module],
    inputs: Any = X,
    targets: Any = QUADRANTS,
    loss_fn: Any = cross_entropy,
    *,
    kinds: tuple[str, ...] = ("cross_entropy",),
    size: int = 64,
    seconds: float = 60.0,
) -> Any:
    seed_all(0)
    batches = split(inputs, targets, size)
    return batch_fit(build(), build, Convention(loss_fn), batches, kinds, seconds)


class Blind(nn.Module):
    """Gives every sample the same."""

    def __init__(self, *shape: int, last: Any = lambda h: h) -> None:
        super().__init__()
        self.bias, self.last = nn.Parameter(torch.zeros(shape)), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.bias.expand(len(x), *self.bias.shape))


def test_a_linear_model_does_not_fit_quadrants() -> None:
    found = probed(lambda: nn.Linear(2, 2))

    assert found["share"] < 0.1
    assert found["signal"] > 0.5
    assert found["errors"] > 10
    assert found["plain"] < 0.2 < 0.6 < found["model"] < found["constant"] < 0.7
    assert (found["samples"], found["known"], found["steps"]) == (128, 256, 200)


def test_one_with_a_hidden_layer_does() -> None:
    assert probed(network)["share"] >= 0.1


class Mixed(nn.Module):
    """Averages over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.mean(0, keepdim=True).expand_as(x))


def test_a_model_that_mixes_samples_does_not() -> None:
    assert probed(Mixed)["share"] < 0.01


def test_labels_without_relation_to_the_inputs_are_nothing_to_be_found() -> None:
    labels = torch.randint(0, 2, (256,), generator=torch.Generator().manual_seed(5))

    assert probed(lambda: Blind(2), targets=labels) is None
    assert probed(lambda: Blind(2))["share"] < 0.01


@pytest.mark.parametrize(("found", "judged"), [((0.09, 9.0), False), ((0.11, 9.0), True)])
def test_what_is_found_has_to_be_a_tenth_of_the_loss(
    found: tuple[float, float], judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "left_out", lambda *args: found)

    assert (probed(lambda: Blind(2)) is not None) is judged


def test_a_model_that_fits_is_trained_once() -> None:
    built = []

    def build() -> nn.Module:
        built.append(network())
        return built[-1]

    calls = []

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        calls.append(labels)
        return cross_entropy(outputs, labels)

    probed(build, loss_fn=loss)

    assert len(built) == 2  # the trained one is another
    assert len(calls) < 300  # 200 are the plain network's


@pytest.mark.parametrize(
    ("targets", "moved"),
    [(PRODUCT, False), (PRODUCT + 50, True), (PRODUCT * 50, True), (PRODUCT / 50, True)],
)
def test_outputs_are_moved_to_targets_that_are_far_away(targets: Tensor, moved: bool) -> None:
    model, call = network(2, 1), Convention(mse)
    task = task_of(model, call, [Batch(X, targets)], ["mse"])

    assert task is not None
    assert (module._moved(model, task, call) is not model) is moved


def test_inputs_of_which_some_are_not_finite_are_not_judged() -> None:
    some = torch.cat([X, X.new_full((256, 1), float("nan"))], 1)

    assert probed(lambda: Blind(2), some) is None


def test_samples_that_come_again_are_no_others() -> None:
    labels = torch.randint(0, 2, (48,), generator=torch.Generator().manual_seed(5))

    assert probed(lambda: Blind(2), X[:48].repeat(5, 1), labels.repeat(5)) is None


def test_a_model_that_is_trained_is_no_suspect() -> None:
    trained = network()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(trained(X), QUADRANTS).backward()
        optimizer.step()

    def never() -> nn.Module:
        raise AssertionError

    call = Convention(cross_entropy)
    assert batch_fit(trained, never, call, split(X, QUADRANTS), ["cross_entropy"]) is None


def test_a_rate_that_threw_the_weights_away_is_not_the_models_fault() -> None:
    wrecked = network()
    with torch.no_grad():
        wrecked[0].bias.fill_(-1e4)
    call = Convention(cross_entropy)

    found = batch_fit(wrecked, network, call, split(X, QUADRANTS), ["cross_entropy"], 60.0)

    assert found is not None
    assert found["share"] >= 0.1


@pytest.mark.parametrize(
    ("outputs", "last", "targets", "loss_fn", "kind"),
    [
        pytest.param(2, nn.LogSoftmax(1), QUADRANTS, functional.nll_loss, "nll", id="nll"),
        pytest.param(2, nn.Softmax(1), QUADRANTS,
                     lambda p, y: functional.nll_loss(p.log(), y), "nll", id="probabilities"),
        pytest.param(1, nn.Sigmoid(), QUADRANTS[:, None].float(),
                     functional.binary_cross_entropy, "bce", id="bce"),
        pytest.param(1, nn.Identity(), QUADRANTS[:, None].float(),
                     functional.binary_cross_entropy_with_logits, "bce_with_logits", id="logits"),
        pytest.param(1, nn.Identity(), PRODUCT, mse, "mse", id="mse"),
        pytest.param(1, nn.Identity(), 500 + 100 * PRODUCT, mse, "mse", id="far-away"),
        pytest.param(1, nn.Identity(), PRODUCT, functional.l1_loss, "l1", id="l1"),
        pytest.param(1, nn.Identity(), PRODUCT, functional.huber_loss, "huber", id="huber"),
        pytest.param(3, nn.Identity(), PRODUCT * torch.tensor([1.0, -1.0, 3.0]), mse, "mse",
                     id="three"),
    ],
)  # fmt: skip
def test_every_usual_loss_is_judged(
    outputs: int, last: nn.Module, targets: Tensor, loss_fn: Any, kind: str
) -> None:
    blind = probed(lambda: Blind(outputs, last=last), X, targets, loss_fn, kinds=(kind,))
    well = probed(lambda: network(2, outputs, last), X, targets, loss_fn, kinds=(kind,))

    assert blind["share"] < 0.05
    assert well["share"] >= 0.1


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x[:, :, None])[1][0] * 0)


class ByHand(Blind):
    """Calls a layer once for each of so many positions."""

    def __init__(self, calls: int) -> None:
        super().__init__(2)
        self.layer, self.calls = nn.Linear(2, 2), calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            x = self.layer(x)
        return super().forward(x) + 0 * x


def test_recurrences_are_not_judged() -> None:
    assert probed(Recurrent) is None
    assert probed(lambda: ByHand(3)) is None
    assert probed(lambda: ByHand(2)) is not None


RARE = X.clone()
RARE[:125, 0] = -RARE[:125, 0].abs()
"""Of what is fitted next to all have a negative first number, of the others half."""


@pytest.mark.parametrize(
    ("build", "inputs", "targets", "loss_fn", "kinds"),
    [
        pytest.param(lambda: Blind(2), X, QUADRANTS, cross_entropy, ("cross_entropy", "mse"),
                     id="two-losses"),
        pytest.param(lambda: Blind(2), X, QUADRANTS, cross_entropy, ("other",), id="unknown-loss"),
        pytest.param(lambda: Blind(2), X, QUADRANTS, cross_entropy, ("mse",), id="other-loss"),
        pytest.param(lambda: Blind(2), X, X, mse, ("mse",), id="autoencoder"),
        pytest.param(lambda: Blind(2), X[:31], QUADRANTS[:31], cross_entropy, ("cross_entropy",),
                     id="few-samples"),
        pytest.param(lambda: Blind(2), (X * 9).long(), QUADRANTS, cross_entropy,
                     ("cross_entropy",), id="numbers-of-tokens"),
        pytest.param(lambda: Blind(2), X, QUADRANTS - 100, lambda o, y: cross_entropy(o, y + 100),
                     ("cross_entropy",), id="labels-below-zero"),
        pytest.param(lambda: Blind(2), X, QUADRANTS + 9, lambda o, y: cross_entropy(o, y - 9),
                     ("cross_entropy",), id="labels-beyond"),
        pytest.param(lambda: Blind(1), X, PRODUCT[:, 0], lambda o, y: mse(o[:, 0], y), ("mse",),
                     id="other-shapes"),
        pytest.param(lambda: Blind(1), X, PRODUCT * float("inf"), mse, ("mse",), id="not-finite"),
        pytest.param(lambda: Blind(2), X * float("nan"), QUADRANTS, cross_entropy,
                     ("cross_entropy",), id="inputs-not-finite"),
        pytest.param(lambda: Blind(3), X, PRODUCT * torch.tensor([1.0, 0, 1]), mse, ("mse",),
                     id="a-constant-target"),
        pytest.param(lambda: Blind(1), X, PRODUCT, mse, ("bce",), id="other-kind-of-targets"),
        pytest.param(lambda: Blind(1, last=lambda h: (h, h)), X, PRODUCT,
                     lambda o, y: mse(o[0], y), ("mse",), id="two-outputs"),
        pytest.param(lambda: Blind(2), RARE, (RARE[:, 0] > 0).long(), cross_entropy,
                     ("cross_entropy",), id="one-class-for-nearly-all"),
        pytest.param(lambda: Blind(1), RARE, (RARE[:, :1] > 0).float(),
                     functional.binary_cross_entropy_with_logits, ("bce_with_logits",),
                     id="one-answer-for-nearly-all"),
        pytest.param(lambda: Blind(1), X, PRODUCT, mse, ("other",), id="unknown-loss-of-numbers"),
        pytest.param(lambda: Blind(2), X[:128], QUADRANTS.reshape(128, 2),
                     lambda o, y: cross_entropy(o, y[:, 0]), ("cross_entropy",), id="two-labels"),
        pytest.param(lambda: Blind(2, 3), X, QUADRANTS, lambda o, y: cross_entropy(o[..., 0], y),
                     ("cross_entropy",), id="outputs-of-positions"),
        pytest.param(lambda: Blind(2, last=lambda h: h[::2]), X, QUADRANTS,
                     lambda o, y: cross_entropy(o, y[::2]), ("cross_entropy",), id="half-as-many"),
        pytest.param(lambda: Blind(65), X, PRODUCT.expand(-1, 65), mse, ("mse",), id="wide"),
    ],
)  # fmt: skip
def test_other_data_are_not_judged(
    build: Any, inputs: Tensor, targets: Tensor, loss_fn: Any, kinds: tuple[str, ...]
) -> None:
    assert probed(build, inputs, targets, loss_fn, kinds=kinds) is None


def test_inputs_that_are_no_single_tensor_are_not_judged() -> None:
    class Two(Blind):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x)

    batches = [Batch((X, X), QUADRANTS)]

    assert batch_fit(Two(2), lambda: Two(2), Convention(cross_entropy), batches, ["mse"]) is None


def test_targets_that_are_more_than_the_samples_are_not_judged() -> None:
    batches = [Batch(X[:128], torch.cat([QUADRANTS[:128], QUADRANTS]))]
    loss = Convention(lambda o, y: cross_entropy(o, y[: len(o)]))

    assert batch_fit(Blind(2), lambda: Blind(2), loss, batches, ["cross_entropy"]) is None


def test_one_number_a_sample_needs_no_second_axis() -> None:
    class Flat(Blind):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, 0]

    assert probed(lambda: Flat(1), X, PRODUCT[:, 0], mse, kinds=("mse",))["share"] < 0.05
    assert probed(lambda: Blind(2), X[:, 0], (X[:, 0] > 0).long())["share"] < 0.05


def test_a_last_batch_may_be_smaller_and_others_not_of_other_shapes() -> None:
    assert probed(lambda: Blind(2), size=100) is not None

    batches = [*split(X, QUADRANTS), *split(_samples(64, 3), QUADRANTS[:64])] * 2
    call = Convention(cross_entropy)
    assert batch_fit(Blind(2), lambda: Blind(2), call, batches, ["cross_entropy"]) is None


def test_a_loss_that_a_constant_makes_negative_is_not_judged() -> None:
    shifted = lambda o, y: cross_entropy(o, y) - 9  # noqa: E731

    assert probed(lambda: Blind(2), loss_fn=shifted) is None
    assert probed(lambda: Blind(2), loss_fn=lambda o, y: cross_entropy(o, y) - 0.5) is None


def test_a_floor_of_the_loss_that_the_plain_network_shares_is_not_judged() -> None:
    assert probed(lambda: Blind(2), loss_fn=lambda o, y: cross_entropy(o, y) + 9) is None


def test_models_that_take_long_are_not_judged() -> None:
    assert probed(lambda: Blind(2), seconds=-1.0) is None


def test_dropout_is_off_and_batches_are_normalized_as_such() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.norm, self.net = nn.Dropout(0.999), nn.BatchNorm1d(2), network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(self.norm(self.drop(x) + 1e4))

    assert probed(Dropped)["share"] >= 0.1


def test_images_have_more_entries_than_directions_that_are_kept() -> None:
    images = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    labels = (images.mean((1, 2, 3)) > 0).long()
    images = images + (2 * labels - 1)[:, None, None, None]

    assert probed(lambda: Blind(2), images, labels)["signal"] > 0.5


def test_the_model_stays_as_it_is() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    before = copy.deepcopy(model.state_dict())

    probed(lambda: model if not model.training else copy.deepcopy(model).train())
    batch_fit(
        model, lambda: copy.deepcopy(model), Convention(cross_entropy), split(X, QUADRANTS),
        ["cross_entropy"],
    )  # fmt: skip

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def checked(model: Any, **options: Any) -> gradlint.report.Report:
    return gradlint.check(
        model,
        (X, QUADRANTS),
        cross_entropy,
        steps=20,
        seeds=1,
        cures=False,
        config=Config(),
        **options,
    )


def test_check_names_it_and_leaves_everything_as_it_was() -> None:
    model = nn.Linear(2, 2)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    codes = {found.code for found in checked(model).findings}

    assert "GL611" in codes
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_check_of_a_function_that_builds_builds_it_again() -> None:
    assert "GL611" in {f.code for f in checked(lambda: nn.Linear(2, 2)).findings}


@pytest.mark.parametrize("rate", [1e-7, 30.0])
def test_a_learning_rate_is_not_the_models_fault(rate: float) -> None:
    report = checked(network, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=rate))

    assert "GL611" not in {f.code for f in report.findings}


def test_a_batch_that_was_made_up_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "left_out", lambda *args: asked.append(args))

    gradlint.check(nn.Linear(2, 2), steps=5, seeds=1, cures=False, config=Config())

    assert asked == []
