"""GradlintCallback for the Trainer of transformers.

```python
from gradlint.integrations.transformers import GradlintCallback

callback = GradlintCallback()
trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
trainer.train()
print(callback.report)
```
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gradlint.integrations.trained import Trained

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        "gradlint.integrations.transformers needs transformers, which is not installed: "
        "python -m pip install 'transformers[torch]'"
    ) from error

if TYPE_CHECKING:
    from gradlint.config import Config
    from gradlint.report import Report


class GradlintCallback(TrainerCallback):
    """Watches `Trainer.train`; `report` has what was found.

    Args:
        fail_on: "error" or "warning" ends the training after the step that showed such a fault.
        every: "auto" keeps to `budget`; a number looks at every such step.
        budget: Share of the training's time that watching may take.
        ignore: Rules that are not run.
        trace: File to write what was measured to, as `gradlint report` reads it.
        config: Settings; none are read from files.
        log: Whether the TensorBoard and W&B that the trainer reports to get gradient norms
            and update ratios.
        verbose: Whether a report with findings is printed on stderr when training ends.
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
        self._trained = Trained(
            fail_on=fail_on, every=every, budget=budget, ignore=ignore, trace=trace,
            config=config, log=log, verbose=verbose,
        )  # fmt: skip

    @property
    def report(self) -> Report:
        """What is known so far, or at the end."""
        return self._trained.report

    def stop(self) -> None:
        """End watching, where the trainer raised: it does not tell its callbacks."""
        self._trained.stop(RuntimeError("stopped"), speaks=False)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Begin to watch."""
        self._trained.start(model, [] if optimizer is None else [optimizer])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Ask for the end of the training if a fault was found."""
        if self._trained.stops:
            control.should_training_stop = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the latest numbers where the trainer sends its own."""
        if not self._trained.log or not state.is_world_process_zero:
            return
        scalars = self._trained.scalars()
        if scalars:
            for writer in _tensorboards():
                for name, value in scalars.items():
                    writer.add_scalar(name, value, state.global_step)
            _to_wandb(scalars, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End watching and judge."""
        self._trained.stop(speaks=state.is_world_process_zero)


def _tensorboards() -> Iterator[Any]:
    """Yield the writers that trainers have open; a trainer does not show its callbacks."""
    module = sys.modules.get("transformers.integrations.integration_utils")
    kind = getattr(module, "TensorBoardCallback", None)
    if kind is None:
        return
    for thing in gc.get_objects():
        if issubclass(type(thing), kind) and thing.tb_writer is not None:
            yield thing.tb_writer


def _to_wandb(scalars: Mapping[str, float], step: int) -> None:
    wandb = sys.modules.get("wandb")
    if wandb is not None and getattr(wandb, "run", None) is not None:
        # The trainer's own callback makes this number the axis.
        wandb.log({**scalars, "train/global_step": step})
