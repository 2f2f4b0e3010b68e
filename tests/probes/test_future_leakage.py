"""Which models are declared causal, and which of them look ahead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradlint
from gradlint.probes.future_leakage import (
    declared_causal,
    future_leakage,
    predicts_next,
    trained_causal,
)

IDS = torch.randint(0, 20, (4, 8), generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Embeddings through `body`, then logits, shaped by `end`."""

    def __init__(self, body: Any, end: Any = lambda logits: logits) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 20)
        self.body, self.end = body, end

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Any:
        return self.end(self.head(self.body(self.embed(input_ids))))


class Attend(nn.Module):
    def __init__(self, mask: Tensor | None) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, attn_mask=self.mask)[0]


class Recurrent(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        width = 3 if options.get("bidirectional") else 6
        self.rnn = nn.GRU(6, width, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


CAUSAL = torch.ones(8, 8, dtype=torch.bool).triu(1)


def run(model: nn.Module, given: Any) -> Any:
    torch.manual_seed(0)
    return model(**given) if isinstance(given, dict) else model(given)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(nn.Identity(), id="position-by-position"),
        pytest.param(Attend(CAUSAL), id="causal-attention"),
        pytest.param(Recurrent(), id="recurrent"),
        pytest.param(nn.Dropout(0.5), id="dropout"),
    ],
)
def test_models_that_look_back_do_not_leak(body: nn.Module) -> None:
    found = future_leakage(Net(body), run, IDS)

    assert found is not None
    assert found["leak"] == 0.0
    assert found["change"] > 0.1
    assert found["module"] is None
    assert (found["position"], found["length"]) == (4, 8)


@pytest.mark.parametrize(
    ("body", "module"),
    [
        pytest.param(Attend(None), "body.attention", id="mask-forgotten"),
        pytest.param(Recurrent(bidirectional=True), "body.rnn", id="both-directions"),
    ],
)
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda logits: logits, id="logits"),
        pytest.param(lambda logits: logits.transpose(1, 2), id="classes-first"),
        pytest.param(lambda logits: logits.flatten(0, 1), id="flat"),
        pytest.param(lambda logits: {"loss": logits.mean(), "logits": logits}, id="with-loss"),
    ],
)
def test_models_that_look_ahead_leak(body: nn.Module, module: str, end: Any) -> None:
    found = future_leakage(Net(body, end), run, IDS)

    assert found is not None
    assert found["leak"] > 1e-3
    assert found["module"] == module


def test_ids_are_found_by_name_and_labels_are_left_alone() -> None:
    given = {"labels": IDS.clone(), "input_ids": IDS}

    found = future_leakage(Net(Attend(None)), run, given)

    assert found is not None
    assert found["leak"] > 1e-3


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param(IDS[:, :3], id="too-short"),
        pytest.param(torch.zeros_like(IDS), id="one-token-only"),
        pytest.param(IDS[0], id="no-batch"),
    ],
)
def test_what_cannot_be_told_is_none(inputs: Tensor) -> None:
    assert future_leakage(Net(nn.Identity()), run, inputs) is None


def test_an_output_of_another_shape_half_precision_or_chance_is_none() -> None:
    state = torch.Generator()

    assert future_leakage(Net(nn.Identity(), lambda y: y.mean(1)), run, IDS) is None
    assert future_leakage(Net(nn.Identity(), lambda y: y.bfloat16()), run, IDS) is None
    noisy = Net(nn.Identity(), lambda y: y + torch.randn(y.shape, generator=state))
    noisy.__deepcopy__ = lambda memo: noisy
    assert future_leakage(noisy, run, IDS) is None


def test_the_model_stays_as_it_was() -> None:
    model = Net(Attend(None))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    future_leakage(model, run, IDS)

    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "config", "declared"),
    [
        ("MyForCausalLM", None, True),
        ("MyLMHeadModel", SimpleNamespace(is_decoder=False), True),
        ("MyForCausalLM", SimpleNamespace(use_bidirectional_attention=True), False),
        ("XLNetLMHeadModel", SimpleNamespace(), False),
        ("XLMWithLMHeadModel", SimpleNamespace(causal=False), False),
        ("XLMWithLMHeadModel", SimpleNamespace(causal=True), True),
        ("MyForMaskedLM", None, False),
        ("Gpt", None, False),
    ],
)
def test_the_name_of_the_class_declares(name: str, config: Any, declared: bool) -> None:
    model = type(name, (nn.Module,), {"config": config})()

    assert declared_causal(model) is declared


def test_masked_families_declare_in_their_configuration() -> None:
    transformers = pytest.importorskip("transformers")
    small = {
        "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8,
    }  # fmt: skip

    for is_decoder in (True, False):
        config = transformers.BertConfig(**small, is_decoder=is_decoder)
        assert declared_causal(transformers.BertLMHeadModel(config)) is is_decoder


def shifted(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:])


def unshifted(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.transpose(1, 2), labels)


def but(*ignored: int) -> Tensor:
    """Return the tokens as labels, some positions ignored."""
    labels = IDS.clone()
    labels[:, list(ignored)] = -100
    return labels


MASKED = torch.where(torch.arange(8) % 3 == 0, 0, IDS)


@pytest.mark.parametrize(
    ("ids", "labels", "loss", "causal"),
    [
        pytest.param(IDS, IDS.clone(), shifted, True, id="the-tokens"),
        pytest.param(IDS, but(1, 7), shifted, True, id="some-ignored"),
        pytest.param(IDS, IDS.clone(), unshifted, False, id="a-copy"),
        pytest.param(IDS, but(0), unshifted, False, id="a-copy-but-for-the-first"),
        pytest.param(MASKED, IDS.clone(), shifted, False, id="masked"),
        pytest.param(IDS, but(0, 1, 2, 3, 4), shifted, False, id="a-prefix"),
        pytest.param(IDS, but(4), shifted, False, id="ignored-at-the-middle"),
        pytest.param(IDS, but(*range(8)), shifted, False, id="all-ignored"),
        pytest.param(IDS, IDS.roll(1, 0), shifted, False, id="others"),
        pytest.param(IDS, IDS[:, 1:], shifted, False, id="fewer"),
        pytest.param(IDS, IDS.float(), shifted, False, id="no-labels"),
        pytest.param(IDS.float(), IDS.clone(), shifted, False, id="no-tokens"),
    ],
)
def test_labels_that_are_the_tokens_and_that_the_loss_shifts_declare_it(
    ids: Tensor, labels: Tensor, loss: Any, causal: bool
) -> None:
    model = type("MaskedForCausalLM", (Net,), {})(nn.Identity())

    def call(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
        return loss(model(ids), labels)

    assert trained_causal(model, call, ids, labels) is causal
    assert not trained_causal(Net(nn.Identity()), call, ids, labels)


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_masked_family_that_is_trained_on_the_next_token_is_asked(is_decoder: bool) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, is_decoder=is_decoder,
    )  # fmt: skip
    model = transformers.BertLMHeadModel(config)

    report = gradlint.check(model, {"input_ids": IDS, "labels": IDS.clone()}, steps=2, seeds=1)

    found = [f.help for f in report.findings if f.code == "GL612"]
    assert len(found) == (0 if is_decoder else 1)
    assert all("is_decoder=True" in text for text in found)


@pytest.mark.parametrize(
    ("inputs", "targets", "next_token"),
    [
        pytest.param(IDS[:, :-1], IDS[:, 1:], True, id="one-on"),
        pytest.param(IDS[:, :-1], IDS[:, 1:].flatten(), True, id="flat"),
        pytest.param({"input_ids": IDS[:, :-1]}, IDS[:, 1:], True, id="named"),
        pytest.param(IDS, IDS, False, id="the-same"),
        pytest.param(IDS[:, 1:], IDS[:, :-1], False, id="one-back"),
        pytest.param(IDS, torch.zeros(4), False, id="classes"),
        pytest.param(torch.ones_like(IDS), torch.ones_like(IDS), False, id="constant"),
        pytest.param(IDS.float(), IDS, False, id="no-tokens"),
        pytest.param(IDS, None, False, id="no-targets"),
    ],
)
def test_targets_that_are_the_next_token_declare_it(
    inputs: Any, targets: Any, next_token: bool
) -> None:
    assert predicts_next(inputs, targets) is next_token


def test_a_model_of_any_name_is_asked_where_its_targets_are_the_next_token() -> None:
    model = Net(lambda h: h + h.mean(1, keepdim=True), lambda logits: logits.transpose(1, 2))
    batch = (IDS[:, :-1], IDS[:, 1:])

    report = gradlint.check(model, batch, nn.functional.cross_entropy, steps=2, seeds=1)

    assert [f.code for f in report.findings][:1] == ["GL612"]
