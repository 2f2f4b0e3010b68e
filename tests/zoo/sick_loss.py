"""Losses that get what they do not expect."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo import sick_data as data
from tests.zoo.sick_hosts import Classifier, Cnn, Dense, Gcn, Gpt, Recurrent, ResNet, UNet, mlp
from tests.zoo.sick_init import letters
from tests.zoo.sick_recipe import adam, sgd, sick

# A softmax or sigmoid too many.
sick("softmax-before-ce-mlp", "GL601", lambda: mlp(64, 64, 10, last=nn.Softmax(dim=1)),
     data.digits, optimizer=adam())  # fmt: skip
sick("softmax-before-ce-cnn-functional", "GL601", lambda: Cnn(end=lambda y: F.softmax(y, -1)),
     data.images, optimizer=sgd())  # fmt: skip
sick("softmax-before-ce-transformer", "GL601",
     lambda: Classifier(40, 4, end=lambda y: y.softmax(-1)), data.words,
     optimizer=adam())  # fmt: skip
sick("softmax-before-ce-lstm-iris", "GL601",
     lambda: Recurrent(classes=3, end=nn.Softmax(-1)), data.waves, nn.CrossEntropyLoss(),
     adam())  # fmt: skip


def by_hand(y: Tensor) -> Tensor:
    e = torch.exp(y - y.max(1, keepdim=True).values)
    return e / e.sum(1, keepdim=True)


sick("softmax-by-hand-before-ce", "GL601", lambda: Dense(4, 32, 3, last=by_hand), data.iris,
     optimizer=adam())  # fmt: skip
sick("softmax-before-ce-gcn", "GL601",
     lambda: Gcn(data.community()[0], end=lambda y: y.softmax(1)), lambda: [data.community()[1:]],
     optimizer=adam(0.01))  # fmt: skip
sick("softmax-in-language-model", "GL601",
     lambda: nn.Sequential(Gpt(len(data.LETTERS)), nn.Softmax(dim=-1)), data.characters,
     lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()), adam())  # fmt: skip
sick("sigmoid-before-bce-with-logits", "GL601", lambda: mlp(10, 32, 1, last=nn.Sigmoid()),
     data.binary, nn.BCEWithLogitsLoss(), adam())  # fmt: skip
sick("sigmoid-before-bce-with-logits-unet", "GL601", lambda: UNet(torch.sigmoid), data.masks,
     F.binary_cross_entropy_with_logits, adam())  # fmt: skip
sick("sigmoid-on-class-scores", "GL601 GL603", lambda: Cnn(end=torch.sigmoid), data.images,
     optimizer=adam(),
     because="a sigmoid in front of cross-entropy: a second squashing, or a bound on the "
     "logits")  # fmt: skip

# A softmax or sigmoid missing.
sick("nll-of-logits", "GL602", lambda: mlp(64, 64, 10), data.digits, F.nll_loss, adam())
sick("nll-of-logits-resnet", "GL602", ResNet, data.images, nn.NLLLoss(), sgd())
sick("nll-of-probabilities", "GL602", lambda: Dense(64, 64, 10, last=lambda y: y.softmax(1)),
     data.digits, F.nll_loss, adam())  # fmt: skip
sick("bce-of-logits", "GL602", lambda: mlp(10, 32, 1), data.binary, nn.BCELoss(), adam(),
     because="torch raises; the finding takes its place")  # fmt: skip
sick("kl-div-of-probabilities", "GL602", lambda: mlp(64, 64, 10, last=nn.Softmax(-1)),
     lambda: [(x, F.one_hot(y, 10) * 0.9 + 0.01) for x, y in data.digits()],
     lambda o, t: F.kl_div(o, t, reduction="batchmean"), adam())  # fmt: skip
sick("log-softmax-over-batch", "GL113 GL602",
     lambda: Dense(64, 64, 10, last=lambda y: F.log_softmax(y, dim=0)), data.digits, F.nll_loss,
     adam(), because="columns sum to 1, rows do not")  # fmt: skip

# Too few outputs, labels out of range.
sick("softmax-over-one-logit", "GL604", lambda: mlp(10, 32, 1, last=nn.Softmax(dim=1)),
     data.binary, nn.BCELoss(), adam())  # fmt: skip
sick("cross-entropy-over-one-class", "GL604 GL605", lambda: Dense(10, 32, 1),
     lambda: [(x, y[:, 0].long()) for x, y in data.binary()], optimizer=adam(),
     because="two classes, one output: too few outputs, or labels outside them")  # fmt: skip
sick("nine-outputs-for-ten-digits", "GL604 GL605", lambda: Cnn(9), data.images,
     optimizer=adam(), because="K-1 outputs: two words for one thing")  # fmt: skip
sick("labels-from-one", "GL605", lambda: mlp(4, 16, 3),
     lambda: [(x, y + 1) for x, y in data.iris()], optimizer=adam())  # fmt: skip
sick("labels-from-one-resnet", "GL605", ResNet,
     lambda: [(x, y + 1) for x, y in data.images()], optimizer=adam())  # fmt: skip
sick("labels-of-minus-one", "GL605", lambda: Dense(64, 32, 2),
     lambda: [(x, torch.where(y > 4, 1, -1)) for x, y in data.digits()], optimizer=adam(),
     because="labels of -1 and 1, as for a hinge loss")  # fmt: skip


def _labels_beyond_vocabulary():
    return [{**batch, "labels": batch["labels"] + 10} for batch in letters()]


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=len(data.LETTERS), n_positions=32, n_embd=32, n_layer=2, n_head=2)
    )


def _bert(classes: int = 2) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=32, num_labels=classes,
        )
    )  # fmt: skip


sick("gpt2-labels-beyond-vocabulary", "GL605", _gpt2, _labels_beyond_vocabulary, None)
sick("bert-three-labels-for-two", "GL605 GL604", _bert,
     lambda: [{"input_ids": x, "labels": y % 3} for x, y in data.words()], None, adam(),
     because="num_labels was left at its default")  # fmt: skip
sick("one-hot-into-nll", "GL605",
     lambda: Dense(64, 64, 10, last=lambda y: F.log_softmax(y, 1)),
     lambda: [(x, F.one_hot(y, 10)) for x, y in data.digits()], F.nll_loss, adam())  # fmt: skip
sick("one-hot-integers-into-ce", "GL605", lambda: mlp(4, 16, 3),
     lambda: [(x, F.one_hot(y, 3)) for x, y in data.iris()], optimizer=adam())  # fmt: skip
sick("bce-targets-of-255", "GL605", lambda: UNet(),
     lambda: [(x, 255 * y) for x, y in data.masks()], F.binary_cross_entropy_with_logits,
     adam())  # fmt: skip

# Shapes that broadcast.
sick("column-against-row-mse", "GL605", lambda: mlp(12, 64, 1), data.flat_smooth, F.mse_loss,
     adam())  # fmt: skip
sick("row-against-column-l1-gru", "GL605",
     lambda: Recurrent(nn.GRU, classes=1, end=lambda y: y.squeeze(-1)),
     lambda: [(x, x[:, -1]) for x, _ in data.waves()], nn.L1Loss(), adam())  # fmt: skip
sick("column-against-row-by-hand", "GL605", lambda: Dense(12, 64, 1), data.flat_smooth,
     lambda o, t: ((o - t) ** 2).mean(), adam())  # fmt: skip
sick("column-against-row-bce", "GL605", lambda: mlp(10, 32, 1),
     lambda: [(x, y[:, 0]) for x, y in data.binary()], nn.BCEWithLogitsLoss(), adam())  # fmt: skip

# What is minimized is not what is meant.


class Reversed(torch.autograd.Function):
    """Someone's custom function with the sign of its gradient wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return -grad * (x > 0)


sick("maximizing-optimizer", "GL609", lambda: mlp(64, 64, 10), data.digits,
     optimizer=sgd(0.05, maximize=True), because="the loss rises")  # fmt: skip
sick("backward-with-wrong-sign", "GL503 GL609",
     lambda: Dense(64, 64, 64, 64, 10, act=Reversed.apply), data.digits, optimizer=adam(),
     because="a wrong derivative, or a loss that does not fall for it")  # fmt: skip
sick("sum-with-a-rate-for-means", "GL607 GL401",
     lambda: mlp(12, 64, 1), data.smooth, nn.MSELoss(reduction="sum"), sgd(0.05),
     because="the sum over the batch, or the rate that goes with it")  # fmt: skip
sick("one-label-only", "GL613", lambda: mlp(64, 64, 10),
     lambda: [(x, torch.zeros_like(y)) for x, y in data.digits()], optimizer=adam())  # fmt: skip
sick("sorted-batches", "GL613", Cnn,
     lambda: [(torch.randn(64, 1, 8, 8) + k, torch.full((64,), k)) for k in range(6)],
     optimizer=adam(), because="the data were never shuffled")  # fmt: skip
sick("class-numbers-for-every-score", "GL605", lambda: mlp(64, 64, 10), data.digits,
     lambda o, t: F.mse_loss(o, t[:, None].float()), adam(),
     because="a column of labels is repeated for all ten scores")  # fmt: skip
sick("ignored-class-of-two", "GL605 GL613", lambda: mlp(10, 32, 2),
     lambda: [(x, y[:, 0].long()) for x, y in data.binary()],
     nn.CrossEntropyLoss(ignore_index=0), adam(),
     because="the index of the padding is a class here")  # fmt: skip
sick("ctc-of-scores", "GL602", lambda: mlp(1, 32, 4), data.waves,
     lambda o, t: F.ctc_loss(o.transpose(0, 1), t[:, None] + 1,
                             torch.full((len(t),), o.shape[1]), torch.ones_like(t)),
     adam())  # fmt: skip
