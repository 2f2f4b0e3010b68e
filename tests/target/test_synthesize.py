"""Batches made up for models of every kind: tried, seeded, and never felt by the model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.errors import TargetError
from gradlint.target import from_objects
from gradlint.target.batches import Batch


def first(model: nn.Module, seed: int = 0) -> tuple[Batch, dict[str, str]]:
    """The first batch made up for `model`, after a pass and a backward over it."""
    target = from_objects(model)
    batch = target.batches(model, seed)[0]
    loss, _, _ = target.call(model, batch)
    loss.backward()
    assert loss.isfinite()
    assert target.synthesized
    return batch, target.assumed


class Module(nn.Module):
    """A model written as a function of itself and its inputs."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


class ConvNet(Module):
    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.fc(torch.flatten(x, 1))


class Views(Module):
    def forward(self, x):
        return self.fc(x.view(x.size(0), -1))


class Tokens(Module):
    def forward(self, idx):
        _, length = idx.shape
        return self.head(self.body(self.embed(idx) + self.place(torch.arange(length))))


class LastStep(Module):
    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


class Text(Module):
    def forward(self, x):
        return self.fc(self.conv(self.embed(x).transpose(1, 2)).amax(-1))


class Flat(Module):
    def forward(self, x):
        return self.fc(self.embed(x).flatten(1))


class Wave(Module):
    def forward(self, x):
        return self.fc(self.conv(x.unsqueeze(1)).mean(-1))


class UNet(Module):
    def forward(self, x):
        down = F.relu(self.a(x))
        return self.out(torch.cat([down, self.up(F.relu(self.down(down)))], 1))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(9, 5) * 0.1)

    def forward(self, x):
        return x @ self.w


class ViT(Module):
    def __init__(self):
        super().__init__(patch=nn.Conv2d(3, 16, 8, 8), head=nn.Linear(16, 5))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5 * 5, 16))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.pos_embed
        return self.head(x.mean(1))


def transformer(width=16):
    return nn.TransformerEncoderLayer(width, 2, 32, batch_first=True)


@pytest.mark.parametrize(
    ("model", "shape", "loss"),
    [
        pytest.param(lambda: nn.Linear(6, 3), (32, 6), "cross_entropy", id="tabular"),
        pytest.param(lambda: nn.Linear(6, 1), (32, 6), "mse_loss", id="regression"),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(6, 1), nn.Sigmoid()), (32, 6), "binary_cross_entropy",
            id="sigmoid",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(6, 4), nn.Softmax(1)), (32, 6), "nll_loss of the log",
            id="softmax",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax(1)), (32, 6), "nll_loss",
            id="log-softmax",
        ),
        pytest.param(lambda: Views(fc=nn.Linear(784, 3)), (32, 784), "cross_entropy", id="views"),
        pytest.param(
            lambda: ConvNet(conv1=nn.Conv2d(1, 4, 3), fc=nn.Linear(4 * 13 * 13, 10)),
            (32, 1, 28, 28), "cross_entropy", id="images-28",
        ),
        pytest.param(
            lambda: ConvNet(fc=nn.Linear(4 * 15 * 15, 10), conv1=nn.Conv2d(3, 4, 3)),
            (32, 3, 32, 32), "cross_entropy", id="images-32-registered-in-another-order",
        ),
        pytest.param(
            lambda: ConvNet(conv1=nn.Conv2d(5, 4, 3), fc=nn.Linear(4 * 24 * 24, 10)),
            (32, 5, 50, 50), "cross_entropy", id="images-50-found-from-the-mismatch",
        ),
        pytest.param(ViT, (32, 3, 40, 40), "cross_entropy", id="patches-fill-the-position-table"),
        pytest.param(
            lambda: nn.Sequential(
                *[nn.Sequential(nn.Conv2d(c, 8, 3, 2, 1), nn.ReLU()) for c in (3, 8, 8, 8, 8)],
                nn.Conv2d(8, 8, 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
            ),
            (32, 3, 64, 64), "cross_entropy", id="no-kernel-sees-one-pixel",
        ),
        pytest.param(
            lambda: UNet(
                a=nn.Conv2d(3, 4, 3, padding=1), down=nn.Conv2d(4, 8, 3, 2, 1),
                up=nn.ConvTranspose2d(8, 4, 2, 2), out=nn.Conv2d(8, 5, 1),
            ),
            (32, 3, 32, 32), "cross_entropy", id="dense-classes",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(1)),
            (32, 1, 16, 32, 32), "cross_entropy", id="volumes",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Conv1d(4, 8, 5), nn.AdaptiveAvgPool1d(1), nn.Flatten()),
            (32, 4, 128), "cross_entropy", id="signals",
        ),
        pytest.param(
            lambda: Wave(conv=nn.Conv1d(1, 8, 9, 4), fc=nn.Linear(8, 3)), (32, 128),
            "cross_entropy", id="waves",
        ),
        pytest.param(
            lambda: Tokens(embed=nn.Embedding(65, 16), place=nn.Embedding(8, 16),
                           body=transformer(), head=nn.Linear(16, 65)),
            (32, 8), "cross_entropy, class axis last", id="language-model",
        ),
        pytest.param(
            lambda: Text(embed=nn.Embedding(50, 8, padding_idx=0), conv=nn.Conv1d(8, 4, 3),
                         fc=nn.Linear(4, 2)),
            (32, 32), "cross_entropy", id="text-classes",
        ),
        pytest.param(
            lambda: Flat(embed=nn.Embedding(50, 8), fc=nn.Linear(8 * 13, 2)), (32, 13),
            "cross_entropy", id="length-found-from-the-mismatch",
        ),
        pytest.param(
            lambda: LastStep(rnn=nn.LSTM(12, 8, batch_first=True), fc=nn.Linear(8, 3)),
            (32, 32, 12), "cross_entropy", id="sequences",
        ),
        pytest.param(lambda: nn.GRU(5, 6, batch_first=True), (32, 32, 5), "mse_loss", id="gru"),
        pytest.param(transformer, (32, 32, 16), "mse_loss", id="transformer"),
        pytest.param(Bare, (32, 9), "cross_entropy", id="bare-parameters"),
        pytest.param(
            lambda: nn.Sequential(nn.ConvTranspose2d(8, 4, 4), nn.Tanh()), (32, 8, 1, 1),
            "mse_loss", id="generator",
        ),
        pytest.param(
            lambda: nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 20)), (32, 20),
            "mse_loss", id="autoencoder",
        ),
        pytest.param(lambda: nn.Linear(4, 3).double(), (32, 4), "cross_entropy", id="double"),
    ],
)  # fmt: skip
def test_inputs_and_loss_follow_from_the_model(model, shape, loss):
    batch, assumed = first(model())

    assert tuple(batch.inputs.shape) == shape
    assert assumed["loss"] == f"{loss} (chosen)"


def test_tokens_stay_within_the_embedding_and_off_its_padding_row():
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Flatten(), nn.Linear(128, 2))

    batch, _ = first(model)

    assert set(batch.inputs.unique().tolist()) == {1, 2, 3, 4}


def test_the_targets_of_a_language_model_are_its_next_tokens():
    model = nn.Sequential(nn.Embedding(11, 4), nn.Linear(4, 11))

    batch, assumed = first(model)

    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert assumed["targets"] == "synthesized: the next token"


@pytest.mark.parametrize(("last", "low"), [(nn.Sigmoid(), 0.0), (nn.Tanh(), -1.0)])
def test_an_autoencoder_gets_inputs_that_it_can_give_back(last, low):
    model = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 20), last)

    batch, _ = first(model)

    assert torch.equal(batch.inputs, batch.targets)
    assert low <= batch.inputs.min() < low + 0.1
    assert 0.9 < batch.inputs.max() <= 1


class Two(Module):
    def forward(self, user, item):
        return self.fc(torch.cat([self.users(user), self.items(item)], -1))


class Mixed(Module):
    def forward(self, image, table):
        return self.fc(torch.cat([self.conv(image).mean((2, 3)), self.lin(table)], 1))


class Pair(Module):
    def forward(self, src, tgt):
        return self.out(self.core(self.a(src), self.b(tgt)))


class Timed(Module):
    def forward(self, x, t):
        return self.conv(x) + self.time(t)[:, :, None, None]


class Padded(Module):
    def forward(self, tokens, lengths, mask):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embed(tokens) * mask[..., None], lengths, batch_first=True, enforce_sorted=False
        )
        return self.fc(self.rnn(packed)[1][-1])


class Graph(Module):
    def forward(self, x, edge_index):
        hidden = self.fc(x)
        return hidden.index_add(0, edge_index[1], hidden[edge_index[0]])


class OwnLoss(Module):
    def forward(self, x, labels):
        return F.cross_entropy(self.fc(x), labels)


class KeywordOnly(Module):
    def forward(self, *, left, right):
        return self.a(left) + self.b(right)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        pytest.param(
            Two(users=nn.Embedding(9, 4), items=nn.Embedding(7, 4), fc=nn.Linear(8, 1)),
            [(32,), (32,)], id="user-and-item",
        ),
        pytest.param(
            Mixed(lin=nn.Linear(7, 4), conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(8, 2)),
            [(32, 3, 32, 32), (32, 7)], id="image-and-table",
        ),
        pytest.param(
            Pair(a=nn.Embedding(9, 8), b=nn.Embedding(7, 8), out=nn.Linear(8, 7),
                 core=nn.Transformer(8, 2, 1, 1, 16, batch_first=True)),
            [(32, 32), (32, 32)], id="source-and-target",
        ),
        pytest.param(
            Timed(conv=nn.Conv2d(1, 4, 3, padding=1), time=nn.Embedding(10, 4)),
            [(32, 1, 32, 32), (32,)], id="image-and-time",
        ),
        pytest.param(
            Padded(embed=nn.Embedding(9, 4),
                   rnn=nn.GRU(4, 4, batch_first=True), fc=nn.Linear(4, 1)),
            [(32, 32), (32,), (32, 32)], id="tokens-lengths-mask",
        ),
        pytest.param(Graph(fc=nn.Linear(6, 3)), [(32, 6), (2, 128)], id="graph"),
        pytest.param(OwnLoss(fc=nn.Linear(6, 3)), [(32, 6), (32,)], id="labels"),
    ],
)  # fmt: skip
def test_every_argument_of_forward_is_found(model, shapes):
    batch, _ = first(model)

    assert [tuple(part.shape) for part in batch.inputs] == shapes


def test_keyword_arguments_are_given_by_name():
    batch, _ = first(KeywordOnly(a=nn.Linear(2, 3), b=nn.Linear(4, 3)))

    assert {k: tuple(v.shape) for k, v in batch.inputs.items()} == {
        "left": (32, 2),
        "right": (32, 4),
    }


class Heads(Module):
    def forward(self, x):
        return {"kind": self.kind(x), "size": self.size(x)}


def test_every_head_gets_a_loss():
    model = Heads(kind=nn.Linear(4, 3), size=nn.Linear(4, 1))

    _, assumed = first(model)

    assert assumed["loss"] == "cross_entropy + mse_loss (chosen)"
    assert all(p.grad is not None for p in model.parameters())


def test_lazy_layers_get_their_shapes_and_the_given_model_stays_lazy():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2))

    target = from_objects(model)

    assert nn.parameter.is_lazy(model[0].weight)
    batch = target.batches(model, 0)[0]
    assert target.call(model, batch)[0].isfinite()


def test_the_same_seed_makes_the_same_batches_and_another_makes_others():
    model = nn.Linear(6, 3)
    target = from_objects(model)

    first_time, again, other = (target.batches(model, seed) for seed in (3, 3, 4))

    assert len(first_time) == 8
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(first_time, again, strict=True))
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(first_time, again, strict=True))
    assert not torch.equal(first_time[0].inputs, first_time[1].inputs)
    assert not torch.equal(first_time[0].inputs, other[0].inputs)


def test_a_large_model_gets_fewer_samples():
    model = nn.Sequential(nn.Conv2d(3, 64, 7, padding=3), *[
        nn.Conv2d(64, 64, 7, padding=3) for _ in range(3)
    ])  # fmt: skip

    batch, _ = first(model)

    assert batch.inputs.shape[0] == 8


def test_a_forward_that_fits_nothing_shows_the_likeliest_trial():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 2))

    with pytest.raises(TargetError, match=r"1 \(Linear\) on input 2x3.*expects 5 features"):
        from_objects(model)


@pytest.mark.parametrize("inside", ["step", "loss"])
def test_a_training_step_without_a_batch_gets_one_that_fits(inside):
    model = nn.Linear(6, 3)

    def step(model, batch):
        x, y = batch
        return F.cross_entropy(model(x), y)

    target = from_objects(model, training_step=step)

    loss, outputs, targets = target.call(model, target.batches(model, 0)[0])
    assert loss.isfinite()
    assert outputs.shape == (32, 3)
    assert targets.dtype == torch.int64


# -- transformers ---------------------------------------------------------------------

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=16)
    )


def bert(labels=3, kind="BertForSequenceClassification"):
    import transformers

    config = transformers.BertConfig(**SMALL, vocab_size=50, num_labels=labels)
    return getattr(transformers, kind)(config)


def vit():
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=4))


def t5():
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(
        T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=50,
                 decoder_start_token_id=0)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("build", "inputs", "targets"),
    [
        pytest.param(gpt2, {"input_ids": (32, 16)}, (32, 16), id="gpt2"),
        pytest.param(bert, {"input_ids": (32, 32)}, (32,), id="bert-classes"),
        pytest.param(lambda: bert(1), {"input_ids": (32, 32)}, (32,), id="bert-regression"),
        pytest.param(
            lambda: bert(kind="BertForTokenClassification"), {"input_ids": (32, 32)}, (32, 32),
            id="bert-token-classes",
        ),
        pytest.param(
            lambda: bert(3, "BertForMaskedLM"), {"input_ids": (32, 32)}, (32, 32), id="bert-masked"
        ),
        pytest.param(
            lambda: bert(2, "BertForQuestionAnswering"),
            {"input_ids": (32, 32), "start_positions": (32,), "end_positions": (32,)}, None,
            id="bert-questions",
        ),
        pytest.param(vit, {"pixel_values": (32, 3, 16, 16)}, (32,), id="vit"),
        pytest.param(t5, {"input_ids": (32, 32)}, (32, 32), id="t5"),
    ],
)  # fmt: skip
def test_a_transformers_model_gets_its_keywords_and_labels(build, inputs, targets):
    batch, assumed = first(build())

    assert {k: tuple(v.shape) for k, v in batch.inputs.items()} == inputs
    assert (batch.targets if targets is None else tuple(batch.targets.shape)) == targets
    assert assumed["loss"] == "the model's own"


def test_a_causal_model_learns_its_own_inputs():
    batch, _ = first(gpt2())

    assert torch.equal(batch.inputs["input_ids"], batch.targets)


def test_a_transformers_model_without_a_head_gets_a_loss_on_each_output():
    _, assumed = first(bert(kind="BertModel"))

    assert assumed["loss"] == "mse_loss (chosen)"


def test_a_users_batch_with_labels_goes_to_the_models_own_loss():
    model = bert()
    given = {"input_ids": torch.randint(50, (4, 7)), "labels": torch.tensor([0, 1, 2, 0])}

    target = from_objects(model, given)
    batch = target.batches(model, 0)[0]

    assert torch.equal(target.call(model, batch)[0], model(**given).loss) or model.training
    assert target.assumed["loss"] == "the model's own"
    assert torch.equal(batch.targets, given["labels"])
