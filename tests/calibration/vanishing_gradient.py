"""Where GL301 draws its lines: the gradient's decay of plain networks, and whether they learn.

Run: python tests/calibration/vanishing_gradient.py [STEPS]. Prints, for each network and
optimizer, the decades gradlint measures at step 0 and over the later half of 40 steps, and the
training loss after STEPS (2000) steps; chance is 1.6. Three minutes on one core.

Result with torch 2.13:

    SGD Sigmoid x4      -2.59  -2.59   0.14      Adam Sigmoid x5     -3.41  -3.31   0.17
    SGD Sigmoid x5      -3.41  -3.43   1.61      Adam Sigmoid x6     -4.21  -4.11   0.36
    SGD Sigmoid x6      -4.21  -4.24   1.61      Adam Sigmoid x8     -5.10  -5.06   1.17
    SGD ReLU x5         -1.53  -1.24   0.14      Adam ReLU x10       -3.16  -1.75   0.14
    SGD ReLU x8         -2.30  -2.26   0.21      Adam ReLU x12       -3.51  -1.65   0.15
    SGD ReLU x10        -3.16  -3.23   1.61      Adam ReLU x16       -4.59  -2.47   0.50
    SGD ReLU x12        -3.51  -3.50   1.61      Adam ReLU x20       -5.72  -4.59   0.70
    SGD Tanh x10        -2.02  -1.89   0.23      Adam Tanh x20       -3.55   0.42   0.41
    SGD Tanh x20        -3.55  -3.50   1.61      Adam GELU x10       -4.31  -1.87   0.11
    SGD GELU x8         -3.22  -3.20   1.14      Adam GELU x20       -7.99  -5.34   1.60
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradlint
from gradlint.rules._gradient_profile import Verdict, over_time, shrinking
from gradlint.rules.vanishing_gradient import VanishingGradient
from gradlint.trace import Trace

WIDTH, INPUTS, CLASSES = 64, 20, 5

DEPTHS = {
    "SGD": {nn.Sigmoid: (3, 4, 5, 6), nn.ReLU: (5, 8, 10, 12), nn.Tanh: (10, 20), nn.GELU: (8,)},
    "Adam": {
        nn.Sigmoid: (3, 4, 5, 6, 8),
        nn.ReLU: (8, 10, 12, 16, 20),
        nn.Tanh: (10, 20),
        nn.GELU: (10, 20),
    },
}


def network(activation: type[nn.Module], depth: int) -> nn.Sequential:
    """`depth` linear layers at torch's own initialization, `activation` in between."""
    layers: list[nn.Module] = [nn.Linear(INPUTS, WIDTH)]
    for _ in range(depth - 2):
        layers += [activation(), nn.Linear(WIDTH, WIDTH)]
    return nn.Sequential(*layers, activation(), nn.Linear(WIDTH, CLASSES))


def batch(seed: int) -> tuple[Tensor, Tensor]:
    """Points labeled by a fixed random linear map."""
    teacher = torch.randn(INPUTS, CLASSES, generator=torch.Generator().manual_seed(7))
    inputs = torch.randn(32, INPUTS, generator=torch.Generator().manual_seed(seed))
    return inputs, (inputs @ teacher).argmax(dim=1)


def optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """SGD at 0.05 (0.1 for sigmoid) with momentum 0.9, Adam at 1e-3."""
    if name == "Adam":
        return torch.optim.Adam(model.parameters(), lr=1e-3)
    rate = 0.1 if any(isinstance(m, nn.Sigmoid) for m in model) else 0.05  # type: ignore[attr-defined]
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def decay(build: Callable[[], nn.Sequential], name: str) -> Verdict:
    """Measure the decay as the rule does, by listening to it."""
    heard: list[Verdict] = []

    def listening(rule: VanishingGradient, trace: Trace) -> list[object]:
        heard.append(over_time(trace, shrinking))
        return []

    original = VanishingGradient.check
    VanishingGradient.check = listening  # type: ignore[assignment, method-assign]
    try:
        model = build()
        batches = [batch(seed) for seed in range(8)]
        gradlint.check(model, batches, cross_entropy, optimizer(name, model))
    finally:
        VanishingGradient.check = original  # type: ignore[method-assign]
    return heard[0]


def train(model: nn.Sequential, name: str, steps: int) -> float:
    """Return the mean loss of the last twentieth of `steps`."""
    chosen = optimizer(name, model)
    losses = []
    for step in range(steps):
        inputs, labels = batch(step)
        chosen.zero_grad()
        loss = cross_entropy(model(inputs), labels)
        loss.backward()
        chosen.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 20) :]
    return sum(last) / len(last)


def main(steps: int) -> None:
    """Print the table."""
    for name, depths in DEPTHS.items():
        for activation, numbers in depths.items():
            for depth in numbers:

                def build(
                    activation: type[nn.Module] = activation, depth: int = depth
                ) -> nn.Sequential:
                    torch.manual_seed(0)
                    return network(activation, depth)

                found = decay(build, name)
                decades = [
                    f"{s.decades:6.2f}" if s else "     -" for s in (found.initial, found.later)
                ]
                label = f"{name} {activation.__name__} x{depth}"
                print(f"{label:18}", *decades, f"{train(build(), name, steps):6.2f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
