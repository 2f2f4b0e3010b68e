"""Several models and optimizers in one loop: whose step it is, whose loss, whose gradient."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from gradlint.trace import Trace
from gradlint.watching import Watcher
from tests.watch.ledger import BOTH, STEPS, Ledger, at, got, near
from tests.watch.loops import unfailed


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(11)
    generator = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 6))
    critic = nn.Sequential(nn.Linear(6, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    return generator, critic


def of_stream(trace: Trace, label: str) -> list[float]:
    """Losses of one optimizer, whose site is named like the model that it trains."""
    return [o.value for o in trace.of("stream_loss").training if o.site.path == label]


@BOTH
@pytest.mark.parametrize("given", ["dict", "list", "optimizers"])
def test_a_gan_is_two_streams_of_steps(given: str, every: Any) -> None:
    g, d = pair()
    opt_g = torch.optim.Adam(g.parameters(), lr=1e-3)
    opt_d = torch.optim.Adam(d.parameters(), lr=2e-3)
    names = ("model0", "model1") if given == "list" else ("g", "d")
    models: Any = [g, d] if given == "list" else {"g": g, "d": d}
    ledger = Ledger(dict(zip(names, (g, d), strict=True)))
    true: dict[str, list[float]] = {names[0]: [], names[1]: []}
    real, ones, zeros = torch.randn(16, 6), torch.ones(16, 1), torch.zeros(16, 1)
    with Watcher(models, [opt_g, opt_d] if given == "optimizers" else None, every=every) as watcher:
        for _ in range(STEPS):
            fake = g(torch.randn(16, 4))
            opt_d.zero_grad()
            loss_real = bce(d(real), ones)
            loss_real.backward()
            loss_fake = bce(d(fake.detach()), zeros)
            loss_fake.backward()
            true[names[1]].append(float((loss_real + loss_fake).detach()))
            ledger.before(d.parameters())
            opt_d.step()
            ledger.after(d.parameters())
            opt_g.zero_grad()
            loss = bce(d(fake), ones)  # leaves gradients in the critic, too
            loss.backward()
            true[names[0]].append(float(loss.detach()))
            ledger.before(g.parameters())
            opt_g.step()
            ledger.after(g.parameters())

    trace = watcher.trace()
    loop = trace.facts.loop
    unfailed(watcher)
    assert (loop.steps, loop.backwards, loop.streams) == (2 * STEPS, 3 * STEPS, 2)
    for name in names:
        assert of_stream(trace, name) == pytest.approx(true[name], rel=1e-5)
    assert "loss" not in trace.metrics
    seen = {o.step for o in trace.of("gradient_norm").training}
    assert len(seen) == 2 * STEPS
    assert got(trace, "gradient_norm") == near(ledger.gradient, seen, 1e-5)
    updates = {key: u / ledger.weight[key] for key, u in ledger.update.items()}
    # Of parameters that got a gradient and were not stepped, the update is nothing.
    moved = {k: v for k, v in got(trace, "update_to_weight_ratio").items() if k in updates}
    assert moved == near({k: u for k, u in updates.items() if k in moved}, seen, 1e-2)
    totals = {o.step: o.value for o in trace.of("total_gradient_norm").training}
    assert totals == near(ledger.total, set(totals), 1e-5)
    assert watcher.report.verdict == "healthy"


@BOTH
def test_actor_and_critic_with_one_backward_share_a_loss(every: Any) -> None:
    actor, critic = nn.Linear(6, 3), nn.Linear(6, 1)
    opt_a = torch.optim.SGD(actor.parameters(), lr=0.05)
    opt_c = torch.optim.SGD(critic.parameters(), lr=0.05)
    x, losses = torch.randn(16, 6), []
    ledger = Ledger({"actor": actor, "critic": critic})
    with Watcher({"actor": actor, "critic": critic}, every=every) as watcher:
        for _ in range(STEPS):
            opt_a.zero_grad()
            opt_c.zero_grad()
            loss = actor(x).square().mean() + (critic(x) - 1).square().mean()
            loss.backward()
            losses.append(float(loss.detach()))
            for model, optimizer in ((actor, opt_a), (critic, opt_c)):
                ledger.before(model.parameters())
                optimizer.step()
                ledger.after(model.parameters())

    trace = watcher.trace()
    unfailed(watcher)
    assert trace.facts.loop.streams == 1
    assert trace.facts.loop.steps == 2 * STEPS
    assert [o.value for o in trace.of("loss").training] == pytest.approx(losses)
    assert watcher.report.verdict == "healthy"


@BOTH
def test_a_target_network_is_left_in_peace(every: Any) -> None:
    q = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    target = copy.deepcopy(q).requires_grad_(False)
    optimizer = torch.optim.SGD(q.parameters(), lr=0.05)
    x, ledger = torch.randn(16, 6), Ledger(q)
    with Watcher({"q": q, "target": target}, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            with torch.no_grad():
                aim = 1 + 0.9 * target(x).amax(1)
            optimizer.zero_grad()
            (q(x)[:, 0] - aim).square().mean().backward()
            ledger.before()
            optimizer.step()
            ledger.after()
            with torch.no_grad():
                for slow, fast in zip(target.parameters(), q.parameters(), strict=True):
                    slow.lerp_(fast, 0.01)

    trace = ledger.agrees(watcher)
    calls = at(trace, "activation_std", "0")
    assert {len(values) for values in calls.values()} == {1}
    assert watcher.report.verdict == "healthy"


@BOTH
def test_a_copy_that_follows_the_model_is_not_watched(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, ledger = torch.randn(16, 6), Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for step in range(STEPS):
            if step in (0, 5):
                average = copy.deepcopy(model)  # hooks and all, within the watching
            optimizer.zero_grad()
            loss = model(x).square().mean()
            average(x * 100).square().mean().backward()
            loss.backward()
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher)
    assert {len(values) for values in at(trace, "activation_std", "0").values()} == {1}
    assert max(values[0] for values in at(trace, "activation_std", "0").values()) < 10


@BOTH
def test_two_watchers_of_one_loop_see_the_same(every: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, ledger = torch.randn(16, 6), Ledger(model)
    with Watcher(model, every=every) as outer, Watcher(model, optimizer, every=1) as inner:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            ledger.before()
            optimizer.step()
            ledger.after()

    one, other = ledger.agrees(outer), ledger.agrees(inner)
    for metric in ("activation_std", "activation_grad_norm"):
        assert at(one, metric, "0") == at(other, metric, "0")


@BOTH
def test_unfinished_business_of_another_loop_is_not_ours(every: Any) -> None:
    model, other = nn.Linear(6, 2), nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    theirs = torch.optim.SGD(other.parameters(), lr=0.05)
    x, ledger = torch.randn(16, 6), Ledger(model)
    with Watcher(model, optimizer, every=every) as watcher:
        for _ in range(STEPS):
            other(x).square().mean().backward()
            theirs.step()
            optimizer.zero_grad()
            model(x).square().mean().backward()
            ledger.before()
            optimizer.step()
            ledger.after()

    trace = ledger.agrees(watcher)
    assert trace.facts.loop.optimizers == ("SGD",)
    assert trace.facts.optimizer.foreign == 0


@BOTH
def test_heads_that_train_in_turns_are_judged_by_their_own_targets(every: Any) -> None:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
    heads = {"few": nn.Linear(16, 3), "many": nn.Linear(16, 12), "bounded": nn.Linear(16, 1)}
    model = nn.ModuleDict({"trunk": trunk, **heads})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = torch.randn(96, 6)
    with Watcher(model, optimizer, every=every) as watcher:
        for step in range(STEPS):
            name = list(heads)[step % 3]
            out = heads[name](trunk(x))
            optimizer.zero_grad()
            if name == "bounded":
                loss = nn.functional.mse_loss(out.sigmoid(), (x[:, :1] > 0).float())
            else:
                targets = torch.arange(96) % out.shape[1]
                loss = nn.functional.cross_entropy(out, targets)
            loss.backward()
            optimizer.step()
    classes = {seen.classes for seen in watcher.trace().facts.losses}
    assert classes == {3, 12, None}
    assert not {f.code for f in watcher.report.findings} & {"GL603", "GL604", "GL605", "GL613"}


@BOTH
def test_scores_of_an_actor_are_not_counted_by_its_critic(every: Any) -> None:
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3) for net in (actor, critic)]
    with Watcher({"actor": actor, "critic": critic}, optimizers, every=every) as watcher:
        for _ in range(STEPS):
            x, actions = torch.randn(64, 4), torch.randint(0, 2, (64,))
            scores, value = actor(x), critic(x).squeeze(1)
            chosen = torch.log_softmax(scores, 1).gather(1, actions[:, None]).squeeze(1)
            error = x.sum(1) - value
            for net, loss in zip(
                optimizers, (-(chosen * error.detach()).mean(), error.pow(2).mean()), strict=True
            ):
                net.zero_grad()
                loss.backward()
                net.step()
    unfailed(watcher)
    assert all(seen.classes != 1 for seen in watcher.trace().facts.losses)
    assert "GL604" not in {f.code for f in watcher.report.findings}
