"""Sealed and sick: faults of the training loop, where only a watched loop can see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import StepLR

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import FtTransformer, ResNetOfTables, friedman, stack
from tests.calibration.sealed_sequences import SmallLm, flat_ce
from tests.calibration.sealed_vision import Patches
from tests.zoo.recipes import digits, next_tokens, rows

bench = Bench()
CE = nn.CrossEntropyLoss()


def loop(
    loss_of: Any,
    *,
    clear: str = "first",
    step: bool = True,
    after: Any = None,
    before: Any = None,
    schedule: Any = None,
) -> Any:
    """Return a training loop with a place for a fault."""

    def run(model: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        scheduler = schedule(optimizer) if schedule else None
        for number in range(steps):
            x, y = draw()
            if clear == "first":
                optimizer.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            if clear == "last":
                optimizer.zero_grad(set_to_none=False)
            if before is not None:
                before(model, number)
            if step:
                optimizer.step()
            if after is not None:
                after(model, number)
            if scheduler is not None:
                scheduler.step()
            yield float(loss.detach())

    return run


def sick(
    name: str, fault: str, causes: str, model: Any, batch: Any, loss: Any, optimizer: Any, run: Any
) -> None:
    bench.sick(name, fault, causes, model, batch, loss, optimizer, loop=run, in_loop=True)


MSE = nn.MSELoss()
sick(
    "never-cleared-vit",
    "gradients not cleared",
    "GL704",
    Patches,
    digits(32),
    CE,
    adamw(1e-3),
    loop(CE, clear="never"),
)
sick(
    "never-cleared-regression",
    "gradients not cleared",
    "GL704",
    ResNetOfTables,
    friedman,
    MSE,
    sgd(0.01, momentum=0.9),
    loop(MSE, clear="never"),
)
sick(
    "cleared-behind-backward-lm",
    "cleared before the step",
    "GL705",
    lambda: SmallLm(2),
    next_tokens(40),
    flat_ce,
    adamw(3e-3),
    loop(flat_ce, clear="last"),
)
sick(
    "cleared-behind-backward-tables",
    "cleared before the step",
    "GL705",
    FtTransformer,
    friedman,
    MSE,
    adam(1e-3),
    loop(MSE, clear="last"),
)
sick(
    "step-forgotten-vit",
    "step never called",
    "GL707",
    Patches,
    digits(32),
    CE,
    adamw(1e-3),
    loop(CE, step=False),
)
sick(
    "clipped-to-a-hundredth-each",
    "clipped by tensor",
    "GL404",
    FtTransformer,
    friedman,
    MSE,
    sgd(0.05),
    loop(MSE, before=lambda m, n: [nn.utils.clip_grad_norm_([p], 1e-2) for p in m.parameters()]),
)
sick(
    "rate-gone-after-ten-steps",
    "schedule",
    "GL412 GL402",
    lambda: stack(64, 64, 10, act=nn.GELU),
    rows("digits"),
    CE,
    sgd(0.1),
    loop(CE, schedule=lambda o: StepLR(o, step_size=2, gamma=0.1)),
)


def _reset(model: Any, _: int) -> None:
    with torch.no_grad():
        model[0].weight.copy_(model[0].kept)


def _kept() -> nn.Module:
    model = stack(64, 64, 10, act=nn.GELU)
    model[0].register_buffer("kept", model[0].weight.detach().clone())
    return model


sick(
    "first-layer-put-back-each-step",
    "weights put back",
    "GL406",
    _kept,
    rows("digits"),
    CE,
    sgd(0.1),
    loop(CE, after=_reset),
)


def _drift(model: Any, _: int) -> None:
    with torch.no_grad():
        for p in model.patch.parameters():
            p.mul_(0.98)


def _frozen() -> nn.Module:
    model = Patches()
    model.patch.requires_grad_(False)
    return model


sick(
    "frozen-patches-shrink",
    "frozen but moving",
    "GL706",
    _frozen,
    digits(32),
    CE,
    adamw(3e-3),
    loop(CE, after=_drift),
)
sick(
    "loss-of-a-number",
    "detached loss",
    "GL708",
    lambda: stack(10, 32, 1, act=nn.SiLU),
    friedman,
    MSE,
    adam(1e-3),
    loop(lambda o, t: torch.tensor(F.mse_loss(o, t).item(), requires_grad=True)),
)
sick(
    "weights-become-nan-at-step-twelve",
    "not finite",
    "GL501",
    ResNetOfTables,
    friedman,
    MSE,
    adam(1e-3),
    loop(
        lambda o, t: F.mse_loss(o, t),
        before=lambda m, n: n == 12 and [p.grad.fill_(float("nan")) for p in m.first.parameters()],
    ),
)
