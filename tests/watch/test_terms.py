"""Terms of a loss that lead to no parameter, and terms that look like them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlint.finding import Severity
from gradlint.trace import LoopFacts, TermFacts
from gradlint.trace_file import read_trace, write_trace
from gradlint.watching import Watcher
from gradlint.watching.readback import Readback
from gradlint.watching.terms import Terms
from tests.watch.ledger import BOTH
from tests.watch.loops import unfailed

STEPS = 24
N = 16

Loss = Callable[[nn.Module], Tensor | None]
"""Makes the loss of one step; None where it ran backward itself."""


def network(size: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, 1))


RESTING = torch.rand(N, 1, requires_grad=True)


def train(loss: Loss, every: Any, size: int = 1, *more: torch.optim.Optimizer) -> Watcher:
    net = network(size)
    optimizer = torch.optim.Adam([{"params": net.parameters()}, {"params": RESTING, "lr": 0}], 3e-3)
    with Watcher(net, every=every) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            value = loss(net)
            if value is not None:
                value.backward()
            optimizer.step()
            for each in more:
                each.step()
    unfailed(watcher)
    return watcher


def term(watcher: Watcher) -> TermFacts | None:
    loop = watcher.trace().facts.loop
    assert isinstance(loop, LoopFacts)
    return loop.term


def fresh(*shape: int) -> Tensor:
    return torch.rand(shape or (N, 1), requires_grad=True)


def slope(u: Tensor, x: Tensor, *, kept: bool) -> Tensor:
    (found,) = torch.autograd.grad(u.sum(), x, create_graph=kept, retain_graph=True)
    return found


def ends(net: nn.Module, size: int = 1) -> Tensor:
    return net(torch.eye(2)[:, :size]).square().mean()


def equation(net: nn.Module, x: Tensor, *, kept: bool = False) -> Tensor:
    second = slope(slope(net(x), x, kept=True), x, kept=kept)
    return (second + torch.sin(x)).square().mean()


def in_time(net: nn.Module) -> Tensor:
    x, t = fresh(), fresh()
    u = net(torch.cat([x, t], dim=1))
    rate, second = slope(u, t, kept=False), slope(slope(u, x, kept=True), x, kept=False)
    source = torch.exp(-t) * torch.sin(x)
    return ends(net, 2) + 0.1 * nn.functional.mse_loss(rate - second, source)


FIXED = fresh()
FAULTS: dict[str, tuple[Loss, int]] = {
    "new-points": (lambda net: ends(net) + 0.05 * equation(net, fresh()), 1),
    "fixed-points": (lambda net: torch.stack([ends(net), equation(net, FIXED)]).sum() / 2, 1),
    "in-time": (in_time, 2),
    "subtracted": (lambda net: -(-ends(net) - equation(net, fresh(N, 1)).view(1)).sum(), 1),
}


@BOTH
@pytest.mark.parametrize(("loss", "size"), FAULTS.values(), ids=FAULTS.keys())
def test_derivatives_that_keep_no_graph_are_told_of(loss: Loss, size: int, every: Any) -> None:
    watcher = train(loss, every, size)
    found = term(watcher)

    assert found == TermFacts(1, found.seen if found else 0, (N, 1))
    (finding,) = (f for f in watcher.report.findings if f.code == "GL708")
    assert finding.severity is Severity.WARNING


def attacked(net: nn.Module) -> Tensor:
    x = torch.rand(N, 1)
    near = (x + 0.1 * torch.randn(N, 1)).requires_grad_()
    return (net(near) - x).square().mean() + (near - x).square().mean()


def attacked_before(net: nn.Module) -> Tensor:
    """The penalty's backward runs before that of what the model says of the same point."""
    near = fresh()
    out = net(near)
    (ends(net) + near.square().mean()).backward()
    return out.square().mean()


def kinetic(net: nn.Module) -> Tensor:
    """Of the energy p²/2 + V(q) one derivative is known."""
    q, p = fresh(), fresh()
    energy = 0.5 * p.square() + net(torch.cat([q, p], 1)[:, :1])
    velocity, force = slope(energy, p, kept=True), slope(energy, q, kept=True)
    return ends(net) + (velocity - 1).square().mean() + (force - q.detach()).square().mean()


CODE, FACTOR, CHOSEN, HELD = fresh(), fresh(1), fresh(), fresh()
LOOSE = nn.Parameter(torch.ones(()))
LEARNED = nn.Parameter(torch.rand(N, 1))
PLACE = nn.Linear(1, 1)


def updated(net: nn.Module) -> Tensor:
    """A point moves along the slope of the output; the loss holds it back."""
    CODE.data += 0.1 * slope(net(CODE), CODE, kept=False)
    return ends(net) + CODE.square().mean()


def updated_in_place(net: nn.Module) -> Tensor:
    with torch.no_grad():
        CHOSEN.add_(0.1)
    return ends(net) + equation(net, CHOSEN)


def factor(net: nn.Module) -> Tensor:
    FACTOR.data += 0.1
    return ends(net) + FACTOR.square().sum() * equation(net, fresh())


def checkpointed(net: nn.Module) -> Tensor:
    x = fresh()
    net(x)
    return ends(net) + checkpoint(PLACE, x, use_reentrant=True).square().mean()


def alone(net: nn.Module) -> None:
    ends(net).backward()
    equation(net, fresh()).backward()


def placed(net: nn.Module) -> Tensor:
    x = fresh()
    net(PLACE(x))
    return ends(net) + x.square().mean()


HEALTHY: dict[str, Loss] = {
    "kept": lambda net: ends(net) + equation(net, fresh(), kept=True),
    "looked-at-alone": lambda net: net(fresh()).square().mean(),
    "attack": attacked,
    "attack-in-two": attacked_before,
    "kinetic-energy": kinetic,
    "updated-by-hand": updated,
    "updated-in-place": updated_in_place,
    "a-factor-by-hand": factor,
    "checkpoint": checkpointed,
    "alone": alone,
    "of-another-s-layer": placed,
    "a-model-s-points": lambda net: ends(net) + 0 * net(LEARNED).sum() + equation(net, LEARNED),
    "points-nobody-called": lambda net: ends(net) + fresh().square().mean(),
    "held-by-an-optimizer": lambda net: ends(net) + equation(net, HELD),
    "held-at-a-rate-of-zero": lambda net: ends(net) + equation(net, RESTING),
    "times-a-parameter-nobody-holds": lambda net: ends(net) + LOOSE * equation(net, fresh()),
    "constant": lambda net: ends(net) + torch.ones(()),
    "hundred-points": lambda net: ends(net) + sum(equation(net, fresh()) for _ in range(70)),
}


@BOTH
@pytest.mark.parametrize("loss", HEALTHY.values(), ids=HEALTHY.keys())
def test_terms_that_teach_somebody_or_are_no_batch_s_are_left_alone(loss: Loss, every: Any) -> None:
    more = [torch.optim.SGD([HELD, *PLACE.parameters()], 0.01)]
    watcher = train(loss, every, 1, *more)

    assert term(watcher) is None
    assert "GL708" not in {f.code for f in watcher.report.findings}


W, X, Y, Z = nn.Parameter(torch.ones(())), fresh(), fresh(), fresh(99)
STRANGE = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize(
    ("calls", "losses", "found"),
    [
        pytest.param([(X,)], [X.sum() + W], True, id="a-term"),
        pytest.param([(2 * X + 1,)], [X.sum() - W], True, id="of-a-made-batch"),
        pytest.param([(X,)], [X.sum() * Z.sum() + W], True, id="beside-more"),
        pytest.param([(X,)], [X.sum() * STRANGE + W], False, id="times-a-stranger"),
        pytest.param([(X,)], [X.sum()], False, id="all-of-the-loss"),
        pytest.param([(X,)], [X.sum() + STRANGE], False, id="beside-strangers"),
        pytest.param([(X,)], [Y.sum() + W], False, id="of-another-batch"),
        pytest.param([(X, Y)], [X.sum() + (Y * W).sum()], False, id="of-one-of-two"),
        pytest.param([(X,), (Y,)], [X.sum() + (Y * W).sum()], True, id="of-two-calls"),
        pytest.param([(X,)], [(X * W).sum() + W, X.sum() + W], False, id="used-before"),
        pytest.param([(X * W,)], [X.sum() + W], False, id="behind-a-layer"),
        pytest.param([(X,)], [X.sum() + 1 / W + 1 / X.sum()], True, id="inverse"),
        pytest.param([(X,)] * 70, [X.sum() + W], False, id="many-calls"),
        pytest.param([(X,)], [sum((X * n).exp().sum() for n in range(70)) + W], False, id="many"),
        pytest.param([(sum((X for _ in range(70)), X),)], [X.sum() + W], False, id="a-long-way"),
        pytest.param([(sum(Y for _ in range(70)) + X,)], [X.sum() + W], False, id="a-way-beside"),
        pytest.param([(X,)], [torch.ones(()) / (X.sum() + W) + W], False, id="a-sum-below"),
    ],
)
def test_a_term_is_known_by_what_it_leads_to(
    calls: list[tuple[Tensor, ...]], losses: list[Tensor], found: bool
) -> None:
    terms = Terms()
    for call in calls:
        terms.enter((call, {}))
    for loss in losses:
        terms.note(loss, {id(W)})
    terms.end(1, {id(W)}, Readback())

    facts = terms.facts()
    assert (facts is not None) is found
    assert facts is None or facts.shape == (N, 1)


def test_what_was_used_once_is_of_use() -> None:
    terms = Terms()
    for loss in (X.sum() + (X * W).sum(), X.sum() + W, X.sum() + W):
        terms.enter(((X,), {}))
        terms.note(loss, {id(W)})
        terms.end(1, {id(W)}, Readback())

    assert terms.facts() is None


def test_a_term_of_few_steps_is_left_alone() -> None:
    seen = 0

    def loss(net: nn.Module) -> Tensor:
        nonlocal seen
        seen += 1
        return ends(net) + equation(net, fresh(), kept=seen > 2)

    assert "GL708" not in {f.code for f in train(loss, 1).report.findings}


def test_it_survives_its_file(tmp_path: Path) -> None:
    trace = train(FAULTS["new-points"][0], 1).trace()
    write_trace(tmp_path / "t.gradlint", trace)

    loop, read = trace.facts.loop, read_trace(tmp_path / "t.gradlint").facts.loop
    assert loop is not None
    assert read is not None
    assert read.term == loop.term is not None
