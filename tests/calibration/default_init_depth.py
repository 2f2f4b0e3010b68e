"""How deep a plain network trains with torch's default initialization: source of GL101's limits.

Run: python tests/calibration/default_init_depth.py. Prints the loss after 400 steps (chance
is 2.3) on digits, 64 units a layer; about half a minute on one core.

Result with torch 2.13: (Adam 1e-3 / SGD 0.05)

    layers            5            8            10           12           16           20           30
    ReLU default  0.02 / 0.46  0.02 / 2.30  0.04 / 2.30  0.33 / 2.30  0.51 / 2.30  1.09 / 2.30  2.30 / 2.30
    ReLU He       0.01 / 0.04  0.00 / 0.01  0.00 / 0.01  0.02 / 0.01  0.04 / 0.04  0.07 / 0.11  0.12 / nan
    tanh default  0.03 / 0.22  0.05 / 0.76  0.09 / 1.71  0.25 / 2.30  0.73 / 2.30  1.99 / 2.30  1.90 / 2.30
    tanh Xavier   0.02 / 0.11  0.01 / 0.10  0.02 / 0.08  0.01 / 0.06  0.02 / 0.04  0.04 / 0.10  0.19 / 0.23

The default's gain is 0.58: against √2 (ReLU) its product passes 1e-2 at 6 layers and 1e-4 at
11, against 1 (tanh) at 9 and 17.
"""  # noqa: E501

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

STEPS = 400
WIDTH = 64


def network(layers: int, activation: type[nn.Module], init: str) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        linear = nn.Linear(64, WIDTH)
        if init != "default":
            draw = nn.init.kaiming_normal_ if init == "He" else nn.init.xavier_normal_
            draw(linear.weight)
            nn.init.zeros_(linear.bias)
        parts += [linear, activation()]
    return nn.Sequential(*parts, nn.Linear(WIDTH, 10))


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
    for activation, good in ((nn.ReLU, "He"), (nn.Tanh, "Xavier")):
        for init in ("default", good):
            row = []
            for layers in (5, 8, 10, 12, 16, 20, 30):
                pair = []
                for kind, rate in ((torch.optim.Adam, 1e-3), (torch.optim.SGD, 0.05)):
                    torch.manual_seed(0)
                    model = network(layers, activation, init)
                    pair.append(final_loss(model, kind(model.parameters(), lr=rate)))
                row.append(f"{pair[0]:.2f} / {pair[1]:.2f}")
            print(f"{activation.__name__:5} {init:8}", *row, sep="  ")


if __name__ == "__main__":
    main()
