"""One model and one set of data for all trainers, healthy or with one fault planted."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 32


class Net(nn.Module):
    """A classifier; `sick` ends in a softmax that cross entropy applies again."""

    def __init__(self, *, sick: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(10, 32)
        self.second = nn.Linear(32, 3)
        self.sick = sick

    def forward(self, x: Tensor) -> Tensor:
        z = self.second(torch.relu(self.first(x)))
        return z.softmax(dim=1) if self.sick else z


def net(*, sick: bool = False) -> Net:
    """Return the same network each time."""
    torch.manual_seed(0)
    return Net(sick=sick)


def data(size: int = 640) -> TensorDataset:
    """Return points, and which of their first three coordinates is the largest."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, 10, generator=generator)
    return TensorDataset(x, x[:, :3].argmax(dim=1))


def loader() -> DataLoader:
    """Return the data in batches, in their order."""
    return DataLoader(data(), batch_size=BATCH)
