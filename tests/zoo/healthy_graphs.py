"""Healthy trainings on sets, point clouds, graphs, and pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.healthy_dense import CE, mlp
from tests.zoo.recipes import Zoo, adam

zoo = Zoo()


def graph(nodes: int = 60, classes: int = 3) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """A stochastic block model with noisy node features; the adjacency is normalized."""
    labels = torch.arange(nodes) % classes
    same = labels[:, None] == labels[None, :]
    edges = (torch.rand(nodes, nodes) < torch.where(same, 0.3, 0.03)).float()
    edges = ((edges + edges.t()) > 0).float().fill_diagonal_(1)
    degree = edges.sum(1)
    adjacency = edges / torch.sqrt(degree[:, None] * degree[None, :])
    features = torch.randn(nodes, 16)
    features[:, :classes] += F.one_hot(labels, classes)
    return (features, adjacency), labels


class Gcn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(16, 32)
        self.lin2 = nn.Linear(32, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        x = F.relu(adjacency @ self.lin1(x))
        x = F.dropout(x, 0.5, self.training)
        return adjacency @ self.lin2(x)


@zoo
def gcn_dense_adjacency() -> Any:
    return {"model": Gcn, "batch": graph, "loss_fn": CE, "optimizer": adam(1e-2)}


class GatLayer(nn.Module):
    def __init__(self, fan_in: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.weight = nn.Linear(fan_in, heads * width, bias=False)
        self.source = nn.Parameter(torch.empty(heads, width))
        self.target = nn.Parameter(torch.empty(heads, width))
        nn.init.xavier_uniform_(self.source)
        nn.init.xavier_uniform_(self.target)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.weight(x).view(len(x), self.heads, self.width)
        left, right = (h * self.source).sum(-1), (h * self.target).sum(-1)
        scores = F.leaky_relu(left[:, None] + right[None, :], 0.2)
        scores = scores.masked_fill(adjacency[:, :, None] == 0, -1e9)
        return torch.einsum("ijh,jhw->ihw", F.softmax(scores, dim=1), h).flatten(1)


@zoo
def gat_dense_adjacency() -> Any:
    class Gat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1 = GatLayer(16, 8, 4)
            self.layer2 = GatLayer(32, 3, 1)

        def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
            return self.layer2(F.elu(self.layer1(x, adjacency)), adjacency)

    return {"model": Gat, "batch": graph, "loss_fn": CE, "optimizer": adam(1e-2)}


@zoo
def gin_graph_classification() -> Any:
    class Gin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([mlp(4, 32, 32), mlp(32, 32, 32)])
            self.head = nn.Linear(32, 2)

        def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
            for layer in self.layers:
                x = F.relu(layer(x + adjacency @ x / 4))
            return self.head(x.mean(dim=1))

    def batch() -> Any:
        y = torch.randint(2, (32,))
        chance = torch.where(y == 1, 0.5, 0.2)[:, None, None]
        edges = (torch.rand(32, 12, 12) < chance).float()
        return (torch.randn(32, 12, 4) * 0.1 + 1, edges), y

    return {"model": Gin, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


class PointNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32)
        self.conv2, self.bn2 = nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64)
        self.head = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.head(torch.max(x, 2)[0])


@zoo(slow=True)
def point_net() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (32,))
        points = torch.randn(32, 3, 64)
        sphere = F.normalize(points, dim=1) * 1.5
        return torch.where(y[:, None, None] == 1, sphere, points), y

    return {"model": PointNet, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-3)}


@zoo
def deep_sets_sum() -> Any:
    class DeepSets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.phi = mlp(1, 32, 32)
            self.rho = mlp(32, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.rho(self.phi(x).sum(dim=1))

    def batch() -> tuple[Tensor, Tensor]:
        x = torch.randn(64, 10, 1)
        return x, x.mean(dim=1) * 10**0.5

    return {"model": DeepSets, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(1e-3)}


@zoo
def matrix_factorization() -> Any:
    class Factors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users = nn.Embedding(40, 8)
            self.items = nn.Embedding(60, 8)
            nn.init.normal_(self.users.weight, std=0.3)
            nn.init.normal_(self.items.weight, std=0.3)

        def forward(self, pairs: Tensor) -> Tensor:
            return (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(dim=1)

    def batch() -> tuple[Tensor, Tensor]:
        pairs = torch.stack([torch.randint(40, (128,)), torch.randint(60, (128,))], dim=1)
        return pairs, torch.where(pairs.sum(1) % 2 == 0, 1.0, -1.0)

    return {"model": Factors, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(2e-2)}


@zoo
def skip_gram_negative_sampling() -> Any:
    class SkipGram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.center = nn.Embedding(100, 16)
            self.context = nn.Embedding(100, 16)
            nn.init.uniform_(self.center.weight, -0.5 / 16, 0.5 / 16)
            nn.init.zeros_(self.context.weight)

        def forward(self, center: Tensor, context: Tensor) -> Tensor:
            return (self.center(center)[:, None] * self.context(context)).sum(-1)

    def batch() -> Any:
        center = torch.randint(100, (256,))
        near = (center[:, None] + torch.randint(-2, 3, (256, 1))) % 100
        context = torch.cat([near, torch.randint(100, (256, 4))], dim=1)
        y = torch.zeros(256, 5)
        y[:, 0] = 1
        return (center, context), y

    return {
        "model": SkipGram,
        "batch": batch,
        "loss_fn": nn.BCEWithLogitsLoss(),
        "optimizer": adam(2e-2),
    }


@zoo
def mixture_of_experts_top_2() -> Any:
    class Moe(nn.Module):
        def __init__(self, width: int = 32, experts: int = 4) -> None:
            super().__init__()
            self.stem = nn.Linear(64, width)
            self.router = nn.Linear(width, experts)
            self.experts = nn.ModuleList(mlp(width, 64, width) for _ in range(experts))
            self.head = nn.Linear(width, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.stem(x))
            weight, chosen = F.softmax(self.router(x), dim=-1).topk(2, dim=-1)
            weight = weight / weight.sum(-1, keepdim=True)
            out = torch.zeros_like(x)
            for i, expert in enumerate(self.experts):
                row, place = torch.where(chosen == i)
                if len(row):
                    out = out.index_add(0, row, weight[row, place, None] * expert(x[row]))
            return self.head(x + out)

    from tests.zoo.recipes import rows

    return {"model": Moe, "batch": rows("digits", 64), "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo(slow=True)
def perceiver_shared_cross_attention() -> Any:
    class Perceiver(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.latents = nn.Parameter(torch.randn(8, width) * 0.02)
            self.inputs = nn.Linear(3, width)
            self.norm = nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
            self.mlp = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width)
            )
            self.head = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.inputs(x)
            latents = self.latents.expand(len(x), -1, -1)
            for _ in range(3):
                latents = latents + self.attention(self.norm(latents), x, x)[0]
                latents = latents + self.mlp(latents)
            return self.head(latents.mean(dim=1))

    def batch() -> tuple[Tensor, Tensor]:
        y = torch.randint(2, (32,))
        return torch.randn(32, 20, 3) + y[:, None, None] * 0.5, y

    return {"model": Perceiver, "batch": batch, "loss_fn": CE, "optimizer": adam(1e-3)}


@zoo(slow=True)
def slot_attention_like() -> Any:
    class Slots(nn.Module):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.inputs = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width))
            self.slots = nn.Parameter(torch.randn(1, 4, width))
            self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
            self.norm_in, self.norm_slots = nn.LayerNorm(width), nn.LayerNorm(width)
            self.gru = nn.GRUCell(width, width)
            self.decoder = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 2))

        def forward(self, x: Tensor) -> Tensor:
            h = self.norm_in(self.inputs(x))
            k, v = self.k(h), self.v(h)
            slots = self.slots.expand(len(x), -1, -1)
            for _ in range(2):
                q = self.q(self.norm_slots(slots))
                share = F.softmax(k @ q.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1) + 1e-8
                update = (share / share.sum(1, keepdim=True)).transpose(1, 2) @ v
                slots = self.gru(update.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            return self.decoder(slots)

    def batch() -> tuple[Tensor, Tensor]:
        centers = torch.randn(16, 4, 2)
        x = centers.repeat_interleave(6, dim=1) + 0.1 * torch.randn(16, 24, 2)
        return x, centers

    def chamfer(out: Tensor, centers: Tensor) -> Tensor:
        distance = torch.cdist(out, centers)
        return distance.amin(dim=1).mean() + distance.amin(dim=2).mean()

    return {"model": Slots, "batch": batch, "loss_fn": chamfer, "optimizer": adam(3e-3)}
