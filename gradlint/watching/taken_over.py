"""Taken over: frozen weights of a model that are another model's, copied by whatever means."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradlint.hooks.sites import is_lazy
from gradlint.watching.sampling import local, sample

ALIKE = 0.5
"""Correlation of two weights from which one was made of the other: that of two fresh ones scatters
around 0 by 1/√entries, 0.06 at the fewest that are asked."""

ENTRIES = 256

MOST = 8
"""Weights of a shape that one is compared with; that of the same name comes first."""


@torch.no_grad()
def taken_over(parameters: Mapping[str, nn.Parameter], asked: set[str]) -> set[str]:
    """Return the paths of frozen weights that were taken from another model.

    Args:
        parameters: By path; the first part of a path names one of several models.
        asked: Paths that were asked for before; those asked for now are added.
    """
    models: dict[str, dict[str, nn.Parameter]] = {}
    for path, parameter in parameters.items():
        models.setdefault(path.partition(".")[0], {})[path] = parameter
    found: set[str] = set()
    for name, own in models.items() if len(models) > 1 else ():
        frozen = {path: p for path, p in own.items() if not p.requires_grad and path not in asked}
        if not any(p.requires_grad for p in own.values()):
            continue
        asked.update(frozen)
        others: dict[tuple[int, ...], list[tuple[str, nn.Parameter]]] = {}
        for label, held in models.items() if frozen else ():
            for path, q in held.items() if label != name else ():
                if _is_asked(q):
                    others.setdefault(tuple(q.shape), []).append((path.partition(".")[2], q))
        for path, p in frozen.items():
            inner = path.partition(".")[2]
            near = others.get(tuple(p.shape), []) if _is_asked(p) else []
            near = sorted(near, key=lambda other: other[0] != inner)[:MOST]
            if any(_alike(sample(local(p)), sample(local(q))) for _, q in near if q is not p):
                found.add(path)
    return found


def _is_asked(parameter: nn.Parameter) -> bool:
    readable = not (is_lazy(parameter) or parameter.is_meta) and parameter.is_floating_point()
    return readable and parameter.ndim >= 2 and parameter.numel() >= ENTRIES


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.device != other.device or one.shape != other.shape:
        return False
    first, second = (t.reshape(-1).float() for t in (one, other))
    first, second = first - first.mean(), second - second.mean()
    sizes = torch.linalg.vector_norm(first) * torch.linalg.vector_norm(second)
    return bool((first @ second / sizes).tolist() > ALIKE)  # once for a weight
