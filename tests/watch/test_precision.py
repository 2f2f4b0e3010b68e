"""Mixed precision, loss scales and accumulation: the numbers are the ones that are applied."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn

from gradlint.watching import Watcher
from gradlint.watching.loop import MAX_BACKWARDS
from tests.watch.ledger import BOTH, STEPS, Ledger, at


def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3))
    return model, torch.randn(32, 12), torch.randint(0, 3, (32,))


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_under_autocast_the_master_weights_gradients_are_measured(
    dtype: torch.dtype, every: Any
) -> None:
    model, x, y = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ledger, losses = Ledger(model), []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            losses.append(float(loss.detach()))
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher)
    assert list(trace.of("loss").training.values) == losses
    assert watcher.report.verdict == "healthy"


def scaled_run(
    every: Any,
    *,
    unscale: bool = True,
    fused: bool = False,
    clip: float | None = None,
    skip: int | None = None,
    steps: int = STEPS,
) -> tuple[Watcher, Ledger, list[float], list[float]]:
    """Train with a scale of 1024; at `skip`, a gradient overflows."""
    model, x, y = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    ledger, losses, arrived = Ledger(model), [], []
    # What the optimizer finds, since it may divide the scale out by itself.
    before = optimizer.register_step_pre_hook(
        lambda *_: ledger.before(scale=scaler.get_scale() if fused else 1.0)
    )
    after = optimizer.register_step_post_hook(lambda *_: ledger.after())
    with Watcher(model, optimizer, every=every) as watcher, before, after:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            hidden = model[1](model[0](x))
            loss = nn.functional.cross_entropy(model[2](hidden), y)
            hidden.register_hook(
                lambda g: arrived.append(float(g.norm().detach()) / scaler.get_scale())
            )
            scaler.scale(loss).backward()
            if step == skip:
                model[0].weight.grad[0, 0] = float("inf")
                arrived.pop()
            else:
                losses.append(float(loss.detach()))
            if unscale:
                scaler.unscale_(optimizer)
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
    return watcher, ledger, losses, arrived


@BOTH
@pytest.mark.parametrize("unscale", [True, False], ids=["unscaled by the loop", "by the scaler"])
def test_with_a_scaler_all_norms_are_free_of_its_scale(unscale: bool, every: Any) -> None:
    watcher, ledger, losses, arrived = scaled_run(every, unscale=unscale)

    trace = ledger.agrees(watcher)
    assert list(trace.of("loss").training.values) == pytest.approx(losses, rel=1e-5)
    totals = trace.of("total_gradient_norm").training.values
    assert list(trace.of("backward_gradient_norm").training.values) == pytest.approx(totals)
    norms = at(trace, "activation_grad_norm", "1")
    assert [values[0] for values in norms.values()] == pytest.approx(arrived, rel=1e-4)
    for flow in trace.facts.flows:
        assert flow.norm < 10 * max(arrived)
    scaler = trace.facts.loop.scaler
    assert (scaler.first_scale, scaler.steps, scaler.skipped) == (1024.0, STEPS, 0)
    assert scaler.last_scale == 4096.0
    assert watcher.report.verdict == "healthy"


@BOTH
@pytest.mark.parametrize("skip", [1, 2, 5, 6])
def test_a_skipped_step_is_counted_and_leaves_no_numbers(skip: int, every: Any) -> None:
    watcher, ledger, losses, _ = scaled_run(every, skip=skip, steps=STEPS + 1)

    trace = ledger.agrees(watcher)
    assert trace.facts.loop.steps == STEPS
    scaler = trace.facts.loop.scaler
    assert (scaler.steps, scaler.skipped) == (STEPS + 1, 1)
    assert list(trace.of("loss").training.values) == pytest.approx(losses, rel=1e-5)
    assert trace.events("non-finite") == ()
    assert watcher.report.verdict == "healthy"


@BOTH
def test_a_fused_optimizer_that_unscales_inside_its_step_is_seen_unscaled(every: Any) -> None:
    watcher, ledger, losses, _ = scaled_run(every, unscale=False, fused=True)

    trace = watcher.trace()
    assert trace.facts.loop.steps == STEPS
    assert list(trace.of("loss").training.values) == pytest.approx(losses, rel=1e-5)
    for name in ("total_gradient_norm", "backward_gradient_norm"):
        values = {o.step: o.value for o in trace.of(name).training}
        assert values == pytest.approx(ledger.total, rel=1e-4)
    for seen in trace.of("gradient_norm").training:
        true = ledger.gradient[seen.step, seen.site.path]
        assert seen.value == pytest.approx(true, rel=1e-4)
    updates = {(o.step, o.site.path): o.value for o in trace.of("update_to_weight_ratio").training}
    true_updates = {key: u / ledger.weight[key] for key, u in ledger.update.items()}
    assert updates == pytest.approx(true_updates, rel=1e-2)
    assert not trace.facts.loop.scale_unknown


@BOTH
def test_what_is_clipped_under_a_scaler_is_told_without_the_scale(every: Any) -> None:
    watcher, ledger, _, _ = scaled_run(every, clip=0.05)

    trace = ledger.agrees(watcher)
    clipping = trace.facts.loop.clipping
    assert (clipping.kind, clipping.limit, clipping.calls, clipping.scaled) == ("norm", 0.05, 9, 0)
    before = trace.of("norm_before_clipping").training.values
    assert list(before) == pytest.approx(trace.of("backward_gradient_norm").training.values)
    assert list(trace.of("total_gradient_norm").training.values) == pytest.approx(
        [0.05] * STEPS, rel=1e-3
    )


@BOTH
def test_clipping_before_unscaling_is_told_as_such(every: Any) -> None:
    watcher, _, _, _ = scaled_run(every, clip=0.05, unscale=False)

    trace = watcher.trace()
    assert trace.facts.loop.clipping.scaled == STEPS
    before = trace.of("norm_before_clipping").training.values
    assert list(before) == pytest.approx(trace.of("backward_gradient_norm").training.values)


@BOTH
def test_a_disabled_scaler_is_none(every: Any) -> None:
    model, x, y = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    ledger = Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            with nullcontext():
                loss = nn.functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            ledger.before()
            scaler.step(optimizer)
            scaler.update()
            ledger.after()

    assert ledger.agrees(watcher).facts.loop.scaler is None


@BOTH
@pytest.mark.parametrize("clear", ["at the start", "after the step"])
def test_accumulated_gradients_are_one_step_and_carry_nothing(clear: str, every: Any) -> None:
    model, x, y = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    ledger, losses = Ledger(model), []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            if clear == "at the start":
                optimizer.zero_grad()
            parts = []
            for part in range(3):
                rows = slice(part * 10, part * 10 + 10)
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows]) / 3
                loss.backward()
                parts.append(float(loss.detach()))
            losses.append(sum(parts))
            ledger.before()
            optimizer.step()
            ledger.after()
            if clear == "after the step":
                optimizer.zero_grad()

    trace = ledger.agrees(watcher)
    assert trace.facts.loop.backwards == 3 * STEPS
    assert list(trace.of("loss").training.values) == pytest.approx(losses, rel=1e-5)
    assert list(trace.of("backward_gradient_norm").training.values) == pytest.approx(
        trace.of("total_gradient_norm").training.values
    )
    carried = trace.of("carried_gradient_norm").training.values
    assert len(carried) == STEPS - 1
    assert set(carried) == {0.0}
    assert watcher.report.verdict == "healthy"


@BOTH
def test_a_step_of_many_backwards_is_measured_at_its_end(every: Any) -> None:
    """Its first backwards are looked at, the rest go by; none of a run is left out for it."""
    model, x, y = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ledger, parts, losses = Ledger(model), 3 * MAX_BACKWARDS, []
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            losses.append(0.0)
            for part in range(parts):
                rows = [part, part + 1]
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows]) / parts
                loss.backward()
                losses[-1] += float(loss.detach())
            ledger.before()
            optimizer.step()
            ledger.after()
            optimizer.zero_grad()

    trace = ledger.agrees(watcher)
    assert trace.facts.loop.backwards == parts * STEPS
    assert trace.facts.loop.observed == STEPS
    assert trace.facts.loop.forwards == 1.0
    assert list(trace.of("loss").training.values) == pytest.approx(losses, rel=1e-5)
    assert not trace.of("backward_gradient_norm").training.values
    assert set(trace.of("carried_gradient_norm").training.values) == {0.0}


@pytest.mark.parametrize("copies", [False, True], ids=["assigned", "copied-into"])
@BOTH
def test_master_weights_that_are_given_their_gradients_by_hand_are_not_taken_as_uncleared(
    every: Any, copies: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(torch.bfloat16)
    master = [p.detach().clone().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.Adam(master, lr=1e-2)
    x, y = torch.randn(64, 8, dtype=torch.bfloat16), torch.randint(0, 3, (64,))
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            nn.functional.cross_entropy(model(x).float(), y).backward()
            for own, kept in zip(model.parameters(), master, strict=True):
                assert own.grad is not None
                if copies and kept.grad is not None:
                    kept.grad.copy_(own.grad)
                else:
                    kept.grad = own.grad.float()
                own.grad = None
            optimizer.step()
            with torch.no_grad():
                for own, kept in zip(model.parameters(), master, strict=True):
                    own.copy_(kept)
    assert set(watcher.trace().of("carried_gradient_norm").training.values) <= {0.0}
    assert "GL704" not in {f.code for f in watcher.report.findings}


@BOTH
def test_two_precisions_that_no_norm_can_share_are_measured_each_by_itself(every: Any) -> None:
    torch.manual_seed(0)
    half, double = nn.Linear(64, 64).bfloat16(), nn.Linear(64, 4).double()
    optimizer = torch.optim.SGD([*half.parameters(), *double.parameters()], lr=0.01)
    with Watcher([half, double], optimizer, every=every) as watcher:
        for _ in range(6):
            optimizer.zero_grad()
            double(half(torch.randn(8, 64).bfloat16()).double()).square().mean().backward()
            optimizer.step()

    assert watcher.loop.failure is None
    measured = {o.site.path for o in watcher.trace().of("gradient_norm")}
    assert len(measured) == 4
