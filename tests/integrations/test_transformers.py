"""The callback of transformers, Accelerate, and one model under every trainer."""

from __future__ import annotations

import gc
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gradlint
from gradlint.report import Report
from tests.integrations.models import BATCH, Net, data, loader, net

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers', about pinned memory and more


class NetWithLoss(Net):
    """The network as the Trainer wants it: it returns its loss."""

    def forward(self, x, labels):
        logits = super().forward(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Items(torch.utils.data.Dataset):
    def __init__(self) -> None:
        self.x, self.y = data().tensors

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.y[index]}


def with_loss(*, sick: bool = False) -> NetWithLoss:
    torch.manual_seed(0)
    return NetWithLoss(sick=sick)


def arguments(folder: Path, **options: Any) -> Any:
    settings = {
        "output_dir": str(folder), "num_train_epochs": 2, "per_device_train_batch_size": BATCH,
        "learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "logging_steps": 10, "save_strategy": "no", "report_to": "none", "use_cpu": True,
        "disable_tqdm": True,
    }  # fmt: skip
    return transformers.TrainingArguments(**{**settings, **options})


def callback(**options: Any) -> Any:
    from gradlint.integrations.transformers import GradlintCallback

    return GradlintCallback(**{"every": 1, **options})


def trained(model: nn.Module, folder: Path, watched: Any = None, **options: Any) -> Any:
    trainer = transformers.Trainer(
        model=model, args=arguments(folder, **options), train_dataset=Items(),
        callbacks=[] if watched is None else [watched],
    )  # fmt: skip
    trainer.train()
    return trainer


def test_a_healthy_model_is_healthy(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watched = callback()
    trained(with_loss(), tmp_path, watched)

    assert watched.report.verdict == "healthy"
    assert watched.report.summary.steps == 40
    assert "GL" not in capfd.readouterr().err


def test_a_sick_model_is_named_and_its_report_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    watched = callback()
    trained(with_loss(sick=True), tmp_path, watched)

    assert watched.report.causes[0].code == "GL601"
    assert "GL601 doubled-softmax" in capfd.readouterr().err


def test_training_is_the_same_bit_for_bit_and_no_hook_stays(tmp_path: Path) -> None:
    plain, seen = with_loss(), with_loss()
    trained(plain, tmp_path)
    trained(seen, tmp_path, callback())

    for name, value in plain.state_dict().items():
        assert torch.equal(value, seen.state_dict()[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in seen.modules())


def test_fail_on_ends_the_training(tmp_path: Path) -> None:
    watched = callback(fail_on="error", verbose=False)
    trainer = trained(with_loss(sick=True), tmp_path, watched, num_train_epochs=50)

    assert trainer.state.global_step < 50
    assert watched.report.causes[0].code == "GL601"
    assert watched.report.exit_code == 1


def test_a_trainer_that_raised_leaves_what_was_found_and_hooks_go_with_it(tmp_path: Path) -> None:
    class Breaks(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 15:
                raise ZeroDivisionError

    model, watched = with_loss(sick=True), callback(verbose=False)
    trainer = transformers.Trainer(
        model=model, args=arguments(tmp_path), train_dataset=Items(),
        callbacks=[watched, Breaks()],
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        trainer.train()

    assert watched.report.causes[0].code == "GL601"
    del trainer, watched
    gc.collect()
    assert not any(m._forward_hooks for m in model.modules())


def test_tensorboard_gets_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    seen: dict[str, list[int]] = {}

    class Writer:
        def add_scalar(self, name, value, step):
            seen.setdefault(name, []).append(step)

        def __getattr__(self, name):
            return lambda *args, **kwargs: None

    board = transformers.integrations.TensorBoardCallback(Writer())
    trainer = transformers.Trainer(
        model=with_loss(), args=arguments(tmp_path), train_dataset=Items(),
        callbacks=[board, callback()],
    )  # fmt: skip
    trainer.train()

    assert seen["gradlint/total_gradient_norm"] == [10, 20, 30, 40]
    assert seen["gradlint/update_to_weight_ratio_median"] == [10, 20, 30, 40]


@pytest.mark.parametrize("sick", [False, True], ids=["healthy", "sick"])
@pytest.mark.slow
def test_a_small_bert_is_judged(sick: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32, num_labels=2,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    if sick:
        model.classifier = nn.Sequential(model.classifier, nn.Softmax(dim=-1))
    ids = torch.randint(4, 60, (640, 12))
    items = [{"input_ids": row, "labels": (row < 32).sum().item() > 6} for row in ids]
    watched = callback(verbose=False)
    transformers.Trainer(
        model=model, args=arguments(tmp_path, learning_rate=1e-3, warmup_steps=5),
        train_dataset=[{**item, "labels": int(item["labels"])} for item in items],
        callbacks=[watched],
    ).train()  # fmt: skip

    if sick:
        assert watched.report.causes[0].code == "GL601"
    else:
        assert watched.report.verdict == "healthy", str(watched.report)


def test_weights_and_biases_gets_numbers_where_a_run_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[dict[str, float]] = []
    wandb = types.SimpleNamespace(run=object(), log=logged.append)  # it needs an account
    monkeypatch.setitem(sys.modules, "wandb", wandb)

    trained(with_loss(), tmp_path, callback())

    assert [entry["train/global_step"] for entry in logged] == [10, 20, 30, 40]
    assert "gradlint/total_gradient_norm" in logged[0]


# -- Accelerate ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_accelerator():
    """Accelerate keeps one state a process."""
    yield
    _forget_accelerator()


def _forget_accelerator() -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def accelerated(*, sick: bool = False, clip: float | None = None, **options: Any) -> Report:
    """A loop in Accelerate's way, its wrapped objects watched."""
    from accelerate import Accelerator

    _forget_accelerator()
    accelerator = Accelerator(cpu=True, **options)
    model = net(sick=sick)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    with gradlint.watch(model, optimizer, every=1) as watcher:
        for _ in range(2):
            for x, y in batches:
                with accelerator.accumulate(model):
                    loss = nn.functional.cross_entropy(model(x), y)
                    accelerator.backward(loss)
                    if clip is not None and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), clip)
                    optimizer.step()
                    optimizer.zero_grad()
    loop = watcher.trace().facts.loop
    assert loop is not None
    assert loop.optimizers == ("AdamW",)
    assert (loop.clipping is not None) == (clip is not None)
    return watcher.report


def test_a_loop_of_accelerate_is_watched_with_its_wrapped_objects() -> None:
    assert accelerated().verdict == "healthy"
    assert accelerated(clip=1.0).verdict == "healthy"
    assert accelerated(sick=True).causes[0].code == "GL601"


def test_accumulation_and_bfloat16_of_accelerate_are_no_faults() -> None:
    assert accelerated(gradient_accumulation_steps=2).summary.steps == 20
    assert accelerated(gradient_accumulation_steps=2).verdict == "healthy"
    assert accelerated(mixed_precision="bf16").verdict == "healthy"


# -- one model, every trainer -------------------------------------------------------------


def said(report: Report, owner: str = "") -> set[tuple[str, str, str]]:
    """The findings, their paths as in the model itself."""
    paths = {f.id: f"{f.module or ''}.".removeprefix(owner).strip(".") for f in report.findings}
    return {(f.code, f.severity.label, paths[f.id]) for f in report.findings}


def by_hand(*, sick: bool) -> Report:
    model = net(sick=sick)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    with gradlint.watch(model, optimizer, every=1) as watcher:
        for _ in range(2):
            for x, y in loader():
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    return watcher.report


@pytest.mark.parametrize("sick", [False, True], ids=["healthy", "sick"])
def test_lightning_transformers_and_plain_loops_give_the_same_findings(
    sick: bool, tmp_path: Path
) -> None:
    pl = pytest.importorskip("lightning.pytorch")
    from gradlint.integrations.lightning import GradlintCallback

    class Lit(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net(sick=sick)

        def training_step(self, batch, index):
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.0)

    plain = said(by_hand(sick=sick))
    fit = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[lit := GradlintCallback(every=1, verbose=False)],
    )  # fmt: skip
    fit.fit(Lit(), loader())
    trained(with_loss(sick=sick), tmp_path, watched := callback(verbose=False))

    assert ("GL601" in {code for code, *_ in plain}) == sick
    assert said(lit.report, "net") == plain
    assert said(watched.report) == plain
    assert said(accelerated(sick=sick)) == plain
