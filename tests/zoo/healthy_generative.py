"""Healthy trainings with their own loss or step: generative, contrastive, reinforcement, sets."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from tests.zoo.healthy_dense import CE, mlp
from tests.zoo.recipes import Zoo, adam, adamw, digits, rows, unit_digits

zoo = Zoo()


@zoo
def tied_autoencoder() -> Any:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(64, 16)
            self.bias = nn.Parameter(torch.zeros(64))

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.encoder(x))
            return F.linear(hidden, self.encoder.weight.t(), self.bias)

    def batch() -> tuple[Tensor, Tensor]:
        x, _ = rows("digits")()
        return x, x

    return {"model": Tied, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-2)}


class ConvAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 2, 2), nn.ReLU(), nn.ConvTranspose2d(16, 1, 2, 2),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def itself(make: Any) -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x = make()
        return x, x

    return batch


@zoo
def conv_autoencoder_sigmoid_mse() -> Any:
    return {
        "model": ConvAutoencoder,
        "batch": itself(unit_digits()),
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def conv_autoencoder_sigmoid_bce() -> Any:
    return {
        "model": ConvAutoencoder,
        "batch": itself(unit_digits()),
        "loss_fn": nn.BCELoss(),
        "optimizer": adam(3e-3),
    }


@zoo
def denoising_autoencoder_mlp() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        x, _ = rows("digits", 64)()
        return x + 0.3 * torch.randn_like(x), x

    return {
        "model": lambda: mlp(64, 128, 16, 128, 64),
        "batch": batch,
        "loss_fn": nn.MSELoss(),
        "optimizer": adam(3e-3),
    }


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.mean = nn.Linear(128, 8)
        self.log_variance = nn.Linear(128, 8)
        self.fc3 = nn.Linear(8, 128)
        self.fc4 = nn.Linear(128, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = F.relu(self.fc1(x.flatten(1)))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, log_variance


@zoo
def vae_summed_loss() -> Any:
    def loss(out: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
        seen, mean, log_variance = out
        bce = F.binary_cross_entropy(seen, x.flatten(1), reduction="sum")
        return bce - 0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())

    return {
        "model": Vae,
        "batch": itself(unit_digits()),
        "loss_fn": loss,
        "optimizer": adam(1e-3),
    }


@zoo
def vae_own_loss_from_forward() -> Any:
    class OwnLoss(Vae):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            seen, mean, log_variance = super().forward(x)
            divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).sum(1).mean()
            rebuilt = F.binary_cross_entropy(seen, x.flatten(1), reduction="none").sum(1).mean()
            return {"loss": rebuilt + divergence, "reconstruction": seen}

    return {"model": OwnLoss, "batch": unit_digits(), "optimizer": adam(1e-3)}


def dcgan_weights(module: nn.Module) -> None:
    name = type(module).__name__
    if "Conv" in name:
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif "BatchNorm" in name:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def generator(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(16, 2 * width, 2, 1, 0, bias=False), nn.BatchNorm2d(2 * width),
        nn.ReLU(True), nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False),
        nn.Tanh(),
    ).apply(dcgan_weights)  # fmt: skip


def discriminator(width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2, True), nn.Conv2d(2 * width, 1, 2, 1, 0, bias=False), nn.Flatten(0),
    ).apply(dcgan_weights)  # fmt: skip


@zoo
def dcgan_discriminator_step() -> Any:
    fake_from = generator()

    def step(model: nn.Module, real: Tensor) -> Tensor:
        with torch.no_grad():
            fake = fake_from(torch.randn(len(real), 16, 1, 1))
        on_real, on_fake = model(real * 2 - 1), model(fake)
        ones, zeros = torch.ones_like(on_real), torch.zeros_like(on_fake)
        return F.binary_cross_entropy_with_logits(
            on_real, ones
        ) + F.binary_cross_entropy_with_logits(on_fake, zeros)

    return {
        "model": discriminator,
        "batch": unit_digits(),
        "training_step": step,
        "optimizer": lambda p: torch.optim.Adam(p, lr=2e-4, betas=(0.5, 0.999)),
    }


@zoo
def dcgan_generator_step() -> Any:
    judge = discriminator()

    def step(model: nn.Module, noise: Tensor) -> Tensor:
        verdict = judge(model(noise))
        return F.binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))

    return {
        "model": generator,
        "batch": lambda: torch.randn(32, 16, 1, 1),
        "training_step": step,
        "optimizer": lambda p: torch.optim.Adam(p, lr=2e-4, betas=(0.5, 0.999)),
    }


@zoo
def gan_both_networks_in_one_module() -> Any:
    class Gan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = nn.Sequential(mlp(8, 32, 64), nn.Tanh())
            self.discriminator = mlp(64, 32, 1, act=nn.LeakyReLU, negative_slope=0.2)

    def step(model: Gan, real: Tensor) -> Tensor:
        fake = model.generator(torch.randn(len(real), 8)).detach()
        on_real = model.discriminator(real.flatten(1) * 2 - 1)
        on_fake = model.discriminator(fake)
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

    return {
        "model": Gan,
        "batch": unit_digits(),
        "training_step": step,
        "optimizer": lambda m: torch.optim.Adam(m.discriminator.parameters(), lr=1e-3),
    }


@zoo
def wgan_gp_critic_double_backward() -> Any:
    def step(model: nn.Module, real: Tensor) -> Tensor:
        real = real.flatten(1) * 2 - 1
        fake = torch.tanh(torch.randn_like(real))
        share = torch.rand(len(real), 1)
        mixed = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(model(mixed).sum(), mixed, create_graph=True)
        penalty = ((slope.norm(dim=1) - 1) ** 2).mean()
        return model(fake).mean() - model(real).mean() + 10 * penalty

    return {
        "model": lambda: mlp(64, 64, 64, 1, act=nn.LeakyReLU, negative_slope=0.2),
        "batch": unit_digits(),
        "training_step": step,
        "optimizer": lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.0, 0.9)),
    }


@zoo
def hinge_gan_spectral_norm_critic() -> Any:
    def step(model: nn.Module, real: Tensor) -> Tensor:
        fake = torch.rand_like(real)
        return F.relu(1 - model(real)).mean() + F.relu(1 + model(fake)).mean()

    def model() -> nn.Module:
        return nn.Sequential(
            spectral_norm(nn.Conv2d(1, 16, 3, 2, 1)), nn.LeakyReLU(0.1),
            spectral_norm(nn.Conv2d(16, 32, 3, 2, 1)), nn.LeakyReLU(0.1), nn.Flatten(),
            spectral_norm(nn.Linear(128, 1)),
        )  # fmt: skip

    return {
        "model": model,
        "batch": unit_digits(),
        "training_step": step,
        "optimizer": adam(1e-3),
    }


class Denoiser(nn.Module):
    """Predicts the noise; time enters through sines; the last layer starts at zero."""

    def __init__(self, zero: bool = True) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64))
        self.first = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 64))
            for _ in range(3)
        )
        self.last = nn.Linear(64, 64)
        if zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rates = torch.exp(torch.linspace(0, -8, 16))
        angles = t[:, None] * 1000 * rates
        x = self.first(x) + self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def diffusion_step(model: nn.Module, x: Tensor) -> Tensor:
    x = x.flatten(1) * 2 - 1
    t = torch.rand(len(x))
    keep = torch.cos(t * math.pi / 2)[:, None]
    noise = torch.randn_like(x)
    predicted = model(keep * x + torch.sqrt(1 - keep**2) * noise, t)
    return F.mse_loss(predicted, noise)


@zoo(slow=True)
def diffusion_noise_prediction_zero_last() -> Any:
    return {
        "model": Denoiser,
        "batch": unit_digits(64),
        "training_step": diffusion_step,
        "optimizer": adamw(1e-3),
    }


@zoo(slow=True)
def diffusion_adaln_zero() -> Any:
    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(width, elementwise_affine=False)
            self.mlp = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width))
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
            nn.init.zeros_(self.modulation[1].weight)
            nn.init.zeros_(self.modulation[1].bias)

        def forward(self, x: Tensor, c: Tensor) -> Tensor:
            shift, scale, gate = self.modulation(c).chunk(3, dim=1)
            return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)

    class Dit(nn.Module):
        def __init__(self, width: int = 64) -> None:
            super().__init__()
            self.embed = nn.Linear(64, width)
            self.time = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
            self.blocks = nn.ModuleList(Block(width) for _ in range(4))
            self.norm = nn.LayerNorm(width, elementwise_affine=False)
            self.last = nn.Linear(width, 64)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            angles = t[:, None] * 1000 * torch.exp(torch.linspace(0, -8, 16))
            c = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
            x = self.embed(x)
            for block in self.blocks:
                x = block(x, c)
            return self.last(self.norm(x))

    return {
        "model": Dit,
        "batch": unit_digits(64),
        "training_step": diffusion_step,
        "optimizer": adamw(1e-3),
    }


@zoo
def flow_matching() -> Any:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        x = x.flatten(1) * 2 - 1
        noise, t = torch.randn_like(x), torch.rand(len(x))
        return F.mse_loss(model(noise.lerp(x, t[:, None]), t), x - noise)

    return {
        "model": lambda: Denoiser(zero=False),
        "batch": unit_digits(64),
        "training_step": step,
        "optimizer": adamw(1e-3),
    }


class Coupling(nn.Module):
    def __init__(self, flip: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 2))
        self.flip = flip
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.flip(1).split(1, dim=1) if self.flip else x.split(1, dim=1)
        scale, shift = self.net(a).chunk(2, dim=1)
        scale = torch.tanh(scale)
        return torch.cat([a, b * torch.exp(scale) + shift], dim=1), scale.sum(dim=1)


class RealNvp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Coupling(bool(i % 2)) for i in range(6))

    def forward(self, x: Tensor) -> Tensor:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return -0.5 * (x**2).sum(1) - math.log(2 * math.pi) + total


@zoo(slow=True)
def real_nvp() -> Any:
    def batch() -> Tensor:
        angle = torch.rand(128) * 2 * math.pi
        ring = torch.stack([angle.cos(), angle.sin()], dim=1) * math.sqrt(2)
        return ring + 0.1 * torch.randn(128, 2)

    return {
        "model": RealNvp,
        "batch": batch,
        "training_step": lambda model, x: -model(x).mean(),
        "optimizer": adam(3e-3),
    }


@zoo
def neural_ode_repeated_block() -> Any:
    class Ode(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(64, 32)
            self.field = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 32))
            self.head = nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for _ in range(10):
                x = x + 0.1 * self.field(x)
            return self.head(x)

    return {"model": Ode, "batch": rows("digits"), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def simclr_info_nce() -> Any:
    class SimClr(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
                nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            )  # fmt: skip
            self.projector = mlp(32, 32, 16)

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.projector(self.encoder(x)), dim=1)

    def step(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0]
        views = [x + 0.3 * torch.randn_like(x), x.roll(1, dims=-1) + 0.3 * torch.randn_like(x)]
        z = model(torch.cat(views))
        scores = (z @ z.t() / 0.2).fill_diagonal_(-1e9)
        partner = torch.arange(len(z)).roll(len(x))
        return F.cross_entropy(scores, partner)

    return {
        "model": SimClr,
        "batch": digits(),
        "training_step": step,
        "optimizer": adam(3e-3),
    }


@zoo
def clip_like_two_towers() -> Any:
    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image = mlp(64, 64, 16)
            self.label = nn.Embedding(10, 16)
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

        def forward(self, image: Tensor, label: Tensor) -> Tensor:
            a = F.normalize(self.image(image), dim=-1)
            b = F.normalize(self.label(label), dim=-1)
            return self.logit_scale.exp() * a @ b.t()

    def step(model: nn.Module, batch: Any) -> Tensor:
        scores = model(*batch)
        own = torch.arange(len(scores))
        return (F.cross_entropy(scores, own) + F.cross_entropy(scores.t(), own)) / 2

    return {
        "model": TwoTowers,
        "batch": rows("digits"),
        "training_step": step,
        "optimizer": adam(3e-3),
    }


@zoo
def byol_predictor_and_target() -> Any:
    class Byol(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = mlp(64, 64, 16)
            self.predictor = mlp(16, 32, 16)
            self.target = mlp(64, 64, 16)
            self.target.load_state_dict(self.online.state_dict())
            self.target.requires_grad_(False)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            predicted = F.normalize(self.predictor(self.online(a)), dim=1)
            with torch.no_grad():
                for slow, fast in zip(
                    self.target.parameters(), self.online.parameters(), strict=True
                ):
                    slow.lerp_(fast, 0.01)
                wanted = F.normalize(self.target(b), dim=1)
            return 2 - 2 * (predicted * wanted).sum(dim=1).mean()

    def step(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0]
        return model(x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x))

    return {
        "model": Byol,
        "batch": rows("digits"),
        "training_step": step,
        "optimizer": lambda m: torch.optim.Adam(
            [*m.online.parameters(), *m.predictor.parameters()], lr=1e-3
        ),
    }


@zoo(learns=False)  # its codebook terms grow with the codes, while the reconstruction falls
def vq_vae_straight_through() -> Any:
    class VqVae(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = mlp(64, 64, 8)
            self.codes = nn.Embedding(32, 8)
            self.decoder = mlp(8, 64, 64)
            nn.init.normal_(self.codes.weight, std=0.3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.encoder(x)
            chosen = self.codes(torch.cdist(z, self.codes.weight).argmin(dim=1))
            extra = F.mse_loss(chosen, z.detach()) + 0.25 * F.mse_loss(z, chosen.detach())
            return self.decoder(z + (chosen - z).detach()), extra

    def batch() -> tuple[Tensor, Tensor]:
        x, _ = rows("digits", 64)()
        return x, x

    return {
        "model": VqVae,
        "batch": batch,
        "loss_fn": lambda out, x: F.mse_loss(out[0], x) + out[1],
        "optimizer": adam(3e-3),
    }


@zoo(learns=False)  # a bootstrapped target moves with the network: its loss need not fall
def dqn() -> Any:
    class Dqn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = mlp(4, 64, 64, 2)
            self.target = mlp(4, 64, 64, 2).requires_grad_(False)
            self.target.load_state_dict(self.online.state_dict())

    def batch() -> Any:
        state, after = torch.randn(64, 4), torch.randn(64, 4)
        return {"state": state, "action": torch.randint(2, (64,)), "reward": state[:, 0].sign(),
                "after": after, "done": (torch.rand(64) < 0.1).float()}  # fmt: skip

    def step(model: Dqn, batch: dict[str, Tensor]) -> Tensor:
        value = model.online(batch["state"]).gather(1, batch["action"][:, None]).squeeze(1)
        with torch.no_grad():
            best = model.target(batch["after"]).amax(dim=1)
        wanted = batch["reward"] + 0.99 * best * (1 - batch["done"])
        return F.smooth_l1_loss(value, wanted)

    return {
        "model": Dqn,
        "batch": batch,
        "training_step": step,
        "optimizer": lambda m: torch.optim.Adam(m.online.parameters(), lr=1e-3),
    }


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.actor = nn.Linear(64, 4)
        self.critic = nn.Linear(64, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, math.sqrt(2))
                nn.init.zeros_(module.bias)
        nn.init.orthogonal_(self.actor.weight, 0.01)
        nn.init.orthogonal_(self.critic.weight, 1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(x)
        return self.actor(x), self.critic(x).squeeze(-1)


@zoo
def ppo_clipped_objective() -> Any:
    def batch() -> Any:
        state, action = torch.randn(64, 8), torch.randint(4, (64,))
        advantage = torch.where(action == (state[:, 0] > 0).long(), 1.0, -0.5)
        return {"state": state, "action": action, "advantage": advantage,
                "old": torch.full((64,), -math.log(4.0)), "returns": state[:, 1]}  # fmt: skip

    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits, value = model(batch["state"])
        policy = torch.distributions.Categorical(logits=logits)
        ratio = torch.exp(policy.log_prob(batch["action"]) - batch["old"])
        advantage = batch["advantage"]
        clipped = torch.clamp(ratio, 0.8, 1.2) * advantage
        gain = torch.min(ratio * advantage, clipped).mean()
        error = F.mse_loss(value, batch["returns"])
        return -gain + 0.5 * error - 0.01 * policy.entropy().mean()

    return {
        "model": ActorCritic,
        "batch": batch,
        "training_step": step,
        "optimizer": lambda p: torch.optim.Adam(p, lr=3e-4, eps=1e-5),
    }


@zoo
def reinforce_with_baseline() -> Any:
    def batch() -> Any:
        state, action = torch.randn(64, 8), torch.randint(4, (64,))
        returns = torch.where(action == (state[:, 0] > 0).long(), 1.0, 0.0)
        return {"state": state, "action": action, "returns": returns}

    def step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits, value = model(batch["state"])
        chosen = F.log_softmax(logits, dim=1).gather(1, batch["action"][:, None]).squeeze(1)
        advantage = batch["returns"] - value
        return -(chosen * advantage.detach()).mean() + advantage.pow(2).mean()

    return {
        "model": ActorCritic,
        "batch": batch,
        "training_step": step,
        "optimizer": adam(1e-3),
    }


@zoo
def sac_gaussian_actor() -> Any:
    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp(8, 64, 64)
            self.mean = nn.Linear(64, 2)
            self.log_std = nn.Linear(64, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = F.relu(self.body(x))
            return self.mean(x), self.log_std(x).clamp(-5, 2)

    def step(model: nn.Module, state: Tensor) -> Tensor:
        mean, log_std = model(state)
        raw = mean + log_std.exp() * torch.randn_like(mean)
        action = torch.tanh(raw)
        log_p = (-0.5 * ((raw - mean) / log_std.exp()) ** 2 - log_std).sum(1)
        log_p = log_p - torch.log(1 - action**2 + 1e-6).sum(1)
        quality = -((action - torch.tanh(state[:, :2])) ** 2).sum(1)
        return (0.2 * log_p - quality).mean()

    return {
        "model": Actor,
        "batch": lambda: torch.randn(64, 8),
        "training_step": step,
        "optimizer": adam(3e-4),
    }


@zoo
def physics_informed_network() -> Any:
    def step(model: nn.Module, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        edge = model(torch.tensor([[-1.0], [1.0]]))
        return (bend + math.pi**2 * torch.sin(math.pi * x)).pow(2).mean() + 10 * edge.pow(2).mean()

    return {
        "model": lambda: mlp(1, 32, 32, 1, act=nn.Tanh),
        "batch": lambda: torch.rand(64, 1) * 2 - 1,
        "training_step": step,
        "optimizer": adam(3e-3),
    }
