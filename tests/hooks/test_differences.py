"""Targets that no node keeps are what output and kept difference make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradlint.facts import LossFacts
from gradlint.hooks.tensor_facts import tensor_facts
from gradlint.watching import Watcher

Loss = Callable[[Tensor, Tensor], Tensor]


class Column(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))


def seen(loss_fn: Loss, targets: Callable[[Tensor], Tensor]) -> Iterator[LossFacts]:
    """Yield what a watched loop of one step knows of its loss."""
    model = Column()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    inputs = torch.randn(64, 6)
    with Watcher(model) as watcher:
        loss_fn(model(inputs), targets(inputs)).backward()
        optimizer.step()
    assert watcher.loop.failure is None
    yield from watcher.trace().facts.losses


def real(inputs: Tensor) -> Tensor:
    return 40 * inputs[:, :3] - 15


@pytest.mark.parametrize(
    ("loss_fn", "kind"),
    [
        pytest.param(functional.l1_loss, "l1", id="l1"),
        pytest.param(nn.L1Loss(reduction="sum"), "l1", id="l1-summed"),
        pytest.param(lambda o, t: (o - t).abs().mean(), "l1", id="l1-by-hand"),
        pytest.param(lambda o, t: ((o - t) ** 2).mean(), "mse", id="mse-by-hand"),
        pytest.param(lambda o, t: (t - o).pow(2).mean(), "mse", id="targets-first"),
        pytest.param(lambda o, t: torch.square(o - t).mean().sqrt(), "mse", id="root"),
        pytest.param(lambda o, t: (o.view(-1) - t.reshape(-1)).abs().mean(), "l1", id="flat"),
        pytest.param(lambda o, t: 0.5 * (o.float() - t).abs().sum(1).mean(), "l1", id="scaled"),
    ],
)
def test_targets_are_those_of_the_batch_up_to_rounding(loss_fn: Loss, kind: str) -> None:
    wanted: list[Tensor] = []

    def targets(inputs: Tensor) -> Tensor:
        wanted.append(real(inputs))
        return wanted[0]

    (found,) = seen(loss_fn, targets)

    known = tensor_facts("target", wanted[0])
    assert (found.kind, found.target is None) == (kind, False)
    assert found.target is not None
    for name in ("minimum", "maximum", "mean", "std"):
        assert getattr(found.target, name) == pytest.approx(
            getattr(known, name), rel=1e-5, abs=1e-5
        )


def test_whole_targets_stay_whole() -> None:
    (found,) = seen(functional.l1_loss, lambda inputs: torch.arange(192.0).reshape(64, 3) % 7)

    assert found.target is not None
    assert (found.target.whole, found.target.unique) == (True, 7)


def test_half_precision_gives_half_of_the_digits() -> None:
    def loss_fn(output: Tensor, target: Tensor) -> Tensor:
        return (output.bfloat16() - target.bfloat16()).abs().mean()

    (found,) = seen(loss_fn, real)

    assert found.target is not None
    assert found.target.mean == pytest.approx(-15, abs=3)


@pytest.mark.parametrize(
    "loss_fn",
    [
        pytest.param(lambda o, t: ((o - 1) ** 2).mean(), id="a-constant"),
        pytest.param(lambda o, t: ((o - 0.3) ** 2).mean(), id="a-constant-that-rounds"),
        pytest.param(lambda o, t: (o[:, :1] - t[:, :1]).abs().mean(), id="a-part"),
        pytest.param(lambda o, t: (o.mean(1) - t.mean(1)).abs().mean(), id="a-mean"),
        pytest.param(lambda o, t: (o.sigmoid() - t).abs().mean(), id="something-else"),
        pytest.param(lambda o, t: (o.t() - t.t()).abs().mean(), id="in-another-order"),
        pytest.param(lambda o, t: (o[:, :1] - t[:, 0]).abs().mean(), id="a-table-of-pairs"),
        pytest.param(lambda o, t: torch.sub(o, t, alpha=2).abs().mean(), id="times-two"),
        pytest.param(lambda o, t: (o - t).exp().mean(), id="no-distance"),
    ],
)
def test_what_is_not_the_output_against_data_is_left_alone(loss_fn: Loss) -> None:
    assert [found.target for found in seen(loss_fn, real)] == []


def test_a_bound_that_an_l1_loss_asks_too_much_of_is_found_and_a_wide_one_is_not() -> None:
    def codes(last: nn.Module) -> set[str]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3), last)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        with Watcher(model) as watcher:
            for _ in range(20):
                inputs = torch.randn(64, 6)
                optimizer.zero_grad()
                functional.l1_loss(model(inputs), inputs[:, :3] * 2).backward()
                optimizer.step()
        return {f.code for f in watcher.report.findings}

    assert "GL603" in codes(nn.ReLU())
    assert "GL603" not in codes(nn.Hardtanh(-20, 20))
