"""Healthy trainings of recurrent networks, transformers, and language models in plain torch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.zoo.healthy_losses import CE
from tests.zoo.recipes import Zoo, adam, adamw, marked, next_tokens, sgd, text, waves

zoo = Zoo()
TOKENS = 50


def token_loss(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))


class Recurrent(nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(1, 32, batch_first=True, **options)
        width = 64 if options.get("bidirectional") else 32
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


def waves_with(model: Any, lr: float = 1e-2) -> Any:
    return {"model": model, "batch": waves, "loss_fn": CE, "optimizer": adam(lr)}


@zoo
def lstm_last_state() -> Any:
    return waves_with(lambda: Recurrent(nn.LSTM))


@zoo(slow=True)
def gru_two_layers_dropout() -> Any:
    return waves_with(lambda: Recurrent(nn.GRU, num_layers=2, dropout=0.2))


@zoo
def elman_rnn() -> Any:
    return waves_with(lambda: Recurrent(nn.RNN))


@zoo(slow=True)
def bidirectional_lstm_packed() -> Any:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(TOKENS, 24, padding_idx=0)
            self.lstm = nn.LSTM(24, 32, batch_first=True, bidirectional=True)
            self.head = nn.Linear(64, 5)

        def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(
                self.embed(tokens), lengths, batch_first=True, enforce_sorted=False
            )
            out, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            return self.head(out)

    def batch() -> Any:
        lengths = torch.randint(5, 17, (16,))
        lengths[0] = 16
        tokens = torch.randint(1, TOKENS, (16, 16))
        padding = torch.arange(16)[None, :] >= lengths[:, None]
        tags = (tokens % 5).masked_fill(padding, -100)
        return (tokens.masked_fill(padding, 0), lengths), tags

    return {"model": Tagger, "batch": batch, "loss_fn": token_loss, "optimizer": adam(1e-2)}


class CharRnn(nn.Module):
    """An unrolled cell, as in a first course."""

    def __init__(self, cell: Any, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, width)
        self.cell = cell(width, width)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        state = None
        outputs = []
        for x in self.embed(tokens).unbind(dim=1):
            state = self.cell(x, state)
            outputs.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs, dim=1)


@zoo
def char_rnn_unrolled_rnn_cell() -> Any:
    return {
        "model": lambda: CharRnn(nn.RNNCell),
        "batch": next_tokens(TOKENS),
        "loss_fn": token_loss,
        "optimizer": adam(3e-3),
    }


@zoo(slow=True)
def char_rnn_unrolled_lstm_cell() -> Any:
    return {
        "model": lambda: CharRnn(nn.LSTMCell),
        "batch": next_tokens(TOKENS),
        "loss_fn": token_loss,
        "optimizer": adam(3e-3),
    }


@zoo
def rnn_by_hand_orthogonal() -> Any:
    class Rnn(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.i2h = nn.Linear(1, width)
            self.h2h = nn.Linear(width, width, bias=False)
            self.head = nn.Linear(width, 4)
            nn.init.orthogonal_(self.h2h.weight)

        def forward(self, x: Tensor) -> Tensor:
            hidden = x.new_zeros(len(x), self.h2h.in_features)
            for step in range(x.shape[1]):
                hidden = torch.tanh(self.i2h(x[:, step]) + self.h2h(hidden))
            return self.head(hidden)

    return waves_with(Rnn)


@zoo
def word_language_model_tied() -> Any:
    class WordModel(nn.Module):
        def __init__(self, width: int = 48) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.2)
            self.encoder = nn.Embedding(TOKENS, width)
            self.rnn = nn.LSTM(width, width, 2, batch_first=True, dropout=0.2)
            self.decoder = nn.Linear(width, TOKENS)
            self.decoder.weight = self.encoder.weight
            nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
            nn.init.zeros_(self.decoder.bias)

        def forward(self, tokens: Tensor) -> Tensor:
            out, _ = self.rnn(self.drop(self.encoder(tokens)))
            return F.log_softmax(self.decoder(self.drop(out)), dim=-1)

    def step(model: nn.Module, batch: Any) -> Tensor:
        tokens, wanted = batch
        return F.nll_loss(model(tokens).reshape(-1, TOKENS), wanted.reshape(-1))

    return {
        "model": WordModel,
        "batch": next_tokens(TOKENS),
        "training_step": step,
        "optimizer": adam(1e-2),
    }


class EncoderClassifier(nn.Module):
    def __init__(self, layers: int, norm_first: bool, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(torch.randn(12, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.1, batch_first=True, norm_first=norm_first
        )
        norm = nn.LayerNorm(width) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x) + self.position).mean(dim=1))


def marked_with(model: Any, lr: float) -> Any:
    return {"model": model, "batch": marked, "loss_fn": CE, "optimizer": adam(lr)}


@zoo(slow=True)
def transformer_encoder_post_norm_2() -> Any:
    return marked_with(lambda: EncoderClassifier(2, False), 1e-3)


@zoo(slow=True)
def transformer_encoder_post_norm_6() -> Any:
    return marked_with(lambda: EncoderClassifier(6, False), 3e-4)


@zoo(slow=True)
def transformer_encoder_pre_norm_6() -> Any:
    return marked_with(lambda: EncoderClassifier(6, True), 1e-3)


class Positional(nn.Module):
    def __init__(self, width: int, length: int = 64) -> None:
        super().__init__()
        place = torch.arange(length)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(length, width)
        table[:, 0::2] = torch.sin(place * rate)
        table[:, 1::2] = torch.cos(place * rate)
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]


@zoo(slow=True)
def nn_transformer_sequence_to_sequence() -> Any:
    class Translator(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.width = width
            self.embed = nn.Embedding(TOKENS, width)
            self.position = Positional(width)
            self.transformer = nn.Transformer(width, 4, 2, 2, 64, batch_first=True)
            self.head = nn.Linear(width, TOKENS)
            for p in self.parameters():
                if p.dim() > 1:  # embeddings of N(0, 1) times √width make attention one-hot
                    nn.init.xavier_uniform_(p)

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
            source, target = (
                self.position(self.embed(t) * math.sqrt(self.width)) for t in (source, target)
            )
            return self.head(self.transformer(source, target, tgt_mask=mask, tgt_is_causal=True))

    def batch() -> Any:
        source = text(TOKENS, 8)
        return (source, source[:, :-1]), source[:, 1:]

    return {"model": Translator, "batch": batch, "loss_fn": token_loss, "optimizer": adam(1e-3)}


class CausalAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            part.view(n, t, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(c, dim=2)
        )
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(c // self.heads)
        mask = torch.tril(torch.ones(t, t, dtype=torch.bool))
        weights = F.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, t, c))


class GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.ln2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class NanoGpt(nn.Module):
    """nanoGPT: tied head, N(0, 0.02), residual projections scaled by depth."""

    def __init__(self, width: int = 48, depth: int = 4, length: int = 16) -> None:
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, width)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(GptBlock(width, 4) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, TOKENS, bias=False)
        self.head.weight = self.tokens.weight
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                last = name.endswith(("attention.out", "mlp.2"))
                nn.init.normal_(module.weight, std=0.02 / (math.sqrt(2 * depth) if last else 1))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Any:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@zoo(slow=True)
def nano_gpt_tied_attention_by_hand() -> Any:
    return {
        "model": NanoGpt,
        "batch": next_tokens(TOKENS),
        "loss_fn": token_loss,
        "optimizer": adamw(3e-3, 0.1),
    }


@zoo(slow=True)
def nano_gpt_own_loss() -> Any:
    return {
        "model": NanoGpt,
        "training_step": lambda model, batch: model(*batch)[1],
        "batch": next_tokens(TOKENS),
        "optimizer": adamw(3e-3, 0.1),
    }


@zoo(slow=True)
def gpt_default_init_bigram() -> Any:
    """A teaching GPT: torch's defaults everywhere, an untied head."""

    class Teaching(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.tokens = nn.Embedding(TOKENS, width)
            self.positions = nn.Embedding(16, width)
            self.blocks = nn.Sequential(GptBlock(width, 4), GptBlock(width, 4))
            self.head = nn.Linear(width, TOKENS)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
            return self.head(self.blocks(x))

    return {
        "model": Teaching,
        "batch": next_tokens(TOKENS),
        "loss_fn": token_loss,
        "optimizer": adamw(1e-3),
    }


@zoo(slow=True)
def seq2seq_gru_with_attention() -> Any:
    class Seq2Seq(nn.Module):
        def __init__(self, width: int = 32) -> None:
            super().__init__()
            self.embed = nn.Embedding(TOKENS, width)
            self.encoder = nn.GRU(width, width, batch_first=True)
            self.decoder = nn.GRUCell(2 * width, width)
            self.query = nn.Linear(width, width)
            self.key = nn.Linear(width, width)
            self.energy = nn.Linear(width, 1)
            self.head = nn.Linear(2 * width, TOKENS)

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            memory, state = self.encoder(self.embed(source))
            state = state[0]
            outputs = []
            for x in self.embed(target).unbind(1):
                scores = self.energy(torch.tanh(self.query(state)[:, None] + self.key(memory)))
                context = (F.softmax(scores, dim=1) * memory).sum(dim=1)
                state = self.decoder(torch.cat([x, context], dim=1), state)
                outputs.append(self.head(torch.cat([state, context], dim=1)))
            return torch.stack(outputs, dim=1)

    def batch() -> Any:
        source = text(TOKENS, 6)
        return (source, source[:, :-1]), source[:, 1:]

    return {"model": Seq2Seq, "batch": batch, "loss_fn": token_loss, "optimizer": adam(3e-3)}


@zoo(slow=True)
def ctc_on_waves() -> Any:
    class Acoustic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 32, 5, padding=2)
            self.rnn = nn.GRU(32, 32, batch_first=True, bidirectional=True)
            self.head = nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
            return F.log_softmax(self.head(self.rnn(x)[0]), dim=-1)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        lengths = torch.full((len(out),), out.shape[1])
        return F.ctc_loss(out.transpose(0, 1), y[:, None] + 1, lengths, torch.ones_like(lengths))

    return {"model": Acoustic, "batch": waves, "loss_fn": loss, "optimizer": adam(1e-2)}


@zoo
def text_cnn() -> Any:
    class TextCnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(TOKENS, 24)
            self.convs = nn.ModuleList(nn.Conv1d(24, 16, k) for k in (2, 3, 4))
            self.head = nn.Linear(48, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens).transpose(1, 2)
            pooled = [F.relu(conv(x)).amax(dim=-1) for conv in self.convs]
            return self.head(F.dropout(torch.cat(pooled, dim=1), 0.5, self.training))

    def batch() -> tuple[Tensor, Tensor]:
        tokens = torch.randint(TOKENS, (32, 12))
        return tokens, (tokens < 5).any(dim=1).long()

    return {"model": TextCnn, "batch": batch, "loss_fn": CE, "optimizer": adam(3e-3)}


@zoo
def bag_of_words_embedding() -> Any:
    def batch() -> tuple[Tensor, Tensor]:
        tokens = torch.randint(TOKENS, (32, 12))
        return tokens, (tokens < 8).any(dim=1).long()

    return {
        "model": lambda: nn.Sequential(nn.EmbeddingBag(TOKENS, 16), nn.Linear(16, 2)),
        "batch": batch,
        "loss_fn": CE,
        "optimizer": sgd(1.0),
    }


@zoo(slow=True)
def temporal_convolution_forecast() -> Any:
    class Tcn(nn.Module):
        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.stem = nn.Conv1d(1, width, 1)
            self.layers = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(4))
            self.head = nn.Linear(width, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = self.stem(x.transpose(1, 2))
            for i, layer in enumerate(self.layers):
                h = h + F.relu(layer(F.pad(h, (2**i, 0))))
            return self.head(h[:, :, -1])

    def batch() -> tuple[Tensor, Tensor]:
        series, _ = waves()
        return series[:, :-1], series[:, -1]

    return {"model": Tcn, "batch": batch, "loss_fn": nn.MSELoss(), "optimizer": adam(3e-3)}


@zoo
def synthesized_lstm_tagger() -> Any:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(1000, 32)
            self.lstm = nn.LSTM(32, 32, batch_first=True)
            self.fc = nn.Linear(32, 7)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.lstm(self.embedding(x))[0][:, -1])

    return {"model": Tagger}


@zoo(slow=True)
def synthesized_nano_gpt() -> Any:
    return {"model": lambda: NanoGpt(depth=2)}
