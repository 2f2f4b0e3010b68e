"""Mixed precision with gradient accumulation, unscaling and clipping."""

import argparse
import time

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch_size", type=int, default=16)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--iters_to_accumulate", type=int, default=4)
parser.add_argument("--max_norm", type=float, default=1.0)
parser.add_argument("--no-amp", dest="use_amp", action="store_false")
args = parser.parse_args()

torch.manual_seed(0)
device = "cpu"


def make_model(in_size, out_size, num_layers, width=128):
    layers = []
    for _ in range(num_layers - 1):
        layers.append(nn.Linear(in_size, width))
        layers.append(nn.ReLU())
        in_size = width
    layers.append(nn.Linear(in_size, out_size))
    return nn.Sequential(*tuple(layers))


dataset = load_breast_cancer()
x = torch.tensor(dataset.data, dtype=torch.float32)
x = (x - x.mean(0)) / x.std(0)
y = torch.tensor(dataset.target, dtype=torch.float32).unsqueeze(1)
order = torch.randperm(len(x))
x, y = x[order], y[order]
batches = list(zip(x.split(args.batch_size), y.split(args.batch_size), strict=True))[:32]

net = make_model(x.shape[1], 1, 4).to(device)
loss_fn = nn.BCEWithLogitsLoss()
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
scaler = torch.amp.GradScaler(device, enabled=args.use_amp)

start = time.time()
for epoch in range(args.epochs):
    total = 0.0
    for i, (inputs, targets) in enumerate(batches):
        with torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=args.use_amp):
            output = net(inputs)
            loss = loss_fn(output, targets)
            loss = loss / args.iters_to_accumulate

        # Accumulates scaled gradients.
        scaler.scale(loss).backward()
        total += loss.item() * args.iters_to_accumulate

        if (i + 1) % args.iters_to_accumulate == 0:
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=args.max_norm)

            scaler.step(opt)
            scaler.update()
            opt.zero_grad()
    print(f"epoch {epoch:2d}  loss {total / len(batches):.4f}")
print(f"Total execution time = {time.time() - start:.3f} sec")
