"""What a node says of itself besides its tensors: axes, reduction, eps, the user's line."""

from __future__ import annotations

import os
import re
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gradlint.finding import Source

_REDUCTIONS = ("none", "mean", "sum")
_PLAIN = {
    "min": "min",
    "max": "max",
    "min_val": "min",
    "max_val": "max",
    "eps": "eps",
    "alpha": "alpha",
    "scale": "scale",
    "negative_slope": "slope",
    "training": "training",
    "transposed": "transposed",
    "groups": "groups",
    "exponent": "exponent",
    "threshold": "min",
    "normalized_shape": "normalized_shape",
    "keepdim": "keepdim",
}


def attributes_of(node: Any, kind: str, *, packed: bool = False) -> dict[str, Any]:
    """Return the plain attributes of an autograd node.

    Args:
        node: The node; of its saved tensors only single numbers are read.
        kind: Its kind, as `kinds.kind_of` gives it.
        packed: Whether its tensors went through somebody's hooks: then none is read, since a
            checkpoint would run its forward again, and move BatchNorm's statistics.

    Returns:
        Axes as non-negative numbers (``dim``, ``dims``), ``reduction`` as a word,
        ``ignore_index``, and the numbers of activations and normalizations; the
        ``factor_shape`` of data that multiplies.
    """
    found: dict[str, Any] = {}
    for saved, name in _PLAIN.items():
        value = None if packed and _is_tensor(node, saved) else _read(node, saved)
        if isinstance(value, (bool, int, float)):
            found[name] = value
        elif isinstance(value, (tuple, list)) and all(isinstance(v, int) for v in value):
            found[name] = tuple(value)
    rank = _rank(node)
    dim = _read(node, "dim")
    if isinstance(dim, int):
        found["dim"] = _axis(dim, rank)
    elif isinstance(dim, (tuple, list)):
        found["dims"] = tuple(_axis(d, rank) for d in dim if isinstance(d, int))
    reduction = _read(node, "reduction")
    if isinstance(reduction, int) and 0 <= reduction < len(_REDUCTIONS):
        found["reduction"] = _REDUCTIONS[reduction]
    ignored = _read(node, "ignore_index")
    if isinstance(ignored, int):
        found["ignore_index"] = signed(ignored)
    sizes = _read(node, "self_sym_sizes")
    if isinstance(sizes, (tuple, list)):
        found["input_shape"] = tuple(int(s) for s in sizes)
    if kind in ("mul", "div") and not packed:
        scalar = _scalar(node)
        if scalar is not None:
            found["scalar"] = scalar
        factor = _factor_shape(node)
        if factor:
            found["factor_shape"] = factor
    return found


def _read(node: Any, name: str) -> Any:
    try:
        return getattr(node, f"_saved_{name}", None)
    except RuntimeError:
        return None


def _is_tensor(node: Any, name: str) -> bool:
    """Whether the node saves `name` as a tensor; says so without unpacking it."""
    try:
        return getattr(node, f"_raw_saved_{name}", None) is not None
    except RuntimeError:
        return True


def signed(value: int) -> int:
    """Undo torch's reading of a negative number as an unsigned one of 64 bits."""
    return value - 2**64 if value >= 2**63 else value


def _axis(dim: int, rank: int) -> int:
    dim = signed(dim)
    return dim + rank if dim < 0 else dim


def _rank(node: Any) -> int:
    """Return the number of axes of what entered the operation."""
    sizes = _read(node, "self_sym_sizes")
    if isinstance(sizes, (tuple, list)):
        return len(sizes)
    try:
        rank = len(node._input_metadata[0].shape)
    except (AttributeError, IndexError, RuntimeError):
        return 0
    if _read(node, "keepdim") is False:  # the axes it took away
        dim = _read(node, "dim")
        rank += len(dim) if isinstance(dim, (tuple, list)) else 1
    return rank


def _scalar(node: Any) -> float | None:
    """Return the constant of ``x * 3`` or ``x / 3``; None where the factor is a tensor."""
    functions = node.next_functions
    if len(functions) == 1:
        return 1.0
    if all(function is not None for function, _ in functions):
        return None
    for name in ("other", "self"):
        value = _read(node, name)
        if isinstance(value, Tensor) and value.ndim == 0 and value.device.type == "cpu":
            # `float` would count as reading a result back, and be told of as an operation.
            return float(cast(float, value.tolist()))
    return None


def _factor_shape(node: Any) -> tuple[int, ...]:
    """Return the shape of the data that multiplies; () of a number, and of two signals."""
    functions = node.next_functions
    if len(functions) != 2 or all(function is not None for function, _ in functions):
        return ()
    kept = [v for name in ("other", "self") if isinstance(v := _read(node, name), Tensor)]
    return tuple(kept[0].shape) if len(kept) == 1 and not kept[0].is_nested else ()


@cache
def _foreign_roots() -> tuple[str, ...]:
    """Folders whose code is not the user's: the interpreter's, installed packages, ours."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.add(str(Path(torch.__file__).parent))
    paths.add(str(Path(__file__).parent.parent))
    return tuple(os.path.join(p, "") for p in paths if p)


def is_users(file: str) -> bool:
    """Whether `file` is code of the user's own."""
    return (
        not file.startswith("<")
        and not file.startswith(_foreign_roots())
        and "site-packages" not in file
    )


def user_line(node: Any) -> Source | None:
    """Return the user's line that called the operation.

    Only nodes made under `torch.autograd.set_detect_anomaly` know it.
    """
    metadata = getattr(node, "metadata", None)
    frames = metadata.get("traceback_") if metadata else None
    if not frames:
        return None
    for frame in reversed(frames):
        match = re.match(r'\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', frame)
        if match and is_users(match["file"]):
            return Source(shown(match["file"]), int(match["line"]))
    return None


def shown(file: str) -> str:
    """Return `file` as a reader wants it: relative to the working directory if below it."""
    try:
        return str(Path(file).resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):
        return file
