"""Sealed and sick: loops in which a part of the model, or the truth, is cut off."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.calibration.sealed_trainers import (
    Locator,
    SmallUnet,
    Translator,
    actor_and_critic,
    beats,
    reward_of,
    rhythm,
    situations,
    spots,
    sums,
    trainers,
    washers,
)
from tests.zoo.recipes import digits, rows, table

bench = Bench()
sick = trainers(bench)


# -- modes --------------------------------------------------------------------------------


@sick("trains in eval mode", "GL710", rhythm, beats, sgd(0.05, momentum=0.9))
def validated_and_never_back_to_train(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    model.train()
    for _ in range(steps // 5):
        for _ in range(5):
            signal, label = draw()
            loss = F.cross_entropy(model(signal), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()
        model.eval()
        with torch.no_grad():
            signal, label = draw()
            _ = (model(signal).argmax(1) == label).float().mean()


def vgg() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 16), (16, 24), (24, 24), (24, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(128, 10))


@sick("trains in eval mode", "GL710", vgg, digits(32), sgd(0.02, momentum=0.9))
def batchnorm_frozen_from_scratch(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    def freeze_bn(module: nn.Module) -> None:
        if isinstance(module, nn.BatchNorm2d):
            module.eval()

    for _ in range(steps):
        model.train()
        model.apply(freeze_bn)
        x, y = draw()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        yield loss.item()


# -- gradients that do not arrive ---------------------------------------------------------


class Views(nn.Module):
    """An encoder of ragged sets of points, and what kind of set it is."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU())
        self.classifier = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3))


def clouds(size: int = 32, points: int = 24) -> tuple[Tensor, Tensor]:
    """Points on a ball, a cylinder or a cube, and which."""
    kind = torch.randint(3, (size,))
    p = torch.randn(size, points, 3)
    ball = p / p.norm(dim=2, keepdim=True)
    tube = torch.cat([p[..., :2] / p[..., :2].norm(dim=2, keepdim=True), p[..., 2:]], 2)
    cube = p / p.abs().amax(2, keepdim=True)
    shapes = torch.stack([ball, tube, cube])
    return shapes[kind, torch.arange(size)] * 1.5, kind


@sick("encoder under no_grad", "GL701", Views, clouds, adam(3e-3))
def encoded_without_gradient(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    for _ in range(steps):
        points, kind = draw()
        with torch.no_grad():
            features = model.encoder(points).mean(1)
        loss = F.cross_entropy(model.classifier(features), kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@sick("detached on the way", "GL701", Translator, sums, adam(0.005))
def decoder_begins_from_a_detached_state(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        source, target = draw()
        hidden = model.encode(source)
        hidden = hidden.detach()
        loss = F.cross_entropy(model.decode(hidden, target), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        yield loss.item()


@sick("detached on the way", "GL701", actor_and_critic, situations, adam(3e-3))
def critic_learns_from_detached_values(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        state = draw()
        policy = torch.distributions.Categorical(logits=model["actor"](state))
        action = policy.sample()
        value = model["critic"](state).squeeze(1).detach()
        reward = reward_of(state, action)
        advantage = reward - value
        actor_loss = -(policy.log_prob(action) * advantage).mean()
        critic_loss = F.mse_loss(value, reward)
        loss = actor_loss + 0.5 * critic_loss - 0.01 * policy.entropy().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield critic_loss.item()


def players() -> nn.Module:
    """A generator of points in the plane, and who judges them."""
    return nn.ModuleDict(
        {
            "generator": nn.Sequential(
                nn.Linear(4, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2),
                nn.Linear(48, 2),
            ),
            "judge": nn.Sequential(
                nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2),
                nn.Linear(48, 1),
            ),
        }
    )  # fmt: skip


def eight(size: int = 128) -> Tensor:
    """Eight heaps on a circle around a point aside."""
    angle = torch.randint(8, (size,)) * 0.785
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    return circle + torch.tensor([1.0, -0.5]) + 0.05 * torch.randn(size, 2)


def of_each(generator: str = "generator") -> Any:
    return lambda m: tuple(
        torch.optim.Adam(m[part].parameters(), 2e-3, betas=(0.5, 0.999))
        for part in (generator, "judge")
    )


def turns(model: Any, optimizer: Any, real: Tensor, cut: bool) -> float:
    """Train the judge, then the generator."""
    optimizer_g, optimizer_d = optimizer
    fake = model["generator"](torch.randn(len(real), 4))
    optimizer_d.zero_grad()
    of_real, of_fake = model["judge"](real), model["judge"](fake.detach())
    loss_d = F.softplus(-of_real).mean() + F.softplus(of_fake).mean()
    loss_d.backward()
    optimizer_d.step()
    if cut:
        fake = fake.detach()
    optimizer_g.zero_grad()
    loss_g = F.softplus(-model["judge"](fake)).mean()
    loss_g.backward()
    optimizer_g.step()
    return float((fake.mean(0) - real.mean(0)).norm())


@sick("detached on the way", "GL701", players, eight, of_each())
def generator_judged_on_detached_fakes(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        yield turns(model, optimizer, draw(), cut=True)


@sick("optimizer of another model", "GL702 GL711", players, eight, of_each("judge"))
def both_optimizers_hold_the_judge(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        yield turns(model, optimizer, draw(), cut=False)


def value_networks() -> nn.Module:
    online = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 2))
    return nn.ModuleDict({"online": online, "target": copy.deepcopy(online)})


def walks(size: int = 64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Steps to the left or right on a line of twelve places, with a prize at each end."""
    place, action = torch.randint(12, (size,)), torch.randint(2, (size,))
    after = (place + 2 * action - 1).clamp(0, 11)
    reward = (after == 11).float() + 0.3 * (after == 0).float()
    return place, action, reward, after


@sick(
    "optimizer of another model",
    "GL702 GL701",
    value_networks,
    walks,
    lambda m: torch.optim.RMSprop(m["target"].parameters(), 1e-3),
)
def optimizer_of_the_target_network(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for step in range(steps):
        place, action, reward, after = draw()
        with torch.no_grad():
            best = model["target"](F.one_hot(after, 12).float()).amax(1)
        guess = model["online"](F.one_hot(place, 12).float())
        guess = guess.gather(1, action[:, None]).squeeze(1)
        loss = F.smooth_l1_loss(guess, reward + 0.9 * best * (reward == 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            model["target"].load_state_dict(model["online"].state_dict())
        yield loss.item()


def two_ways() -> nn.Module:
    """A map from one domain into the other, and a map back."""

    def way() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(),
                             nn.Linear(48, 4))  # fmt: skip

    return nn.ModuleDict({"there": way(), "back": way()})


def domains(size: int = 64) -> tuple[Tensor, Tensor]:
    """The same things measured in one way and in another."""
    x = torch.randn(size, 4)
    turned = torch.stack([x[:, 1], -x[:, 0], x[:, 3] + 0.5 * x[:, 0] ** 2, x[:, 2]], 1)
    return x, (turned - turned.mean(0)) / turned.std(0)


@sick("network never called", "GL701 GL001", two_ways, domains, adam(2e-3))
def one_network_for_both_directions(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        a, b = draw()
        fake_b = model["there"](a)
        fake_a = model["there"](b)
        loss = F.l1_loss(fake_b, b) + F.l1_loss(fake_a, a)
        loss = loss + 0.5 * F.l1_loss(model["there"](fake_a), b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


# -- frozen, and put back -----------------------------------------------------------------


def head_first(model: Any) -> torch.optim.Optimizer:
    model.backbone.requires_grad_(False)
    model.neck.requires_grad_(False)
    held = filter(lambda p: p.requires_grad, model.parameters())
    return torch.optim.Adam(held, 3e-3)


@sick("part missing in the optimizer", "GL702", Locator, spots, head_first)
def unfrozen_and_not_held(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    for step in range(steps):
        if step == 6:
            for p in model.parameters():
                p.requires_grad = True
        image, where = draw()
        loss = F.mse_loss(model(image), where)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def frozen_trunk() -> nn.Module:
    model = vgg()
    for p in model[:-1].parameters():
        p.requires_grad = False
    return model


@sick("frozen", "GL712", frozen_trunk, digits(32), adamw(2e-3))
def unfreezes_the_module_and_no_parameter(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    model.train()
    for step in range(steps):
        if step == 4:
            for layer in model:
                layer.requires_grad = True
            optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        x, y = draw()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@sick("frozen but moving", "GL706", rhythm, beats, adamw(3e-3, weight_decay=0.05))
def frozen_midway_and_still_decayed(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    model.train()
    for step in range(steps):
        if step == 8:
            model[:6].requires_grad_(False)
        signal, label = draw()
        optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(model(signal), label)
        loss.backward()
        optimizer.step()
        yield loss.item()


class Sorter(nn.Module):
    """Scores the rows of a table by gated layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(13, 64), nn.Linear(32, 64)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.glu(self.second(F.glu(self.first(x)))))


@sick("weights put back", "GL406 GL402", Sorter, rows("wine"), adam(5e-3))
def average_applied_and_never_restored(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    average = copy.deepcopy(model).requires_grad_(False)
    for _ in range(steps):
        x, y = draw()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
            slow.mul_(0.999).add_(fast.detach(), alpha=0.001)
        model.load_state_dict(average.state_dict())
        yield loss.item()


@sick("weights put back", "GL406", Views, clouds, adam(3e-3))
def initial_state_loaded_every_step(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    initial = copy.deepcopy(model.state_dict())
    for _ in range(steps):
        points, kind = draw()
        model.load_state_dict(initial)
        optimizer.zero_grad()
        loss = F.cross_entropy(model.classifier(model.encoder(points).amax(1)), kind)
        loss.backward()
        optimizer.step()
        yield loss.item()


# -- losses and data ----------------------------------------------------------------------


@sick("detached loss", "GL708", SmallUnet, washers, adam(3e-3))
def dice_of_the_thresholded_mask(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        image, mask = draw()
        found = (model(image).sigmoid() > 0.5).float()
        overlap = (found * mask).sum((1, 2, 3))
        dice = (2 * overlap + 1) / (found.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
        loss = (1 - dice).mean()
        loss.requires_grad = True
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@sick(
    "not finite",
    "GL501",
    lambda: nn.Sequential(nn.Linear(13, 48), nn.Softplus(), nn.Linear(48, 8)),
    lambda: (),
    adam(2e-3),
)
def pairs_with_oneself(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    x, y = table("wine")
    for _ in range(steps):
        one, other = torch.randint(len(x), (2, 24))
        far = (model(x[one]) - model(x[other])).pow(2).sum(1).sqrt()
        same = (y[one] == y[other]).float()
        loss = (same * far**2 + (1 - same) * F.relu(1.5 - far) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


class Codes(nn.Module):
    """Digits through eight letters of an alphabet of six."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 48))
        self.decoder = nn.Sequential(nn.Linear(48, 64), nn.ELU(), nn.Linear(64, 64))


@sick("not finite", "GL501", Codes, digits(48), adam(3e-3))
def temperature_annealed_to_zero(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for step in range(steps):
        x = draw()[0].flatten(1)
        temperature = 1.0 - step / 25
        letters = model.encoder(x).view(-1, 8, 6)
        code = F.gumbel_softmax(letters, temperature).flatten(1)
        loss = F.mse_loss(model.decoder(code), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@sick(
    "one label only",
    "GL613",
    lambda: nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3)),
    lambda: (),
    sgd(0.1),
)
def first_batch_of_a_sorted_loader(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    loader = DataLoader(TensorDataset(*table("iris")), batch_size=32)
    for _ in range(steps):
        x, y = next(iter(loader))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        yield loss.item()


@sick("labels of other samples", "GL609", Views, clouds, adamw(2e-3))
def points_shuffled_without_their_labels(
    model: Any, optimizer: Any, draw: Any, steps: int
) -> Iterator[float]:
    for _ in range(steps):
        points, kind = draw()
        points = points[torch.randperm(len(points))]
        loss = F.cross_entropy(model.classifier(model.encoder(points).amax(1)), kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@sick(
    "BatchNorm of two samples",
    "GL801",
    lambda: nn.Sequential(
        nn.Linear(30, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 48), nn.BatchNorm1d(48),
        nn.ReLU(), nn.Linear(48, 1),
    ),
    rows("breast_cancer"),
    adam(1e-3),
)  # fmt: skip
def micro_batches_of_two(model: Any, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
    model.train()
    for _ in range(steps):
        x, y = draw()
        optimizer.zero_grad()
        total = 0.0
        for part, labels in zip(x.split(2), y.split(2), strict=True):
            loss = F.binary_cross_entropy_with_logits(model(part).squeeze(1), labels.float())
            (loss / 16).backward()
            total += loss.item() / 16
        optimizer.step()
        yield total
