"""From a file, a module or live objects to a model, its batches, its loss and its optimizer."""

from __future__ import annotations

from gradlint.target.batches import Batch
from gradlint.target.locate import locate
from gradlint.target.objects import from_objects
from gradlint.target.target import Target

__all__ = ["Batch", "Target", "from_objects", "locate"]
