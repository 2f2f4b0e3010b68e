"""Batches: what a user means by a batch, a loader, a function that returns one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gradlint.errors import GradlintError, TargetError, UsageError
from gradlint.target.signatures import TARGETS, forward_takes, takes
from gradlint.target.user_code import quietly, say, where

BATCH_SIZE = 32
"""Samples of a batch that is synthesized, or drawn from a data set."""

MOST_BATCHES = 8
"""Batches taken from a loader: enough to tell one batch's accident from the model's habit."""


@dataclass
class Batch:
    """Inputs (a tensor, a tuple of positional or a dict of keyword arguments) and targets."""

    inputs: Any
    targets: Any | None = None


def split(raw: Any, model: nn.Module, *, bare: bool = False, all_bare: bool = False) -> Batch:
    """Return `raw`, as a loader yields it, as inputs and targets.

    A mapping's targets are its first key out of "labels", "targets" and the like. Of a
    tuple the last entry is the targets, unless forward needs them all; `bare` (there is
    neither a loss function nor a place for targets in forward) leans to the latter, and
    `all_bare` takes them all if forward can.
    """
    if isinstance(raw, Batch):
        return raw
    if isinstance(raw, Mapping):
        return _split_mapping(dict(raw), model, bare)
    if not isinstance(raw, (tuple, list)) or not raw or isinstance(raw, PackedSequence):
        return Batch(raw)
    parts, known = tuple(raw), forward_takes(model)
    size, needed = len(parts), len(known.required)
    if size == 1:
        return Batch(parts[0])
    if isinstance(parts[0], (tuple, list, Mapping)):
        return Batch(parts[0], parts[1] if size == 2 else parts[1:])
    if needed >= size or (known.accepts(size) and (all_bare or (bare and needed > 1))):
        return Batch(parts)
    if size == 2:
        return Batch(*parts)
    count = size - 1 if known.accepts(size - 1) else max(needed, 1)
    inputs, targets = parts[:count], parts[count:]
    return Batch(inputs[0] if count == 1 else inputs, targets[0] if len(targets) == 1 else targets)


def _split_mapping(entries: dict[Any, Any], model: nn.Module, bare: bool) -> Batch:
    known = forward_takes(model)
    name = next((n for n in TARGETS if n in entries and n not in known.required), None)
    rest = {key for key in entries if key != name}
    whole = bare and len(rest) > 1 and not known.keywords(rest)  # forward takes the mapping
    if name is None or not rest or whole:
        return Batch(entries)
    targets = entries.pop(name)
    alone = len(entries) == 1 and not known.keywords(set(entries))
    return Batch(next(iter(entries.values())) if alone else entries, targets)


def whole(raw: Any) -> Batch:
    """Return `raw` for ``training_step(model, batch)``, so that `joined` gives it back."""
    if isinstance(raw, Batch):
        return raw
    if type(raw) in (tuple, list) and len(raw) == 2:
        return Batch(raw[0], raw[1])
    return Batch(dict(raw) if isinstance(raw, Mapping) else raw)


def joined(batch: Batch) -> Any:
    """Return a batch as a loader would have yielded it, for ``training_step(model, batch)``."""
    return batch.inputs if batch.targets is None else (batch.inputs, batch.targets)


def draw(source: Any, size: int = BATCH_SIZE) -> list[Any]:
    """Return the first raw batches of `source`.

    `source` is a value, a function without required arguments, a list of batches, a
    loader, a data set, or any other iterable of batches.
    """
    if isinstance(source, Dataset):
        shuffle = not isinstance(source, IterableDataset)
        source = DataLoader(source, batch_size=size, shuffle=shuffle)
    if isinstance(source, DataLoader):
        return list(itertools.islice(_in_process(source), MOST_BATCHES))
    if callable(source) and not isinstance(source, (Tensor, Mapping, nn.Module)):
        return _draw_calls(source, size)
    if is_batch(source):
        return [source]
    return list(itertools.islice(iter(source), MOST_BATCHES))


def _in_process(loader: DataLoader[Any]) -> DataLoader[Any]:
    """A copy of `loader` that loads in this process: same data, no workers to leave behind."""
    if loader.num_workers == 0:
        return loader
    clone = copy.copy(loader)
    clone.num_workers, clone.timeout = 0, 0
    return clone


def _draw_calls(function: Callable[..., Any], size: int) -> list[Any]:
    fitting = {"batch_size": size, "split": "train", "n": size, "size": size, "bs": size}
    known = takes(function)
    needed = known.required + known.required_keywords if known else ()
    keywords = {name: fitting[name] for name in needed}
    first = function(**keywords)
    if not is_batch(first):
        return draw(first, size)
    second = function(**keywords)
    pairs = zip(tree_leaves(first), tree_leaves(second), strict=False)
    if all(a is b for a, b in pairs):  # it hands out one batch
        return [first]
    return [first, second, *(function(**keywords) for _ in range(MOST_BATCHES - 2))]


def callable_without_arguments(function: Callable[..., Any]) -> bool:
    """Whether `draw` can call `function`: every argument it needs has a known meaning."""
    known = takes(function)
    needed = known.required + known.required_keywords if known else ()
    return set(needed) <= {"batch_size", "split", "n", "size", "bs"}


def is_batch(value: Any) -> bool:
    """Whether `value` is one batch rather than many.

    A list is a batch if its first entry is a tensor (a loader of a `TensorDataset` yields
    lists), and many if its entries are batches themselves.
    """
    if isinstance(value, (Tensor, Mapping, tuple, Batch)):
        return True
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], (tuple, list, Mapping, Batch))
    return not isinstance(value, (Iterable, Iterator))


@contextmanager
def _generators_kept(value: Any) -> Iterator[None]:
    """Put the generators of a loader and its samplers back where they were."""
    holders = [value, *(getattr(value, name, None) for name in ("sampler", "batch_sampler"))]
    holders.append(getattr(holders[-1], "sampler", None))
    found = {id(g): g for h in holders if isinstance(g := getattr(h, "generator", None), Generator)}
    states = {key: generator.get_state() for key, generator in found.items()}
    try:
        yield
    finally:
        for key, generator in found.items():
            generator.set_state(states[key])


class Source:
    """Batches out of whatever a user called a batch; an iterator is read only once."""

    def __init__(self, value: Any, size: int = BATCH_SIZE, name: str = "batch") -> None:
        once = isinstance(value, Iterator)
        self.value: Any = list(itertools.islice(value, MOST_BATCHES)) if once else value
        self.size = size
        self.name = name

    def __call__(self, seed: int) -> list[Any]:
        """Return the first raw batches; the same for the same seed.

        Raises:
            UsageError: If there is none.
            TargetError: If the user's code raises.
        """
        try:
            with quietly(seed), _generators_kept(self.value):
                raws = draw(self.value, self.size)
        except GradlintError:
            raise
        except Exception as error:
            raise TargetError(
                f"expected {self.name} to give batches, it raised {say(error)}{where(error)}"
            ) from error
        if not raws:
            raise UsageError(
                f"expected {self.name} to hold at least one batch, got none; give (inputs, targets)"
            )
        return raws


def check(batch: Batch, name: str = "batch") -> Batch:
    """Return `batch` if it holds samples.

    Raises:
        UsageError: If it holds no tensor, or a tensor without entries.
    """
    leaves = tree_leaves(batch.inputs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if all(leaf is None or isinstance(leaf, (int, float, str)) for leaf in leaves):
        kinds = type(batch.inputs).__name__
        raise UsageError(
            f"expected {name} to hold tensors, got {kinds}; give (inputs, targets), "
            "or inputs alone: a tensor, a tuple of positional or a dict of keyword arguments"
        )
    for tensor in tensors:
        if tensor.numel() == 0:
            raise UsageError(
                f"expected {name} to hold samples, got an empty tensor of shape "
                f"{shape_of(tensor)}; give at least one sample"
            )
    return batch


def prepare(batch: Batch, model: nn.Module) -> Batch:
    """Return `batch` as tensors on the model's device; arrays of numpy become tensors."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    device = first.device if first is not None else torch.device("cpu")

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) and type(leaf).__module__ == "numpy":
            leaf = torch.as_tensor(leaf)
        if isinstance(leaf, Tensor):
            leaf = leaf.clone() if leaf.is_inference() else leaf.detach()
            return leaf.to(device)
        return leaf.to(device) if callable(getattr(leaf, "to", None)) else leaf

    return Batch(tree_map(move, batch.inputs), tree_map(move, batch.targets))


def shape_of(value: Any) -> str:
    """Shape of a tensor as ``32x3x64x64``, of anything else its class."""
    if isinstance(value, Tensor):
        return "x".join(map(str, value.shape)) or "scalar"
    return type(value).__name__


def describe(value: Any) -> str:
    """Dtypes and shapes of what a batch holds, in a few words."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {shape_of(value)}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {describe(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(describe(entry) for entry in value)
    return type(value).__name__
