"""Does a causal model look ahead? Later tokens exchanged, earlier outputs compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from gradlint.hooks.manager import HookManager
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.target.trial import copied

LEAST = 4
"""Positions below which there is hardly a past and a future."""

IGNORED = -100
"""The label that torch's cross entropy leaves out."""

_CAUSAL = ("ForCausalLM", "LMHeadModel")
_OTHER_ORDER = frozenset({"XLNetLMHeadModel", "CpmAntForCausalLM"})
"""Called so in transformers, but they see a prefix whole, or predict in another order."""


def declared_causal(model: nn.Module) -> bool:
    """Whether the name of the class says that position t sees nothing after t.

    Of transformers' families that also come as masked language models (BERT, RoBERTa …) the
    configuration has to say so, too.
    """
    return _called_causal(model) and not no_decoder(model)


def no_decoder(model: nn.Module) -> bool:
    """Whether a model is of a family of masked ones, and no decoder by its configuration."""
    home = vars(sys.modules.get(type(model).__module__, sys))
    masked = any(name.endswith("ForMaskedLM") for name in home)
    return masked and not getattr(getattr(model, "config", None), "is_decoder", False)


def _called_causal(model: nn.Module) -> bool:
    kind = type(model)
    if not kind.__name__.endswith(_CAUSAL) or kind.__name__ in _OTHER_ORDER:
        return False
    config = getattr(model, "config", None)
    if getattr(config, "use_bidirectional_attention", None):
        return False
    # XLM and Flaubert are masked models by default
    return getattr(config, "causal", True) is not False


def trained_causal(
    model: nn.Module, run: Callable[[nn.Module, Any, Any], Any], inputs: Any, targets: Any
) -> bool:
    """Whether a model that is called causal, and no decoder, is trained on the next token.

    Its labels are its tokens, but for ignored ones, and its loss reads each against the output
    in front: the first label of all is read against none.

    Args:
        model: The model; unchanged.
        run: Returns the loss of a model on inputs and targets.
        inputs: A batch's inputs.
        targets: Its targets.
    """
    tokens = _tokens(inputs)
    wanted = [t for _, t in named_tensors(targets, "target")]
    if tokens is None or not _called_causal(model) or len(wanted) != 1:
        return False
    labels, cut = wanted[0], tokens.shape[1] // 2
    if labels.shape != tokens.shape or labels.dtype != tokens.dtype:
        return False
    told = labels == tokens.to(labels.device)
    if not bool((told | (labels == IGNORED)).all()) or not bool(told[-1, cut] and told[:, 0].any()):
        return False  # masked tokens have other labels; a prefix that is seen whole has none
    others = _different(labels.flatten(), tokens.flatten()).reshape(labels.shape)
    twin = copied(model, model).eval()

    def loss(*changed: int) -> float:
        given = labels.clone()
        for position in changed:
            given[:, position] = torch.where(told, others, labels)[:, position]
        with torch.no_grad():
            replaced = tree_map(lambda leaf: given if leaf is labels else leaf, targets)
            return float(run(twin, inputs, replaced))

    return loss() == loss(0) != loss(cut)


def predicts_next(inputs: Any, targets: Any) -> bool:
    """Whether each target is the token that follows in the input: what must not be seen."""
    tokens = _tokens(inputs)
    wanted = [t for _, t in named_tensors(targets, "target") if not t.is_floating_point()]
    if tokens is None or len(wanted) != 1 or wanted[0].numel() != tokens.numel():
        return False
    following = tokens[:, 1:]
    varied = bool((tokens[:, :-1] != following).any())
    return varied and torch.equal(wanted[0].reshape(tokens.shape)[:, :-1].to(following), following)


def future_leakage(
    model: nn.Module, run: Callable[[nn.Module, Any], Any], inputs: Any
) -> Mapping[str, Any] | None:
    """Exchange the second half of one sequence, in evaluation mode, on a copy of `model`.

    Args:
        model: The model; unchanged.
        run: Calls a model on inputs, always with the same random state.
        inputs: A batch's inputs, among them token ids of shape ``(N, T)``.

    Returns:
        ``leak`` (relative change of that sequence's outputs before the exchanged tokens),
        ``change`` (the same from there on), ``position`` (of the first exchanged token),
        ``length`` and ``module`` (the first with such a change, or None); None where that
        cannot be told.
    """
    tokens = _tokens(inputs)
    if tokens is None:
        return None
    rows, length = tokens.shape
    cut = length // 2
    other = tokens.clone()
    # Tokens of this very batch: every one of them is a valid id, and none a new padding.
    other[-1, cut:] = _different(tokens[-1, cut:], tokens.flatten())
    if torch.equal(other, tokens):
        return None
    twin = copied(model, model).eval()

    def outputs(ids: Tensor) -> dict[str, Tensor]:
        kept = _Positions(rows, length)
        given = tree_map(lambda leaf: ids if leaf is tokens else leaf, inputs)
        with torch.no_grad(), HookManager(twin, kept):
            run(twin, given)
        return kept.tensors

    before, again, after = outputs(tokens), outputs(tokens), outputs(other)
    if "" not in before or not all(
        path in again and path in after and torch.equal(before[path], again[path])
        for path in before
    ):
        return None
    leaks = {path: _apart(before[path][:cut], after[path][:cut]) for path in before}
    change = _apart(before[""][cut:], after[""][cut:])
    if not change > 0:
        return None
    module = next((path for path, leak in leaks.items() if path and leak > 1e-3 * change), None)
    return {
        "leak": leaks[""],
        "change": change,
        "position": cut,
        "length": length,
        "module": module,
    }


class _Positions:
    """Keeps the last sample of every module's first output that has one row a position."""

    def __init__(self, rows: int, length: int) -> None:
        self.shape = (rows, length)
        self.tensors: dict[str, Tensor] = {}

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Nothing to do."""

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep what the module returned."""
        for _, tensor in named_tensors(output, "output"):
            if path in self.tensors or tensor.dtype not in (torch.float32, torch.float64):
                continue  # of half precision not enough is left after rounding
            positions = self._positions(tensor, of_model=not path)
            if positions is not None:
                self.tensors[path] = positions[-1].detach().to(torch.float64)

    def _positions(self, tensor: Tensor, *, of_model: bool) -> Tensor | None:
        """Return `tensor` as ``(N, T, C)``; of the model also ``(N, C, T)`` and ``(N T, C)``."""
        rows, length = self.shape
        if tensor.ndim == 3 and tuple(tensor.shape[:2]) == self.shape:
            return tensor
        if of_model and tensor.ndim == 3 and (tensor.shape[0], tensor.shape[2]) == self.shape:
            return tensor.transpose(1, 2)
        if of_model and tensor.ndim == 2 and tensor.shape[0] == rows * length:
            return tensor.reshape(rows, length, -1)
        return None


def _tokens(inputs: Any) -> Tensor | None:
    """Return the token ids of a batch: those called so, or the first of shape ``(N, T)``."""
    found = [
        (name, tensor)
        for name, tensor in named_tensors(inputs, "input")
        if tensor.dtype in (torch.int64, torch.int32) and tensor.ndim == 2
    ]
    found.sort(key=lambda item: not item[0].endswith("[input_ids]"))
    if not found or found[0][1].shape[1] < LEAST or found[0][1].shape[0] == 0:
        return None
    return found[0][1]


def _different(tokens: Tensor, vocabulary: Tensor) -> Tensor:
    """Return as many tokens out of `vocabulary`, others than `tokens` where there are others."""
    known = torch.tensor(sorted(set(vocabulary.tolist())), dtype=tokens.dtype)
    known = known.to(tokens.device)
    following = (torch.searchsorted(known, tokens.contiguous()) + 1) % len(known)
    return known.index_select(0, following)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return how far `other` is from `one`, relative to its size; not finite is no change."""
    size = float(torch.linalg.vector_norm(one))
    apart = float(torch.linalg.vector_norm(other - one))
    value = apart / size if size > 0 else apart
    return value if value == value and value != float("inf") else 0.0
