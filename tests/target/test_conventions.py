"""How models are called and losses taken: the forms that loaders, losses and modules come in."""

from __future__ import annotations

import random

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.target import Batch, from_objects
from gradlint.target.trial import copied, copy_of


class Module(nn.Module):
    """A model with one linear layer, called as its subclasses say."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)


class TakesMapping(Module):
    def forward(self, batch):
        return F.cross_entropy(self.fc(batch["x"] * batch["weight"]), batch["label"])


class TakesPair(Module):
    def forward(self, pair):
        return self.fc(pair[0] + pair[1])


class TakesList(Module):
    def forward(self, images, targets=None):
        scores = torch.stack([self.fc(image).mean(0) for image in images])
        losses = {"a": scores.mean(), "b": scores.square().mean()}
        return losses if targets is not None else scores


class ReturnsPair(Module):
    def forward(self, x):
        return self.fc(x), x


class Prints(Module):
    def forward(self, x):
        print("here")
        return self.fc(x)


X, Y = torch.ones(4, 3), torch.tensor([0, 1, 1, 0])


def loss_of(model, batch, loss=None, **options):
    target = from_objects(model, batch, loss, **options)
    return target.call(model, target.batches(model, 0)[0])[0]


def test_a_mapping_is_given_whole_to_a_forward_that_takes_one():
    model = TakesMapping()

    loss = loss_of(model, {"x": X, "weight": X, "label": Y})

    assert torch.equal(loss, F.cross_entropy(model.fc(X), Y))


def test_a_tuple_is_given_whole_to_a_forward_that_takes_one_argument():
    model = TakesPair()

    assert torch.equal(loss_of(model, ((X, X), Y)), F.cross_entropy(model.fc(X + X), Y))


def test_lists_of_images_and_a_mapping_of_losses_are_a_detectors():
    model = TakesList()

    loss = loss_of(model, ([X, X], [{"boxes": Y}, {"boxes": Y}]))

    scores = torch.stack([model.fc(X).mean(0)] * 2)
    assert torch.equal(loss, torch.stack([scores.mean(), scores.square().mean()]).sum())


def test_a_loss_of_torchs_takes_the_scores_out_of_several_outputs():
    model = ReturnsPair()

    assert torch.equal(
        loss_of(model, (X, Y), nn.CrossEntropyLoss()), F.cross_entropy(model.fc(X), Y)
    )


def test_what_a_loader_adds_behind_the_targets_is_no_part_of_them():
    model = nn.Linear(3, 2)

    loss = loss_of(model, [(X, Y, torch.arange(4))], nn.CrossEntropyLoss())

    assert torch.equal(loss, F.cross_entropy(model(X), Y))


def test_a_loss_of_three_takes_outputs_and_both_targets():
    model = nn.Linear(3, 2)

    loss = loss_of(model, (X, Y, torch.ones(4)), lambda out, y, w: (out.sum(1) * w * y).mean())

    assert torch.equal(loss, (model(X).sum(1) * Y).mean())


def test_outputs_and_loss_come_with_the_targets():
    model = nn.Linear(3, 2)
    target = from_objects(model, Batch(X, Y), "cross_entropy")

    _, outputs, targets = target.call(model, target.batches(model, 0)[0])

    assert torch.equal(outputs, model(X))
    assert torch.equal(targets, Y)
    assert target.loss_fn is F.cross_entropy


def test_a_scalar_loss_is_the_users_own_tensor():
    made = []

    def loss_fn(outputs, targets):
        made.append(outputs.mean())
        return made[-1]

    assert loss_of(nn.Linear(3, 2), (X, Y), loss_fn) is made[-1]


def test_what_forward_prints_goes_to_stderr(capsys):
    loss_of(Prints(), (X, Y), "cross_entropy")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "here" in captured.err


def test_a_function_that_hands_out_one_batch_gives_it_once():
    target = from_objects(nn.Linear(3, 2), lambda: (X, Y))

    assert len(target.batches(target.build(), 0)) == 1


def test_batches_drawn_by_numpy_and_random_follow_the_seed():
    def get_batch():
        return numpy.random.randn(4, 3).astype("float32") * random.random()

    target = from_objects(nn.Linear(3, 2), get_batch)
    model = target.build()
    states = random.getstate(), numpy.random.get_state()[1].tolist()

    one, again, other = (target.batches(model, seed)[0].inputs for seed in (1, 1, 2))

    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert states == (random.getstate(), numpy.random.get_state()[1].tolist())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_model_that_torch_cannot_copy_for_its_weight_norm_is_copied():
    model = nn.utils.weight_norm(nn.Linear(3, 2))
    model(X).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    clone = copy_of(model)
    pair, paired = copied((model, optimizer), model)

    assert torch.equal(clone(X), model(X))
    assert torch.equal(pair(X), model(X))
    assert paired.param_groups[0]["params"][0] is next(pair.parameters())


def test_a_compiled_live_model_is_taken_out_of_its_wrapper():
    model = nn.Linear(3, 2)

    assert from_objects(torch.compile(model), (X, Y)).build() is model


def test_a_class_is_a_model_that_is_rebuilt():
    target = from_objects(Module.__subclasses__()[3], (X, Y), "cross_entropy")

    assert target.rebuildable
    assert target.object == "ReturnsPair"
    assert target.build() is not target.build()
