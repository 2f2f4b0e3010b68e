"""Ways to watch a training, each on its own copy of the same model."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.hooks import switchboard
from gradlint.watching import Watcher


class Variant:
    """A training that nobody watches; others add to it.

    Args:
        model: Its own copy.
        inputs: The batch.
        targets: What the loss compares with.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        self.model = model
        self.inputs, self.targets = inputs, targets
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step(self) -> None:
        """Train one step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(self.inputs), self.targets).backward()
        self.optimizer.step()

    def block(self, steps: int) -> float:
        """Return the CPU seconds that some steps took."""
        with self:
            started = time.thread_time()
            for _ in range(steps):
                self.step()
            return time.thread_time() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait: other variants have their turn."""

    def close(self) -> None:
        """Remove what was added."""


class Gradlint(Variant):
    """gradlint; between its blocks it hears nothing, as if time stood still."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, every: Any) -> None:
        super().__init__(model, inputs, targets)
        self.watcher = Watcher(model, self.optimizer, every=every)
        self.loop = self.watcher.loop
        self.wall = 0.0
        """Seconds of all blocks on the wall's clock, which `Loop.own` goes by."""
        self.watcher.start()
        self._pause()

    def _pause(self) -> None:
        switchboard.leave(self.loop)
        self.loop.optimizers.stop()
        self._since = time.perf_counter()

    def __enter__(self) -> Self:
        switchboard.listen(self.loop)
        self.loop.optimizers.start()
        now = time.perf_counter()
        if self.loop.interval is not None:
            self.loop.interval.started += now - self._since
        self._began = now
        return self

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter() - self._began
        self._pause()

    def close(self) -> None:
        switchboard.listen(self.loop)
        self.watcher.stop()
        if self.loop.failure is not None:
            raise self.loop.failure


class Naive(Variant):
    """What is often written: a hook on every module that reads a few numbers of its output."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
        super().__init__(model, inputs, targets)
        self.seen: dict[str, tuple[float, float, float]] = {}
        leaves = [(n, m) for n, m in model.named_modules() if not list(m.children())]
        self.handles = [m.register_forward_hook(self._hook(n)) for n, m in leaves]

    def _hook(self, name: str) -> Callable[..., None]:
        def read(module: nn.Module, args: Any, output: Any) -> None:
            value = (output[0] if isinstance(output, tuple) else output).detach()
            norm = value.norm().item()
            self.seen[name] = (value.mean().item(), value.std().item(), norm)

        return read

    def step(self) -> None:
        super().step()
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                norm = parameter.grad.norm().item()
                self.seen[name] = (norm, norm / (parameter.norm().item() + 1e-12), 0.0)

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


class Wandb(Variant):
    """`wandb.watch(log="all")` at every step, offline, as a loop that logs its steps."""

    def __init__(self, model: nn.Module, inputs: Tensor, targets: Tensor, wandb: Any) -> None:
        super().__init__(model, inputs, targets)
        self.wandb = wandb
        self.folder = tempfile.TemporaryDirectory()
        os.environ["WANDB_SILENT"] = "true"
        self.run = wandb.init(mode="offline", dir=self.folder.name, project="cost")
        self.run.watch(model, log="all", log_freq=1)

    def step(self) -> None:
        super().step()
        self.run.log({"step": 1})

    def close(self) -> None:
        self.run.unwatch(self.model)
        self.run.finish()
        self.folder.cleanup()


def wandb_or_none() -> Any:
    """Return wandb where it is installed."""
    try:
        import wandb
    except ImportError:
        return None
    return wandb
