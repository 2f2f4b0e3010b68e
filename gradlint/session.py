"""check: wires the stages together, from a target to a report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from gradlint.config import Config, active_rules, apply_severity, module_ignores, take_suppressed
from gradlint.diagnosis.causes import link
from gradlint.diagnosis.exemptions import EXEMPTIONS
from gradlint.diagnosis.judge import Judgement, combine, judge
from gradlint.diagnosis.trials import try_cures
from gradlint.errors import NotObservedError
from gradlint.finding import Severity
from gradlint.judging import reported
from gradlint.plan import Plan, Run, instantiate, prepared
from gradlint.report import Report
from gradlint.target import Target, from_objects
from gradlint.target.locate import locate
from gradlint.target.sources import module_sources
from gradlint.target.user_code import eagerly
from gradlint.trace import Trace
from gradlint.trace_file import check_place, write_trace
from gradlint.training import Training
from gradlint.undisturbed import seed_all, undisturbed

if TYPE_CHECKING:
    from gradlint.watching import Watcher
    from gradlint.watching.watcher import Models, Optimizers

SEEDS = 3
"""Seeds under which initialization is looked at; an error must return in most of them."""

DEFAULT_STEPS = 40
DEFAULT_SECONDS = 15.0

Progress = Callable[[str, float], None]


def check(
    model: nn.Module | Callable[[], nn.Module],
    batch: Any = None,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    optimizer: torch.optim.Optimizer | Callable[..., torch.optim.Optimizer] | None = None,
    *,
    training_step: Callable[[nn.Module, Any], Tensor] | None = None,
    steps: int | None = None,
    seed: int = 0,
    seeds: int = SEEDS,
    device: str | None = None,
    precision: str | None = None,
    cures: bool = True,
    config: Config | None = None,
    progress: Progress | None = None,
    trace: str | os.PathLike[str] | None = None,
) -> Report:
    """Judge a model: its initialization, its gradient flow, a short training.

    The objects given stay as they are, bit for bit, and so do the random states: gradlint
    works on a deep copy of model and optimizer.

    Args:
        model: A module, or a function without arguments that builds one (then other seeds
            build others, and an error must return in most of them).
        batch: A tensor, ``(inputs, targets)``, a mapping, a list of batches, a loader; None
            lets gradlint make one up from the model's first layers.
        loss_fn: ``loss_fn(outputs, targets)``, a scalar; None for the model's own loss, or
            one chosen by outputs and targets.
        optimizer: The optimizer of `model`, or a function that builds one; None uses Adam
            to train, and rules on learning rates stay silent.
        training_step: ``training_step(model, batch)``, a scalar loss; replaces `loss_fn`.
        steps: Training steps; about 40 or 15 seconds by default, 0 for initialization only.
        seed: The first seed.
        seeds: Seeds under which initialization is looked at, if `model` is a function.
        device: Where to run; where the model is by default.
        precision: None, "bf16" or "fp16" for autocast.
        cures: Whether to try cures on a copy, one more training each.
        config: Settings; none are read from files.
        progress: Called with a phase and a share in ``[0, 1]``.
        trace: File to write what was measured under the first seed to, as `gradlint report`
            reads it.

    Returns:
        The report; `report.raise_for("error")` raises if it is not clean.

    Raises:
        UsageError: If the arguments do not make a training.
        TargetError: If the model or the loss raises and no rule can name the reason.
    """
    with undisturbed(device):
        seed_all(seed)
        target = from_objects(model, batch, loss_fn, optimizer, training_step=training_step)
        return _check(
            target,
            config=config or Config(),
            steps=steps,
            seed=seed,
            seeds=seeds,
            device=device,
            precision=precision,
            cures=cures,
            progress=progress,
            trace=trace,
        )


def watch(
    model: Models,
    optimizer: Optimizers = None,
    *,
    loss: Any = None,
    every: int | Literal["auto"] = "auto",
    budget: float = 0.02,
    fail_on: str | None = None,
    trace: str | os.PathLike[str] | None = None,
    config: Config | None = None,
) -> Watcher:
    """Watch a training loop of your own.

    ```python
    with gradlint.watch(model, optimizer) as watcher:
        for inputs, targets in loader:
            ...  # nothing else to call: steps are seen by themselves
    print(watcher.report)
    ```

    Training is the same, bit for bit, and nothing is left behind. The first steps are looked
    at closely, then as many as `budget` allows.

    Args:
        model: The model; several as a list or a mapping of names.
        optimizer: The optimizer or optimizers; None follows every one that holds a
            parameter of the model, and updates by hand.
        loss: Not needed, since losses are seen where backward starts; accepted for symmetry
            with `check`.
        every: "auto" keeps to `budget`; a number looks at every such step, for runs that
            have to be the same each time.
        budget: Share of the loop's time that watching may take.
        fail_on: "error" or "warning" raises `GradientHealthError` at the first fault.
        trace: File to write what was measured to, as `gradlint report` reads it.
        config: Settings; none are read from files.

    Returns:
        A watcher: a context, or call its `start` and `stop`; `watcher.report` at any time.

    Raises:
        UsageError: If the arguments are not what they should be.
    """
    from gradlint.watching import Watcher

    return Watcher(
        model, optimizer, every=every, budget=budget, fail_on=fail_on, trace=trace, config=config
    )


def check_target(
    target: str,
    *,
    config: Config,
    seed: int = 0,
    seeds: int = SEEDS,
    steps: int | None = None,
    device: str | None = None,
    inputs: Sequence[str] = (),
    loss: str | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    cures: bool = True,
    progress: Progress | None = None,
    trace: str | os.PathLike[str] | None = None,
) -> Report:
    """Judge the model in a file or a package; what `gradlint check TARGET` calls.

    Args are those of the command line; see `check` for the rest.
    """
    with undisturbed(device):
        seed_all(seed)
        found = locate(
            target, inputs=inputs, loss=loss, optimizer=optimizer, lr=lr, device=device,
            seed=seed, batch_size=batch_size, batch=config.target.batch,
            training_step=config.target.training_step,
        )  # fmt: skip
        with eagerly():  # the target may have loaded the compiler
            return _check(
                found,
                config=config,
                steps=steps,
                seed=seed,
                seeds=seeds,
                device=device,
                precision=precision,
                cures=cures,
                progress=progress,
                trace=trace,
            )


def describe_target(
    target: str,
    *,
    config: Config,
    seed: int = 0,
    device: str | None = None,
    inputs: Sequence[str] = (),
    loss: str | None = None,
    optimizer: str | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    **_: Any,
) -> dict[str, Any]:
    """Return what `check` would use of TARGET and what it would assume; runs no training."""
    with undisturbed(device):
        seed_all(seed)
        found = locate(
            target, inputs=inputs, loss=loss, optimizer=optimizer, lr=lr, device=device,
            seed=seed, batch_size=batch_size, batch=config.target.batch,
            training_step=config.target.training_step,
        )  # fmt: skip
        model, given = instantiate(found, device)
        batches = found.batches(model, seed)
        return {
            **_described(found, model, given),
            "rebuildable": found.rebuildable,
            "batches": len(batches),
        }


def _check(
    target: Target,
    *,
    config: Config,
    steps: int | None,
    seed: int,
    seeds: int,
    device: str | None,
    precision: str | None,
    cures: bool,
    progress: Progress | None,
    trace: str | os.PathLike[str] | None,
) -> Report:
    if trace is not None:
        check_place(Path(trace))
    plan = Plan(
        steps=DEFAULT_STEPS if steps is None else steps,
        seconds=DEFAULT_SECONDS if steps is None else None,
        precision=precision,
        progress=progress,
        sources=partial(module_sources, files=target.files or None),
    )
    rules = active_rules(config)
    exemptions = [*module_ignores(config), *EXEMPTIONS]

    def observe(number: int, plan: Plan) -> tuple[Run, dict[str, Any]]:
        seed_all(number)
        model, optimizer, own = prepared(target, device)
        described = _described(target, model, optimizer)
        return Training(own, model, optimizer, plan, number).run(), described

    def judged(trace: Trace) -> Judgement:
        return judge(trace, rules, exemptions)

    run, described = observe(seed, plan)
    if trace is not None:
        write_trace(trace, run.trace, target=described)
    judgement = judged(run.trace)
    if run.error is None:
        judgement = _confirmed(judgement, target, plan, seed, seeds, observe, judged)
    judgement, suppressed = take_suppressed(judgement)
    findings = apply_severity(judgement.findings, config)
    if run.error is not None and not any(f.severity is Severity.ERROR for f in findings):
        raise run.error
    if not run.trace.observations and not findings:
        raise NotObservedError(f"expected {described['object']} to run, nothing was observed")
    linked = link(findings)
    if cures and run.error is None:
        linked = try_cures(linked, run.trace, target, plan, seed, device, seed_all, judged)
    return reported(linked, judgement, suppressed, run.trace, config, described)


def _confirmed(
    judgement: Judgement,
    target: Target,
    plan: Plan,
    seed: int,
    seeds: int,
    observe: Callable[[int, Plan], tuple[Run, dict[str, Any]]],
    judged: Callable[[Trace], Judgement],
) -> Judgement:
    """Look at the initialization under other seeds; train under them if an error depends on it."""
    others = range(seed + 1, seed + max(1, seeds))
    if not others:
        return judgement
    short = replace(plan, steps=0)
    repeated = [judged(observe(n, short)[0].trace) for n in others] if target.rebuildable else []
    pending = {f.code for f in judgement.findings if f.severity is Severity.ERROR and not f.exact}
    for other in repeated:
        pending -= {f.code for f in other.findings}
    # What only the short runs show, training may have explained: ask it of them, too.
    known = {f.code for f in judgement.findings}
    new = {f.code for f in combine([judgement, *repeated]).findings if f.severity > Severity.NOTE}
    if (pending or new - known) and plan.steps > 0:
        repeated = [judged(observe(n, plan)[0].trace) for n in others]
    return combine([judgement, *repeated])


def _described(
    target: Target, model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> dict[str, Any]:
    first = next(model.parameters(), None)
    assumed = dict(target.assumed)
    if optimizer is None:
        assumed.setdefault("optimizer", "none given: trained with Adam, learning rate 1e-3")
    return {
        "path": target.path,
        "object": target.object,
        "command": "check",
        "parameters": sum(
            p.numel() for p in model.parameters() if not isinstance(p, nn.UninitializedParameter)
        ),
        "device": str(first.device) if first is not None else "cpu",
        "assumed": assumed,
    }
