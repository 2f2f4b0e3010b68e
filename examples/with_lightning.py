"""A LightningModule, watched by a callback while it is fitted.

python examples/with_lightning.py     # prints the report, and raises if the fit is not healthy
"""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradlint.integrations.lightning import GradlintCallback


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


pl.seed_everything(0)
wine = load_wine()
features = torch.tensor(StandardScaler().fit_transform(wine.data), dtype=torch.float32)
loader = DataLoader(
    TensorDataset(features, torch.tensor(wine.target)), batch_size=32, shuffle=True, drop_last=True
)

watched = GradlintCallback()
trainer = pl.Trainer(
    max_epochs=10, accelerator="cpu", callbacks=[watched], logger=False,
    enable_checkpointing=False, enable_progress_bar=False,
)  # fmt: skip
trainer.fit(Classifier(), loader)

print(watched.report)
watched.report.raise_for("warning")
