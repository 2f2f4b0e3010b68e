"""Watcher: a loop watched, judged, written down; what `gradlint.watch` and `run` use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, cast

import torch
from torch import nn

from gradlint.config import Config
from gradlint.errors import GradientHealthError, NotObservedError, UsageError
from gradlint.finding import Severity
from gradlint.hooks.ranks import rank_and_world
from gradlint.judging import judge_trace
from gradlint.report import Report
from gradlint.trace import Trace
from gradlint.trace_file import TraceWriter
from gradlint.watching.assemble import assemble, gathered
from gradlint.watching.guard import Stop
from gradlint.watching.loop import Loop
from gradlint.watching.raised import ASSERTED, is_of_device, raised_in_loss
from gradlint.watching.ranks import PATIENCE, SHORT

MAX_UNWRITTEN = 200
"""Steps that a killed run may lack in its trace."""

Models = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]
Optimizers = torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None


class Watcher:
    """Watches the training inside its `with`; see `gradlint.watch`.

    Args:
        models: The model, several, or several by name; may be empty with `discover`.
        optimizers: The optimizer or optimizers; None follows every one that holds a
            parameter of a model.
        every: "auto" keeps to `budget`; a number looks at every such step.
        budget: Share of the loop's time that watching may take.
        fail_on: "error" or "warning" to end the loop at the first fault; None lets it go on.
        discover: Whether to look for models (`gradlint run`).
        until: End the loop after so many steps.
        trace: File to write the trace to while the loop runs.
        config: Settings; none are read from files.
        target: What the report says of the target.
        alarm: Whether to say a certain fault on stderr while the loop goes on.
        command: "watch" or "run".
        on_step: Called with the watcher after every step, within its own time.
    """

    def __init__(
        self,
        models: Models | None = None,
        optimizers: Optimizers = None,
        *,
        every: int | Literal["auto"] = "auto",
        budget: float = 0.02,
        fail_on: str | None = None,
        discover: bool = False,
        until: int | None = None,
        trace: str | os.PathLike[str] | None = None,
        config: Config | None = None,
        target: Mapping[str, Any] | None = None,
        alarm: bool = False,
        command: str = "watch",
        on_step: Callable[[Watcher], None] | None = None,
    ) -> None:
        _check_cadence(every, budget)
        self.config = config or Config()
        self.command = "run" if discover else command
        self._fail_on = None if fail_on in (None, "never") else Severity.parse(str(fail_on))
        self._until = until
        self._alarm = alarm
        self._target = dict(target or {})
        writes = trace is not None and rank_and_world()[0] == 0
        self._writer = TraceWriter(Path(trace), target=self._target) if trace and writes else None
        self._next_judged = 10
        self._said: dict[tuple[str, str], str] = {}
        self._on_step = on_step
        self._next_written = 1
        self._report: Report | None = None
        self._asserted = False
        """Whether a kernel's assertion ended the loop."""
        self._worst: Report | None = None
        """What the loop is to end for."""
        asked = on_step is not None or until is not None or self._fail_on is not None
        self.loop = Loop(
            _by_name(models),
            _several(optimizers),
            every=every,
            budget=budget,
            discover=discover,
            on_step=self._stepped if asked else None,
            on_numbers=self._numbers,
        )
        if until is not None:
            self.loop.patience = 100 + 10 * until

    # -- the loop ---------------------------------------------------------------------

    def start(self) -> Self:
        """Begin to watch; `stop` ends it. A `with` does both."""
        self.loop.start()
        return self

    def stop(self) -> None:
        """End watching: no hook is left, the last numbers are taken."""
        self.loop.stop()
        self.loop.ranks.leave(lambda: gathered(self.loop, self.command))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.stop()
        # `run` judges when it knows how the script ended; a report that was raised stands.
        if self.command == "run" or isinstance(error, GradientHealthError):
            return
        self._report = None
        try:
            self.finish("" if error is None else "exception", error)
        except Exception:
            if error is None:
                raise
            # The loop's own exception is the one to see.

    def _stepped(self, number: int) -> None:
        if self._on_step is not None:
            self._on_step(self)
        if self._until is not None and number >= self._until:
            raise Stop("until")
        if self._fail_on is not None and self.loop.ranks.stops(number):
            self._end(self._worst or self._judged(self.trace()))

    def _end(self, report: Report) -> NoReturn:
        """End the loop, as the user asked for."""
        if self.command == "run":
            raise Stop("fail-on")
        self._report = report
        raise GradientHealthError(f"{report.verdict}\n{report}", report)

    def _numbers(self, number: int) -> None:
        if self._writer is not None:
            self._write(number)
        due = number >= self._next_judged or self.loop.certain
        if due and (self._fail_on is not None or self._alarm):
            while self._next_judged <= number:
                self._next_judged *= 2
            self._judge_early()

    def _judge_early(self) -> None:
        """Judge what is there; end the loop, or say what is certain."""
        report = self._judged(self.trace())
        worst = [f for f in report.causes if self._fail_on and f.severity >= self._fail_on]
        if worst:
            self._worst = report
            if not self.loop.ranks.postpones_stop(self.loop.steps):
                self._end(report)
        for found in report.causes if self._alarm else ():
            key = (found.code, found.module or "")
            if found.severity is Severity.ERROR and key not in self._said:
                place = f"{found.module}: " if found.module else ""
                text = self._said[key] = f"{found.code} {found.rule}: {place}{found.message}"
                print(f"gradlint: {text}", file=sys.stderr, flush=True)  # noqa: T201

    @property
    def said(self) -> list[str]:
        """What was said to be certain while the loop went on, one line each."""
        return list(self._said.values())

    # -- what comes out ---------------------------------------------------------------

    def trace(self, ended: str = "") -> Trace:
        """Return what was measured so far."""
        patience = PATIENCE if ended in ("", "until", "fail-on") else SHORT
        self.loop.ranks.collect(limit=patience)  # once the loop is over
        return assemble(self.loop, self.command, ended=ended)

    @property
    def report(self) -> Report:
        """What is known so far, or at the end.

        Raises:
            NotObservedError: If nothing was observed.
        """
        if self._report is None:
            self._report = self._judged(self.trace())
            if self.loop.looking:
                report, self._report = self._report, None
                return report
        return self._report

    def finish(self, ended: str = "", error: BaseException | None = None) -> Report:
        """End watching and judge.

        Args:
            ended: How the loop ended; see `LoopFacts`.
            error: What it raised, if it did.

        Raises:
            NotObservedError: If nothing was observed.
        """
        self.stop()
        self._asserted = is_of_device(error)
        raised = raised_in_loss(error)
        if raised is not None:
            self.loop.ended_in_loss(*raised)
            ended = ended or "exception"
        trace = self.trace(ended)
        if self._writer is not None:
            self._writer.describe(**_about(trace))
            self._writer.whole(trace)
            self._writer.close(ended)
        self._report = self._judged(trace)
        return self._report

    def _judged(self, trace: Trace) -> Report:
        if not (self.loop.backwards or self.loop.steps or trace.facts.events):
            raise NotObservedError(
                "expected a model to be trained, got no backward pass from one; is the loop "
                "inside the `with`, and does it call loss.backward()?"
            )
        target = {"command": self.command, **_about(trace), **self._target}
        return judge_trace(trace, self.config, target, notices=self._notices(trace))

    @property
    def _failed(self) -> bool:
        """Whether a fault of gradlint's own ended the watching."""
        failure = self.loop.failure
        return failure is not None and not (self._asserted or is_of_device(failure))

    def _notices(self, trace: Trace) -> list[str]:
        """Return what else the user should know of the watching."""
        failure, writer = self.loop.failure, self._writer
        found = list(self.loop.ranks.notices)
        if self._failed:
            steps = self.loop.steps
            found.append(
                f"gradlint stopped watching after {steps} steps, by a fault of its own: "
                f"{type(failure).__name__}: {failure}"
            )
        elif self._asserted or failure is not None:
            found.append(ASSERTED)
        if writer is not None and writer.error is not None:
            found.append(f"the trace could not be written to its end: {writer.error.strerror}")
        return found

    def _write(self, number: int) -> None:
        """Write the trace so far, ever less often: what a killed run loses is its last tenth."""
        if self._writer is not None and number >= self._next_written:
            self._next_written = number + max(1, min(number // 10, MAX_UNWRITTEN))
            self._writer.follow(self.trace(), number)

    def _repr_html_(self) -> str:
        from gradlint.reporters.to_html import framed

        return framed(self.report)


def _about(trace: Trace) -> dict[str, Any]:
    loop = trace.facts.loop
    root = trace.modules.get("")
    return {
        "object": root.kind if root is not None else "",
        "parameters": sum(p.numel for p in trace.parameters.values()),
        "assumed": {} if loop is None else {"looked at": f"{loop.observed} of {loop.steps} steps"},
    }


def _by_name(models: Models | None) -> dict[str, nn.Module]:
    if models is None:
        return {}
    if isinstance(models, nn.Module):
        return {"model": models}
    if isinstance(models, Mapping):
        found = dict(models)
    else:
        found = {f"model{i}": model for i, model in enumerate(models)}
    wrong = next((m for m in found.values() if not isinstance(m, nn.Module)), None)
    if wrong is not None:
        raise UsageError(
            "watch: expected an nn.Module, several, or a mapping of them, got "
            f"{type(wrong).__name__}"
        )
    return found


def _several(optimizers: Optimizers) -> list[torch.optim.Optimizer]:
    if optimizers is None:
        return []
    one = isinstance(optimizers, torch.optim.Optimizer) or not isinstance(optimizers, Iterable)
    found: list[Any] = [optimizers] if one else list(cast(Iterable[Any], optimizers))
    inner = [getattr(o, "optimizer", o) for o in found]  # Accelerate wraps the user's
    wrong = next((o for o in inner if not isinstance(o, torch.optim.Optimizer)), None)
    if wrong is not None:
        raise UsageError(
            f"watch: expected a torch.optim.Optimizer or several, got {type(wrong).__name__}"
        )
    return inner


def _check_cadence(every: int | str, budget: float) -> None:
    if every != "auto" and (isinstance(every, str) or every < 1):
        raise UsageError(f"watch: expected every to be 'auto' or a number from 1, got {every!r}")
    if not 0 < budget <= 1:
        raise UsageError(f"watch: expected a budget between 0 and 1, got {budget!r}")
