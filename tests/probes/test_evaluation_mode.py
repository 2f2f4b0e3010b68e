"""What still behaves as in training when the model is evaluated?"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import dropout

import gradlint
from gradlint.config import Config
from gradlint.finding import Severity
from gradlint.probes.evaluation_mode import evaluation_mode
from gradlint.target.batches import Batch

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
BATCH = Batch(X, torch.zeros(16, dtype=torch.int64))
Middle = Callable[[Any, Tensor], Tensor]


class Net(nn.Module):
    """Two layers with a function between them, and whatever the test puts there."""

    def __init__(self, middle: Middle, **parts: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 12), nn.Linear(12, 3)
        self.middle = middle
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, self.first(x)))


def run(model: nn.Module, batch: Batch) -> Any:
    torch.manual_seed(0)
    return model(batch.inputs)


def probed(model: nn.Module, batch: Batch = BATCH, *, own_step: bool = False) -> Any:
    return evaluation_mode(model, run, batch, own_step=own_step)


def reasons(model: nn.Module, batch: Batch = BATCH) -> list[str]:
    return [call["why"] for call in probed(model, batch)["calls"]]


def attend(h: Tensor, **options: float) -> Tensor:
    words = h.reshape(len(h), 3, 4)
    return functional.scaled_dot_product_attention(words, words, words, **options).flatten(1)


def attend_by_position(h: Tensor, rate: float) -> Tensor:
    words = h.reshape(len(h), 3, 4)
    return functional.scaled_dot_product_attention(words, words, words, None, rate).flatten(1)


def own_attention(net: Any, h: Tensor, **options: Any) -> Tensor:
    module = net.attention
    return functional.multi_head_attention_forward(
        h, h, h, 12, 2, module.in_proj_weight, module.in_proj_bias, None, None, False, 0.5,
        module.out_proj.weight, module.out_proj.bias, need_weights=False, **options,
    )[0]  # fmt: skip


def images(function: Callable[[Tensor], Tensor]) -> Middle:
    return lambda net, h: function(h[:, :, None, None]).flatten(1)


@pytest.mark.parametrize(
    ("middle", "expected"),
    [
        pytest.param(lambda net, h: functional.dropout(h), "default", id="dropout"),
        pytest.param(lambda net, h: dropout(h, 0.2), "default", id="by-another-name"),
        pytest.param(lambda net, h: dropout(h.clone(), inplace=True), "default", id="in-place"),
        pytest.param(
            partial(lambda f, net, h: f(h), partial(dropout, p=0.3)), "default", id="part"
        ),
        pytest.param(images(functional.dropout2d), "default", id="whole-channels"),
        pytest.param(lambda net, h: dropout(h, training=True), "given", id="by-keyword"),
        pytest.param(lambda net, h: dropout(h, 0.3, True), "given", id="by-position"),
        pytest.param(lambda net, h: torch.dropout(h, 0.3, train=True), "given", id="built-in"),
        pytest.param(lambda net, h: functional.alpha_dropout(h, 0.3, True), "given", id="alpha"),
        pytest.param(lambda net, h: attend(h, dropout_p=0.3), "always", id="attention"),
        pytest.param(lambda net, h: attend_by_position(h, 0.3), "always", id="attention-position"),
        pytest.param(lambda net, h: nn.Dropout(0.3)(h), "hidden", id="made-in-forward"),
    ],
)
def test_what_drops_in_evaluation_is_found(middle: Middle, expected: str) -> None:
    found = probed(Net(middle))

    assert [call["why"] for call in found["calls"]] == [expected]
    assert found["change"] > 0.05
    assert found["calls"][0]["module"] == ""
    assert found["calls"][0]["file"].endswith("test_evaluation_mode.py")


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(lambda net, h: dropout(h, 0.5, net.training), id="asks-for-the-mode"),
        pytest.param(lambda net, h: dropout(h, 0.0), id="a-rate-of-zero"),
        pytest.param(lambda net, h: functional.alpha_dropout(h), id="off-by-default"),
        pytest.param(lambda net, h: dropout(h) if net.training else h, id="asked-before"),
        pytest.param(lambda net, h: torch.dropout(h, 0.3, net.training), id="built-in"),
        pytest.param(lambda net, h: attend(h), id="attention-without"),
        pytest.param(lambda net, h: attend(h, dropout_p=0.3 * net.training), id="attention"),
        pytest.param(lambda net, h: attend_by_position(h, 0.0), id="attention-by-position"),
        pytest.param(lambda net, h: h + torch.randn_like(h), id="a-sample"),
        pytest.param(lambda net, h: functional.rrelu(h, training=True), id="random-slopes"),
        pytest.param(
            lambda net, h: functional.batch_norm(h, None, None, training=True),
            id="normalized-by-the-batch",
        ),
    ],
)
def test_what_is_off_or_no_dropout_is_left_alone(middle: Middle) -> None:
    assert probed(Net(middle)) == {"change": 0.0, "calls": []}


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(nn.Dropout(0.5), id="dropout"),
        pytest.param(nn.BatchNorm1d(12, track_running_stats=False), id="batch-norm-by-design"),
        pytest.param(nn.RReLU(), id="rrelu"),
        pytest.param(nn.TransformerEncoderLayer(12, 2, 16, dropout=0.5), id="transformer"),
    ],
)
def test_modules_that_follow_the_mode_are_left_alone(part: nn.Module) -> None:
    assert reasons(Net(lambda net, h: net.part(h), part=part)) == []


def test_attention_as_a_function_is_in_training_by_default() -> None:
    attention = nn.MultiheadAttention(12, 2)

    assert reasons(Net(own_attention, attention=attention)) == ["default"]
    following = lambda net, h: own_attention(net, h, training=net.training)  # noqa: E731
    assert reasons(Net(following, attention=attention)) == []


def test_a_module_in_a_plain_list_is_not_reached_by_eval() -> None:
    net = Net(lambda net, h: net.parts[0](h), parts=[nn.Dropout(0.5)])

    assert reasons(net) == ["hidden"]


def test_a_module_that_is_not_copied_with_the_model_may_be_one_of_its_own() -> None:
    kept = nn.Dropout(0.5)
    net = Net(lambda net, h: kept(h), kept=kept)

    assert reasons(net) == []


def test_a_hidden_network_has_a_mode_of_its_own() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.eye(12))

        def forward(self, h: Tensor) -> Tensor:
            return dropout(h @ self.weight, 0.5, self.training)

    assert reasons(Net(lambda net, h: net.other[0](h), other=[Other()])) == []


def test_a_module_kept_in_training_mode_is_left_alone() -> None:
    class Kept(Net):
        def train(self, mode: bool = True) -> Self:
            super().train(mode)
            self.drop.train()
            return self

    assert reasons(Kept(lambda net, h: net.drop(h), drop=nn.Dropout(0.5))) == []


def test_what_runs_without_gradients_is_a_teacher() -> None:
    def middle(net: Any, h: Tensor) -> Tensor:
        with torch.no_grad():
            return h + dropout(h)

    assert reasons(Net(middle)) == []


def test_what_does_not_reach_the_output_changes_nothing() -> None:
    def middle(net: Any, h: Tensor) -> Tensor:
        net.seen = dropout(h).detach()
        return h

    assert probed(Net(middle))["change"] == 0.0


def test_sampling_beside_it_is_not_counted() -> None:
    def middle(net: Any, h: Tensor) -> Tensor:
        net.seen = dropout(h).detach()
        return h + torch.randn_like(h)

    assert probed(Net(middle))["change"] == 0.0


def test_a_model_that_is_never_the_same_is_not_judged() -> None:
    draws = torch.Generator().manual_seed(0)
    net = Net(lambda net, h: dropout(h, 1e-3) + torch.randn(h.shape, generator=draws))

    assert probed(net)["change"] == 0.0


def test_an_argument_for_the_mode_leaves_it_to_the_caller() -> None:
    class Flax(Net):
        def forward(self, x: Tensor, deterministic: bool = False) -> Tensor:
            h = self.first(x)
            return self.last(h if deterministic else dropout(h))

    assert reasons(Flax(lambda net, h: h)) == []


def test_what_is_to_be_restored_is_corrupted_on_purpose() -> None:
    class Restore(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(dropout(x.flatten(1), 0.2))

    assert reasons(Restore(), Batch(X, X)) == reasons(Restore(), Batch(X)) == []
    assert reasons(Restore()) == ["default"]
    assert probed(Restore(), own_step=True)["calls"] == []


def test_outside_of_the_model_it_is_the_losss_affair() -> None:
    net = Net(lambda net, h: h)
    step = lambda model, batch: dropout(run(model, batch))  # noqa: E731

    assert evaluation_mode(net, step, BATCH, own_step=True) == {"change": 0.0, "calls": []}


class MCNet(Net):
    """Called so by whoever wants it."""


class UNetGenerator(Net):
    """Its dropout may be the noise it generates from."""


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        pytest.param(Net(lambda net, h: dropout(h)), False, id="nothing-says-so"),
        pytest.param(MCNet(lambda net, h: dropout(h)), True, id="the-class"),
        pytest.param(UNetGenerator(lambda net, h: dropout(h)), True, id="a-generator"),
        pytest.param(Net(lambda net, h: dropout(h), generator=1), False, id="which-has-one"),
        pytest.param(Net(lambda net, h: dropout(h), uncertainty_samples=5), True, id="attribute"),
        pytest.param(Net(lambda net, h: dropout(h), is_train=True), True, id="a-switch-that-is-on"),
        pytest.param(Net(lambda net, h: dropout(h), is_train=False), False, id="one-that-is-off"),
    ],
)
def test_names_say_what_is_meant(net: nn.Module, expected: bool) -> None:
    assert [call["on_purpose"] for call in probed(net)["calls"]] == [expected]


def test_statistics_that_evaluation_changes_are_found() -> None:
    def normalized(net: Any, h: Tensor, mode: bool = True) -> Tensor:
        return functional.batch_norm(h, net.norm.running_mean, net.norm.running_var, training=mode)

    norm = nn.BatchNorm1d(12)
    assert reasons(Net(normalized, norm=norm)) == ["statistics"]
    assert reasons(Net(lambda net, h: normalized(net, h, net.training), norm=norm)) == []
    assert reasons(Net(lambda net, h: net.norm(h), norm=norm)) == []


def test_statistics_made_for_one_call_are_nobodys() -> None:
    def normalized(net: Any, h: Tensor) -> Tensor:
        return functional.batch_norm(h, torch.zeros(12), torch.ones(12), training=True)

    assert reasons(Net(normalized)) == []


def test_outputs_that_cannot_be_compared_say_nothing() -> None:
    assert probed(Net(lambda net, h: dropout(h) * float("nan"))) is None


def test_model_and_functions_stay_as_they_are() -> None:
    net = Net(lambda net, h: net.norm(dropout(h)), norm=nn.BatchNorm1d(12))
    before, defaults = copy.deepcopy(net.state_dict()), functional.dropout.__defaults__

    probed(net)

    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert functional.dropout.__defaults__ is defaults


def test_functions_are_put_back_where_the_model_raises() -> None:
    defaults, calls = functional.dropout.__defaults__, []

    def middle(net: Any, h: Tensor) -> Tensor:
        calls.append(h)
        if len(calls) > 1:
            raise ValueError("no more")
        return dropout(h)

    with pytest.raises(ValueError, match="no more"):
        probed(Net(middle))
    assert functional.dropout.__defaults__ is defaults


def test_check_names_the_line() -> None:
    def middle(net: Any, h: Tensor) -> Tensor:
        return functional.dropout(h, 0.5)

    report = gradlint.check(
        Net(middle), (X, BATCH.targets), nn.CrossEntropyLoss(), steps=3, seeds=1, config=Config()
    )

    (found,) = [f for f in report.findings if f.code == "GL807"]
    assert found.severity is Severity.WARNING
    assert found.source is not None
    assert found.source.line == middle.__code__.co_firstlineno + 1
