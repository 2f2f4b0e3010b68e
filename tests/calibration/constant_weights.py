"""What constant weights do when the biases stay random: source of GL102's second case.

Run: python tests/calibration/constant_weights.py. Prints the loss after 400 steps (chance is
2.3) on digits, 64 ReLU units a layer; about half a minute on one core.

Result with torch 2.13: (Adam 1e-3 / SGD 0.05)

    layers               2            3            4
    random          0.07 / 0.14  0.03 / 0.12  0.01 / 0.16
    all 0           0.72 / 1.93  1.88 / 2.30  1.87 / 2.30
    all 0.1         0.20 / 1.85  1.50 / 2.33  1.89 / 1.98
    all 1           1.33 / 8.77  3.63 / 2.30   186 / 2.30
    first 0         0.12 / 0.16  0.05 / 0.19  0.02 / 0.40
    first 0.1       0.11 / 0.23  0.05 / 0.28  0.03 / 0.74
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

STEPS = 400


def network(layers: int, constant: float | None, *, first_only: bool) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*parts, nn.Linear(64, 10))
    linears = [part for part in model if isinstance(part, nn.Linear)]
    if constant is not None:
        for linear in linears[:1] if first_only else linears:
            nn.init.constant_(linear.weight, constant)
    return model


def final_loss(model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    inputs = (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-3)
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
    cases = [(None, False), (0.0, False), (0.1, False), (1.0, False), (0.0, True), (0.1, True)]
    for constant, first_only in cases:
        row = []
        for layers in (2, 3, 4):
            pair = []
            for kind, rate in ((torch.optim.Adam, 1e-3), (torch.optim.SGD, 0.05)):
                torch.manual_seed(0)
                model = network(layers, constant, first_only=first_only)
                pair.append(final_loss(model, kind(model.parameters(), lr=rate)))
            row.append(f"{pair[0]:.2f} / {pair[1]:.2f}")
        name = "random" if constant is None else f"{'first' if first_only else 'all'} {constant:g}"
        print(f"{name:10}", *row, sep="  ")


if __name__ == "__main__":
    main()
