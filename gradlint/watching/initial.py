"""Initial: the first step shows the initialization, too, which rules read at step 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradlint.metrics import Tap, metrics_at
from gradlint.observation import Observation

_TRAINING_ONLY = frozenset({
    "update_to_weight_ratio", "learning_rate", "backward_gradient_norm", "carried_gradient_norm",
    "frozen_change",
})  # fmt: skip


def doubled(observations: Sequence[Observation]) -> list[Observation]:
    """Return the first step's observations as step 0's and as its own.

    What only an initialization has (the weights' own statistics, units that fire over one
    batch) stands at step 0 alone; what only an update has, at the step alone.
    """
    first_only = {metric.name for metric in metrics_at(Tap.INITIAL_WEIGHT)} | {
        metric.name for metric in metrics_at(Tap.RECTIFIED)
    }
    first_only |= {metric.name for metric in metrics_at(Tap.INITIAL_WEIGHT_GRAD)}
    first_only |= {"symmetric_share", "dead_positions"}
    start = [replace(o, step=0) for o in observations if o.metric not in _TRAINING_ONLY]
    return start + [o for o in observations if o.metric not in first_only]
