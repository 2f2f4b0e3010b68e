"""A small classifier on Fisher's irises, trained as a textbook would.

gradlint check examples/iris.py     # healthy (needs scikit-learn)
"""

import torch
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class SimpleMLP(nn.Module):
    def __init__(self, input_dim=4, hidden_dims=(64, 32), output_dim=3):
        super().__init__()
        layers = []
        previous = input_dim
        for hidden in hidden_dims:
            layers.append(nn.Linear(previous, hidden))
            layers.append(nn.BatchNorm1d(hidden))
            layers.append(nn.GELU())
            layers.append(nn.Dropout(0.2))
            previous = hidden
        layers.append(nn.Linear(previous, output_dim))
        self.network = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x):
        return self.network(x)


def train_loader():
    iris = load_iris()
    inputs = torch.tensor(StandardScaler().fit_transform(iris.data), dtype=torch.float32)
    data = TensorDataset(inputs, torch.tensor(iris.target))
    return DataLoader(data, batch_size=16, shuffle=True)


criterion = nn.CrossEntropyLoss()


def configure_optimizers(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)


def main(epochs=20):
    model, optimizer = SimpleMLP(), None
    optimizer = configure_optimizers(model)
    loader = train_loader()
    for _ in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
            optimizer.step()
    model.eval()
    inputs, labels = loader.dataset.tensors
    accuracy = (model(inputs).argmax(1) == labels).float().mean()
    print(f"accuracy {accuracy:.2f}")


if __name__ == "__main__":
    main()
