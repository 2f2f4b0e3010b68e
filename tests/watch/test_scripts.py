"""Scripts as people write them run under `gradlint run`: silence, or the fault's name.

What the scripts learn with their defaults, without gradlint (training loss at the first
and the last line they print, unless said otherwise; one thread, torch 2.13):

| script | before | after | |
|---|---|---|---|
| actor_critic | 22 | 84 | mean reward of an episode, at most 100 |
| amp_accumulation | 0.64 | 0.0015 | bfloat16, 4 batches a step |
| autoencoder | 0.78 | 0.18 | squared error |
| char_rnn_classification | 1.35 | 0.05 | updates by hand, one name a step |
| dcgan | 1.44 / 0.83 | 0.61 / 1.47 | losses of discriminator / generator |
| diabetes_regression | 1.3 | 0.29 | squared error of standardized targets |
| digits_cnn | 2.31 | 0.27 | 98 % of the test set |
| gcn | 1.63 | 0.49 | 88 % of the test set |
| gpt | 3.30 | 1.28 | characters |
| hf_trainer | 0.69 | 0.016 | all of the test set |
| iris | 1.13 | 0.029 | full batch |
| quickstart | 2.30 | 0.19 | 87 % of the test set |
| regression | 12 | 0.0008 | updates by hand, until below 0.001 |
| reinforce | 14 | 83 | mean reward of an episode, at most 100 |
| resnet_digits | 0.74 | 0.005 | mean of an epoch; 96 % of the test set |
| seq2seq_translation | 2.38 | 0.041 | mean of an epoch; two optimizers |
| siamese_contrastive | 1.53 | 0.41 | contrastive loss |
| super_resolution | 0.27 | 0.0015 | squared error, 28 dB |
| time_sequence_prediction | 0.50 | 0.0003 | LBFGS, float64 |
| transfer_learning | 0.92 | 0.21 | mean of an epoch; a trained, frozen trunk |
| transformer_classification | 1.34 | 0.25 | mean of an epoch; 95 % of the validation set |
| vae | 45 | 25.6 | summed, per image |
| word_language_model | 4.32 | 0.84 | updates by hand, clipped at 0.25 |
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.scripts.faults import FAULTS, FOLDER, GALLERY, Fault, original
from tests.scripts.running import run, said

FAST = {"regression"}
"""The script of the default run, the one without an optimizer; the others are slow."""

FAST_FAULTS = {"diabetes_regression-no-zero-grad", "quickstart-other-model"}

HELPERS = {"bench", "faults", "faults_steps", "faults_values", "faults_wiring", "planting"}


def script(name: str) -> object:
    marks = () if name in FAST else (pytest.mark.slow,)
    return pytest.param(name, id=name, marks=marks)


def fault(planted: Fault) -> object:
    slow = [] if planted.id in FAST_FAULTS else [pytest.mark.slow]
    missed = [pytest.mark.xfail(reason=planted.missed, strict=True)] if planted.missed else []
    return pytest.param(planted, id=planted.id, marks=slow + missed)


@pytest.mark.parametrize("name", [script(name) for name in GALLERY])
def test_a_script_without_a_fault_is_left_in_peace(name: str, tmp_path: Path) -> None:
    if name == "hf_trainer":
        pytest.importorskip("accelerate")

    outcome = run(original(name), name, tmp_path)

    assert outcome.status == 0, outcome.errors
    assert outcome.broken == ""
    assert outcome.alarms == []
    assert outcome.report["verdict"] == "healthy"
    assert outcome.report["summary"]["steps"] > 0


@pytest.mark.parametrize("planted", [fault(planted) for planted in FAULTS])
def test_the_first_finding_names_the_fault(planted: Fault, tmp_path: Path) -> None:
    if planted.script == "hf_trainer":
        pytest.importorskip("accelerate")

    outcome = run(planted.planted(), planted.script, tmp_path)

    assert outcome.report, outcome.errors
    assert outcome.broken == ""
    assert outcome.first in planted.causes, [said(f) for f in outcome.findings]


def test_every_fault_can_be_planted() -> None:
    for planted in FAULTS:
        compile(planted.planted(), planted.id, "exec")


def test_every_fault_has_its_own_name_and_codes() -> None:
    assert len({f.id for f in FAULTS}) == len(FAULTS) >= 75
    assert {f.id for f in FAULTS} >= FAST_FAULTS
    assert all(re.fullmatch(r"GL\d{3}", code) for f in FAULTS for code in f.causes)


def test_every_script_is_in_the_gallery_and_knows_nothing_of_gradlint() -> None:
    files = {path.stem for path in FOLDER.glob("*.py")} - HELPERS - {"running"}

    assert files == set(GALLERY)
    assert set(GALLERY) >= FAST
    assert not any("gradlint" in original(name) for name in GALLERY)
