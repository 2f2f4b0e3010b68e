"""What a hook of ours becomes in a copied or a saved model: nothing. No torch here."""

from __future__ import annotations

from typing import Any


class Inert:
    """A hook that does nothing; stands in for ours in deep copies and in saved models."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""
