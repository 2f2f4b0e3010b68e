"""Lightning's callback against the real library, under both of its names."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from gradlint.errors import NotObservedError, UsageError
from tests.integrations.models import loader, net

pl = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's, about workers and loggers


def module_of(library: ModuleType = pl, *, sick: bool = False, forward: bool = True) -> Any:
    """A LightningModule as people write them: the criterion is one of its parts."""

    class Lit(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net(sick=sick)
            self.criterion = nn.CrossEntropyLoss()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            x, y = batch
            return self.criterion(self(x) if forward else self.net(x), y)

        def validation_step(self, batch, index):
            x, y = batch
            self.log("val_loss", self.criterion(self(x), y))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    return Lit()


def trainer(library: ModuleType = pl, **options: Any) -> Any:
    settings = {
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return library.Trainer(**{**settings, **options})


def callback(**options: Any) -> Any:
    from gradlint.integrations.lightning import GradlintCallback

    return GradlintCallback(**{"every": 1, **options})


@pytest.mark.parametrize("forward", [True, False], ids=["calls itself", "calls its part"])
def test_a_healthy_module_is_healthy(forward: bool, capfd: pytest.CaptureFixture[str]) -> None:
    watched = callback()
    trainer(callbacks=watched).fit(module_of(forward=forward), loader(), loader())

    assert watched.report.verdict == "healthy"
    assert watched.report.summary.steps == 40
    assert "gradlint" not in capfd.readouterr().err


def test_a_sick_module_is_named_and_its_report_printed(capfd: pytest.CaptureFixture[str]) -> None:
    watched = callback()
    trainer(callbacks=[watched]).fit(module_of(sick=True), loader())

    assert watched.report.causes[0].code == "GL601"
    assert "GL601 doubled-softmax" in capfd.readouterr().err


def test_training_is_the_same_bit_for_bit_and_no_hook_stays() -> None:
    plain, seen = module_of(), module_of()
    trainer().fit(plain, loader())
    trainer(callbacks=[callback()]).fit(seen, loader())

    for name, value in plain.state_dict().items():
        assert torch.equal(value, seen.state_dict()[name])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in seen.modules())


def test_fail_on_ends_the_fit() -> None:
    watched = callback(fail_on="error", verbose=False)
    fit = trainer(callbacks=[watched], max_epochs=50)
    fit.fit(module_of(sick=True), loader())

    assert fit.global_step < 50
    assert watched.report.causes[0].code == "GL601"
    assert watched.report.exit_code == 1


def test_an_exception_of_the_module_is_seen_and_what_was_found_is_kept() -> None:
    module, watched = module_of(sick=True), callback(verbose=False)
    step = module.training_step

    def breaks(batch, batch_idx):
        return step(batch, batch_idx) if batch_idx < 15 else 1 / 0

    module.training_step = breaks

    with pytest.raises(ZeroDivisionError):
        trainer(callbacks=[watched]).fit(module, loader())

    assert watched.report.causes[0].code == "GL601"
    assert not any(m._forward_hooks for m in module.modules())


def test_the_loggers_of_the_trainer_get_numbers(tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    fit = trainer(
        callbacks=[callback()], logger=logger, log_every_n_steps=10, gradient_clip_val=1.0
    )
    fit.fit(module_of(), loader())

    with open(Path(logger.log_dir) / "metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["gradlint/total_gradient_norm"]]
    assert [int(row["step"]) for row in rows] == [10, 20, 30, 40]
    assert 0 < float(rows[0]["gradlint/update_to_weight_ratio_median"]) < 1
    assert float(rows[0]["gradlint/norm_before_clipping"]) > 0


def test_several_optimizers_stepped_by_hand_are_followed() -> None:
    class Gan(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.maker = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10))
            self.judge = nn.Sequential(nn.Linear(10, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))

        def training_step(self, batch, index):
            x, _ = batch
            for_maker, for_judge = self.optimizers()
            made = self.maker(torch.randn(len(x), 4))
            criterion = nn.functional.binary_cross_entropy_with_logits
            ones, zeros = torch.ones(len(x), 1), torch.zeros(len(x), 1)
            for_judge.zero_grad()
            loss = criterion(self.judge(x), ones) + criterion(self.judge(made.detach()), zeros)
            self.manual_backward(loss)
            for_judge.step()
            for_maker.zero_grad()
            self.manual_backward(criterion(self.judge(made), ones))
            for_maker.step()

        def configure_optimizers(self):
            parts = (self.maker, self.judge)
            return [torch.optim.Adam(p.parameters(), lr=1e-3, betas=(0.5, 0.99)) for p in parts]

    watched = callback()
    trainer(callbacks=[watched]).fit(Gan(), loader())

    assert watched.report.summary.steps == 80
    assert watched.report.verdict == "healthy", str(watched.report)


def test_ignored_rules_are_not_run_and_mistakes_are_told() -> None:
    watched = callback(ignore=["GL601"])
    trainer(callbacks=[watched]).fit(module_of(sick=True), loader())

    assert "GL601" not in watched.report.rules
    with pytest.raises(UsageError, match="expected a severity"):
        callback(fail_on="bad")
    with pytest.raises(NotObservedError, match="none was started"):
        _ = callback().report


def test_the_other_name_of_lightning_works_too() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = importlib.import_module("pytorch_lightning")
    sys.modules.pop("gradlint.integrations.lightning", None)
    watched = callback()
    trainer(other, callbacks=[watched]).fit(module_of(other, sick=True), loader())

    assert isinstance(watched, other.Callback)
    assert isinstance(watched, pl.Callback)
    assert watched.report.causes[0].code == "GL601"


@pytest.mark.slow
def test_a_module_called_by_way_of_ddp_returns_what_its_part_returns() -> None:
    program = """
import warnings
warnings.simplefilter("ignore")
from tests.integrations.test_lightning import *
watched = callback()
fit = trainer(callbacks=[watched], strategy="ddp", devices=1)
fit.fit(module_of(sick=True, forward=False), loader(), loader())
facts = watched._trained.watcher.trace().facts
print(watched.report.causes[0].code, facts.outputs[0].shape, facts.inputs[0].shape)
"""
    done = subprocess.run(  # a process of its own: Lightning leaves its process group behind
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert done.stdout.splitlines()[-1] == "GL601 (32, 3) (32, 10)", done.stderr


@pytest.mark.parametrize("name", ["lightning", "transformers"])
def test_a_missing_library_is_said_in_one_sentence(name: str) -> None:
    program = (
        "import sys\n"
        "for gone in ('lightning', 'lightning.pytorch', 'pytorch_lightning', 'transformers'):\n"
        "    sys.modules[gone] = None\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name: None\n"
        f"import gradlint.integrations.{name}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: gradlint.integrations.{name} needs ")
    assert "which is not installed: python -m pip install" in last
