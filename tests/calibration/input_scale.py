"""What the scale of the inputs does to training: source of GL606's limits.

Run: python tests/calibration/input_scale.py. Prints the accuracy after 300 steps (chance is
0.10) on standardized digits times a factor, three layers of 64 ReLU units, median of 3 seeds;
about a minute on one core.

Result with torch 2.13:

    factor    0.001  0.01   0.1     1     3    10    30    50   100   150
    SGD 0.1    0.10  0.10  0.41  0.97  0.99  0.99  0.10  0.10  0.10  0.10
    Adam 1e-3  0.10  0.52  0.91  0.97  0.98  0.99  0.99  1.00  0.99  0.99

on 1 + standardized digits times a factor:

    factor        1   0.1  0.03  0.01 0.003 0.001
    SGD 0.1    0.97  0.29  0.10  0.10  0.10  0.10
    Adam 1e-3  0.95  0.32  0.10  0.10  0.10  0.10

and on raw and standardized features, two layers: (SGD 0.05 / Adam 1e-3)

    data           rms      raw          standardized
    Iris           4.0   0.97 / 0.95     0.96 / 0.96
    digits 0…16    7.7   0.99 / 0.98     0.96 / 0.97
    Wine           227   0.40 / 0.80     0.99 / 1.00
"""

from __future__ import annotations

import statistics

import torch
from sklearn.datasets import load_digits, load_iris, load_wine
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 300
FACTORS = (1e-3, 1e-2, 0.1, 1, 3, 10, 30, 50, 100, 150)
SPREADS = (1, 0.1, 0.03, 0.01, 3e-3, 1e-3)


def accuracy(inputs: Tensor, labels: Tensor, layers: int, rate: float | None, seed: int) -> float:
    """Train with SGD at `rate`, or with Adam if it is None; return the accuracy."""
    torch.manual_seed(seed)
    width = inputs.shape[1]
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(width, 64), nn.ReLU()]
        width = 64
    model = nn.Sequential(*parts, nn.Linear(width, int(labels.max()) + 1))
    optimizer: torch.optim.Optimizer
    if rate is None:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(STEPS):
        rows = torch.randint(0, len(inputs), (32,))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model(inputs).argmax(dim=1) == labels).float().mean())


def main() -> None:
    torch.set_num_threads(1)
    digits = load_digits()
    pixels = torch.tensor(digits.data, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    standard = (pixels - pixels.mean()) / pixels.std()
    for name, rate in (("SGD 0.1", 0.1), ("Adam 1e-3", None)):
        row = [
            statistics.median(accuracy(standard * f, labels, 3, rate, seed) for seed in range(3))
            for f in FACTORS
        ]
        print(f"{name:10}", *(f"{value:5.2f}" for value in row))
    for name, rate in (("SGD 0.1", 0.1), ("Adam 1e-3", None)):
        row = [
            statistics.median(
                accuracy(standard * f + 1, labels, 3, rate, seed) for seed in range(3)
            )
            for f in SPREADS
        ]
        print(f"{name:10}", *(f"{value:5.2f}" for value in row))
    for load in (load_iris, load_digits, load_wine):
        data = load()
        raw = torch.tensor(data.data, dtype=torch.float32)
        target = torch.tensor(data.target)
        scaled = (raw - raw.mean(dim=0)) / (raw.std(dim=0) + 1e-6)
        results = [accuracy(x, target, 2, rate, 0) for x in (raw, scaled) for rate in (0.05, None)]
        rms = float(raw.square().mean().sqrt())
        print(f"{load.__name__:12} rms {rms:4.1f}", *(f"{value:5.2f}" for value in results))


if __name__ == "__main__":
    main()
