"""What still behaves as in training when the model is evaluated? Some passes on copies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.probes.mode_calls import Call, ModeCalls, defaults
from gradlint.target.batches import Batch
from gradlint.target.signatures import forward_takes
from gradlint.target.trial import copied

_PURPOSES = frozenset({
    "mc", "monte", "carlo", "bayes", "bayesian", "uncertainty", "epistemic", "variational",
    "stochastic", "prenet", "noise", "noisy", "denoise", "denoising", "corrupt", "corruption",
    "augment", "augmentation", "simcse",
})  # fmt: skip
"""Words of classes, methods and attributes whose randomness in evaluation is what is wanted."""

_GENERATORS = frozenset({"generator", "gan", "pix"})
"""Words of classes alone: the noise of an image translation is its dropout."""

_FLAGS = ("train", "eval", "infer", "test", "determin", "stochast", "mc")
_RATES = ("drop", "sampl")
"""Beginnings of words of arguments by which a caller turns randomness on and off."""


class _Running:
    """Knows which modules are running, and keeps what the model returned."""

    def __init__(self) -> None:
        self.modules: list[tuple[str, nn.Module]] = []
        self.outputs: list[Tensor] = []

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Put the module on top."""
        self.modules.append((path, module))

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Take the module off, and those in it that raised; keep what the model returned."""
        while self.modules and self.modules.pop()[1] is not module:
            pass
        if not self.modules:
            self.outputs += _numbers(output)


def evaluation_mode(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], batch: Batch, *, own_step: bool
) -> Mapping[str, Any] | None:
    """Look for functions that act as in training while a copy of `model` is in evaluation mode.

    Those called outside of the model (in the loss), in a module that is in training mode all
    the same, without gradients (teachers), under the control of an argument of a running
    forward, or on what the model is to restore, are left out.

    Args:
        model: The model after training; unchanged.
        run: Calls a model on a batch, always with the same random state.
        batch: A batch.
        own_step: Whether the user's own step computes the loss: any tensor may be its target.

    Returns:
        ``calls`` (for each place ``function``, ``why``, ``module``, ``rate``, ``on_purpose``,
        ``library``, ``file`` and ``line``) and ``change`` (of the model's outputs when those
        calls drop nothing, with the same random numbers otherwise, relative to their size:
        None where the outputs do not tell). None where outputs are not comparable.

        ``why`` is "default" (the training argument was not given), "given" (it was), "always"
        (the function has none), "hidden" (a dropout module that is no part of the model) or
        "statistics" (a normalization by the batch that has running statistics).
    """
    wanted = _wanted(batch, own_step)

    def observed(other: ModeCalls | None = None, *, telling: bool, neutral: bool) -> ModeCalls:
        twin = copied(model, model).eval()
        running = _Running()
        mode = ModeCalls(twin, running.modules, wanted, other, telling=telling, neutral=neutral)
        told = False if telling else None
        with torch.enable_grad(), HookManager(twin, running), defaults(told), mode:
            result = run(twin, batch)
        mode.outputs = running.outputs or _numbers(result)
        return mode

    first = observed(telling=False, neutral=False)
    if not first.calls:
        return {"change": 0.0, "calls": []}
    # Only now: until it is left, the functions' own defaults are others.
    second = observed(first, telling=True, neutral=False)
    without = observed(first, telling=True, neutral=True)
    again, change = _apart(first.outputs, second.outputs), _apart(without.outputs, second.outputs)
    if again is None or change is None:
        return None
    calls = [_record(c) for c in second.calls.values() if not _by_argument(c)]
    return {"change": change if change > 2 * again else 0.0, "calls": calls}


def _wanted(batch: Batch, own_step: bool) -> list[Tensor]:
    """Return what the model may be asked to restore."""
    targets, inputs = named_tensors(batch.targets, "target"), named_tensors(batch.inputs, "input")
    named = targets + inputs if own_step else targets or inputs
    return [t for _, t in named if t.is_floating_point()]


def _numbers(value: Any) -> list[Tensor]:
    tensors = [t for _, t in named_tensors(value, "output") if t.is_floating_point()]
    return [t.detach().clone() for t in tensors]


def _apart(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float | None:
    """Return how far `others` are from `ones`, relative to their size; None if not comparable."""
    if [t.shape for t in ones] != [t.shape for t in others] or not ones:
        return None
    size = sum(float(one.double().square().sum()) for one in ones)
    apart = sum(
        float((other.double() - one.double()).square().sum())
        for one, other in zip(ones, others, strict=True)
    )
    value = float(apart > 0) if size == 0 else (apart / size) ** 0.5
    return value if value < float("inf") else None  # nor is NaN


def _record(call: Call) -> dict[str, Any]:
    return {
        "function": call.function,
        "why": call.why,
        "module": call.module,
        "rate": call.rate,
        "on_purpose": _on_purpose(call.running) or _flagged(call.running),
        "library": call.library,
        "file": call.file,
        "line": call.line,
    }


def _by_argument(call: Call) -> bool:
    """Whether an argument of a running forward speaks of a mode: its caller decides then."""
    names = (n for module in call.running for n in forward_takes(module).names)
    words = [word for name in names for word in _words(name)]
    return any(word.startswith(_FLAGS + _RATES) or word == "mode" for word in words)


def _on_purpose(modules: Sequence[nn.Module]) -> bool:
    kinds = {k for m in modules for k in type(m).__mro__ if not k.__module__.startswith("torch.")}
    called = {word for kind in kinds for word in _words(kind.__name__)}
    holders = [vars(holder) for holder in (*modules, *(kinds - {object}))]
    named = {word for holder in holders for name in holder for word in _words(name)}
    return bool(called & _GENERATORS or (called | named) & _PURPOSES)


def _flagged(modules: Sequence[nn.Module]) -> bool:
    """Whether a module has a switch of its own for training, and it is on."""
    names = (
        n for m in modules for n, value in vars(m).items() if value is True and n != "training"
    )
    return any(word.startswith(_FLAGS) for name in names for word in _words(name))


def _words(name: str) -> list[str]:
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
