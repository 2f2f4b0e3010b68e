"""LightLook: a step of which samples are taken while it runs and reduced at its end."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gradlint.hooks.ranks import class_of
from gradlint.hooks.sites import is_lazy
from gradlint.observation import MODEL
from gradlint.watching.closeup import Backward
from gradlint.watching.first_non_finite import in_row
from gradlint.watching.light import Light
from gradlint.watching.plan import Layout, Plan

if TYPE_CHECKING:
    from gradlint.watching.loop import Loop


class LightLook:
    """Samples of every parameter; a thorough one has hooks on leaf modules called before, too.

    Args:
        loop: Where it stands.
        number: The loop's step.
        thorough: Whether activations are sampled and the norms of all weights measured.
    """

    def __init__(self, loop: Loop, number: int, *, thorough: bool) -> None:
        self.loop = loop
        self.number = number
        self.thorough = thorough
        observer = loop.observer
        held = [(n, p) for n, p in observer.parameters.items() if not is_lazy(p) and p.numel()]
        plan = loop.plan
        leaves = self._leaves() if thorough else []
        modules = [(path, class_of(module).__name__) for path, module in leaves]
        if plan is not None and not thorough:
            modules = plan.modules  # none of them is looked at
        names = [name for name, _ in held]
        if plan is None or not plan.fits(modules, names, len(observer.depths)):
            plan = loop.plan = Plan(modules, names, observer.depths)
        self.light = Light([m for _, m in leaves], [p for _, p in held], plan, loop)

    def _leaves(self) -> list[tuple[str, nn.Module]]:
        """Leaf modules that were called before, and are not compiled."""
        loop = self.loop
        return [
            (path, module)
            for path, facts in loop.observer.facts_of_modules.items()
            if facts.leaf and facts.calls
            and (module := loop.observer.modules.get(path)) is not None
            and not (loop.compiled and path.partition(".")[0] in loop.compiled)
        ]  # fmt: skip

    def admit(self, model: nn.Module, label: str) -> None:
        """Leave a new model to the next full look."""

    def backward_begins(self, loss: Tensor | None, *, create_graph: bool) -> None:
        """Take gradients from now on as the loss's."""
        self.light.in_backward = True

    def backward_ended(self) -> None:
        """Take no gradients any more."""
        self.light.in_backward = False

    def rest(self) -> None:
        """Remove hooks; what was sampled stays."""
        self.light.rest()

    def measure(self, backward: Backward, without: Collection[int], *, initial: bool) -> None:
        """Measure gradients and weights."""
        self.light.gradients(without, weights=self.thorough)

    def before_update(self) -> None:
        """Keep samples of the weights."""
        self.light.before_update()

    def close(self, *, initial: bool) -> None:
        """Reduce all samples together and send the numbers on their way."""
        loop, number = self.loop, self.number
        pending = loop.observer.unread().pending
        numbers, layout, finish = self.light.reduce(loop.scaling.scale, pending)
        self.light.close()

        def take(read: list[float]) -> None:
            values = finish(read)
            loop.records.row(number, layout, values)
            self._accuse(layout, values)
            loop.numbers_arrived(number)

        loop.series.readback.submit(numbers, take)

    def _accuse(self, layout: Layout, values: list[float]) -> None:
        total = ("total_gradient_norm", MODEL)
        if total in layout.columns and self.loop.accuses:
            norm = values[layout.columns.index(total)]
            if not math.isfinite(norm):
                self.loop.observer.events.append(in_row(self.number, layout, values))

    def discard(self) -> None:
        """Remove hooks; nothing of this step is kept."""
        self.light.close()
        self.loop.observer.unread()
