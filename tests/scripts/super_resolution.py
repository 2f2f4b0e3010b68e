"""Super-resolution with sub-pixel convolutions."""

import argparse
from math import log10

import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.nn import init
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser(description="PyTorch super-resolution example")
parser.add_argument("--upscale_factor", type=int, default=2)
parser.add_argument("--batchSize", type=int, default=8, help="training batch size")
parser.add_argument("--testBatchSize", type=int, default=10, help="testing batch size")
parser.add_argument("--nEpochs", type=int, default=6, help="number of epochs to train for")
parser.add_argument("--lr", type=float, default=0.001, help="learning rate")
parser.add_argument("--seed", type=int, default=123, help="random seed to use")
opt = parser.parse_args()
print(opt)

torch.manual_seed(opt.seed)
device = torch.device("cpu")


class Net(nn.Module):
    def __init__(self, upscale_factor):
        super().__init__()

        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(1, 64, (5, 5), (1, 1), (2, 2))
        self.conv2 = nn.Conv2d(64, 64, (3, 3), (1, 1), (1, 1))
        self.conv3 = nn.Conv2d(64, 32, (3, 3), (1, 1), (1, 1))
        self.conv4 = nn.Conv2d(32, upscale_factor**2, (3, 3), (1, 1), (1, 1))
        self.pixel_shuffle = nn.PixelShuffle(upscale_factor)

        self._initialize_weights()

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.relu(self.conv2(x))
        x = self.relu(self.conv3(x))
        return self.pixel_shuffle(self.conv4(x))

    def _initialize_weights(self):
        init.orthogonal_(self.conv1.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv2.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv3.weight, init.calculate_gain("relu"))
        init.orthogonal_(self.conv4.weight)


def pictures(count, size=32):
    """Gray pictures: a disc and a stripe pattern over a slope."""
    ys, xs = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    drawn = []
    for _ in range(count):
        cx, cy = torch.rand(2) * size
        radius = 4 + torch.rand(()) * 8
        disc = ((xs - cx) ** 2 + (ys - cy) ** 2 < radius**2).float()
        angle, width = torch.rand(()) * 3.14, 2 + torch.rand(()) * 4
        stripes = torch.sin((xs * angle.cos() + ys * angle.sin()) / width)
        drawn.append(0.3 + 0.4 * disc + 0.15 * stripes + 0.1 * xs / size)
    return torch.stack(drawn).clamp(0, 1).unsqueeze(1)


print("===> Loading datasets")
train_target, test_target = pictures(200), pictures(40)
train_set = TensorDataset(F.avg_pool2d(train_target, opt.upscale_factor), train_target)
test_set = TensorDataset(F.avg_pool2d(test_target, opt.upscale_factor), test_target)
training_data_loader = DataLoader(train_set, batch_size=opt.batchSize, shuffle=True)
testing_data_loader = DataLoader(test_set, batch_size=opt.testBatchSize, shuffle=False)

print("===> Building model")
model = Net(upscale_factor=opt.upscale_factor).to(device)
criterion = nn.MSELoss()

optimizer = optim.Adam(model.parameters(), lr=opt.lr)


def train(epoch):
    epoch_loss = 0
    for iteration, batch in enumerate(training_data_loader, 1):
        low, target = batch[0].to(device), batch[1].to(device)

        optimizer.zero_grad()
        loss = criterion(model(low), target)
        epoch_loss += loss.item()
        loss.backward()
        optimizer.step()

        print(
            f"===> Epoch[{epoch}]({iteration}/{len(training_data_loader)}): Loss: {loss.item():.4f}"
        )

    print(f"===> Epoch {epoch} Complete: Avg. Loss: {epoch_loss / len(training_data_loader):.4f}")


def test():
    avg_psnr = 0
    with torch.no_grad():
        for batch in testing_data_loader:
            low, target = batch[0].to(device), batch[1].to(device)

            prediction = model(low)
            mse = criterion(prediction, target)
            psnr = 10 * log10(1 / mse.item())
            avg_psnr += psnr
    print(f"===> Avg. PSNR: {avg_psnr / len(testing_data_loader):.4f} dB")


for epoch in range(1, opt.nEpochs + 1):
    train(epoch)
    test()
