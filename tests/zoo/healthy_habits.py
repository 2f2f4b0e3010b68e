"""Healthy trainings as they are handed over: instances, loaders, raw ranges, odd shapes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.zoo.healthy_dense import CE, mlp
from tests.zoo.healthy_vision import conv_bn
from tests.zoo.recipes import (
    Zoo,
    adam,
    adamw,
    curve,
    digit_images,
    digits,
    next_tokens,
    rows,
    sgd,
    table,
    unit_digits,
)

zoo = Zoo()


def seeded(build: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


@zoo
def instances_of_model_and_optimizer() -> Any:
    model = seeded(lambda: mlp(64, 64, 10))
    return {
        "model": model,
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": torch.optim.Adam(model.parameters(), lr=1e-3),
    }


@zoo
def instance_left_in_eval_mode() -> Any:
    model = seeded(lambda: nn.Sequential(conv_bn(1, 16), nn.Flatten(), nn.Linear(1024, 10)))
    return {"model": model.eval(), "batch": digits(), "loss_fn": CE, "optimizer": adam()}


@zoo
def loader_of_a_tensor_dataset() -> Any:
    return {
        "model": lambda: mlp(13, 32, 3),
        "batch": DataLoader(TensorDataset(*table("wine")), batch_size=16, shuffle=True),
        "loss_fn": CE,
        "optimizer": adam(1e-2),
    }


@zoo
def dataset_of_images() -> Any:
    class Digits(Dataset):
        def __len__(self) -> int:
            return 512

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            images, labels = digit_images()
            return images[index], int(labels[index])

    def model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))

    return {"model": model, "batch": Digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def images_in_zero_to_one() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x, y = digits(64)()
        low, high = (digit_images()[0].min(), digit_images()[0].max())
        return (x - low) / (high - low), y

    return {
        "model": lambda: nn.Sequential(nn.Flatten(), mlp(64, 128, 10)),
        "batch": batch,
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo
def bytes_into_a_batchnorm() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x, y = digits()()
        return ((x + 1) * 80).clamp(0, 255).round(), y

    def model() -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(1), conv_bn(1, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(64, 10),
        )  # fmt: skip

    return {"model": model, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def bytes_divided_in_the_forward() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp(64, 64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x.float().flatten(1) / 127.5 - 1)

    def batch() -> tuple[Tensor, Tensor]:
        x, y = digits()()
        return ((x + 1) * 80).clamp(0, 255).byte(), y

    return {"model": Net, "batch": batch, "loss_fn": CE, "optimizer": adam()}


@zoo(learns=False)  # noise for labels: the usual smoke test
def random_data_mlp() -> Any:
    return {
        "model": lambda: mlp(20, 64, 64, 3),
        "batch": lambda: (torch.randn(32, 20), torch.randint(0, 3, (32,))),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo(learns=False)  # noise for labels
def random_images_resnet_like() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(3, 16), conv_bn(16, 32, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(32, 10),
        )  # fmt: skip

    return {
        "model": model,
        "batch": lambda: (torch.rand(16, 3, 16, 16), torch.randint(0, 10, (16,))),
        "loss_fn": CE,
        "optimizer": sgd(0.01, 0.9),
    }


@zoo
def one_fixed_batch() -> Any:
    return {
        "model": lambda: mlp(20, 64, 1),
        "batch": seeded(lambda: (torch.randn(32, 20), torch.randn(32, 1))),
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(),
    }


@zoo
def batch_of_four_layernorm() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 10))

    return {"model": model, "batch": rows("digits", 4), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo(learns=False)  # one sample at a time: the noise hides the fall
def batch_of_one() -> Any:
    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits", 1),
        "loss_fn": CE,
        "optimizer": sgd(0.01),
    }


@zoo
def batch_of_two_images_batchnorm() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(1, 8), conv_bn(8, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10)
        )

    return {"model": model, "batch": digits(2, 2), "loss_fn": CE, "optimizer": adam()}


@zoo
def batch_of_512() -> Any:
    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits", 512),
        "loss_fn": CE,
        "optimizer": adam(),
    }


@zoo(learns=False)  # fine-tuning's rate on a fresh network
def cautious_learning_rate() -> Any:
    return {
        "model": lambda: mlp(64, 64, 64, 10, act=nn.GELU),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adamw(2e-5),
    }


@zoo(learns=False)  # 40 steps at SGD's old default
def sgd_one_thousandth() -> Any:
    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": sgd(1e-3, 0.9),
    }


def trained(model: nn.Module, batch: Any, loss_fn: Any, steps: int = 300) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x, y = batch()
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()
    return model, optimizer


@zoo(learns=False)  # at its floor already
def trained_to_the_floor_with_optimizer_state() -> Any:
    model, optimizer = seeded(lambda: trained(mlp(64, 64, 10), rows("digits"), CE))
    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": optimizer}


@zoo(learns=False)  # at its floor already
def trained_regressor_new_optimizer() -> Any:
    model, _ = seeded(lambda: trained(mlp(1, 32, 1, act=nn.Tanh), curve, nn.MSELoss()))
    return {"model": model, "batch": curve, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-4)}


@zoo
def mapping_for_a_batch() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.number = nn.Linear(64, 32), nn.Linear(1, 32)
            self.head = nn.Linear(32, 10)

        def forward(self, image: Tensor, number: Tensor) -> dict[str, Tensor]:
            return {"logits": self.head(F.relu(self.image(image) + self.number(number)))}

    def batch() -> dict[str, Tensor]:
        x, y = rows("digits")()
        return {"image": x, "number": x.mean(1, keepdim=True), "label": y}

    return {
        "model": Net,
        "batch": batch,
        "loss_fn": lambda out, y: F.cross_entropy(out["logits"], y),
        "optimizer": adam(),
    }


@zoo
def own_loss_when_targets_are_given() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp(64, 64, 10)

        def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
            logits = self.layers(x)
            return logits, None if targets is None else F.cross_entropy(logits, targets)

    return {"model": Net, "batch": rows("digits"), "optimizer": adam()}


@zoo
def tuple_of_logits_and_features() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = mlp(64, 64, 32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            features = F.relu(self.body(x))
            return self.head(features), features

    return {
        "model": Net,
        "batch": rows("digits"),
        "loss_fn": lambda out, y: F.cross_entropy(out[0], y) + 1e-4 * out[1].abs().mean(),
        "optimizer": adam(),
    }


@zoo
def auxiliary_head_as_in_googlenet() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body1, self.body2 = conv_bn(1, 16), conv_bn(16, 32)
            self.aux, self.head = nn.Linear(16, 10), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Any:
            early = self.body1(x)
            out = self.head(self.body2(early).mean((2, 3)))
            return (out, self.aux(early.mean((2, 3)))) if self.training else out

    return {
        "model": Net,
        "batch": digits(),
        "loss_fn": lambda out, y: F.cross_entropy(out[0], y) + 0.4 * F.cross_entropy(out[1], y),
        "optimizer": adam(1e-2),
    }


@zoo
def spare_head_unused_in_this_task() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(64, 64, 32)
            self.classify, self.regress = nn.Linear(32, 10), nn.Linear(32, 1)

        def forward(self, x: Tensor, task: str = "classify") -> Tensor:
            return getattr(self, task)(F.relu(self.body(x)))

    return {"model": Net, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam()}


# -- outputs and targets that fit each other ----------------------------------------------


@zoo
def log_of_a_softmax_with_nll() -> Any:
    return {
        "model": lambda: nn.Sequential(mlp(64, 64, 10), nn.Softmax(dim=1)),
        "batch": rows("digits"),
        "loss_fn": lambda out, y: F.nll_loss(torch.log(out + 1e-9), y),
        "optimizer": adam(),
    }


@zoo
def sigmoid_output_and_shares() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 6)
        return x, torch.sigmoid(x[:, :1] - x[:, 1:2])

    return {
        "model": lambda: nn.Sequential(mlp(6, 32, 1), nn.Sigmoid()),
        "batch": batch,
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(1e-2),
    }


@zoo
def tanh_output_and_images() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = unit_digits()() * 2 - 1
        return x.flatten(1), x.flatten(1)

    return {
        "model": lambda: nn.Sequential(mlp(64, 64, 16, 64, 64), nn.Tanh()),
        "batch": batch,
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def relu_output_and_counts() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = torch.rand(64, 4)
        return x, (3 * x.sum(1, keepdim=True)).round()

    def model() -> nn.Module:
        body = mlp(4, 64, 1)
        nn.init.ones_(body[-1].bias)  # a single output that starts below zero would stay there
        return nn.Sequential(body, nn.ReLU())

    return {
        "model": model,
        "batch": batch,
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(1e-2),
    }


@zoo
def softmax_output_and_a_distribution() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 8)
        return x, F.softmax(2 * x[:, :4], dim=1)

    return {
        "model": lambda: nn.Sequential(mlp(8, 32, 4), nn.LogSoftmax(dim=1)),
        "batch": batch,
        "loss_fn": nn.KLDivLoss(reduction="batchmean"),
        "optimizer": adam(1e-2),
    }


@zoo
def squared_error_on_one_hot_classes() -> Any:
    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits"),
        "loss_fn": lambda out, y: F.mse_loss(out, F.one_hot(y, 10).float()),
        "optimizer": adam(),
    }


@zoo
def house_prices_in_hundred_thousands() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 8)
        return x, 2.07 + 1.15 * torch.tanh(x[:, :1] + 0.5 * x[:, 1:2])

    return {
        "model": lambda: mlp(8, 32, 32, 1),
        "batch": batch,
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def multi_margin_hinge() -> Any:
    return {
        "model": lambda: mlp(64, 64, 10),
        "batch": rows("digits"),
        "loss_fn": nn.MultiMarginLoss(),
        "optimizer": adam(),
    }


@zoo
def tagging_with_ignored_padding() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        tokens, _ = next_tokens(40)()
        hidden = torch.rand(tokens.shape) < 0.7
        return tokens, (tokens % 6).masked_fill(hidden, -100)

    return {
        "model": lambda: nn.Sequential(nn.Embedding(40, 32), nn.ReLU(), nn.Linear(32, 6)),
        "batch": batch,
        "loss_fn": lambda out, y: F.cross_entropy(out.transpose(1, 2), y),
        "optimizer": adam(1e-2),
    }


@zoo
def log_cosh_by_hand() -> Any:
    def log_cosh(out: Tensor, y: Tensor) -> Tensor:
        error = out - y
        return (error + F.softplus(-2 * error) - math.log(2)).mean()

    return {
        "model": lambda: mlp(1, 32, 1, act=nn.Softplus),
        "batch": curve,
        "loss_fn": log_cosh,
        "optimizer": adam(1e-2),
    }
