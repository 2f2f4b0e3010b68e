"""A loss whose sign is turned round by mistake, and those that are for a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.watching import Watcher

STEPS = 40
Train = Callable[[], Watcher]


def classifier(inputs: int = 8, outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


def batch() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(64, 8)
    return inputs, inputs[:, :4].argmax(1)


def descend(model: nn.Module, loss_fn: Callable[[Tensor, Tensor], Tensor], **how: bool) -> Watcher:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, **how)
    with Watcher(model) as watcher:
        for _ in range(STEPS):
            inputs, targets = batch()
            optimizer.zero_grad()
            loss_fn(model(inputs), targets).backward()
            optimizer.step()
    return watcher


def regressed(sign: float) -> Watcher:
    return descend(
        classifier(outputs=1), lambda o, t: sign * ((o.squeeze(1) - t) ** 2).mean(), maximize=False
    )


def climbed_twice() -> Watcher:
    return descend(classifier(), lambda o, t: -F.cross_entropy(o, t), maximize=True)


def likelihood_of_policies() -> Watcher:
    """A reward for each action, and the logarithm of its probability: up, where it is good."""

    def loss_fn(output: Tensor, targets: Tensor) -> Tensor:
        actions = torch.distributions.Categorical(logits=output.detach()).sample()
        reward = (actions == targets).float() - 0.25
        return -(-F.cross_entropy(output, actions, reduction="none") * reward).mean()

    return descend(classifier(), loss_fn)


def uncertain() -> Watcher:
    """The largest entropy: no targets."""
    return descend(classifier(), lambda o, t: (o.softmax(1) * o.log_softmax(1)).sum(1).mean())


def unlearned() -> Watcher:
    model = classifier()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        inputs, targets = batch()
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return descend(model, lambda o, t: -F.cross_entropy(o, t))


def deceived() -> Watcher:
    """A generator that a discriminator is to take for wrong, as first published."""
    generator, critic = nn.Linear(3, 8), classifier(outputs=1)
    ours = torch.optim.Adam(generator.parameters(), 1e-2)
    its = torch.optim.Adam(critic.parameters(), 1e-3)
    fake, real = torch.zeros(64, 1), torch.ones(64, 1)
    with Watcher({"generator": generator, "critic": critic}) as watcher:
        for _ in range(STEPS):
            made = generator(torch.randn(64, 3))
            its.zero_grad()
            judged = F.binary_cross_entropy_with_logits(critic(made.detach()), fake)
            (judged + F.binary_cross_entropy_with_logits(critic(batch()[0]), real)).backward()
            its.step()
            ours.zero_grad()
            (-F.binary_cross_entropy_with_logits(critic(made), fake)).backward()
            ours.step()
    return watcher


def deceived_alone() -> Watcher:
    """The generator alone is watched; its critic stays as it is."""
    generator, critic = nn.Linear(3, 8), classifier(outputs=1)
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    with Watcher(generator) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            judged = critic(generator(torch.randn(64, 3)))
            (-F.binary_cross_entropy_with_logits(judged, torch.zeros(64, 1))).backward()
            optimizer.step()
    return watcher


class TwoHeads(nn.Module):
    """An encoder, a head for the task, and one for what the features shall not tell."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.task, self.domain = (
            nn.Linear(8, 32), nn.Linear(32, 4), nn.Linear(32, 2),
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(inputs).tanh()
        return self.task(features), self.domain(features)


def domains_confused() -> Watcher:
    """The encoder climbs what the domain's head descends: two optimizers."""
    model = TwoHeads()
    learner = torch.optim.Adam([*model.encoder.parameters(), *model.task.parameters()], 1e-2)
    adversary = torch.optim.Adam(model.domain.parameters(), 1e-2)
    with Watcher(model) as watcher:
        for _ in range(STEPS):
            inputs, targets = batch()
            domain = (inputs[:, 5] > 0).long()
            adversary.zero_grad()
            F.cross_entropy(model(inputs)[1], domain).backward()
            adversary.step()
            learner.zero_grad()
            task, told = model(inputs)
            (F.cross_entropy(task, targets) - F.cross_entropy(told, domain)).backward()
            learner.step()
    return watcher


def attacked() -> Watcher:
    """The image climbs the classifier's loss."""
    model = classifier()
    inputs, targets = batch()
    image = inputs.clone().requires_grad_()
    optimizer = torch.optim.Adam([image], 1e-1)
    with Watcher(model, optimizer) as watcher:
        for _ in range(STEPS):
            optimizer.zero_grad()
            (-F.cross_entropy(model(image), targets)).backward()
            optimizer.step()
    return watcher


def says(train: Train) -> bool:
    torch.manual_seed(0)
    watcher = train()
    assert watcher.loop.failure is None
    found = [f for f in watcher.report.findings if f.code == "GL609"]
    return any("sign turned round" in f.message for f in found)


@pytest.mark.parametrize(
    "train",
    [
        pytest.param(
            lambda: descend(classifier(), lambda o, t: -F.cross_entropy(o, t)), id="cross-entropy"
        ),
        pytest.param(
            lambda: descend(classifier(), lambda o, t: F.cross_entropy(o, t) * -0.5), id="a-factor"
        ),
        pytest.param(lambda: regressed(-1.0), id="a-distance-by-hand"),
    ],
)
def test_a_loss_that_is_driven_up_by_mistake_is_named_first(train: Train) -> None:
    assert says(train)


@pytest.mark.parametrize(
    "train",
    [
        climbed_twice, likelihood_of_policies, uncertain, unlearned, deceived, deceived_alone,
        domains_confused, attacked, lambda: regressed(1.0),
    ],
)  # fmt: skip
def test_one_that_is_driven_up_for_a_reason_is_not(train: Train) -> None:
    assert not says(train)
