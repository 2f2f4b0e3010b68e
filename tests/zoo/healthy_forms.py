"""Healthy trainings of unusual forms: linear stacks on purpose, odd activations, odd wiring."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.zoo.healthy_dense import CE, mlp
from tests.zoo.recipes import Zoo, adam, adamw, curve, digits, rows, waves

zoo = Zoo()


@zoo
def separable_convolution_nothing_between() -> Any:
    def separable(fan_in: int, width: int) -> list[nn.Module]:
        return [
            nn.Conv2d(fan_in, fan_in, 3, padding=1, groups=fan_in, bias=False),
            nn.Conv2d(fan_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        ]  # fmt: skip

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), *separable(16, 32), nn.MaxPool2d(2),
            *separable(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip

    return {"model": model, "batch": digits(), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def low_rank_layers() -> Any:
    def low_rank(fan_in: int, width: int, rank: int) -> nn.Module:
        return nn.Sequential(nn.Linear(fan_in, rank, bias=False), nn.Linear(rank, width))

    return {
        "model": lambda: nn.Sequential(low_rank(64, 64, 8), nn.ReLU(), low_rank(64, 10, 4)),
        "batch": rows("digits"),
        "loss_fn": CE,
        "optimizer": adam(3e-3),
    }


@zoo
def linear_autoencoder() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x, _ = rows("digits")()
        return x, x

    return {
        "model": lambda: nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64)),
        "batch": batch,
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(1e-2),
    }


@zoo
def decomposed_linear_forecast() -> Any:
    class DLinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trend, self.season = nn.Linear(16, 8), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            smooth = F.avg_pool1d(x[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
            return self.trend(smooth) + self.season(x - smooth)

    def batch() -> tuple[Tensor, Tensor]:
        series = waves()[0].squeeze(-1)
        return series[:, :16], series[:, 16:]

    return {"model": DLinear, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-2)}


@zoo
def every_other_activation() -> Any:
    acts = [nn.PReLU(), nn.Hardswish(), nn.CELU(), nn.Softsign(), nn.LeakyReLU(0.1), nn.ReLU6()]

    def model() -> nn.Module:
        layers = [m for act in acts for m in (nn.Linear(64, 64), type(act)())]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def random_fourier_features_fixed() -> Any:
    class Fourier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("directions", torch.randn(2, 32) * 2)
            self.body = mlp(64, 64, 1)

        def forward(self, x: Tensor) -> Tensor:
            angles = 2 * math.pi * x @ self.directions
            return self.body(torch.cat([angles.sin(), angles.cos()], dim=1))

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.rand(128, 2) - 0.5
        return x, torch.sin(8 * x[:, :1] * x[:, 1:])

    return {"model": Fourier, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-3)}


@zoo
def echo_state_network_fixed_reservoir() -> Any:
    class Echo(nn.Module):
        def __init__(self, width: int = 64) -> None:
            super().__init__()
            recurrent = torch.randn(width, width)
            self.register_buffer("w", 0.9 * recurrent / torch.linalg.eigvals(recurrent).abs().max())
            self.register_buffer("w_in", torch.rand(1, width) - 0.5)
            self.head = nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), len(self.w))
            for step in range(x.shape[1]):
                state = torch.tanh(state @ self.w + x[:, step] @ self.w_in)
            return self.head(state)

    return {"model": Echo, "batch": waves, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def fourier_neural_operator() -> Any:
    class Spectral(nn.Module):
        def __init__(self, width: int, modes: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(width, width, modes, dtype=torch.cfloat) / width)
            self.skip = nn.Conv1d(width, width, 1)
            self.modes = modes

        def forward(self, x: Tensor) -> Tensor:
            spectrum = torch.fft.rfft(x)
            low = torch.einsum("nct,cdt->ndt", spectrum[:, :, : self.modes], self.weight)
            full = F.pad(low, (0, spectrum.shape[-1] - self.modes))
            return F.gelu(torch.fft.irfft(full, n=x.shape[-1]) + self.skip(x))

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Conv1d(1, 16, 1), Spectral(16, 6), Spectral(16, 6), nn.Conv1d(16, 1, 1)
        )

    def batch() -> tuple[Tensor, Tensor]:
        x = waves()[0].transpose(1, 2)
        return x, x.roll(2, dims=-1)

    return {"model": model, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-3)}


@zoo
def hypernetwork_makes_the_weights() -> Any:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.code = nn.Parameter(torch.randn(3, 8))
            self.make = nn.Linear(8, 16 * 16 + 16)
            self.first, self.last = nn.Linear(1, 16), nn.Linear(16, 1)
            nn.init.normal_(self.make.weight, std=0.08)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.tanh(self.first(x))
            for code in self.code:
                made = self.make(code)
                x = x + torch.tanh(F.linear(x, made[:256].view(16, 16), made[256:]))
            return self.last(x)

    return {"model": Hyper, "batch": curve, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-3)}


@zoo(slow=True)
def maml_inner_step() -> Any:
    def step(model: nn.Module, batch: Any) -> Tensor:
        x, phase = batch
        total = x.new_zeros(())
        for task in range(len(phase)):
            weights = dict(model.named_parameters())
            near, far = x[:10], x[10:]
            y = torch.sin(2 * x + phase[task])
            inner = F.mse_loss(functional_call(model, weights, (near,)), y[:10])
            slopes = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
            moved = {k: w - 0.05 * s for (k, w), s in zip(weights.items(), slopes, strict=True)}
            total = total + F.mse_loss(functional_call(model, moved, (far,)), y[10:])
        return total / len(phase)

    return {
        "model": lambda: mlp(1, 32, 32, 1, act=nn.Tanh),
        "batch": lambda: (torch.rand(20, 1) * 4 - 2, torch.rand(4) * 3),
        "training_step": step,
        "optimizer": adam(3e-3),
    }


@zoo
def deep_equilibrium_shared_layer() -> Any:
    class Deq(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inject, self.shared = nn.Linear(64, 48), nn.Linear(48, 48)
            self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, 10)

        def forward(self, x: Tensor) -> Tensor:
            inject = self.inject(x)
            z = torch.zeros_like(inject)
            with torch.no_grad():
                for _ in range(6):
                    z = self.norm(torch.tanh(self.shared(z) + inject))
            return self.head(self.norm(torch.tanh(self.shared(z) + inject)))

    return {"model": Deq, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def gumbel_softmax_choice() -> Any:
    class Gumbel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 64, 8 * 16), mlp(8 * 16, 64, 64)

        def forward(self, x: Tensor) -> Tensor:
            logits = self.encoder(x).view(-1, 8, 16)
            return self.decoder(F.gumbel_softmax(logits, tau=1.0, dim=-1).flatten(1))

    def batch() -> tuple[Tensor, Tensor]:
        x, _ = rows("digits", 64)()
        return x, x

    return {"model": Gumbel, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-3)}


class Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() <= 1)


@zoo
def binary_weights_straight_through() -> Any:
    class BinaryLinear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = Binarize.apply(self.weight) / math.sqrt(self.in_features)
            return F.linear(x, weight, self.bias)

    def model() -> nn.Module:
        return nn.Sequential(
            BinaryLinear(64, 128), nn.BatchNorm1d(128), nn.Hardtanh(), nn.Linear(128, 10)
        )

    return {"model": model, "batch": rows("digits", 64), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def spiking_surrogate_gradient() -> Any:
    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, v: Tensor) -> Tensor:
            ctx.save_for_backward(v)
            return (v > 0).float()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            (v,) = ctx.saved_tensors
            return gradient / (1 + 5 * v.abs()) ** 2

    class Snn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(64, 100), nn.Linear(100, 10)

        def forward(self, x: Tensor) -> Tensor:
            potential, out = x.new_zeros(len(x), 100), x.new_zeros(len(x), 10)
            current = self.fc1(x)
            for _ in range(8):
                potential = 0.9 * potential + current
                spikes = Spike.apply(potential - 1)
                potential = potential - spikes
                out = 0.9 * out + self.fc2(spikes)
            return out

    return {"model": Snn, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam(1e-3)}


@zoo
def sparse_embedding_and_sparse_adam() -> Any:
    return {
        "model": lambda: nn.EmbeddingBag(100, 4, sparse=True),
        "batch": lambda: (lambda t: (t, t[:, 0] % 4))(torch.randint(100, (64, 1))),
        "loss_fn": CE,
        "optimizer": lambda p: torch.optim.SparseAdam(list(p), lr=0.1),
    }


@zoo
def lstm_forget_bias_one_orthogonal() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 4)
            for name, p in self.lstm.named_parameters():
                if "weight_hh" in name:
                    nn.init.orthogonal_(p)
                elif "weight_ih" in name:
                    nn.init.xavier_uniform_(p)
                else:
                    nn.init.zeros_(p)
            nn.init.ones_(self.lstm.bias_ih_l0.data[32:64])

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0][:, -1])

    return {"model": Net, "batch": waves, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def retina_head_prior_bias() -> Any:
    def model() -> nn.Module:
        head = nn.Conv2d(16, 1, 3, padding=1)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.constant_(head.bias, -math.log(99))
        return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), head)

    def batch() -> tuple[Tensor, Tensor]:
        x, _ = digits(16)()
        return x, (x > 1.2).float()

    return {
        "model": model,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


@zoo(slow=True)
def twenty_four_pre_norm_blocks() -> Any:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)
            )

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layers(x)

    def model() -> nn.Module:
        blocks = [Block() for _ in range(24)]
        return nn.Sequential(nn.Linear(64, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 10))

    return {"model": model, "batch": rows("digits"), "loss_fn": CE, "optimizer": adamw(1e-3)}


@zoo
def conv_lstm_video() -> Any:
    class ConvLstm(nn.Module):
        def __init__(self, width: int = 8) -> None:
            super().__init__()
            self.gates = nn.Conv2d(1 + width, 4 * width, 3, padding=1)
            self.head = nn.Conv2d(width, 1, 1)
            self.width = width

        def forward(self, frames: Tensor) -> Tensor:
            h = frames.new_zeros(len(frames), self.width, 8, 8)
            c = torch.zeros_like(h)
            for frame in frames.unbind(1):
                i, f, o, g = self.gates(torch.cat([frame, h], 1)).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            return self.head(h)

    def batch() -> tuple[Tensor, Tensor]:
        x, _ = digits(16)()
        frames = torch.stack([x.roll(i, dims=-1) for i in range(4)], dim=1)
        return frames, x.roll(4, dims=-1)

    return {"model": ConvLstm, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-2)}


@zoo
def attention_pooling_of_instances() -> Any:
    class Mil(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
            self.v, self.u, self.w = nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(16, 1)
            self.head = nn.Linear(32, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x)
            share = F.softmax(self.w(torch.tanh(self.v(h)) * torch.sigmoid(self.u(h))), dim=1)
            return self.head((share * h).sum(1)).squeeze(1)

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(32, 10, 8)
        y = torch.randint(2, (32,)).float()
        x[:, 0, 0] += 4 * y
        return x, y

    return {
        "model": Mil,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


@zoo
def factorization_machine() -> Any:
    class Machine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(20, 1)
            self.factors = nn.Parameter(torch.randn(20, 6) * 0.1)

        def forward(self, x: Tensor) -> Tensor:
            pairs = (x @ self.factors).pow(2) - x.pow(2) @ self.factors.pow(2)
            return (self.linear(x) + 0.5 * pairs.sum(1, keepdim=True)).squeeze(1)

    def batch() -> tuple[Tensor, Tensor]:
        x = (torch.rand(64, 20) < 0.3).float()
        return x, (x[:, 0] * x[:, 1] + x[:, 2] > 0).float()

    return {
        "model": Machine,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(3e-2),
    }


@zoo
def film_conditioning_and_pixel_shuffle() -> Any:
    class Upscale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.mid = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
            self.film, self.last = nn.Linear(10, 32), nn.Conv2d(16, 4, 3, padding=1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            scale, shift = self.film(F.one_hot(y, 10).float())[:, :, None, None].chunk(2, 1)
            h = F.relu(self.first(x))
            h = h + F.relu(self.mid(h) * (1 + scale) + shift)
            return F.pixel_shuffle(self.last(h), 2)

    def batch() -> Any:
        x, y = digits(16)()
        return (F.avg_pool2d(x, 2), y), x

    return {"model": Upscale, "batch": batch, "loss_fn": nn.L1Loss(), "optimizer": adam(3e-3)}


@zoo
def energy_based_contrastive_divergence() -> Any:
    def step(model: nn.Module, batch: Any) -> Tensor:
        real = batch[0]
        fake = torch.randn_like(real).requires_grad_()
        for _ in range(3):
            (slope,) = torch.autograd.grad(model(fake).sum(), fake)
            fake = (fake - 0.1 * slope).detach().requires_grad_()
        on_real, on_fake = model(real), model(fake.detach())
        return (on_real - on_fake).mean() + 0.1 * (on_real**2 + on_fake**2).mean()

    return {
        "model": lambda: mlp(64, 64, 1, act=nn.SiLU),
        "batch": rows("digits"),
        "training_step": step,
        "optimizer": adam(1e-3),
    }
