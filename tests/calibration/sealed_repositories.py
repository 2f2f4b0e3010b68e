"""Sealed and healthy: what papers' repositories train: recommenders, graphs, images, sound."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import digit_images, digits

bench = Bench()


class Towers(nn.Module):
    """Users and items in separate networks, unit vectors out, a temperature learned as a log."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(200, 24), nn.Embedding(100, 24)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=24**-0.5)
        self.ask = nn.Sequential(nn.Linear(24 + 4, 48), nn.ReLU(), nn.Linear(48, 24))
        self.give = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 24))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, user: Tensor, context: Tensor, item: Tensor) -> Tensor:
        asked = F.normalize(self.ask(torch.cat([self.user(user), context], 1)), dim=1)
        given = F.normalize(self.give(self.item(item)), dim=1)
        return self.log_scale.exp() * asked @ given.T


@bench.healthy
def two_towers_sampled_softmax_corrected_by_frequency() -> Any:
    """The batch's other items are the negatives; how often each is drawn is subtracted."""
    share = torch.softmax(-torch.arange(100) / 30, 0)

    def step(model: nn.Module, batch: Any) -> Tensor:
        user, context, item = batch
        scores = model(user, context, item) - share[item].log()
        same = item[:, None] == item
        same.fill_diagonal_(False)
        return F.cross_entropy(scores.masked_fill(same, -1e9), torch.arange(len(item)))

    def batch() -> Any:
        item = torch.multinomial(share, 128, replacement=True)
        user = (item % 20) + 20 * torch.randint(10, (128,))
        return user, torch.randn(128, 4), item

    return {"model": Towers, "batch": batch, "step": step, "optimizer": adam(5e-3)}


class NeuralFiltering(nn.Module):
    """A product of factors beside layers over others, joined in one score."""

    def __init__(self) -> None:
        super().__init__()
        self.gmf_user, self.gmf_item = nn.Embedding(80, 8), nn.Embedding(60, 8)
        self.mlp_user, self.mlp_item = nn.Embedding(80, 16), nn.Embedding(60, 16)
        self.layers = nn.Sequential(
            nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()
        )
        self.predict = nn.Linear(16, 1)
        for m in self.modules():
            if isinstance(m, nn.Embedding):
                nn.init.normal_(m.weight, std=0.01)
            elif isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)
        nn.init.kaiming_uniform_(self.predict.weight, a=1, nonlinearity="sigmoid")

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        product = self.gmf_user(user) * self.gmf_item(item)
        deep = self.layers(torch.cat([self.mlp_user(user), self.mlp_item(item)], 1))
        return self.predict(torch.cat([product, deep], 1)).view(-1)


@bench.healthy
def neural_filtering_four_negatives_each() -> Any:
    def batch() -> Any:
        user = torch.randint(80, (64,))
        liked = (user * 7 % 12) + 12 * torch.randint(5, (64,))
        others = torch.randint(60, (256,))
        users = torch.cat([user, user.repeat(4)])
        labels = torch.cat([torch.ones(64), torch.zeros(256)])
        return (users, torch.cat([liked, others])), labels

    return {
        "model": NeuralFiltering,
        "batch": batch,
        "loss": nn.BCEWithLogitsLoss(),
        "optimizer": adam(1e-2),
    }


class NextItem(nn.Module):
    """Causal attention over what was bought, post-norm blocks of convolutions of width one."""

    def __init__(self, items: int = 60, width: int = 32, length: int = 16) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, width, padding_idx=0)
        self.at = nn.Embedding(length, width)
        self.drop = nn.Dropout(0.2)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-8) for _ in range(5))
        self.attend = nn.ModuleList(
            nn.MultiheadAttention(width, 1, 0.2, batch_first=True) for _ in range(2)
        )
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, width, 1))
            for _ in range(2)
        )

    def forward(self, seen: Tensor, right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        x = self.items(seen) * self.items.embedding_dim**0.5
        x = self.drop(x + self.at(torch.arange(seen.shape[1])))
        mask = torch.ones(seen.shape[1], seen.shape[1], dtype=torch.bool).triu(1)
        for i in range(2):
            query = self.norms[2 * i](x)
            x = query + self.attend[i](query, x, x, attn_mask=mask, need_weights=False)[0]
            x = self.norms[2 * i + 1](x)
            x = x + self.feed[i](x.transpose(1, 2)).transpose(1, 2)
        x = self.norms[4](x)
        return (x * self.items(right)).sum(-1), (x * self.items(wrong)).sum(-1)


@bench.healthy
def next_purchase_by_causal_attention() -> Any:
    """Sequences padded in front with zeros; a positive and a negative item at each position."""

    def step(model: nn.Module, batch: Any) -> Tensor:
        seen, right, wrong = batch
        good, bad = model(seen, right, wrong)
        kept = right > 0
        return (F.softplus(-good[kept]) + F.softplus(bad[kept])).mean()

    def model() -> nn.Module:
        net = NextItem()
        for p in net.parameters():
            if p.dim() > 1:
                nn.init.xavier_normal_(p)
        with torch.no_grad():
            net.items.weight[0] = 0
        return net

    def batch() -> Any:
        start = torch.randint(60, (48, 1))
        bought = (start + 7 * torch.arange(17)) % 60 + 1
        bought = torch.where(torch.rand(48, 17) < 0.1, torch.randint(1, 61, (48, 17)), bought)
        bought[torch.arange(17) < torch.randint(0, 10, (48, 1))] = 0
        return bought[:, :-1], bought[:, 1:], torch.randint(1, 61, (48, 16))

    return {"model": model, "batch": batch, "step": step, "optimizer": adam(3e-3)}


@cache
def purchases() -> Tensor:
    """Which of 50 users bought which of 40 items; both come in five kinds."""
    random = torch.Generator().manual_seed(2)
    same = torch.arange(50)[:, None] % 5 == torch.arange(40) % 5
    return (torch.rand(50, 40, generator=random) < torch.where(same, 0.5, 0.03)).float()


class LightGraph(nn.Module):
    """Embeddings smoothed over the graph of users and items three times, and averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(90, 16)
        nn.init.normal_(self.table.weight, std=0.1)
        graph = torch.zeros(90, 90)
        graph[:50, 50:] = purchases()
        graph = graph + graph.T
        root = graph.sum(1).clamp(min=1).rsqrt()
        self.register_buffer("graph", (root[:, None] * graph * root).to_sparse())

    def forward(self) -> Tensor:
        layers = [self.table.weight]
        for _ in range(3):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        return torch.stack(layers).mean(0)


@bench.healthy
def light_graph_convolution_pairwise_ranking() -> Any:
    def step(model: Any, batch: Any) -> Tensor:
        user, right, wrong = batch
        nodes = model()
        gap = (nodes[user] * (nodes[50 + right] - nodes[50 + wrong])).sum(1)
        own = (model.table(user), model.table(50 + right), model.table(50 + wrong))
        return F.softplus(-gap).mean() + 1e-4 * sum(e.square().sum() for e in own) / len(user)

    def batch() -> Any:
        pairs = purchases().nonzero()
        chosen = pairs[torch.randint(len(pairs), (256,))]
        return chosen[:, 0], chosen[:, 1], torch.randint(40, (256,))

    return {"model": LightGraph, "batch": batch, "step": step, "optimizer": adam(1e-2)}


class Translations(nn.Module):
    """Entities and relations as vectors; a relation leads from one to the other."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.entity, self.relation = nn.Embedding(60, width), nn.Embedding(4, width)
        for table in (self.entity, self.relation):
            nn.init.uniform_(table.weight, -6 / width**0.5, 6 / width**0.5)
        with torch.no_grad():
            self.relation.weight.copy_(F.normalize(self.relation.weight, dim=1))

    def forward(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        h, t = (F.normalize(self.entity(e), dim=1) for e in (head, tail))
        return (h + self.relation(relation) - t).norm(p=1, dim=1)


@bench.healthy
def knowledge_graph_by_translation() -> Any:
    def step(model: nn.Module, batch: Any) -> Tensor:
        head, relation, tail, other, which = batch
        right = model(head, relation, tail)
        wrong = model(
            torch.where(which, other, head), relation, torch.where(which, tail, other)
        )  # a corrupted head or a corrupted tail
        return F.relu(2.0 + right - wrong).mean()

    def batch() -> Any:
        head, relation = torch.randint(60, (256,)), torch.randint(4, (256,))
        tail = (head + torch.tensor([1, 5, 12, 30])[relation]) % 60
        return head, relation, tail, torch.randint(60, (256,)), torch.rand(256) < 0.5

    return {"model": Translations, "batch": batch, "step": step, "optimizer": adam(1e-2)}


@cache
def citations() -> tuple[Tensor, Tensor, Tensor]:
    """Edges of a graph of 90 papers of three fields, their normalized matrix, and features."""
    random = torch.Generator().manual_seed(6)
    field = torch.arange(90) % 3
    odds = torch.where(field[:, None] == field, 0.15, 0.01)
    upper = (torch.rand(90, 90, generator=random) < odds).float().triu(1)
    full = upper + upper.T + torch.eye(90)
    root = full.sum(1).rsqrt()
    features = torch.randn(90, 16, generator=random) + 1.5 * F.one_hot(field, 16)
    return upper.nonzero(), root[:, None] * full * root, features


class GraphCoder(nn.Module):
    """Two graph convolutions to a mean and a log-variance for each node; links are products."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mean, self.log_std = (
            nn.Linear(n, m, bias=False) for n, m in ((16, 32), (32, 16), (32, 16))
        )
        for m in (self.first, self.mean, self.log_std):
            nn.init.xavier_uniform_(m.weight)

    def forward(self, graph: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(graph @ self.first(x))
        mean, log_std = graph @ self.mean(h), (graph @ self.log_std(h)).clamp(max=10)
        return mean + torch.randn_like(mean) * log_std.exp(), mean, log_std


@bench.healthy
def variational_graph_autoencoder_of_links() -> Any:
    def step(model: nn.Module, edges: Tensor) -> Tensor:
        _, graph, x = citations()
        z, mean, log_std = model(graph, x)
        wrong = torch.randint(90, edges.shape)
        right_scores = (z[edges[:, 0]] * z[edges[:, 1]]).sum(1)
        wrong_scores = (z[wrong[:, 0]] * z[wrong[:, 1]]).sum(1)
        kl = -0.5 * (1 + 2 * log_std - mean**2 - (2 * log_std).exp()).sum(1).mean()
        return F.softplus(-right_scores).mean() + F.softplus(wrong_scores).mean() + kl / 90

    return {
        "model": GraphCoder,
        "batch": lambda: citations()[0],
        "step": step,
        "optimizer": adam(1e-2),
    }


class Equivariant(nn.Module):
    """Messages from distances move features and coordinates; the last of them starts small."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.message = nn.Sequential(
            nn.Linear(2 * width + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        last = nn.Linear(width, 1, bias=False)
        nn.init.xavier_uniform_(last.weight, gain=0.001)
        self.move = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        gap = x[:, :, None] - x[:, None]
        n = x.shape[1]
        pairs = [h[:, :, None].expand(-1, -1, n, -1), h[:, None].expand(-1, n, -1, -1)]
        message = self.message(torch.cat([*pairs, gap.square().sum(-1, keepdim=True)], -1))
        message = message * (1 - torch.eye(n))[..., None]
        x = x + (gap * self.move(message)).mean(2)
        return h + self.update(torch.cat([h, message.sum(2)], -1)), x


class Particles(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 24)
        self.layers = nn.ModuleList(Equivariant() for _ in range(2))
        self.speed = nn.Linear(24, 1)

    def forward(self, charge: Tensor, x: Tensor, v: Tensor) -> Tensor:
        h = self.embed(charge)
        for layer in self.layers:
            h, x = layer(h, x)
        return x + self.speed(h) * v


@bench.healthy
def charged_particles_equivariant() -> Any:
    """Where five charges will be, from where they are and how they move."""

    def batch() -> Any:
        x, v = torch.randn(32, 5, 3), 0.5 * torch.randn(32, 5, 3)
        charge = 2.0 * torch.randint(2, (32, 5, 1)) - 1
        gap = x[:, :, None] - x[:, None]
        force = (
            gap * (charge[:, :, None] * charge[:, None]) / (1 + gap.norm(dim=-1)[..., None]) ** 2
        )
        return (charge, x, v), x + 0.5 * v + 0.5 * force.sum(2)

    return {"model": Particles, "batch": batch, "loss": nn.MSELoss(), "optimizer": adam(2e-3)}


class Reader(nn.Module):
    """Convolutions over a line of digits, a recurrence in both directions over its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d((2, 1)),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d((4, 2)),
        )  # fmt: skip
        self.rnn = nn.LSTM(32, 32, bidirectional=True)
        self.fc = nn.Linear(64, 11)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.cnn(x).squeeze(2).permute(2, 0, 1)
        return self.fc(self.rnn(columns)[0]).log_softmax(2)


@bench.healthy
def lines_of_digits_recurrent_over_columns_ctc() -> Any:
    def batch() -> Any:
        images, labels = digit_images()
        chosen = torch.randint(len(images), (32, 3))
        lines = images[chosen].transpose(1, 2).transpose(2, 3).flatten(3)
        return lines, labels[chosen] + 1

    def loss(o: Tensor, t: Tensor) -> Tensor:
        lengths = torch.full((o.shape[1],), o.shape[0]), torch.full((len(t),), 3)
        return F.ctc_loss(o, t, *lengths, zero_infinity=True)

    return {
        "model": Reader,
        "batch": batch,
        "loss": loss,
        "optimizer": lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3),
    }


class Separator(nn.Module):
    """A learned basis, masks of dilated convolutions, the basis back to two voices."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 48, 8, 4, bias=False)
        self.norm = nn.GroupNorm(1, 48, eps=1e-8)
        self.squeeze = nn.Conv1d(48, 24, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(24, 48, 1), nn.PReLU(), nn.GroupNorm(1, 48, eps=1e-8),
                nn.Conv1d(48, 48, 3, padding=2**i, dilation=2**i, groups=48), nn.PReLU(),
                nn.GroupNorm(1, 48, eps=1e-8), nn.Conv1d(48, 24, 1),
            )
            for i in range(3)
        )  # fmt: skip
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(24, 96, 1))
        self.decoder = nn.ConvTranspose1d(48, 1, 8, 4, bias=False)

    def forward(self, mixed: Tensor) -> Tensor:
        basis = F.relu(self.encoder(mixed[:, None]))
        x = self.squeeze(self.norm(basis))
        for block in self.blocks:
            x = x + block(x)
        masks = F.relu(self.mask(x)).unflatten(1, (2, 48))
        voices = (masks * basis[:, None]).flatten(0, 1)
        return self.decoder(voices).view(len(mixed), 2, -1)


@bench.healthy
def two_voices_separated_whichever_is_first() -> Any:
    def ratio(o: Tensor, t: Tensor) -> Tensor:
        o, t = o - o.mean(-1, keepdim=True), t - t.mean(-1, keepdim=True)
        along = (o * t).sum(-1, keepdim=True) * t / (t.square().sum(-1, keepdim=True) + 1e-8)
        noise = (o - along).square().sum(-1)
        return 10 * torch.log10(along.square().sum(-1) / (noise + 1e-8) + 1e-8)

    def loss(o: Tensor, t: Tensor) -> Tensor:
        kept, turned = ratio(o, t).mean(1), ratio(o, t.flip(1)).mean(1)
        return -torch.maximum(kept, turned).mean()

    def batch() -> Any:
        clock = torch.arange(256) / 256 * 2 * math.pi
        low = torch.sin((4 + 4 * torch.rand(8, 1)) * clock + 6 * torch.rand(8, 1))
        high = torch.sin((40 + 20 * torch.rand(8, 1)) * clock + 6 * torch.rand(8, 1))
        voices = torch.stack([low, high], 1)
        return voices.sum(1), voices

    return {
        "model": Separator,
        "batch": batch,
        "loss": loss,
        "optimizer": adam(3e-3),
        "clip": 5.0,
    }


@bench.healthy
def identities_by_the_hardest_of_the_batch() -> Any:
    """Four images of each digit; the farthest alike against the nearest unlike, soft margin."""

    def batch() -> Any:
        images, labels = digit_images()
        rows = [(labels == k).nonzero()[:, 0] for k in range(10)]
        chosen = torch.cat([row[torch.randint(len(row), (4,))] for row in rows])
        return images[chosen], labels[chosen]

    def loss(o: Tensor, t: Tensor) -> Tensor:
        squared = (o[:, None] - o).square().sum(2)
        distance = squared.clamp(min=1e-12).sqrt()
        alike = t[:, None] == t
        farthest = distance.masked_fill(~alike, 0).max(1).values
        nearest = distance.masked_fill(alike, 1e6).min(1).values
        return F.softplus(farthest - nearest).mean()

    return {
        "model": lambda: nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 32),
        ),
        "batch": batch,
        "loss": loss,
        "optimizer": adam(2e-3),
    }  # fmt: skip


@bench.healthy
def variance_invariance_covariance() -> Any:
    """Two views through encoder and expander, three terms weighted 25, 25 and 1."""

    def views() -> Any:
        x, _ = digits(96)()
        return tuple(
            x.roll(int(torch.randint(-1, 2, ())), 3) + 0.3 * torch.randn_like(x) for _ in range(2)
        )

    def step(model: nn.Module, batch: Any) -> Tensor:
        a, b = model(batch[0]), model(batch[1])
        loss = 25 * F.mse_loss(a, b)
        for z in (a, b):
            z = z - z.mean(0)
            loss = loss + 25 * F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2
            covariance = (z.T @ z) / (len(z) - 1)
            covariance = covariance - torch.diag(covariance.diagonal())
            loss = loss + covariance.square().sum() / z.shape[1]
        return loss

    return {
        "model": lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 128),
            nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 128, bias=False),
        ),
        "batch": views,
        "step": step,
        "optimizer": adamw(1e-3, weight_decay=1e-6),
    }  # fmt: skip


class Reverse(torch.autograd.Function):
    """Does nothing forward, turns and scales the gradient backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


class Domains(nn.Module):
    """Features that tell digits apart but not where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.classes = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
        self.domain = nn.Sequential(nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor, strength: float = 0.3) -> tuple[Tensor, Tensor]:
        h = self.features(x)
        return self.classes(h), self.domain(Reverse.apply(h, strength))


@bench.healthy
def digits_of_two_domains_gradient_reversed() -> Any:
    def step(model: nn.Module, batch: Any) -> Tensor:
        (source, y), (target, _) = batch
        scores, here = model(source)
        _, there = model(0.7 * target.flip(3) + 0.3)
        origin = F.cross_entropy(here, torch.zeros(len(y), dtype=torch.long))
        origin = origin + F.cross_entropy(there, torch.ones(len(y), dtype=torch.long))
        return F.cross_entropy(scores, y) + origin

    return {
        "model": Domains,
        "batch": lambda: (digits(48)(), digits(48)()),
        "step": step,
        "optimizer": sgd(0.02, momentum=0.9, weight_decay=5e-4),
    }
