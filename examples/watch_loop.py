"""A loop of one's own, watched: nothing to call inside it.

python examples/watch_loop.py     # prints the report, and raises if the loop is not healthy
"""

import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn

import gradlint

torch.manual_seed(0)
wine = load_wine()
features = torch.tensor(StandardScaler().fit_transform(wine.data), dtype=torch.float32)
labels = torch.tensor(wine.target)

model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

with gradlint.watch(model, optimizer) as watcher:
    for _ in range(60):
        batch = torch.randint(0, len(labels), (32,))
        loss = nn.functional.cross_entropy(model(features[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

print(watcher.report)
watcher.report.raise_for("warning")
