"""Watching a training loop that somebody else runs."""

from gradlint.watching.guard import Stop as Stop
from gradlint.watching.watcher import Watcher as Watcher

__all__ = ["Stop", "Watcher"]
