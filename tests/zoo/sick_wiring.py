"""Graphs that are cut, parameters that nobody trains."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import sick_data as data
from tests.zoo.sick_hosts import Classifier, Cnn, Dense, Recurrent, ResNet, UNet, Vae, elbo, mlp
from tests.zoo.sick_loss import _bert
from tests.zoo.sick_recipe import adam, sgd, sick

CUT = "GL701"
sick("detach-in-mlp", CUT, lambda: Dense(64, 64, 64, 10, at=2, fault=lambda x: x.detach()),
     data.digits, optimizer=adam())  # fmt: skip
sick("detach-in-cnn", CUT, lambda: Cnn(fault=lambda x: x.detach()), data.images,
     optimizer=sgd())  # fmt: skip
sick("data-attribute-in-lstm", CUT,
     lambda: Recurrent(vocabulary=40, fault=lambda h: h.data), data.words,
     optimizer=adam())  # fmt: skip
sick("through-numpy", CUT,
     lambda: Dense(64, 64, 64, 10, at=1,
                   fault=lambda x: torch.from_numpy(np.tanh(x.detach().numpy()))),
     data.digits, optimizer=adam())  # fmt: skip
sick("mask-by-comparison", CUT,
     lambda: Dense(64, 64, 64, 10, at=1, fault=lambda x: (x > 0).float()), data.digits,
     optimizer=adam(), because="a comparison has no derivative: torch cuts the graph")  # fmt: skip
sick("argmax-inside", CUT,
     lambda: Dense(64, 64, 64, 10, at=1,
                   fault=lambda x: F.one_hot(x.argmax(1), 64).float()),
     data.digits, optimizer=adam())  # fmt: skip


class NoGrad(ResNet):
    """The features are computed as if for evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.features(x)
        return self.fc(h)


sick("no-grad-around-features", CUT, NoGrad, data.images, optimizer=adam())


class Rebuilt(nn.Module):
    """A transformer's output copied into a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Classifier(40, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tensor(self.body(ids).tolist()))


sick("tolist-behind-transformer", CUT, Rebuilt, data.words, optimizer=adam())

# A loss without a graph.
LOST = "GL708"
sick("loss-from-item", LOST, lambda: mlp(64, 64, 10), data.digits,
     lambda o, t: torch.tensor(F.cross_entropy(o, t).item(), requires_grad=True),
     adam())  # fmt: skip
sick("loss-from-floats", LOST, lambda: Dense(12, 32, 1), data.smooth,
     lambda o, t: torch.tensor(float(np.mean((o.detach().numpy() - t.numpy()) ** 2)),
                               requires_grad=True), adam())  # fmt: skip
sick("loss-is-accuracy", LOST, Cnn, data.images,
     lambda o, t: 1 - (o.argmax(1) == t).float().mean(), adam())  # fmt: skip
sick("loss-of-predictions", LOST, lambda: mlp(4, 16, 3), data.iris,
     lambda o, t: F.mse_loss(o.argmax(1).float(), t.float()), sgd())  # fmt: skip
sick("loss-detached", LOST, Vae, data.unit_images, lambda o, t: elbo(o, t).detach(), adam())

# Layers that are not registered.


class Listed(nn.Module):
    """Hidden layers in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(64, 64) for _ in range(3)]
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.head(x)


class Scales(nn.Module):
    """Convolutions of several sizes in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = {k: nn.Conv2d(1, 8, k, padding=k // 2) for k in (1, 3, 5)}
        self.head = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        parts = [F.relu(conv(x)).mean((2, 3)) for conv in self.branches.values()]
        return self.head(torch.cat(parts, 1))


sick("layers-in-a-list", "GL709", Listed, data.digits, optimizer=adam())
sick("layers-in-a-dict", "GL709", Scales, data.images, optimizer=sgd())


class Heads(Classifier):
    """A tuple of heads, averaged."""

    def __init__(self) -> None:
        super().__init__(40, 4)
        self.head = nn.Identity()
        self.heads = tuple(nn.Linear(32, 4) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        h = super().forward(ids)
        return sum(head(h) for head in self.heads) / 2


sick("heads-in-a-tuple", "GL709", Heads, data.words, optimizer=adam())


class Factors(nn.Module):
    """A factorization machine whose factors were scaled after they were made a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 1)
        self.factors = nn.Parameter(torch.randn(12, 6)) * 0.1

    def forward(self, x: Tensor) -> Tensor:
        pairs = (x @ self.factors) ** 2 - x**2 @ self.factors**2
        return self.linear(x) + 0.5 * pairs.sum(1, keepdim=True)


sick("parameter-times-a-constant", "GL709", Factors, data.smooth, F.mse_loss,
     adam())  # fmt: skip

# Optimizers that hold something else.
sick("head-not-in-optimizer", "GL702", Cnn, data.images,
     optimizer=lambda m: torch.optim.Adam([*m.conv1.parameters(), *m.conv2.parameters()],
                                          1e-3))  # fmt: skip
sick("encoder-not-in-optimizer", "GL702", Vae, data.unit_images, elbo,
     lambda m: torch.optim.Adam(m.decoder.parameters(), 1e-3))  # fmt: skip
sick("recurrent-part-not-in-optimizer", "GL702", lambda: Recurrent(vocabulary=40), data.words,
     optimizer=lambda m: torch.optim.SGD([*m.embed.parameters(), *m.head.parameters()],
                                         0.1))  # fmt: skip
sick("decoder-not-in-optimizer-unet", "GL702", UNet, data.masks,
     F.binary_cross_entropy_with_logits,
     lambda m: torch.optim.Adam([*m.down.parameters(), *m.middle.parameters()], 1e-3))  # fmt: skip
sick("optimizer-of-another-model", "GL703", lambda: mlp(64, 64, 10), data.digits,
     optimizer=lambda m: torch.optim.Adam(mlp(64, 64, 10).parameters(), 1e-3))  # fmt: skip


def _then_new_head(model: ResNet) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    model.fc = nn.Linear(32, 10)
    return optimizer


sick("head-replaced-after-optimizer", "GL703 GL702", ResNet, data.images,
     optimizer=_then_new_head, because="the old head is foreign, the new one not held: one "
     "fault")  # fmt: skip
sick("optimizer-of-a-copy", "GL703", lambda: Classifier(40, 4), data.words,
     optimizer=lambda m: torch.optim.AdamW(
         [p.detach().clone().requires_grad_() for p in m.parameters()], 1e-3))  # fmt: skip
sick("parameters-listed-twice", "GL711", lambda: mlp(64, 64, 10), data.digits,
     optimizer=lambda m: torch.optim.SGD([*m.parameters(), *m[2].parameters()], 0.05))  # fmt: skip

# Frozen by mistake.


def frozen(model: nn.Module, *parts: str) -> nn.Module:
    for part in parts or ("",):
        model.get_submodule(part).requires_grad_(False)
    return model


sick("all-frozen", "GL712 GL708", lambda: frozen(mlp(64, 64, 10)), data.digits,
     because="nothing requires a gradient, so the loss has none either")  # fmt: skip
sick("fresh-trunk-frozen-resnet", "GL712",
     lambda: frozen(ResNet(), "stem", "layer1", "layer2"), data.images,
     optimizer=lambda m: torch.optim.Adam(m.fc.parameters(), 1e-3))  # fmt: skip
sick("fresh-bert-frozen", "GL712", lambda: frozen(_bert(4), "bert"),
     lambda: [{"input_ids": x, "labels": y} for x, y in data.words()], None,
     adam())  # fmt: skip
sick("only-biases-train", "GL712",
     lambda: _weights_frozen(Dense(64, 64, 64, 10)), data.digits, optimizer=adam())  # fmt: skip


def _weights_frozen(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.ndim == 1)
    return model


# Evaluation mode.


class Evaluating(ResNet):
    """Switches itself to evaluation before its features."""

    def forward(self, x: Tensor) -> Tensor:
        self.stem.eval(), self.layer1.eval(), self.layer2.eval()
        return super().forward(x)


sick("eval-mode-in-forward", "GL710", Evaluating, data.images, optimizer=adam())


def _eval_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    model.eval()
    return F.cross_entropy(model(batch[0]), batch[1])


sick("eval-mode-in-step", "GL710",
     lambda: nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3),
                           nn.Linear(64, 10)), data.digits, None, adam(),
     step=_eval_step)  # fmt: skip
