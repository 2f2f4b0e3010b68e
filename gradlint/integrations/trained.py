"""Trained: a watcher in the hands of somebody else's trainer."""

from __future__ import annotations

import statistics
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from gradlint.config import Config, parse_config
from gradlint.errors import GradientHealthError, NotObservedError, UsageError
from gradlint.finding import Severity
from gradlint.observation import MODEL, Observation
from gradlint.report import Report
from gradlint.watching import Watcher

_MEDIANS = ("gradient_ratio", "update_to_weight_ratio")
_TOTALS = ("total_gradient_norm", "norm_before_clipping")


class Trained:
    """Starts, asks and ends a watcher; what the callbacks have in common.

    Args:
        fail_on: "error" or "warning" asks the trainer to stop at the first fault.
        every: See `gradlint.watch`.
        budget: See `gradlint.watch`.
        ignore: Rules that are not run.
        trace: File to write what was measured to.
        config: Settings; none are read from files.
        log: Whether numbers go to the loggers that the trainer has.
        verbose: Whether a report with findings is printed on stderr when training ends.
    """

    def __init__(
        self,
        *,
        fail_on: str | None,
        every: int | Literal["auto"],
        budget: float,
        ignore: Sequence[str],
        trace: str | None,
        config: Config | None,
        log: bool,
        verbose: bool,
    ) -> None:
        if fail_on not in (None, "never"):
            _known_severity(str(fail_on))
        settings = (config or Config()).settings()
        several = [ignore] if isinstance(ignore, str) else ignore
        settings["ignore"] = [*settings["ignore"], *several]
        settings["fail-on"] = fail_on or settings["fail-on"]
        self._config = parse_config(settings)
        self._options: dict[str, Any] = {
            "every": every, "budget": budget, "fail_on": fail_on, "trace": trace,
        }  # fmt: skip
        self._verbose = verbose
        self.log = log
        self._logged = 0
        self.watcher: _Patient | None = None
        self._ended: Report | None = None

    def start(self, model: nn.Module, optimizers: Iterable[Any]) -> None:
        """Begin to watch a training; an earlier one that never ended is ended."""
        if self.watcher is not None:
            self.watcher.stop()
        self._logged, self._ended = 0, None
        self.watcher = _Patient(
            model, list(optimizers) or None, config=self._config, **self._options
        )
        self.watcher.start()
        # A trainer that raises does not tell its callbacks: hooks go when they go.
        weakref.finalize(self, self.watcher.loop.stop).atexit = False

    def stop(self, error: BaseException | None = None, *, speaks: bool = True) -> None:
        """End watching and judge.

        Args:
            error: What ended the training, if it did not end by itself.
            speaks: Whether this process is the one that prints.
        """
        if self.watcher is None or self._ended is not None:
            return
        try:
            self._ended = self.watcher.finish("" if error is None else "exception", error)
        except NotObservedError:
            if error is None:
                raise
            return
        if self._verbose and speaks and self._ended.verdict != "healthy":
            print(self._ended, file=sys.stderr, flush=True)  # noqa: T201 - the user asked

    @property
    def stops(self) -> bool:
        """Whether a fault at or above `fail_on` was found: the trainer should stop."""
        return self.watcher is not None and self.watcher.found is not None

    @property
    def report(self) -> Report:
        """What is known so far, or at the end.

        Raises:
            NotObservedError: If no training was watched.
        """
        if self._ended is not None:
            return self._ended
        if self.watcher is None:
            raise NotObservedError("expected a training to be watched, none was started")
        return self.watcher.report

    def scalars(self) -> dict[str, float]:
        """Return the latest numbers, by the names that loggers get; none twice."""
        if self.watcher is None:
            return {}
        latest = self._latest()
        if not latest or latest[0].step <= self._logged:
            return {}
        self._logged = latest[0].step
        found: dict[str, float] = {}
        for metric in _MEDIANS:
            values = [o.value for o in latest if o.metric == metric and o.value == o.value]
            if values:
                found[f"gradlint/{metric}_median"] = statistics.median(values)
        for o in latest:
            if o.metric in _TOTALS and o.site == MODEL:
                found[f"gradlint/{o.metric}"] = o.value
        return found

    def _latest(self) -> list[Observation]:
        """Return what was measured at the last step of which the numbers have arrived."""
        assert self.watcher is not None  # noqa: S101 - for the types
        loop = self.watcher.loop
        full = loop.observer.observations
        step = full[-1].step if full else 0
        row = loop.records.rows[-1] if loop.records.rows else None
        if row is not None and row.step > step:
            found, step = list(row.observations()), row.step
        else:
            found = []
            for o in reversed(full):
                if o.step != step:
                    break
                found.append(o)
        for (metric, site), points in loop.records.series.items():
            if points and points[-1][0] == step:
                found.append(Observation(metric, site, *points[-1]))
        return found


class _Patient(Watcher):
    """A watcher that keeps its alarm until it is asked, and lets the step end."""

    def __init__(self, model: nn.Module, optimizers: Any, **options: Any) -> None:
        inner = [getattr(o, "optimizer", o) for o in optimizers or ()]
        known = [o for o in inner if isinstance(o, torch.optim.Optimizer)]
        super().__init__(model, known or None, **options)
        self.found: Report | None = None

    def _judge_early(self) -> None:
        try:
            super()._judge_early()
        except GradientHealthError as error:
            self.found, self._report, self._fail_on = error.report, None, None


def _known_severity(word: str) -> None:
    try:
        Severity.parse(word)
    except ValueError as error:
        raise UsageError(f"fail_on: {error}") from error
