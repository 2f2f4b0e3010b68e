"""Sealed: two faults at once that have nothing to do with each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_dense import FtTransformer, friedman, stack
from tests.calibration.sealed_sequences import K, tones
from tests.calibration.sealed_sick import Cut, Evaluated, PooledBy, changed, linears
from tests.calibration.sealed_vision import Patches
from tests.zoo.recipes import digits, next_tokens, rows

bench = Bench()
both = bench.mixture
CE = nn.CrossEntropyLoss()


def partly(optimizer: Any, part: str) -> Any:
    """Return a builder of `optimizer` over one attribute of the model."""
    return lambda model: optimizer(getattr(model, part).parameters())


def head_only(model: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.head.parameters(), 3e-3)


both(
    "softmax-twice-and-half-forgotten",
    "GL601",
    "GL702",
    lambda: Cut(stack(64, 48, 48, act=nn.GELU), lambda h: h, 48, 10),
    rows("digits"),
    lambda o, t: F.cross_entropy(o.softmax(1), t),
    head_only,
)
both(
    "detached-and-raw-inputs",
    "GL701",
    "GL606",
    lambda: Cut(stack(64, 48, 48, act=nn.Tanh), lambda h: h.detach(), 48, 10),
    lambda: (lambda b: (b[0] * 90 + 120, b[1]))(rows("digits")()),
    CE,
    adam(),
)
both(
    "sigmoid-output-and-rate-of-1e-9",
    "GL603",
    "GL402",
    lambda: nn.Sequential(stack(10, 48, 1, act=nn.SiLU), nn.Sigmoid()),
    friedman,
    nn.MSELoss(),
    adam(1e-9),
)
both(
    "listed-layers-and-column-against-row",
    "GL709",
    "GL605 GL808",
    lambda: ListOf(),
    lambda: (lambda b: (b[0], b[1][:, 0]))(friedman()),
    nn.MSELoss(),
    adam(3e-3),
)


class ListOf(nn.Module):
    """A hidden layer in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.head = (
            nn.Linear(10, 32),
            [nn.Linear(32, 32)],
            nn.Linear(32, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.hidden[0](F.gelu(self.first(x)))))


both(
    "equal-units-and-decay",
    "GL102",
    "GL408",
    lambda: changed(
        stack(64, 32, 32, 10, act=nn.GELU),
        lambda m: [nn.init.constant_(x.weight, 0.02) for x in linears(m)],
    ),
    rows("digits"),
    CE,
    adamw(0.01, weight_decay=20.0),
)
both(
    "eval-mode-and-labels-of-one-kind",
    "GL710",
    "GL613",
    lambda: Evaluated(),
    lambda: (lambda b: (b[0], torch.full_like(b[1], 2)))(digits(48)()),
    CE,
    sgd(0.05, momentum=0.9),
)
both(
    "softmax-over-batch-and-head-alone",
    "GL113 GL608",
    "GL702",
    lambda: PooledBy(0),
    next_tokens(K),
    lambda o, t: F.cross_entropy(o, t[:, -1]),
    head_only,
)
both(
    "linear-stack-and-parameters-twice",
    "GL112",
    "GL711",
    lambda: stack(64, 64, 64, 10, act=nn.Identity),
    rows("digits"),
    CE,
    lambda m: _twice(m),
)


def _twice(model: nn.Module) -> torch.optim.Optimizer:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = list(model.parameters())
        return torch.optim.SGD(own + own[:2], 0.05)


both(
    "normalized-score-and-dropout-of-everything",
    "GL809",
    "GL804",
    lambda: nn.Sequential(
        nn.Linear(10, 48), nn.GELU(), nn.Dropout(0.97), nn.Linear(48, 1), nn.LayerNorm(1)
    ),
    friedman,
    nn.MSELoss(),
    adam(3e-3),
)
both(
    "softmax-twice-and-frozen-trunk",
    "GL601",
    "GL712",
    lambda: nn.Sequential(
        changed(Patches(), lambda m: m.blocks.requires_grad_(False)), nn.Softmax(1)
    ),
    digits(32),
    CE,
    adamw(3e-3),
)
both(
    "raw-audio-and-targets-of-nine",
    "GL606",
    "GL605 GL604",
    lambda: nn.Sequential(
        nn.Conv1d(1, 16, 16, 4), nn.Tanh(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(64, 4)
    ),
    lambda: (lambda b: (b[0] * 9000, b[1] + 1))(tones()),
    CE,
    adam(),
)
both(
    "targets-in-thousands-and-part-forgotten",
    "GL615",
    "GL702",
    FtTransformer,
    lambda: (lambda b: (b[0], b[1] * 7000 + 30000))(friedman()),
    nn.MSELoss(),
    head_only,
)
