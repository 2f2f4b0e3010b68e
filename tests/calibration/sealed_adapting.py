"""Sealed and healthy: networks that were trained before, adapted, aligned, pruned, quantized."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import digits, rows, text

bench = Bench()

Weights = dict[str, Tensor]


def trained(
    model: nn.Module, draw: Callable[[], Any], loss_of: Any, steps: int = 60, lr: float = 5e-3
) -> Weights:
    """Return the weights of `model` after a training of its own, the same at each call."""
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, draw()).backward()
        optimizer.step()
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


def ready(build: Callable[[], nn.Module], weights: Weights) -> Any:
    model = build()
    model.load_state_dict(weights)
    return model


def seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    """Make once, under a seed of its own, whatever the seed of the run is."""

    @cache
    def made() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()

    return made


def dialects(size: int = 24, only: int | None = None) -> Tensor:
    """Sequences after one of two rules; the first token, 48 or 49, tells which."""
    rule = torch.randint(2, (size,)) if only is None else torch.full((size,), only)
    tokens = [torch.randint(48, (size,))]
    for _ in range(12):
        tokens.append((tokens[-1] * torch.tensor([5, 7])[rule] + 1 + 10 * rule) % 48)
    return torch.stack([48 + rule, *tokens], 1)


def small_llama() -> nn.Module:
    return hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=32,
            bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
        )
    )  # fmt: skip


def next_token_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, labels=tokens).loss


@seeded
def speaker() -> Weights:
    return trained(small_llama(), dialects, next_token_loss, 150)


class Prompted(nn.Module):
    """Four vectors in front of the tokens of a language model that is left as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.lm = ready(small_llama, speaker()).requires_grad_(False)
        words = self.lm.get_input_embeddings().weight
        self.prompt = nn.Parameter(words[torch.randint(50, (4,))].detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.lm.get_input_embeddings()(tokens)
        joined = torch.cat([self.prompt.expand(len(tokens), -1, -1), words], 1)
        return self.lm(inputs_embeds=joined).logits[:, 4:-1]


@bench.healthy
def prompts_tuned_for_one_dialect() -> Any:
    def batch() -> Any:
        tokens = dialects(24, only=1)[:, 1:]
        return tokens, tokens[:, 1:]

    return {
        "model": Prompted,
        "batch": batch,
        "loss": lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()),
        "optimizer": adam(0.1),
    }


@bench.healthy
def biases_and_head_of_a_trained_transformer() -> Any:
    """All other weights but the pooler's stay as they were trained."""

    def model() -> nn.Module:
        net = hf.BertForSequenceClassification(bert)
        net.bert.load_state_dict(encoder(), strict=False)
        for name, p in net.named_parameters():
            fresh = name.startswith(("classifier", "bert.pooler"))
            p.requires_grad_(fresh or name.endswith("bias"))
        return net

    bert = hf.BertConfig(
        vocab_size=52, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=24, num_labels=3,
    )  # fmt: skip

    @seeded
    def encoder() -> Weights:
        net = hf.BertForMaskedLM(bert)

        def hidden(model: nn.Module, tokens: Tensor) -> Tensor:
            gone = torch.rand(tokens.shape) < 0.15
            labels = tokens.masked_fill(~gone, -100)
            return model(input_ids=tokens.masked_fill(gone, 51), labels=labels).loss

        weights = trained(net, lambda: text(50, 15, 32), hidden, 80)
        return {k.removeprefix("bert."): v for k, v in weights.items() if k.startswith("bert.")}

    def batch() -> dict[str, Tensor]:
        tokens = text(50, 15, 48)
        return {
            "input_ids": tokens,
            "labels": (tokens < 17).sum(1).sub(3).div(2).long().clamp(0, 2),
        }

    return {"model": model, "batch": batch, "optimizer": adamw(1e-2)}


class Reader(nn.Module):
    """The language model's recurrence; last, mean and largest state into a fresh head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.lower = nn.LSTM(24, 40, batch_first=True)
        self.upper = nn.LSTM(40, 40, batch_first=True)
        self.head = nn.Sequential(
            nn.BatchNorm1d(120), nn.Dropout(0.1), nn.Linear(120, 32), nn.ReLU(),
            nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 2),
        )  # fmt: skip

    def states(self, tokens: Tensor) -> Tensor:
        return self.upper(self.lower(self.embed(tokens))[0])[0]

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.states(tokens)
        return self.head(torch.cat([h[:, -1], h.mean(1), h.max(1).values], 1))


@seeded
def read_before() -> Weights:
    net, out = Reader(), nn.Linear(40, 50)
    both = nn.ModuleList([net, out])

    def loss(_: nn.Module, tokens: Tensor) -> Tensor:
        scores = out(net.states(tokens[:, :-1]))
        return F.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())

    weights = trained(both, lambda: dialects(32) % 48, loss, 80)
    kept = {k[2:]: v for k, v in weights.items() if k.startswith("0.")}
    return {k: v for k, v in kept.items() if not k.startswith("head.")}


@bench.healthy(in_loop=True)
def layers_unfrozen_from_above_one_by_one() -> Any:
    """The head first; every ten steps the next layer joins with a smaller rate."""

    def model() -> nn.Module:
        net = Reader()
        net.load_state_dict(read_before(), strict=False)
        for part in (net.embed, net.lower, net.upper):
            part.requires_grad_(False)
        return net

    def loop(net: Any, _: Any, draw: Any, steps: int) -> Iterator[float]:
        optimizer = torch.optim.Adam(net.head.parameters(), 5e-3, betas=(0.8, 0.99))
        waiting = [(net.upper, 2e-3), (net.lower, 8e-4), (net.embed, 3e-4)]
        for number in range(steps):
            if number and number % 10 == 0 and waiting:
                part, lr = waiting.pop(0)
                part.requires_grad_(True)
                optimizer.add_param_group({"params": list(part.parameters()), "lr": lr})
            x, y = draw()
            loss = F.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    def batch() -> Any:
        tokens = dialects(48)
        return tokens[:, 1:], tokens[:, 0] - 48

    return {"model": model, "batch": batch, "optimizer": lambda m: None, "loop": loop}


@bench.healthy
def vision_transformer_rates_by_depth() -> Any:
    """Trained to tell odd from even; now all digits, each layer at 0.75 of the rate above it."""

    def build(labels: int) -> nn.Module:
        return hf.ViTForImageClassification(
            hf.ViTConfig(
                image_size=16, patch_size=4, num_channels=1, num_labels=labels, hidden_size=32,
                num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
            )
        )  # fmt: skip

    @seeded
    def parity() -> Weights:
        def loss(net: nn.Module, batch: Any) -> Tensor:
            return F.cross_entropy(net(batch[0]).logits, batch[1] % 2)

        weights = trained(build(2), digits(48, scale=2), loss, 60, lr=2e-3)
        return {k: v for k, v in weights.items() if not k.startswith("classifier")}

    def model() -> nn.Module:
        net = build(10)
        net.load_state_dict(parity(), strict=False)
        return net

    def optimizer(net: Any) -> torch.optim.Optimizer:
        def depth(name: str) -> int:
            if name.startswith(("classifier", "vit.layernorm")):
                return 4
            if "embeddings" in name:
                return 0
            return 1 + int(next(part for part in name.split(".") if part.isdigit()))

        groups = [
            {
                "params": [p],
                "lr": 5e-3 * 0.75 ** (4 - depth(n)),
                "weight_decay": 0.05 if p.ndim > 1 else 0.0,
            }
            for n, p in net.named_parameters()
        ]
        return torch.optim.AdamW(groups)

    return {
        "model": model,
        "batch": digits(48, scale=2),
        "loss": lambda o, t: F.cross_entropy(o.logits, t),
        "optimizer": optimizer,
    }


def log_likelihood(model: nn.Module, tokens: Tensor, start: int) -> Tensor:
    """Return the log-probability of what stands behind `start`, for each sequence."""
    logs = model(input_ids=tokens).logits[:, :-1].log_softmax(-1)
    each = logs.gather(2, tokens[:, 1:, None])[..., 0]
    return each[:, start - 1 :].sum(1)


class Preferring(nn.Module):
    """A policy and the frozen copy of it that it is held to."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = ready(small_llama, speaker())
        self.reference = copy.deepcopy(self.policy).requires_grad_(False)

    def forward(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        both = torch.cat([chosen, rejected])
        with torch.no_grad():
            kept = log_likelihood(self.reference, both, 4)
        gain = log_likelihood(self.policy, both, 4) - kept
        return -F.logsigmoid(0.1 * (gain[: len(chosen)] - gain[len(chosen) :])).mean()


@bench.healthy
def preferences_optimized_directly() -> Any:
    """Endings by the second rule are preferred to endings by the first."""

    def step(model: nn.Module, batch: Any) -> Tensor:
        return model(*batch)

    def batch() -> Any:
        start = dialects(24)[:, :4]
        good, bad = [start], [start]
        for _ in range(6):
            good.append((good[-1][:, -1:] * 7 + 11) % 48)
            bad.append((bad[-1][:, -1:] * 5 + 1) % 48)
        return torch.cat(good, 1), torch.cat(bad, 1)

    return {
        "model": Preferring,
        "batch": batch,
        "step": step,
        "optimizer": adamw(1e-3),
        "clip": 1.0,
    }


@bench.healthy(in_loop=True)
def answers_sampled_in_groups_and_ranked() -> Any:
    """Eight answers to each prompt; advantages within the group, held to a reference."""

    def loop(policy: nn.Module, optimizer: Any, draw: Any, steps: int) -> Iterator[float]:
        reference = copy.deepcopy(policy).requires_grad_(False)
        for _ in range(steps):
            tokens = draw()[:, :3].repeat_interleave(8, 0)
            with torch.no_grad():
                for _ in range(4):
                    chances = policy(input_ids=tokens).logits[:, -1].softmax(-1)
                    tokens = torch.cat([tokens, torch.multinomial(chances, 1)], 1)
            reward = (tokens[:, 3:] < 24).float().mean(1)
            groups = reward.view(-1, 8)
            spread = groups.std(1, keepdim=True) + 1e-4
            advantage = ((groups - groups.mean(1, keepdim=True)) / spread).flatten()
            with torch.no_grad():
                kept = log_likelihood(reference, tokens, 3)
            logs = log_likelihood(policy, tokens, 3)
            ratio = (logs - logs.detach()).exp()
            apart = (kept - logs).exp() - (kept - logs) - 1
            loss = -(ratio * advantage).mean() + 0.01 * apart.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            yield -float(reward.mean())

    @seeded
    def unsure() -> Weights:
        return trained(small_llama(), dialects, next_token_loss, 40)

    return {
        "model": lambda: ready(small_llama, unsure()),
        "batch": lambda: dialects(8),
        "optimizer": adamw(1e-3),
        "loop": loop,
    }


def digit_net() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def half(low: bool, size: int = 64) -> Callable[[], Any]:
    """Digits below five, or the others."""

    def batch() -> Any:
        x, y = rows("digits", 3 * size)()
        kept = (y < 5) == low
        return x[kept][:size], y[kept][:size]

    return batch


def classes(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


@seeded
def lower_digits() -> Weights:
    return trained(digit_net(), half(True), classes, 100)


@bench.healthy
def second_task_without_forgetting_the_first() -> Any:
    """The squared gradients of the first task say which weights are to stay."""

    @seeded
    def importance() -> Any:
        net = ready(digit_net, lower_digits())
        total = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
        x, y = half(True, 200)()
        for row, label in zip(x, y, strict=True):
            net.zero_grad()
            F.cross_entropy(net(row[None]), label[None]).backward()
            for n, p in net.named_parameters():
                total[n] += p.grad**2 / len(x)
        return {n: p.detach().clone() for n, p in net.named_parameters()}, total

    def model() -> nn.Module:
        importance()
        return ready(digit_net, lower_digits())

    def step(model: nn.Module, batch: Any) -> Tensor:
        before, weight = importance()
        moved = [(weight[n] * (p - before[n]) ** 2).sum() for n, p in model.named_parameters()]
        return classes(model, batch) + 50 * torch.stack(moved).sum()

    return {
        "model": model,
        "batch": half(False),
        "step": step,
        "optimizer": sgd(0.02, momentum=0.9),
    }


class Rounded(nn.Linear):
    """Weights of -1, 0 or 1 times their mean size, inputs in eight bits; straight through."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.detach().abs().mean() + 1e-8
        ternary = (self.weight.detach() / scale).round().clamp(-1, 1) * scale
        weight = self.weight + (ternary - self.weight).detach()
        step = x.detach().abs().amax(1, keepdim=True) / 127 + 1e-8
        x = x + ((x / step).round() * step - x).detach()
        return F.linear(x, weight, self.bias)


@bench.healthy
def trained_network_made_ternary() -> Any:
    def flat() -> Any:
        x, y = digits(128)()
        return x.flatten(1), y

    @seeded
    def whole() -> Weights:
        return trained(digit_net(), flat, classes, 60, lr=3e-3)

    def model() -> nn.Module:
        net = ready(digit_net, whole())
        for i in (0, 2, 4):
            layer = Rounded(net[i].in_features, net[i].out_features)
            layer.load_state_dict(net[i].state_dict())
            net[i] = layer
        return net

    return {
        "model": model,
        "batch": flat,
        "loss": nn.CrossEntropyLoss(),
        "optimizer": sgd(0.02, momentum=0.9),
    }


@bench.healthy
def three_quarters_pruned_and_trained_on() -> Any:
    """The smallest three of four weights are masked for good, the rest recovers."""

    @seeded
    def whole() -> Weights:
        return trained(digit_net(), rows("digits", 64), classes, 60, lr=3e-3)

    def model() -> nn.Module:
        net = ready(digit_net, whole())
        layers = [(net[i], "weight") for i in (0, 2, 4)]
        prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.75)
        return net

    return {
        "model": model,
        "batch": rows("digits", 64),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adam(1e-3),
    }
