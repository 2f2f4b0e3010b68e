"""Gradlint: what the fixture of the pytest plugin gives a test. Needs neither pytest nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from gradlint.config import Config, parse_config

if TYPE_CHECKING:
    from gradlint.report import Report
    from gradlint.watching import Watcher


class Gradlint:
    """The `gradlint` fixture: `gradlint.check` and `gradlint.watch` that fail the test.

    Attributes:
        reports: What was judged, in order.
    """

    def __init__(self, config: Config, options: Mapping[str, Any]) -> None:
        self.reports: list[Report] = []
        self._config = config
        self._options = dict(options)
        self._loops: list[WatchedLoop] = []

    def check(
        self,
        model: Any,
        batch: Any = None,
        loss_fn: Any = None,
        optimizer: Any = None,
        *,
        fail_on: str | None = None,
        ignore: Sequence[str] = (),
        select: Sequence[str] | None = None,
        **options: Any,
    ) -> Report:
        """Judge a model as `gradlint.check` does; always as many steps, no cures tried.

        Args:
            model: See `gradlint.check`, as for `batch`, `loss_fn`, `optimizer`, `options`.
            batch: Inputs, or inputs and targets.
            loss_fn: ``loss_fn(outputs, targets)``.
            optimizer: The optimizer, or a function that builds one.
            fail_on: The least severity that fails the test, or "never".
            ignore: Rules that are not run.
            select: Rules that are; all by default.
            options: `steps`, `seed`, `training_step` and others.

        Raises:
            UnhealthyModelError: If a finding is at or above `fail_on`.
        """
        __tracebackhide__ = True
        from gradlint.session import DEFAULT_STEPS, check

        config = options.pop("config", None) or self._settings(fail_on, ignore, select)
        shared = {k: v for k, v in self._options.items() if k in ("steps", "seed", "seeds")}
        given: dict[str, Any] = {"steps": DEFAULT_STEPS, "cures": False, **shared, **options}
        report = check(model, batch, loss_fn, optimizer, config=config, **given)
        self.judge(report)
        return report

    def watch(
        self,
        model: Any,
        optimizer: Any = None,
        *,
        fail_on: str | None = None,
        ignore: Sequence[str] = (),
        select: Sequence[str] | None = None,
        every: Any = 1,
        **options: Any,
    ) -> WatchedLoop:
        """Watch a loop as `gradlint.watch` does, every step, and judge it where the `with` ends.

        Args:
            model: See `gradlint.watch`, as for `optimizer`, `options`.
            optimizer: The optimizer or optimizers.
            fail_on: The least severity that fails the test, or "never".
            ignore: Rules that are not run.
            select: Rules that are; all by default.
            every: Every such step is looked at; "auto" keeps to the budget.
            options: `budget`, `trace` and others.
        """
        from gradlint.session import watch

        config = options.pop("config", None) or self._settings(fail_on, ignore, select)
        watcher = watch(model, optimizer, every=every, config=config, **options)
        loop = WatchedLoop(watcher, self)
        self._loops.append(loop)
        return loop

    def judge(self, report: Report) -> None:
        """Note a report, and fail the test if it has what its settings fail on.

        Raises:
            UnhealthyModelError: If a finding is at or above the report's `fail_on`.
        """
        __tracebackhide__ = True
        from gradlint.testing import require

        self.reports.append(report)
        require(report, report.fail_on)

    def finish(self) -> None:
        """Stop and judge the loops that were started and never ended."""
        for loop in self._loops:
            loop.stop()

    def _settings(
        self, fail_on: str | None, ignore: Sequence[str], select: Sequence[str] | None
    ) -> Config:
        marked = self._options
        settings = self._config.settings()
        settings["fail-on"] = fail_on or marked.get("fail_on") or self._config.fail_on
        settings["ignore"] = [*self._config.ignore, *marked.get("ignore", ()), *ignore]
        chosen = select if select is not None else marked.get("select")
        if chosen is not None:
            settings["select"] = list(chosen)
        return parse_config(settings)


class WatchedLoop:
    """A watcher that fails its test; a context, or call `start` and `stop`."""

    def __init__(self, watcher: Watcher, judge: Gradlint) -> None:
        self.watcher = watcher
        self._judge = judge
        self._open = False

    def start(self) -> Self:
        """Begin to watch."""
        self.watcher.start()
        self._open = True
        return self

    def stop(self) -> None:
        """End watching, and judge.

        Raises:
            UnhealthyModelError: If a finding is at or above `fail_on`.
        """
        __tracebackhide__ = True
        if self._open:
            self._open = False
            self._judge.judge(self.watcher.finish())

    @property
    def report(self) -> Report:
        """What is known so far, or at the end."""
        return self.watcher.report

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        __tracebackhide__ = True
        if error is None:
            self.stop()
        elif self._open:  # the loop's own exception is the one to see
            self._open = False
            self.watcher.__exit__(kind, error, traceback)
