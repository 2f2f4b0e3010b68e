"""HookManager: the only caller of a module's `register_*` methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, Self

import torch
from torch import nn

from gradlint.errors import GradlintError, MetricError
from gradlint.hooks.inert import Inert
from gradlint.hooks.weak import joined

graph_task = getattr(torch._C, "_current_graph_task_id", lambda: -1)
_functorch_level = getattr(
    getattr(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None
)


class Listener(Protocol):
    """What the manager tells."""

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """The module at `path` is about to run. `inputs` is ``(args, kwargs)``."""

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """The module at `path` ran. `inputs` is ``(args, kwargs)``."""


def observable() -> bool:
    """Whether a forward running now is one to be read.

    False inside a backward (a checkpoint's recomputation), under `torch.func` transforms
    and while `torch.compile` traces.
    """
    if torch.compiler.is_compiling():  # first: a compiler that traces this sees a constant
        return False
    return graph_task() == -1 and _functorch_level() is None


class _Hook:
    """One module's hook; a copy of the model carries an inert one."""

    def __init__(self, listener: Listener, path: str) -> None:
        self.listener = listener
        self.path = path

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return (Inert, ())

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Tell our own mistakes from the target's: both would come out of its forward."""
        try:
            yield
        except GradlintError:
            raise
        except Exception as error:
            raise MetricError(
                f"could not read what {self.path or 'the model'!r} returned: {error!r}"
            ) from error


class _Enter(_Hook):
    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if observable():
            with self._ours():
                self.listener.enter(self.path, module, (args, kwargs))


class _Leave(_Hook):
    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if observable():
            with self._ours():
                self.listener.leave(self.path, module, (args, kwargs), output)


class HookManager:
    """Places hooks on every module of `model` on entry and removes them all on exit.

    The listener is told paths that start with `label`, as if the model were a child of that
    name. Neither the manager nor its hooks keep the model alive once they are removed.
    """

    def __init__(self, model: nn.Module, listener: Listener, label: str = "") -> None:
        self._model: nn.Module | None = model
        self.listener = listener
        self.label = label
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        model, self._model = self._model, None
        with ExitStack() as stack:
            for path, module in model.named_modules() if model is not None else ():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks
                path = joined(self.label, path)
                stack.enter_context(
                    module.register_forward_pre_hook(_Enter(self.listener, path), with_kwargs=True)
                )
                stack.enter_context(
                    module.register_forward_hook(_Leave(self.listener, path), with_kwargs=True)
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
