"""Taken over: frozen weights of a model that are another model's, copied by whatever means."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from gradlint.watching.sampling import local, sample

ALIKE = 0.5
"""Cosine of two weights from which one was made of the other: that of two fresh ones scatters
around 0 by 1/√entries, 0.06 at the fewest that are asked."""

ENTRIES = 256

MOST = 8
"""Weights of one model that are compared; they are copied together or not at all."""


@torch.no_grad()
def taken_over(parameters: Mapping[str, nn.Parameter], known: Collection[str]) -> set[str]:
    """Return the paths of frozen parameters in models that took weights from others.

    Args:
        parameters: By path; the first part of a path names one of several models.
        known: Paths that need not be asked for.
    """
    models: dict[str, dict[str, nn.Parameter]] = {}
    for path, parameter in parameters.items():
        models.setdefault(path.partition(".")[0], {})[path] = parameter
    found: set[str] = set()
    for name, own in models.items():
        frozen = {path: p for path, p in own.items() if not p.requires_grad}
        if len(models) < 2 or all(path in known for path in frozen) or len(frozen) == len(own):
            continue
        weights = [p for p in frozen.values() if p.ndim >= 2 and p.numel() >= ENTRIES][:MOST]
        others = [p for label, held in models.items() if label != name for p in held.values()]
        pairs = [(p, q) for p in weights for q in others if q.shape == p.shape and q is not p]
        if any(_alike(sample(local(p)), sample(local(q))) for p, q in pairs[: MOST * MOST]):
            found |= frozen.keys()
    return found


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.device != other.device or one.shape != other.shape:
        return False
    first, second = one.reshape(-1).double(), other.reshape(-1).double()
    sizes = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    cosine = first @ second / sizes
    return bool(cosine.tolist() > ALIKE)  # once for an optimizer
