"""Real runs, saved and judged again: the report is the one there was."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradlint
from gradlint.config import Config
from gradlint.errors import UsageError
from gradlint.judging import judge_trace
from gradlint.report import Report
from gradlint.trace_file import read_recorded, read_trace


def deep_sigmoid() -> nn.Sequential:
    layers = [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    return nn.Sequential(*layers, nn.Linear(16, 4))


def a_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (64,), generator=generator)
    return torch.randn(64, 16, generator=generator) + labels[:, None], labels


def judged_again(path) -> Report:
    recorded = read_recorded(path)
    return judge_trace(recorded.trace, Config(), recorded.target)


def said(report: Report) -> object:
    data = json.loads(report.to_json())
    return {key: data[key] for key in ("verdict", "findings", "explained", "skipped", "series")}


def test_a_check_saved_and_judged_again_says_the_same(tmp_path):
    path = tmp_path / "check.jsonl"
    report = gradlint.check(
        deep_sigmoid(),
        a_batch(),
        functional.cross_entropy,
        seeds=1,
        steps=10,
        cures=False,
        trace=path,
    )

    assert "GL301" in {found.code for found in report.findings}
    assert said(judged_again(path)) == said(report)


def test_a_watched_loop_saved_and_judged_again_says_the_same(tmp_path):
    path = tmp_path / "run.jsonl"
    model = deep_sigmoid()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, labels = a_batch()
    with gradlint.watch(model, optimizer, trace=path) as watcher:
        for _ in range(30):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    assert "GL301" in {found.code for found in watcher.report.findings}
    assert said(judged_again(path)) == said(watcher.report)


def test_a_trace_holds_no_data_samples(tmp_path):
    path = tmp_path / "check.jsonl"
    inputs, labels = a_batch()
    inputs[0, 0] = 1234.515625  # whatever is written of the batch is a statistic of it
    inputs[1, 1] = 5678.515625
    gradlint.check(
        deep_sigmoid(), (inputs, labels), functional.cross_entropy, seeds=1, steps=2, trace=path
    )

    text = path.read_text()

    assert "1234.515625" not in text
    assert str(float(inputs[2, 3])) not in text


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(tmp_path):
    with pytest.raises(UsageError, match="expected a folder"):
        gradlint.check(deep_sigmoid(), a_batch(), trace=tmp_path / "no" / "check.jsonl")


def test_an_empty_trace_of_a_watcher_can_be_read(tmp_path):
    path = tmp_path / "run.jsonl"
    model = deep_sigmoid()
    watcher = gradlint.watch(model, trace=path)
    watcher.start()
    try:
        assert len(read_trace(path)) == 0
    finally:
        watcher.stop()
        watcher._writer.close("")
