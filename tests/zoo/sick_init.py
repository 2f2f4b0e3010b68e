"""Wrong initializations and depths that the activation does not stand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import sick_data as data
from tests.zoo.sick_hosts import (
    Classifier,
    Cnn,
    Dense,
    Gcn,
    Gpt,
    Recurrent,
    ResNet,
    Vae,
    deep_cnn,
    elbo,
    mlp,
)
from tests.zoo.sick_recipe import adam, sgd, sick


def every(model: nn.Module, weight, bias=nn.init.zeros_, dims: int = 2) -> nn.Module:
    """Initialize every weight of at least `dims` dimensions, and every bias."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= dims:
            weight(parameter)
        elif "bias" in name and bias is not None:
            bias(parameter)
    return model


def normal(std: float):
    return lambda p: nn.init.normal_(p, std=std)


def constant(value: float):
    return lambda p: nn.init.constant_(p, value)


# Symmetry: identical units.
sick("zeros-mlp", "GL102", lambda: every(mlp(64, 64, 64, 10), nn.init.zeros_), data.digits)
sick("zeros-cnn", "GL102", lambda: every(Cnn(), nn.init.zeros_), data.images, optimizer=sgd())
sick("constant-mlp-iris", "GL102", lambda: every(Dense(4, 16, 16, 3), constant(0.3)), data.iris,
     optimizer=adam())  # fmt: skip
sick("constant-lstm", "GL102",
     lambda: every(Recurrent(inputs=1, classes=3), constant(0.1)), data.waves)  # fmt: skip
sick("zeros-gru-text", "GL102",
     lambda: _part(Recurrent(nn.GRU, vocabulary=40),
                   lambda m: (every(m.rnn, nn.init.zeros_), every(m.head, nn.init.zeros_))),
     data.words,
     because="with a random head, as in the first run, zeros in the GRU do no harm: 300 steps "
     "reach a loss of 0.01, as torch's own do; now the head is zero, too")  # fmt: skip


def _part(model: nn.Module, change) -> nn.Module:
    with torch.no_grad():
        change(model)
    return model


def _copy_filters(model: Cnn) -> None:
    model.conv2.weight[:] = model.conv2.weight[:1]
    model.conv2.bias[:] = 0  # added after the first run: torch's biases told the filters apart
    model.fc.weight[:] = model.fc.weight[:, :1]


sick("equal-filters-cnn", "GL102", lambda: _part(Cnn(), _copy_filters), data.images)


def _ones_autoencoder(model: nn.Sequential) -> None:
    for layer in (model[0], model[2], model[4]):
        nn.init.constant_(layer.weight, 0.01)
        nn.init.zeros_(layer.bias)


sick("constant-autoencoder", "GL102",
     lambda: _part(mlp(64, 32, 16, 64, last=nn.Sigmoid()), _ones_autoencoder),
     data.unit_images, F.mse_loss, adam())  # fmt: skip

# Weights too large.
LARGE = "GL101 GL104"
sick("normal-one-mlp", LARGE,
     lambda: every(mlp(64, 128, 128, 128, 128, 10), normal(1.0)), data.digits,
     optimizer=adam())  # fmt: skip
sick("normal-one-functional-tanh", f"{LARGE} GL202",
     lambda: every(Dense(64, 128, 128, 128, 128, 10, act=torch.tanh), normal(1.0)), data.digits,
     because="large weights show in tanh as saturation, not as growth")  # fmt: skip
sick("huge-plain-cnn", LARGE, lambda: every(deep_cnn(8, nn.ReLU), normal(0.7)), data.images,
     optimizer=adam())  # fmt: skip
sick("figure-7-7-one", LARGE,
     lambda: every(mlp(64, *[100] * 50, 10), normal(1.0)), data.digits)  # fmt: skip
sick("figure-7-7-tenth", LARGE,
     lambda: every(Dense(64, *[100] * 50, 10), normal(0.1**0.5)), data.digits)  # fmt: skip
sick("large-sigmoid-weights", "GL101 GL202",
     lambda: every(mlp(64, 100, 100, 100, 100, 10, act=nn.Sigmoid), normal(2.0)),
     data.digits)  # fmt: skip
sick("last-layer-times-1000", "GL105 GL101",
     lambda: _part(mlp(64, 64, 10), lambda m: m[2].weight.mul_(1000)), data.digits,
     optimizer=adam(),
     because="over-confident logits; which layer is too large is GL101's to say")  # fmt: skip


def _gpt2(range_: float):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(data.LETTERS), n_positions=32, n_embd=64, n_layer=3, n_head=4,
            initializer_range=range_,
        )
    )  # fmt: skip


def letters() -> list[dict[str, Tensor]]:
    return [{"input_ids": x, "labels": x} for x, _ in data.characters()]


sick("gpt2-initializer-range-one", "GL101 GL104 GL105 GL106 GL107 GL205",
     lambda: _gpt2(1.0), letters, None,
     because="one number too large in the configuration: every scale of the model is off, and the "
     "first loss and the attention logits are where it shows")  # fmt: skip

# Weights too small.
SMALL = "GL101 GL103"
sick("tiny-std-mlp", SMALL, lambda: every(mlp(64, *[64] * 9, 10), normal(0.001)),
     data.digits)  # fmt: skip
sick("figure-7-7-hundredth-tanh", f"{SMALL} GL301",
     lambda: every(mlp(64, *[100] * 50, 10, act=nn.Tanh), normal(0.01)), data.digits,
     because="signal and gradient vanish for one reason: the weights")  # fmt: skip
sick("tiny-std-functional-cnn", SMALL,
     lambda: every(deep_cnn(12, nn.ReLU), normal(0.01)), data.images, optimizer=adam())  # fmt: skip
sick("xavier-relu-50", SMALL,
     lambda: every(mlp(64, *[100] * 50, 10), nn.init.xavier_normal_), data.digits)  # fmt: skip
sick("default-relu-40", f"{SMALL} GL301",
     lambda: Dense(64, *[64] * 40, 10, he=False), data.digits,
     because="torch's default is a sixth of He's variance: the weights, or the gradient they "
     "lose")  # fmt: skip
sick("default-tanh-40", f"{SMALL} GL301",
     lambda: mlp(64, *[64] * 40, 10, act=nn.Tanh), data.digits,
     because="as default-relu-40")  # fmt: skip
sick("tiny-std-deep-autoencoder", f"{SMALL} GL301",
     lambda: every(mlp(64, 64, 48, 32, 16, 8, 16, 32, 48, 64, 64), normal(0.01)),
     data.unit_images, F.mse_loss, adam())  # fmt: skip

# Depth and activation.
sick("deep-sigmoid-mlp", "GL301", lambda: mlp(64, *[64] * 10, 10, act=nn.Sigmoid), data.digits)
sick("deep-sigmoid-functional-iris", "GL301",
     lambda: Dense(4, *[24] * 12, 3, act=torch.sigmoid, he=False), data.iris,
     optimizer=adam())  # fmt: skip
sick("deep-sigmoid-cnn", "GL301", lambda: deep_cnn(10, nn.Sigmoid), data.images)
sick("deep-sigmoid-autoencoder", "GL301",
     lambda: mlp(64, 48, 32, 24, 16, 16, 24, 32, 48, 64, act=nn.Sigmoid), data.unit_images,
     F.mse_loss, adam())  # fmt: skip

# Growth in residual networks and graphs.


class Doubling(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.kaiming_normal_(self.fc1.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + self.fc2(F.relu(self.fc1(x)))


sick("doubling-residual", "GL104 GL106",
     lambda: nn.Sequential(nn.Linear(64, 48), *[Doubling(48) for _ in range(24)],
                           nn.Linear(48, 10)), data.digits, optimizer=adam())  # fmt: skip


class Plain(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


sick("resnet-without-norm-24", "GL106 GL104 GL105",
     lambda: nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), *[Plain(16) for _ in range(24)],
                           nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
     data.images, optimizer=adam(),
     because="the stream doubles its variance or worse at each of 24 blocks; the first loss is "
     "where it ends")  # fmt: skip
sick("gcn-unnormalized-adjacency", "GL104 GL105",
     lambda: Gcn(data.community(False)[0], 6), lambda: [data.community()[1:]], optimizer=adam(),
     because="sums over 45 neighbors at each of six layers")  # fmt: skip

# Normalization's own parameters, biases.


def _norms(value: float):
    def change(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)):
                module.weight.fill_(value)

    return change


sick("layernorm-gamma-30", "GL109",
     lambda: _part(Classifier(40, 4), _norms(30.0)), data.words, optimizer=adam())  # fmt: skip
sick("batchnorm-gamma-tiny", "GL109",
     lambda: _part(ResNet(), lambda m: m.stem[1].weight.fill_(1e-4)), data.images)  # fmt: skip


def _bias(layer: int, value: float):
    return lambda model: model[layer].bias.fill_(value)


sick("dead-bias-mlp", "GL111 GL201", lambda: _part(mlp(64, 64, 64, 10), _bias(2, -30.0)),
     data.digits, optimizer=adam())  # fmt: skip
sick("dead-bias-functional-cnn", "GL111 GL201",
     lambda: _part(Cnn(), lambda m: m.conv2.bias.fill_(-20.0)), data.images)  # fmt: skip
sick("large-bias-tanh", "GL111 GL202",
     lambda: _part(mlp(64, 64, 64, 10, act=nn.Tanh), _bias(2, 12.0)), data.digits)  # fmt: skip
sick("dead-bias-vae", "GL111 GL201",
     lambda: _part(Vae(), lambda m: m.encoder.bias.fill_(-15.0)), data.unit_images, elbo,
     adam())  # fmt: skip

# Recurrence and attention.


class HandRnn(nn.Module):
    def __init__(self, gain: float, act=torch.tanh, inputs: int = 4, hidden: int = 32) -> None:
        super().__init__()
        self.read = nn.Linear(inputs, hidden)
        self.turn = nn.Linear(hidden, hidden, bias=False)
        self.head = nn.Linear(hidden, 4)
        nn.init.normal_(self.turn.weight, std=gain * hidden**-0.5)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), self.turn.in_features)
        for t in range(x.shape[1]):
            h = self.act(self.read(x[:, t]) + self.turn(h))
        return self.head(h)


sick("rnn-recurrent-weights-large", "GL101 GL108 GL202", lambda: HandRnn(8.0),
     lambda: data.recall(20), because="a recurrent gain of 8 saturates tanh")  # fmt: skip
sick("rnn-forgets", "GL108 GL305 GL301 GL103 GL101", lambda: HandRnn(0.2),
     data.recall, because="a recurrent gain of 0.2: nothing passes 80 steps, seen in the weight "
     "or in time")  # fmt: skip
sick("relu-rnn-explodes", "GL101 GL104 GL108 GL302", lambda: HandRnn(2.5, F.relu),
     lambda: data.recall(40), because="a recurrent gain of 2.5, forty times over")  # fmt: skip
sick("fused-rnn-forgets", "GL108 GL305",
     lambda: _part(Recurrent(nn.RNN, inputs=4), lambda m: m.rnn.weight_hh_l0.mul_(0.1)),
     data.recall)  # fmt: skip
sick("unscaled-attention", "GL107 GL205",
     lambda: Gpt(len(data.LETTERS), 256, 1, scale=1.0), data.characters,
     lambda o, t: F.cross_entropy(o.transpose(1, 2), t), adam())  # fmt: skip
sick("unscaled-attention-classifier", "GL107 GL205",
     lambda: Classifier(40, 4, width=192, heads=1, depth=1, scale=1.0), data.words,
     optimizer=adam())  # fmt: skip
