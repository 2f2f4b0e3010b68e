"""Sealed and healthy: text, series, audio, graphs, transformers from a configuration."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tests.calibration.case import Bench, adam, adamw, sgd
from tests.zoo.recipes import marked, next_tokens, text, waves

bench = Bench()
CE = nn.CrossEntropyLoss()
K = 40


def flat_ce(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o.flatten(0, 1), t.flatten())


class Rms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale


class Gated(nn.Module):
    """A decoder layer: rotary grouped attention, RMS norms, a gated feed-forward."""

    def __init__(self, width: int, heads: int, groups: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = Rms(width), Rms(width)
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * groups * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)
        self.qn = Rms(self.size) if qk_norm else nn.Identity()
        self.kn = Rms(self.size) if qk_norm else nn.Identity()

    def rotate(self, x: Tensor) -> Tensor:
        half = self.size // 2
        angle = torch.arange(x.shape[2])[:, None] * 100.0 ** (-torch.arange(half) / half)
        a, b = x.chunk(2, -1)
        c, s = angle.cos(), angle.sin()
        return torch.cat([a * c - b * s, a * s + b * c], -1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        h = self.norm1(x)
        q = self.rotate(self.qn(self.q(h).view(n, t, self.heads, -1).transpose(1, 2)))
        k, v = self.kv(h).view(n, t, 2, self.groups, -1).permute(2, 0, 3, 1, 4)
        repeat = self.heads // self.groups
        k = self.rotate(self.kn(k)).repeat_interleave(repeat, 1)
        v = v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class SmallLm(nn.Module):
    """Embedding, decoder layers, a head that may share the embedding's weight."""

    def __init__(self, depth: int = 3, tied: bool = False, **layer: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(K, 32)
        nn.init.normal_(self.embed.weight, std=0.1 if tied else 1.0)
        self.blocks = nn.Sequential(*(Gated(32, 4, 2, **layer) for _ in range(depth)))
        self.norm = Rms(32)
        self.head = nn.Linear(32, K, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids))))


@bench.healthy
def rotary_grouped_attention_language_model() -> Any:
    return {
        "model": SmallLm,
        "batch": next_tokens(K),
        "loss": flat_ce,
        "optimizer": adamw(3e-3, betas=(0.9, 0.95), weight_decay=0.1),
        "clip": 1.0,
        "schedule": lambda o: LambdaLR(o, lambda s: min(1.0, (s + 1) / 10)),
    }


@bench.healthy
def tied_weights_normalized_queries() -> Any:
    return {
        "model": lambda: SmallLm(tied=True, qk_norm=True),
        "batch": next_tokens(K),
        "loss": flat_ce,
        "optimizer": adamw(3e-3),
    }


@bench.healthy
def tied_weights_bf16_two_micro_batches() -> Any:
    return {
        "model": lambda: SmallLm(2, tied=True),
        "batch": next_tokens(K),
        "loss": flat_ce,
        "optimizer": adamw(3e-3),
        "precision": "bf16",
        "accumulate": 2,
    }


class Experts(nn.Module):
    """A router that picks one of four feed-forward networks, with a loss that balances them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(4)
        )
        self.balance = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        p = self.router(flat).softmax(-1)
        weight, chosen = p.max(-1)
        y = torch.zeros_like(flat)
        for i, expert in enumerate(self.experts):
            at = (chosen == i).nonzero()[:, 0]
            y = y.index_add(0, at, expert(flat[at]) * weight[at, None])
        self.balance = 4 * (F.one_hot(chosen, 4).float().mean(0) * p.mean(0)).sum()
        return y.view_as(x)


class Switch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(K, 32)
        self.mix = nn.GRU(32, 32, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.experts = Experts(32)
        self.head = nn.Linear(32, K)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.mix(self.embed(ids))[0]
        return self.head(x + self.experts(self.norm(x)))


def _switched(model: Any, batch: Any) -> Tensor:
    return flat_ce(model(batch[0]), batch[1]) + 0.01 * model.experts.balance


@bench.healthy
def switch_experts_over_a_gru() -> Any:
    return {"model": Switch, "batch": next_tokens(K), "step": _switched, "optimizer": adam(5e-3)}


def reversal(size: int = 32, length: int = 6) -> Any:
    source = torch.randint(2, 20, (size, length))
    target = source.flip(1)
    start = torch.cat([torch.ones(size, 1, dtype=torch.long), target[:, :-1]], 1)
    return (source, start), target


class Additive(nn.Module):
    """Recurrent encoder and decoder with additive attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 24)
        self.encoder = nn.LSTM(24, 24, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(48, 32)
        self.decoder = nn.LSTMCell(24 + 48, 32)
        self.keys, self.query, self.score = nn.Linear(48, 32), nn.Linear(32, 32), nn.Linear(32, 1)
        self.head = nn.Linear(32 + 48, 20)

    def forward(self, source: Tensor, start: Tensor) -> Tensor:
        memory, _ = self.encoder(self.embed(source))
        h = torch.tanh(self.bridge(memory.mean(1)))
        c, keys, outputs = torch.zeros_like(h), self.keys(memory), []
        for t in range(start.shape[1]):
            a = self.score(torch.tanh(keys + self.query(h)[:, None])).softmax(1)
            context = (a * memory).sum(1)
            h, c = self.decoder(torch.cat([self.embed(start[:, t]), context], 1), (h, c))
            outputs.append(self.head(torch.cat([h, context], 1)))
        return torch.stack(outputs, 1)


@bench.healthy
def reversal_with_additive_attention() -> Any:
    return {
        "model": Additive,
        "batch": reversal,
        "loss": flat_ce,
        "optimizer": adam(5e-3),
        "clip": 1.0,
    }


class Pointer(nn.Module):
    """Points at the largest number of a set."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 32))
        self.mix = nn.MultiheadAttention(32, 2, batch_first=True)
        self.point = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.point(h + self.mix(h, h, h, need_weights=False)[0])[..., 0]


@bench.healthy
def pointer_to_the_largest() -> Any:
    def batch() -> Any:
        x = torch.randn(64, 8, 1)
        return x, x[..., 0].argmax(1)

    return {"model": Pointer, "batch": batch, "loss": CE, "optimizer": adam(5e-3)}


def tones(size: int = 32, length: int = 256) -> Any:
    y = torch.randint(4, (size,))
    t = torch.arange(length) / length
    pitch = torch.tensor([6.0, 11.0, 19.0, 30.0])[y][:, None]
    x = (2 * math.pi * (pitch * t + torch.rand(size, 1))).sin() + 0.3 * torch.randn(size, length)
    return x[:, None], y


@bench.healthy
def raw_audio_strided_convolutions() -> Any:
    return {
        "model": lambda: nn.Sequential(
            nn.Conv1d(1, 16, 16, 4),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Conv1d(16, 32, 8, 4),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(32, 4),
        ),
        "batch": tones,
        "loss": CE,
        "optimizer": adam(3e-3),
    }


class Spectrum(nn.Module):
    """Log magnitudes of a short-time Fourier transform, standardized, a recurrence over them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(33)
        self.rnn = nn.GRU(33, 32, batch_first=True)
        self.head = nn.Linear(32, 4)
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, x: Tensor) -> Tensor:
        s = torch.stft(x[:, 0], 64, 32, window=self.window, return_complex=True).abs()
        return self.head(self.rnn(self.norm((s + 1e-4).log().transpose(1, 2)))[0].mean(1))


@bench.healthy
def spectrogram_gru() -> Any:
    return {"model": Spectrum, "batch": tones, "loss": CE, "optimizer": adam(5e-3)}


def seasonal(size: int = 48, seen: int = 36, ahead: int = 12) -> Any:
    t = torch.arange(seen + ahead)
    level = torch.randn(size, 1)
    phase = 6.28 * torch.rand(size, 1)
    x = level + 0.02 * t * torch.randn(size, 1) + (t * 6.28 / 12 + phase).sin()
    x = x + 0.1 * torch.randn_like(x)
    mean, std = x[:, :seen].mean(1, keepdim=True), x[:, :seen].std(1, keepdim=True)
    x = (x - mean) / std
    return x[:, :seen], x[:, seen:]


class Nbeats(nn.Module):
    """Blocks that explain a part of the series away and forecast from it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(36, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 48)
            )
            for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        forecast: Any = 0
        for i, block in enumerate(self.blocks):
            back, ahead = block(x).split([36, 12], 1)
            forecast = forecast + ahead
            if i < 2:
                x = x - back
        return forecast


@bench.healthy
def n_beats_forecast() -> Any:
    return {"model": Nbeats, "batch": seasonal, "loss": nn.L1Loss(), "optimizer": adam(1e-3)}


@bench.healthy
def patched_series_transformer() -> Any:
    class Patched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(6, 32)
            self.place = nn.Parameter(0.02 * torch.randn(6, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(192, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.embed(x.unflatten(1, (6, 6))) + self.place).flatten(1))

    return {"model": Patched, "batch": seasonal, "loss": nn.MSELoss(), "optimizer": adam(2e-3)}


@bench.healthy
def deep_ar_gaussian_steps() -> Any:
    class DeepAr(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(1, 24, 2, batch_first=True)
            self.out = nn.Linear(24, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mean, raw = self.out(self.rnn(x[..., None])[0]).unbind(-1)
            return mean, F.softplus(raw) + 1e-3

    def batch() -> Any:
        x = torch.cat(seasonal(), 1)
        return x[:, :-1], x[:, 1:]

    return {
        "model": DeepAr,
        "batch": batch,
        "loss": lambda o, t: (o[1].log() + 0.5 * ((t - o[0]) / o[1]) ** 2).mean(),
        "optimizer": adam(5e-3),
        "clip": 10.0,
    }


class StateSpace(nn.Module):
    """A diagonal linear recurrence of complex modes, run as a convolution."""

    def __init__(self, width: int = 24, modes: int = 8) -> None:
        super().__init__()
        self.log_decay = nn.Parameter(torch.full((width, modes), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(modes).repeat(width, 1).float())
        self.c = nn.Parameter(torch.randn(width, modes, 2) * modes**-0.5)
        self.step = nn.Parameter(torch.rand(width) * 2 - 4)
        self.skip = nn.Parameter(torch.ones(width))
        self.mix = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        u = self.norm(x).transpose(1, 2)
        length = u.shape[-1]
        dt = self.step.exp()[:, None]
        a = torch.complex(-self.log_decay.exp(), self.frequency) * dt
        c = torch.view_as_complex(self.c) * dt
        kernel = 2 * (c[..., None] * (a[..., None] * torch.arange(length)).exp()).real.sum(1)
        y = torch.fft.irfft(torch.fft.rfft(u, 2 * length) * torch.fft.rfft(kernel, 2 * length))
        y = y[..., :length] + self.skip[:, None] * u
        return x + F.glu(self.mix(F.gelu(y).transpose(1, 2)), -1)


@bench.healthy
def diagonal_state_spaces() -> Any:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(1, 24), nn.Linear(24, 4)
            self.blocks = nn.Sequential(StateSpace(), StateSpace())

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(self.first(x)).mean(1))

    return {"model": Net, "batch": lambda: waves(48, 40), "loss": CE, "optimizer": adamw(5e-3)}


@bench.healthy
def unrolled_gru_cell_layernorm() -> Any:
    class Cells(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(8, 32)
            self.norm = nn.LayerNorm(32)
            self.head = nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = x.new_zeros(len(x), 32)
            for t in range(x.shape[1]):
                h = self.norm(self.cell(x[:, t], h))
            return self.head(h)

    return {"model": Cells, "batch": marked, "loss": CE, "optimizer": sgd(0.05), "clip": 1.0}


def ring_of_cliques() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    y = torch.arange(80) % 4
    near = torch.where(y[:, None] == y[None], 0.3, 0.04)
    a = torch.triu((torch.rand(80, 80, generator=generator) < near).float(), 1)
    a = a + a.T
    x = F.one_hot(y, 4).float() + 1.2 * torch.randn(80, 4, generator=generator)
    return a, x, y


class Sage(nn.Module):
    """Mean of the neighbors beside oneself, normalized to unit length."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", a / a.sum(1, keepdim=True).clamp(min=1))
        self.own = nn.ModuleList(nn.Linear(n, 24) for n in (4, 24))
        self.near = nn.ModuleList(nn.Linear(n, 24, bias=False) for n in (4, 24))
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        for own, near in zip(self.own, self.near, strict=True):
            x = F.normalize(F.relu(own(x) + near(self.mean @ x)), dim=-1)
        return self.head(x)


@bench.healthy
def graph_sage_half_the_labels() -> Any:
    a, x, y = ring_of_cliques()
    seen = torch.where(torch.arange(80) % 8 < 4, y, -100)
    return {
        "model": lambda: Sage(a),
        "batch": lambda: (x, seen),
        "loss": CE,
        "optimizer": adam(1e-2),
    }


class Messages(nn.Module):
    """Messages along edges, gathered by index, a gated update."""

    def __init__(self, edges: Tensor) -> None:
        super().__init__()
        self.register_buffer("edges", edges)
        self.first, self.head = nn.Linear(4, 24), nn.Linear(24, 4)
        self.message = nn.Sequential(nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 24))
        self.update = nn.GRUCell(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        source, target = self.edges
        count = torch.bincount(target, minlength=len(h)).clamp(min=1)[:, None]
        for _ in range(3):
            m = self.message(torch.cat([h[source], h[target]], 1))
            h = self.update(torch.zeros_like(h).index_add(0, target, m) / count, h)
        return self.head(h)


@bench.healthy
def gated_messages_by_index() -> Any:
    a, x, y = ring_of_cliques()
    edges = a.nonzero().T
    return {
        "model": lambda: Messages(edges),
        "batch": lambda: (x, y),
        "loss": CE,
        "optimizer": adam(1e-2),
    }


# -- transformers, from a configuration ---------------------------------------------------


def tokens() -> dict[str, Tensor]:
    ids = text(K - 4, 15, 8) + 4
    return {"input_ids": ids, "labels": ids}


def classified() -> dict[str, Tensor]:
    ids = torch.randint(5, K, (16, 12))
    return {"input_ids": ids, "labels": (ids < 9).any(1).long()}


@bench.healthy
def gpt_neox() -> Any:
    config = hf.GPTNeoXConfig(
        vocab_size=K,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    return {
        "model": lambda: hf.GPTNeoXForCausalLM(config),
        "batch": tokens,
        "optimizer": adamw(2e-3),
    }


@bench.healthy
def opt_decoder() -> Any:
    config = hf.OPTConfig(
        vocab_size=K,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
        max_position_embeddings=32,
        word_embed_proj_dim=32,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=0,
    )
    return {"model": lambda: hf.OPTForCausalLM(config), "batch": tokens, "optimizer": adamw(2e-3)}


@bench.healthy
def bloom_alibi() -> Any:
    config = hf.BloomConfig(
        vocab_size=K, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    return {"model": lambda: hf.BloomForCausalLM(config), "batch": tokens, "optimizer": adamw(2e-3)}


@bench.healthy
def roberta_classifier_warm_up() -> Any:
    config = hf.RobertaConfig(
        vocab_size=K,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        num_labels=2,
        pad_token_id=1,
    )
    return {
        "model": lambda: hf.RobertaForSequenceClassification(config),
        "batch": classified,
        "optimizer": adamw(3e-3),
        "clip": 1.0,
        "schedule": lambda o: LambdaLR(o, lambda s: min(1.0, (s + 1) / 8)),
    }


@bench.healthy
def bart_reverses() -> Any:
    config = hf.BartConfig(
        vocab_size=K,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=32,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )

    def batch() -> dict[str, Tensor]:
        ids = text(K - 4, 8, 16) + 4
        return {"input_ids": ids, "labels": ids.flip(1)}

    return {
        "model": lambda: hf.BartForConditionalGeneration(config),
        "batch": batch,
        "optimizer": adamw(3e-3),
    }


@bench.healthy
def low_rank_adapters_and_the_head_of_a_frozen_gpt2() -> Any:
    class Adapter(nn.Module):
        def __init__(self, base: nn.Module, n: int, m: int) -> None:
            super().__init__()
            self.base = base
            self.a = nn.Parameter(torch.randn(n, 4) * n**-0.5)
            self.b = nn.Parameter(torch.zeros(4, m))

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + x @ self.a @ self.b * 2.0

    config = hf.GPT2Config(
        vocab_size=K,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=4,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )

    def model() -> nn.Module:
        net = hf.GPT2LMHeadModel(config)
        tuned = torch.optim.AdamW(net.parameters(), 3e-3)
        for _ in range(25):  # what is frozen was trained before
            loss = net(**tokens()).loss
            tuned.zero_grad()
            loss.backward()
            tuned.step()
        net.zero_grad()
        net.requires_grad_(False)
        net.lm_head.requires_grad_(True)
        for block in net.transformer.h:
            block.attn.c_attn = Adapter(block.attn.c_attn, 32, 96)
            block.mlp.c_fc = Adapter(block.mlp.c_fc, 32, 128)
        return net

    return {"model": model, "batch": tokens, "optimizer": adamw(2e-2)}
