"""One run: a case under a seed, judged by `check`, by a watched loop, or only trained."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import gradlint
from gradlint.errors import NotObservedError
from gradlint.report import Report
from gradlint.watching import Watcher
from tests.calibration.case import Case

STEPS = 40
"""Of a check and of a loop: as many as are looked at whatever the machine's speed."""

MODES = ("check", "run")


def run_one(case: Case, seed: int, mode: str) -> dict[str, Any]:
    """Run `case` and return what came out as plain data; a raised error is part of it."""
    began = time.perf_counter()
    record: dict[str, Any] = {"case": case.name, "seed": seed, "mode": mode}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            record |= _checked(case, seed) if mode == "check" else _looped(case, seed, mode)
        except Exception as error:
            record["error"] = f"{type(error).__name__}: {error}"[:300]
    record["seconds"] = round(time.perf_counter() - began, 2)
    return record


def _checked(case: Case, seed: int) -> dict[str, Any]:
    report = gradlint.check(
        case.model,
        case.batch,
        case.loss,
        case.optimizer,
        training_step=case.step,
        precision=case.precision,
        cures=False,
        steps=STEPS,
        seed=seed,
    )
    return judged(report)


def _looped(case: Case, seed: int, mode: str) -> dict[str, Any]:
    """Train in a plain loop, under a watcher unless `mode` is "plain"."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    model = case.model()
    optimizer = (case.optimizer or _probe)(model)
    source = draws(case.batch)
    loop = case.loop or plain_loop(case)
    losses: list[float] = []
    raised = ""
    watcher = None if mode == "plain" else Watcher(model)
    try:
        with watcher or nullcontext():
            for loss in loop(model, optimizer, source, STEPS):
                losses.append(loss)
    except Exception as error:
        if watcher is None or case.group == "healthy":
            raise
        raised = f"{type(error).__name__}: {error}"[:200]
    record: dict[str, Any] = {}
    if watcher is not None:
        try:
            record = judged(watcher.report)
        except NotObservedError:
            if not raised:
                raise
            record = NOTHING  # the loop's own error came before the first backward pass
    if raised:
        record["raised"] = raised
    return record | {"fall": fall(losses)}


NOTHING: dict[str, Any] = {"verdict": "not-observed", "findings": []}
"""What is known of a loop that raised before anything could be seen."""


def judged(report: Report) -> dict[str, Any]:
    """Return the verdict and the findings, causes first."""
    found = [
        [f.code, f.severity.label, f.cause is None, f.parameter or f.module or "", f.message]
        for f in report.findings
    ]
    return {"verdict": report.verdict, "findings": found}


def draws(batch: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that gives one batch a call, from one of them or from a list."""
    held: list[Any] = []

    def draw() -> Any:
        if not held:
            made = batch()
            if not isinstance(made, list):
                return made
            held.extend(made)
            random.shuffle(held)
        return held.pop()

    return draw


def plain_loop(case: Case) -> Callable[..., Iterator[float]]:
    """Return the loop everybody writes, with clipping, accumulation, a schedule if asked for."""

    def loop(
        model: nn.Module, optimizer: Optimizer, draw: Callable[[], Any], steps: int
    ) -> Iterator[float]:
        scheduler = case.schedule(optimizer) if case.schedule else None
        model.train()
        for _ in range(steps):

            def closure() -> Tensor:
                optimizer.zero_grad()
                for _ in range(case.accumulate):
                    with amp(case.precision):
                        loss = loss_of(case, model, draw())
                    (loss / case.accumulate if case.accumulate > 1 else loss).backward()
                if case.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), case.clip)
                return loss

            if isinstance(optimizer, torch.optim.LBFGS):
                loss = optimizer.step(closure)
            else:
                loss = closure()
                optimizer.step()
            if scheduler is not None:
                scheduler.step()
            yield float(loss.detach())

    return loop


def amp(precision: str | None) -> Any:
    """Return autocast for `precision`, or nothing."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast("cpu", kinds[precision]) if precision else nullcontext()


def loss_of(case: Case, model: nn.Module, batch: Any) -> Tensor:
    """Call the model as its batch says, and the loss if there is one."""
    if case.step is not None:
        return case.step(model, batch)
    if isinstance(batch, dict):
        outputs: Any = model(**batch)
        if case.loss is not None:
            return case.loss(outputs, None)
        return outputs if isinstance(outputs, Tensor) else outputs.loss
    inputs, targets = (batch[0], batch[1]) if isinstance(batch, tuple) else (batch, None)
    if case.loss is None and targets is not None:
        outputs = model(inputs, targets)
        return outputs if isinstance(outputs, Tensor) else outputs[-1]
    if isinstance(inputs, dict):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    return outputs if case.loss is None else case.loss(outputs, targets)


def fall(losses: list[float]) -> float | None:
    """Return by what share the loss fell from the first steps to the last quarter."""
    if len(losses) < 8 or not all(math.isfinite(v) for v in losses):
        return None
    first = sum(losses[:3]) / 3
    late = losses[-(len(losses) // 4) :]
    return (first - sum(late) / len(late)) / max(abs(first), 1e-12)


def _probe(model: nn.Module) -> Optimizer:
    trainable = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.Adam(trainable or model.parameters(), 1e-3)
