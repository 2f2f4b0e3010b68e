"""One observed run: initialization over batches, a training, what is noted of both."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlint
from gradlint.errors import MetricError, TargetError, UsageError
from gradlint.plan import Plan, Run, instantiate
from gradlint.target import from_objects
from gradlint.trace import Trace
from gradlint.training import ARMED_STEPS, DETAILED_STEPS, INITIAL_BATCHES, Training
from tests.observing import FAMILIES, mlp

Batches = list[tuple[Tensor, Tensor]]


def data(batches: int = 4, rows: int = 16) -> Batches:
    """Batches of a small regression with a rule in it."""
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(rows, 6, generator=generator) for _ in range(batches)]
    return [(x, x[:, :3].sin()) for x in inputs]


def run(
    model: Any,
    batch: Any = None,
    loss_fn: Any = F.mse_loss,
    optimizer: Any = None,
    *,
    training_step: Any = None,
    plan: Plan | None = None,
    **options: Any,
) -> Run:
    batch = data() if batch is None and training_step is None else batch
    loss_fn = None if training_step else loss_fn
    target = from_objects(model, batch, loss_fn, optimizer, training_step=training_step)
    given, built = instantiate(target, None)
    plan = plan or Plan(**{"steps": 6, "seconds": None, **options})
    return Training(target, given, built, plan, 0).run()


def steps_of(trace: Trace, metric: str, path: str = "") -> list[int]:
    return [o.step for o in trace.of(metric).at(path)]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


# -- the course of a run --------------------------------------------------------------


def test_step_zero_sees_several_batches_and_training_counts_from_one() -> None:
    trace = run(mlp).trace

    assert steps_of(trace, "loss") == [0] * INITIAL_BATCHES + [1, 2, 3, 4, 5, 6]
    assert steps_of(trace, "activation_rms", "0") == [0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert steps_of(trace, "gradient_norm", "0.weight") == [0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert steps_of(trace, "update_to_weight_ratio", "0.weight") == [1, 2, 3, 4, 5, 6]
    assert steps_of(trace, "learning_rate") == [1, 2, 3, 4, 5, 6]
    assert steps_of(trace, "weight_std", "0.weight") == [0]
    assert steps_of(trace, "init_gain", "0.weight") == [0]
    assert steps_of(trace, "symmetric_share", "0.weight") == [0, 0, 0, 6]
    assert steps_of(trace, "dead_fraction", "1") == [0, 6]
    assert trace.of("dead_positions").at("1").values == (48, 48)


def test_gains_are_measured_on_armed_steps() -> None:
    trace = run(mlp, steps=11).trace

    armed = [*range(1, ARMED_STEPS + 1), 5, 10]
    assert sorted({f.step for f in trace.facts.flows}) == [0, *armed]
    assert steps_of(trace, "pre_activation_grad_norm", "0") == [0] * INITIAL_BATCHES + armed


@pytest.mark.parametrize(
    ("steps", "later"), [(40, [15, 20, 25, 30, 35, 40]), (20, [12, 14, 16, 18, 20]), (12, [11, 12])]
)
def test_activations_are_measured_in_detail_at_first_and_then_now_and_then(
    steps: int, later: list[int]
) -> None:
    trace = run(mlp, steps=steps).trace

    detailed = [*range(1, DETAILED_STEPS + 1), *later]
    assert steps_of(trace, "activation_rms", "0") == [0, 0, 0, *detailed]
    assert steps_of(trace, "loss")[3:] == list(range(1, steps + 1))


def test_the_numbers_are_those_of_a_training_by_hand() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    batches = data()
    optimizer = sgd(twin)
    losses, norms, ratios = [], [], []
    for x, y in itertools.islice(itertools.cycle(batches), 6):
        optimizer.zero_grad()
        loss = F.mse_loss(twin(x), y)
        loss.backward()
        losses.append(float(loss.detach()))
        norms.append(math.sqrt(sum(float(p.grad.double().norm()) ** 2 for p in twin.parameters())))
        before = twin[0].weight.detach().double()
        optimizer.step()
        moved = twin[0].weight.detach().double() - before
        ratios.append(float(moved.norm() / before.norm()))

    trace = run(model, batches, optimizer=sgd(model)).trace.training

    assert trace.of("loss").values == pytest.approx(losses, rel=1e-7)
    assert trace.of("total_gradient_norm").values == pytest.approx(norms, rel=1e-7)
    assert trace.of("update_to_weight_ratio").at("0.weight").values == pytest.approx(
        ratios, rel=1e-6
    )
    assert trace.of("learning_rate").values == pytest.approx([0.1] * 6)


def test_a_run_is_the_same_again() -> None:
    torch.manual_seed(0)
    first = run(lambda: mlp(dropout=0.5)).trace
    torch.manual_seed(0)
    second = run(lambda: mlp(dropout=0.5)).trace

    assert [(o.metric, o.site, o.step) for o in first] == [
        (o.metric, o.site, o.step) for o in second
    ]
    assert [o.value for o in first] == pytest.approx([o.value for o in second], nan_ok=True)


def test_a_given_instance_stays_bit_equal_with_its_optimizer() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters())
    F.mse_loss(model(data()[0][0]), data()[0][1]).backward()
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    gradients = [p.grad.clone() for p in model.parameters()]

    found = run(model, optimizer=optimizer)

    state, steps = model.state_dict(), optimizer.state_dict()["state"]
    assert all(t.equal(before[0][name]) for name, t in state.items())
    assert all(
        torch.equal(torch.as_tensor(v), torch.as_tensor(before[1]["state"][i][k]))
        for i, entry in steps.items()
        for k, v in entry.items()
    )
    assert all(p.grad.equal(g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert found.trace.facts.pretrained  # the optimizer had state


def test_no_steps_is_the_initialization_alone() -> None:
    trace = run(mlp, steps=0).trace

    assert set(trace.steps) == {0}
    assert "input-ignored" not in trace.facts.probes


def test_time_may_run_out_and_the_last_step_is_still_judged() -> None:
    trace = run(mlp, plan=Plan(steps=50, seconds=0.0)).trace

    assert max(trace.steps) == 1
    assert steps_of(trace, "dead_fraction", "1") == [0, 1]
    assert trace.facts.probes["input-ignored"]["steps"] == 1


def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []

    run(mlp, plan=Plan(steps=2, seconds=None, progress=lambda *what: told.append(what)))

    assert [what for what, _ in told] == ["initialization"] * 3 + ["training"] * 2
    assert all(0 <= share <= 1 for _, share in told)


# -- facts ----------------------------------------------------------------------------


def test_batches_outputs_and_losses_are_noted() -> None:
    facts = run(mlp).trace.facts

    assert [t.shape for t in facts.inputs] == [(16, 6)]
    assert [t.shape for t in facts.targets] == [(16, 3)]
    assert [t.shape for t in facts.outputs] == [(16, 3)]
    assert facts.batch_size == 16
    assert [loss.kind for loss in facts.losses] == ["mse"]
    assert not facts.synthesized
    assert not facts.pretrained


def test_without_an_optimizer_gradlints_own_is_marked() -> None:
    probe, given = run(mlp).trace.facts.optimizer, run(mlp, optimizer=sgd).trace.facts.optimizer

    assert probe is not None
    assert probe.probe
    assert probe.kind == "Adam"
    assert given is not None
    assert not given.probe
    assert given.learning_rates == (0.1,)


def test_the_graph_has_the_users_lines() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    first = Written.forward.__code__.co_firstlineno

    (linear,) = run(Written).trace.graph.of_kind("linear")

    assert linear.source is not None
    assert linear.source.file.endswith("test_training.py")
    assert linear.source.line == first + 1


def test_a_model_without_parameters_that_train_is_observed_and_not_trained() -> None:
    trace = run(lambda: mlp().requires_grad_(False)).trace

    assert set(trace.steps) == {0}
    assert trace.facts.optimizer is None
    assert trace.events("detached-loss") == ()


def test_hidden_layers_are_an_event() -> None:
    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Linear(6, 6)], nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layers[0](x))

    (event,) = run(Hiding).trace.events("unregistered-module")

    assert event.detail["attribute"] == "layers"


def test_the_probe_on_the_input_speaks_after_training() -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.zeros_like(self.stem(x)))

    listening, deaf = (run(m).trace.facts.probes["input-ignored"] for m in (mlp, Deaf))

    assert listening["output_change"] > 0.1
    assert listening["steps"] == 6
    assert deaf["output_change"] == 0
    assert deaf["forward_ignored_from"] == "head"


def test_one_batch_alone_is_compared_with_itself_in_another_order() -> None:
    found = run(mlp, data(1)).trace.facts.probes["input-ignored"]

    assert found["output_change"] > 0.1


# -- every family, every convention ---------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_trained_and_measured(family: str) -> None:
    build, draw = FAMILIES[family]
    batches = [draw() for _ in range(3)]

    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, -2), target.flatten())

    found = run(build, batches, loss_fn, steps=3)

    assert found.error is None
    assert found.trace.steps == (0, 1, 2, 3)
    assert all(math.isfinite(o.value) for o in found.trace.of("loss"))
    assert found.trace.events("non-finite") == ()


def test_a_training_step_of_the_users_is_observed() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

    def training_step(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0]
        mean, log_std = model.encoder(x).chunk(2, dim=-1)
        return F.mse_loss(model.decoder(mean + torch.randn_like(mean) * log_std.exp()), x)

    trace = run(Autoencoder, data(), training_step=training_step).trace

    assert {f.site.path for f in trace.facts.flows} == {"encoder", "decoder"}
    assert steps_of(trace, "gradient_norm", "encoder.weight")[-1] == 6
    assert "input-ignored" not in trace.facts.probes  # the model itself is never called


def test_lbfgs_calls_its_closure_and_is_measured_once_a_step() -> None:
    trace = run(
        mlp, data(1), optimizer=lambda m: torch.optim.LBFGS(m.parameters(), max_iter=4)
    ).trace

    losses = trace.training.of("loss").values
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert steps_of(trace, "update_to_weight_ratio", "0.weight") == [1, 2, 3, 4, 5, 6]


def test_sparse_embeddings_are_trained_by_the_probe_optimizer() -> None:
    model = nn.Sequential(nn.Embedding(20, 6, sparse=True), nn.Linear(6, 3))
    tokens = torch.arange(16) % 20

    trace = run(model, (tokens, torch.randn(16, 3))).trace

    assert steps_of(trace, "update_to_weight_ratio", "0.weight") == [1, 2, 3, 4, 5, 6]


def test_a_sparse_optimizer_of_the_users_gets_sparse_gradients() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Embedding(20, 6, sparse=True))

    found = run(
        build,
        (torch.arange(16), torch.randn(16, 6)),
        optimizer=lambda m: torch.optim.SparseAdam(list(m.parameters())),
    )

    assert found.error is None
    assert found.trace.training.of("update_to_weight_ratio").at("0.weight").first > 0


def test_bfloat16_is_asked_of_every_forward() -> None:
    seen: list[torch.dtype] = []

    class Typed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            seen.append(y.dtype)
            return y.float()

    run(Typed, steps=2, precision="bf16")

    assert torch.bfloat16 in seen
    assert seen.count(torch.bfloat16) >= INITIAL_BATCHES + 2 + 2  # and in the probe, twice


def test_inputs_a_forward_overwrites_are_whole_at_the_next_step() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(0)
            return self.fc(x)

    batches = data(1)
    before = batches[0][0].clone()

    found = run(Overwriting, batches)

    assert found.error is None
    assert batches[0][0].equal(before)


def test_a_compiled_model_is_observed_in_its_original() -> None:
    compiled = torch.compile(mlp(), backend="eager")

    trace = run(compiled).trace

    assert set(trace.modules) == {"", "0", "1", "2", "3", "4", "5"}
    assert steps_of(trace, "activation_rms", "0")[-1] == 6


def test_a_lazy_model_is_trained() -> None:
    trace = run(lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))).trace

    assert trace.parameters["0.weight"].shape == (8, 6)
    assert steps_of(trace, "update_to_weight_ratio", "0.weight") == [1, 2, 3, 4, 5, 6]


# -- what goes wrong ------------------------------------------------------------------


class Failing(nn.Module):
    """Raises in its n-th forward."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.fc, self.at, self.calls = nn.Linear(6, 3), at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.fc(x)
        if self.calls == self.at:
            raise ValueError("the user's own")
        return y


def test_an_exception_of_the_targets_keeps_what_was_seen_until_then() -> None:
    found = run(Failing(6))

    assert isinstance(found.error, TargetError)
    assert isinstance(found.error.__cause__, ValueError)
    (event,) = found.trace.events("exception")
    assert event.step == 3
    assert event.module == ""
    assert event.detail["phase"] == "forward"
    assert event.detail["type"] == "ValueError"
    assert found.trace.steps == (0, 1, 2)


@pytest.mark.parametrize(
    ("loss_fn", "phase"),
    [
        pytest.param(lambda o, t: F.cross_entropy(o, t.long() + 7), "loss", id="loss"),
        pytest.param(lambda o, t: Backwards.apply(o).mean(), "backward", id="backward"),
    ],
)
def test_the_phase_that_raised_is_named(loss_fn: Any, phase: str) -> None:
    found = run(mlp, loss_fn=loss_fn)

    (event,) = found.trace.events("exception")
    assert event.detail["phase"] == phase
    assert isinstance(found.error, TargetError)


class Backwards(torch.autograd.Function):
    """Cannot be differentiated, and says so with an error of its own kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise NotImplementedError("no derivative")


def test_an_optimizer_that_raises_is_the_targets() -> None:
    class Picky(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            if closure is None:
                raise AssertionError("a closure is needed")

    found = run(mlp, optimizer=lambda m: Picky(m.parameters(), lr=0.1))

    (event,) = found.trace.events("exception")
    assert event.detail["phase"] == "optimizer"
    assert event.step == 1
    assert found.error is not None
    assert "Picky.step" in str(found.error)


def test_a_mistake_of_ours_is_not_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradlint.hooks import operations

    def broken(*_: Any) -> Any:
        raise KeyError

    monkeypatch.setattr(operations, "sampled", broken)

    with pytest.raises(MetricError, match="could not read"):
        run(mlp)


def test_hooks_are_gone_however_a_run_ends() -> None:
    model = Failing(6)
    target = from_objects(model, data(), F.mse_loss)
    given, optimizer = instantiate(target, None)

    Training(target, given, optimizer, Plan(steps=6, seconds=None), 0).run()

    assert not any(m._forward_hooks or m._forward_pre_hooks for m in given.modules())


def test_a_detached_loss_is_an_event_and_no_training() -> None:
    trace = run(mlp, loss_fn=lambda o, t: F.mse_loss(o.detach(), t)).trace

    assert len(trace.events("detached-loss")) == 1
    assert trace.steps == (0,)
    assert trace.of("loss").values


def test_a_model_that_cannot_be_copied_is_named() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot be copied")

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    with pytest.raises(UsageError, match="model that can be copied"):
        run(Stubborn())


# -- numbers that are not finite ------------------------------------------------------


def only_event(found: Run) -> Any:
    (event,) = found.trace.events("non-finite")
    return event


def test_a_parameter_that_was_never_finite_is_noted_before_the_first_step() -> None:
    model = mlp()
    nn.init.constant_(model[3].bias, math.inf)

    event = only_event(run(model))

    assert (event.step, event.module) == (0, "3")
    assert event.detail["phase"] == "parameter"
    assert event.detail["operation"] == "3.bias"
    assert event.detail["value"] == "inf"


def test_a_batch_with_nan_is_noted_and_ends_the_run() -> None:
    batches = data()
    batches[1][0][2, 3] = math.nan

    found = run(mlp, batches)

    event = only_event(found)
    assert event.detail["phase"] == "input"
    assert event.detail["value"] == "nan"
    assert event.step == 0
    assert found.trace.steps == (0,)


def test_nan_in_a_batch_that_reaches_neither_loss_nor_gradient_is_none() -> None:
    batches = [(torch.cat([x, torch.full_like(x, math.nan)], 1), y) for x, y in data()]

    class Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x[:, :6])

    assert run(Ignoring, batches).trace.events("non-finite") == ()


def test_a_learning_rate_beyond_all_bounds_breaks_the_weights_or_the_next_forward() -> None:
    found = run(mlp, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=1e30), steps=20)

    event = only_event(found)
    assert event.step >= 1
    assert event.detail["phase"] in ("update", "forward", "loss")
    assert event.detail["operation"]


def test_an_update_that_breaks_a_weight_is_the_updates() -> None:
    found = run(mlp, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=math.inf))

    event = only_event(found)
    assert event.detail["phase"] == "update"
    assert event.step == 1
    assert event.module == "0"


class Late(nn.Module):
    """Takes the log of 0, or the root of 0, from its n-th forward on."""

    def __init__(self, function: Callable[[Tensor], Tensor], at: int) -> None:
        super().__init__()
        self.fc, self.function, self.at = nn.Linear(6, 3), function, at
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        late = int(self.calls) + 1 >= self.at
        if torch.is_grad_enabled() and not getattr(self, "again", False):
            self.calls += 1
        return self.function(y - y) + y if late else y


@pytest.mark.parametrize(
    ("function", "phase", "operation"),
    [
        pytest.param(torch.log, "forward", "log", id="forward"),
        pytest.param(torch.sqrt, "backward", "sqrt", id="backward"),
    ],
)
@pytest.mark.parametrize("step", [2, 4], ids=["armed", "not-armed"])
def test_what_breaks_in_training_is_found_on_any_step(
    function: Callable[[Tensor], Tensor], phase: str, operation: str, step: int
) -> None:
    event = only_event(run(Late(function, INITIAL_BATCHES + step)))

    assert event.step == step
    assert event.detail["phase"] == phase
    assert event.detail["operation"] == operation


def test_batches_with_the_same_inputs_do_not_prove_that_inputs_are_ignored() -> None:
    inputs = torch.ones(8, 4)
    batches = [(inputs, torch.randn(8, 1)) for _ in range(3)]

    report = gradlint.check(lambda: nn.Linear(4, 1), batches, nn.functional.mse_loss)

    assert "GL206" not in {found.code for found in report.findings}
