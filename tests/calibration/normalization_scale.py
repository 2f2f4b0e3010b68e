"""What a normalization's initial scale does to training: source of GL109's limits.

Run: python tests/calibration/normalization_scale.py. Prints the loss after 250 steps (chance
is 2.3) on digits, eight convolutions with BatchNorm and SiLU; about a minute on one core.

Result with torch 2.13:

    γ             0.02  N(0, 0.02)  0.1   0.25  0.5   1     2     4     10
    Adam 1e-3     1.29  1.31        1.03  0.72  0.38  0.12  0.03  0.01  0.01
    SGD 0.01, 0.9 1.79  1.96        1.25  0.54  0.17  0.05  0.02  0.01  0.00
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

STEPS = 250
DEPTH = 8


def network(initialize: Callable[[Tensor], object]) -> nn.Sequential:
    parts: list[nn.Module] = []
    channels = 1
    for _ in range(DEPTH):
        norm = nn.BatchNorm2d(24)
        initialize(norm.weight)
        parts += [nn.Conv2d(channels, 24, 3, padding=1, bias=False), norm, nn.SiLU()]
        channels = 24
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


def final_loss(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    digits = load_digits()
    inputs = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    labels = torch.tensor(digits.target)
    draw = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(STEPS):
        chosen = torch.randint(len(inputs), (64,), generator=draw)
        loss = nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20


def main() -> None:
    torch.set_num_threads(1)
    scales: dict[str, Callable[[Tensor], object]] = {
        str(g): lambda w, g=g: nn.init.constant_(w, g)  # type: ignore[misc]
        for g in (0.02, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
    }
    scales["N(0, 0.02)"] = lambda w: nn.init.normal_(w, std=0.02)
    for name, initialize in scales.items():
        torch.manual_seed(0)
        model = network(initialize)
        adam = final_loss(model, torch.optim.Adam(model.parameters(), lr=1e-3))
        torch.manual_seed(0)
        model = network(initialize)
        sgd = final_loss(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
        print(f"{name:>10}  Adam {adam:.2f}  SGD {sgd:.2f}")


if __name__ == "__main__":
    main()
