"""Transfer learning: a network trained on some digits, its trunk frozen, learns others."""

import copy
import os
import tempfile

import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
labels = torch.tensor(digits.target)


def subset(keep, first, last):
    chosen = torch.isin(labels, torch.tensor(keep))
    x, y = images[chosen], labels[chosen] - min(keep)
    return TensorDataset(x[first:last], y[first:last])


class SmallNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
        )
        self.fc = nn.Linear(128, num_classes)

    def forward(self, x):
        x = self.features(x)
        x = torch.flatten(x, 1)
        return self.fc(x)


def train_model(model, dataloaders, criterion, optimizer, scheduler, num_epochs):
    best_acc = 0.0
    best_model = copy.deepcopy(model.state_dict())
    for epoch in range(num_epochs):
        print(f"Epoch {epoch}/{num_epochs - 1}")
        print("-" * 10)

        # Each epoch has a training and validation phase
        for phase in ["train", "val"]:
            if phase == "train":
                model.train()
            else:
                model.eval()

            running_loss = 0.0
            running_corrects = 0
            for inputs, targets in dataloaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, targets)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(preds == targets).item()
            if phase == "train":
                scheduler.step()

            size = len(dataloaders[phase].dataset)
            epoch_loss, epoch_acc = running_loss / size, running_corrects / size
            print(f"{phase} Loss: {epoch_loss:.4f} Acc: {epoch_acc:.4f}")
            if phase == "val" and epoch_acc > best_acc:
                best_acc = epoch_acc
                best_model = copy.deepcopy(model.state_dict())
    print(f"Best val Acc: {best_acc:4f}")
    model.load_state_dict(best_model)
    return model


def pretrain(path):
    """Train on the digits 0 to 4 and keep the weights in a file."""
    model = SmallNet(5)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loader = DataLoader(subset([0, 1, 2, 3, 4], 0, 800), batch_size=32, shuffle=True)
    model.train()
    for _ in range(4):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    torch.save(model.state_dict(), path)


with tempfile.TemporaryDirectory() as folder:
    weights = os.path.join(folder, "smallnet.pt")
    pretrain(weights)

    model_conv = SmallNet(5)
    model_conv.load_state_dict(torch.load(weights, weights_only=True))
    for param in model_conv.parameters():
        param.requires_grad = False

    # Parameters of newly constructed modules have requires_grad=True by default
    num_ftrs = model_conv.fc.in_features
    model_conv.fc = nn.Linear(num_ftrs, 5)

    criterion = nn.CrossEntropyLoss()

    # Observe that only parameters of the final layer are being optimized
    optimizer_conv = optim.SGD(model_conv.fc.parameters(), lr=0.01, momentum=0.9)

    # Decay LR by a factor of 0.1 every 7 epochs
    exp_lr_scheduler = lr_scheduler.StepLR(optimizer_conv, step_size=7, gamma=0.1)

    loaders = {
        "train": DataLoader(subset([5, 6, 7, 8, 9], 0, 700), batch_size=16, shuffle=True),
        "val": DataLoader(subset([5, 6, 7, 8, 9], 700, None), batch_size=64),
    }
    train_model(model_conv, loaders, criterion, optimizer_conv, exp_lr_scheduler, num_epochs=8)
