"""Series: loss, learning rate and clipping of every step, however closely it is looked at."""

from __future__ import annotations

from torch import Tensor

from gradlint.observation import MODEL, Site
from gradlint.watching.clips import Clips
from gradlint.watching.closeup import host_value
from gradlint.watching.readback import Readback
from gradlint.watching.records import Records

TOGETHER = 64
"""Scalars of another device that are read back in one go."""


class Series:
    """Points of every step; what the host does not know yet waits for a readback."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.readback = Readback()
        self._late: list[tuple[str, int, Tensor, Site]] = []
        self._loss: float | None = None
        self._losses: list[Tensor] = []
        self._before: tuple[float | None, int] = None, 0
        """What was there before the latest backward."""
        self._summed = 0
        self.summed: int | None = None
        """How many losses the first step's loss is the sum of."""
        self._rate: dict[str, float] = {}
        self._place: Site | None = None
        self._points: list[tuple[int, float]] = []
        """The losses of the latest step's site."""

    def loss(self, value: Tensor) -> float | None:
        """Add a loss to the open step; return its value where the host has it."""
        known = host_value(value)
        if known is None:
            self._losses.append(value.detach().reshape(()))
        else:
            self._loss = known if self._loss is None else self._loss + known
        self._summed += 1
        return known

    def only(self, value: float) -> None:
        """Take `value` as the loss of a step that has no other."""
        self._before = None, 0
        self._loss = value
        self._summed = 1

    def taken(self) -> float | None:
        """Return the open step's loss, to be kept elsewhere, if the host has all of it."""
        if self._losses or self._late:
            return None
        value, self._loss = self._loss, None
        self._summed = 0
        return value

    def mark(self) -> None:
        """A backward begins."""
        self._before = self._loss, len(self._losses)

    def take_back(self) -> None:
        """Drop the loss of the latest backward: nothing came of it."""
        self._loss, count = self._before
        del self._losses[count:]
        self._summed = max(0, self._summed - 1)

    def drop(self) -> None:
        """Drop the losses of the open step: their gradients were cleared."""
        self._loss = None
        self._losses = []
        self._summed = 0

    def close(
        self, number: int, site: Site, clips: Clips, rate: float | None, *, looked: bool
    ) -> None:
        """Keep the points of a step that was made."""
        if self._summed and self.summed is None:
            self.summed = self._summed
        self._summed = 0
        if self._loss is not None:
            # A site's hash takes longer than all the rest of this.
            if self._place is not site:
                self._place, self._points = site, self.records.points("loss", site)
            self.records.add(self._points, number, self._loss)
            self._loss = None
        if self._losses:
            total = self._losses[0]
            for loss in self._losses[1:]:
                total = total + loss.to(total.device)
            self._losses = []
            self._point("loss", number, total, site)
        # A rate that stands still says nothing new.
        if rate is not None and (looked or self._rate.get(site.path) != rate):
            self.rate_is(rate, number, site)
        if clips.of_step:
            self._clip(number, clips)
        if self._late:
            self.flush(wait=False)

    def rate_is(self, rate: float, number: int, site: Site) -> None:
        """Keep the learning rate of a step."""
        self._rate[site.path] = rate
        self.records.point("learning_rate", number, rate)

    def _clip(self, number: int, clips: Clips) -> None:
        found = clips.close_step()
        if found is None:
            return
        norm, limit = found
        self.records.point("clipping_limit", number, limit)
        if norm is not None:
            self._point("norm_before_clipping", number, norm, MODEL)

    def forget(self, clips: Clips) -> None:
        """Drop the points of a step that was not made."""
        self.drop()
        clips.of_step.clear()

    def _point(self, metric: str, number: int, value: Tensor, site: Site) -> None:
        value = getattr(value, "_local_tensor", value).detach().reshape(())
        known = host_value(value)
        if known is None:
            self._late.append((metric, number, value, site))
        else:
            self.records.point(metric, number, known, site)

    def flush(self, *, wait: bool) -> None:
        """Read back what is late; with `wait`, all of it."""
        if self._late and (wait or len(self._late) >= TOGETHER):
            late, self._late = self._late, []

            def take(values: list[float]) -> None:
                for (metric, number, _, site), value in zip(late, values, strict=True):
                    self.records.point(metric, number, value, site)

            self.readback.submit([value for _, _, value, _ in late], take)
        self.readback.poll(wait=wait)
