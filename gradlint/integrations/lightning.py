"""GradlintCallback for Lightning: for `lightning` and for `pytorch_lightning`.

```python
from gradlint.integrations.lightning import GradlintCallback

callback = GradlintCallback()
trainer = Trainer(callbacks=[callback])
trainer.fit(module, loader)
print(callback.report)
```
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from gradlint.integrations.trained import Trained

if TYPE_CHECKING:
    from gradlint.config import Config
    from gradlint.report import Report

_LIBRARIES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[type, ...]:
    """Return the `Callback` of each Lightning in use, or of the first one there is."""
    loaded = [name for name in _LIBRARIES if sys.modules.get(name) is not None]
    for name in () if loaded else _LIBRARIES:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            loaded = [name]
            break
    if not loaded:
        raise ImportError(
            "gradlint.integrations.lightning needs Lightning, which is not installed: "
            "python -m pip install lightning"
        )
    return tuple(importlib.import_module(name).Callback for name in loaded)


class GradlintCallback(*_bases()):  # type: ignore[misc]
    """Watches `Trainer.fit`; `report` has what was found.

    Args:
        fail_on: "error" or "warning" ends the fit after the step that showed such a fault.
        every: "auto" keeps to `budget`; a number looks at every such step.
        budget: Share of the fit's time that watching may take.
        ignore: Rules that are not run.
        trace: File to write what was measured to, as `gradlint report` reads it.
        config: Settings; none are read from files.
        log: Whether the trainer's loggers get gradient norms and update ratios.
        verbose: Whether a report with findings is printed on stderr when the fit ends.
    """

    def __init__(
        self,
        *,
        fail_on: str | None = None,
        every: int | Literal["auto"] = "auto",
        budget: float = 0.02,
        ignore: Sequence[str] = (),
        trace: str | None = None,
        config: Config | None = None,
        log: bool = True,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        self._trained = Trained(
            fail_on=fail_on, every=every, budget=budget, ignore=ignore, trace=trace,
            config=config, log=log, verbose=verbose,
        )  # fmt: skip

    @property
    def report(self) -> Report:
        """What is known so far, or at the end."""
        return self._trained.report

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        self._trained.start(pl_module, trainer.optimizers)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Log the latest numbers; ask for the end of the fit if a fault was found."""
        step = trainer.global_step
        due = trainer.loggers and step % trainer.log_every_n_steps == 0
        if self._trained.log and due:
            scalars = self._trained.scalars()
            for logger in trainer.loggers if scalars else ():
                logger.log_metrics(scalars, step=step)
        if self._trained.stops:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End watching and judge."""
        self._trained.stop(speaks=trainer.is_global_zero)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End watching; the trainer's exception goes on."""
        self._trained.stop(exception, speaks=trainer.is_global_zero)
