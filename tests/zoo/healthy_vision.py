"""Healthy trainings of convolutional networks and their kin."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.healthy_losses import CE
from tests.zoo.recipes import Zoo, adam, adamw, blobs, digits, sgd

zoo = Zoo()


def conv_bn(fan_in: int, fan_out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Any:
    return nn.Sequential(
        nn.Conv2d(fan_in, fan_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(fan_out),
        nn.ReLU(inplace=True),
    )


@zoo
def lenet() -> Any:
    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 4, 84)
            self.fc2 = nn.Linear(84, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            x = F.max_pool2d(F.relu(self.conv2(F.pad(x, (2, 2, 2, 2)))), 2)
            return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))

    return {"model": LeNet, "batch": digits(), "loss_fn": CE, "optimizer": sgd(0.05, 0.9)}


@zoo
def vgg_like_with_batchnorm() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(1, 16), conv_bn(16, 16), nn.MaxPool2d(2), conv_bn(16, 32), conv_bn(32, 32),
            nn.MaxPool2d(2), conv_bn(32, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Dropout(0.5), nn.Linear(64, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": sgd(0.05, 0.9)}


class BasicBlock(nn.Module):
    def __init__(self, fan_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or fan_in != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(fan_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (16, 32, 64), zero_gamma: bool = True) -> None:
        super().__init__()
        self.stem = conv_bn(1, widths[0])
        blocks: list[nn.Module] = []
        before = widths[0]
        for i, width in enumerate(widths):
            blocks += [BasicBlock(before, width, 1 if i == 0 else 2), BasicBlock(width, width)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, BasicBlock) and zero_gamma:
                nn.init.zeros_(m.bn2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@zoo(slow=True)
def resnet_18_like_zero_gamma() -> Any:
    return {
        "model": lambda: ResNet(),
        "batch": digits(32),
        "loss_fn": CE,
        "optimizer": sgd(0.1, 0.9),
    }


@zoo(slow=True)
def resnet_plain_gamma_adam() -> Any:
    return {
        "model": lambda: ResNet((16, 32), zero_gamma=False),
        "batch": digits(16, scale=2),
        "loss_fn": CE,
        "optimizer": adam(),
    }


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, reduction: int = 4) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(width, width // reduction), nn.ReLU(inplace=True),
            nn.Linear(width // reduction, width), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


@zoo
def squeeze_and_excitation() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(1, 16), SqueezeExcite(16), conv_bn(16, 32, stride=2), SqueezeExcite(32),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def stochastic_depth_zero_gamma() -> Any:
    class Block(nn.Module):
        def __init__(self, drop: float) -> None:
            super().__init__()
            self.branch = nn.Sequential(
                conv_bn(16, 16), nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            )
            self.drop = drop
            nn.init.zeros_(self.branch[-1].weight)

        def forward(self, x: Tensor) -> Tensor:
            if self.training and torch.rand(()) < self.drop:
                return x
            return F.relu(x + self.branch(x))

    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(1, 16), *(Block(0.15 * i) for i in range(5)),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


class InvertedResidual(nn.Module):
    def __init__(self, fan_in: int, width: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        hidden = fan_in * expand
        self.skip = stride == 1 and fan_in == width
        self.layers = nn.Sequential(
            nn.Conv2d(fan_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), nn.ReLU6(True),
            nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skip else self.layers(x)


@zoo(slow=True)
def mobilenet_like() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(1, 8), InvertedResidual(8, 8, 1), InvertedResidual(8, 16, 2),
            InvertedResidual(16, 16, 1), nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64),
            nn.ReLU6(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(64, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


class DenseLayer(nn.Module):
    def __init__(self, fan_in: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(fan_in)
        self.conv = nn.Conv2d(fan_in, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], dim=1)


@zoo(slow=True)
def densenet_like() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            *[DenseLayer(16 + 8 * i, 8) for i in range(4)],
            nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 24, 1, bias=False), nn.AvgPool2d(2),
            *[DenseLayer(24 + 8 * i, 8) for i in range(4)], nn.BatchNorm2d(56), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(56, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": sgd(0.1, 0.9)}


class Inception(nn.Module):
    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.b1 = conv_bn(fan_in, width, 1)
        self.b2 = nn.Sequential(conv_bn(fan_in, width, 1), conv_bn(width, width))
        self.b3 = nn.Sequential(conv_bn(fan_in, width, 1), conv_bn(width, width, 5))
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(fan_in, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], dim=1)


@zoo(slow=True)
def inception_like() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(1, 16), Inception(16, 8), nn.MaxPool2d(2), Inception(32, 8),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(32, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo(slow=True)
def residual_cnn_inplace_relu_no_norm() -> Any:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(width, width, 3, padding=1)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv2(self.relu(self.conv1(x)))

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), *[Block(16) for _ in range(4)], nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


def double_conv(fan_in: int, width: int) -> nn.Module:
    return nn.Sequential(conv_bn(fan_in, width), conv_bn(width, width))


class UNet(nn.Module):
    def __init__(self, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.down1 = double_conv(1, width)
        self.down2 = double_conv(width, 2 * width)
        self.bottom = double_conv(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.dec2 = double_conv(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.dec1 = double_conv(2 * width, width)
        self.out = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        d1 = self.down1(x)
        d2 = self.down2(F.max_pool2d(d1, 2))
        x = self.bottom(F.max_pool2d(d2, 2))
        x = self.dec2(torch.cat([d2, self.up2(x)], dim=1))
        x = self.dec1(torch.cat([d1, self.up1(x)], dim=1))
        return self.out(x)


@zoo
def unet_pixel_cross_entropy() -> Any:
    return {
        "model": UNet,
        "batch": lambda: blobs(8),
        "loss_fn": CE,
        "optimizer": adam(3e-3),
    }


@zoo(slow=True)
def unet_one_logit_bce_and_dice() -> Any:
    def loss(out: Tensor, masks: Tensor) -> Tensor:
        wanted = masks[:, None].float()
        probability = torch.sigmoid(out)
        overlap = (probability * wanted).sum((1, 2, 3))
        total = (probability + wanted).sum((1, 2, 3))
        dice = 1 - (2 * overlap + 1) / (total + 1)
        return F.binary_cross_entropy_with_logits(out, wanted) + dice.mean()

    return {
        "model": lambda: UNet(1),
        "batch": lambda: blobs(8),
        "loss_fn": loss,
        "optimizer": adam(3e-3),
    }


@zoo
def fully_convolutional_segmentation() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=2, dilation=2), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(32, 2, 1),
        )  # fmt: skip

    return {"model": model, "batch": lambda: blobs(16), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def detector_with_three_heads() -> Any:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv_bn(1, 16, stride=2), conv_bn(16, 32, stride=2))
            self.objectness = nn.Conv2d(32, 1, 1)
            self.box = nn.Conv2d(32, 4, 1)
            self.kind = nn.Conv2d(32, 3, 1)
            nn.init.constant_(self.objectness.bias, -2.2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = self.body(x)
            return self.objectness(x), self.box(x), self.kind(x)

    def batch() -> tuple[Tensor, Tensor]:
        images, masks = blobs(16)
        return images, F.adaptive_max_pool2d(masks[:, None].float(), 4)

    def loss(out: tuple[Tensor, Tensor, Tensor], found: Tensor) -> Tensor:
        objectness, box, kind = out
        wanted_box = found.expand(-1, 4, -1, -1) * 0.5
        boxes = (F.smooth_l1_loss(box, wanted_box, reduction="none") * found).sum() / found.sum()
        kinds = F.cross_entropy(kind, found[:, 0].long(), reduction="none")
        return F.binary_cross_entropy_with_logits(objectness, found) + boxes + kinds.mean()

    return {"model": Detector, "batch": batch, "loss_fn": loss, "optimizer": adam(3e-3)}


class MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.norm2 = nn.LayerNorm(width)
        self.channels = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, 2)
        self.blocks = nn.Sequential(*[MixerBlock(16, width) for _ in range(4)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


@zoo(slow=True)
def mlp_mixer_zero_head() -> Any:
    return {"model": Mixer, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


class VitBlock(nn.Module):
    def __init__(self, width: int, heads: int, scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.gamma1 = nn.Parameter(scale * torch.ones(width))
        self.gamma2 = nn.Parameter(scale * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.gamma1 * self.attention(h, h, h, need_weights=False)[0]
        return x + self.gamma2 * self.mlp(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, width: int = 32, depth: int = 6, scale: float = 1e-6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.Sequential(*[VitBlock(width, 4, scale) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


@zoo(slow=True, learns=False)  # the class token learns nothing before layer scale has grown
def vit_layer_scale_one_millionth() -> Any:
    return {"model": Vit, "batch": digits(), "loss_fn": CE, "optimizer": adamw(1e-3)}


@zoo(slow=True)
def vit_layer_scale_one_tenth() -> Any:
    return {
        "model": lambda: Vit(depth=4, scale=0.1),
        "batch": digits(),
        "loss_fn": CE,
        "optimizer": adamw(1e-3),
    }


@zoo(slow=True)
def convnext_like_block() -> Any:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
            self.norm = nn.LayerNorm(width)
            self.up = nn.Linear(width, 4 * width)
            self.down = nn.Linear(4 * width, width)
            self.gamma = nn.Parameter(1e-6 * torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            h = self.gamma * self.down(F.gelu(self.up(h)))
            return x + h.permute(0, 3, 1, 2)

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 32, 2, 2), *[Block(32) for _ in range(4)], nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adamw(4e-3, 0.05)}


@zoo
def conv1d_waves() -> Any:
    from tests.zoo.recipes import waves

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(1, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(16, 32, 5, padding=2), nn.BatchNorm1d(32), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4),
        )  # fmt: skip

    def batch() -> tuple[Tensor, Tensor]:
        x, y = waves()
        return x.transpose(1, 2), y

    return {"model": model, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def conv3d_volume() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 2),
        )  # fmt: skip

    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (16,))
        x = torch.randn(16, 1, 8, 8, 8)
        x[:, :, 2:6, 2:6, 2:6] += y[:, None, None, None, None] * 0.8
        return x, y

    return {"model": model, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo(slow=True)
def synthesized_cnn() -> Any:
    def model() -> nn.Module:
        return nn.Sequential(
            conv_bn(3, 16), nn.MaxPool2d(2), conv_bn(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(32, 10),
        )  # fmt: skip

    return {"model": model}


@zoo(slow=True)
def synthesized_unet() -> Any:
    return {"model": UNet}


@zoo(slow=True)
def synthesized_resnet() -> Any:
    return {"model": lambda: ResNet((8, 16))}
