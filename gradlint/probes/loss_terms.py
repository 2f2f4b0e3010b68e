"""Do all terms of a composite loss move the weights they share? Some passes, and two trainings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.overrides import TorchFunctionMode

from gradlint.hooks.kinds import base_name, kind_of
from gradlint.hooks.manager import HookManager
from gradlint.target.trial import copied

BATCHES = 3
"""Batches whose gradients are compared."""

SUSPICIOUS = 1e3
"""Ratio of gradients from which on the two trainings are made (rules.md, GL614)."""

BOOST = 10.0
"""A factor before the larger term from which on it is no longer the other that was made small."""

STEPS = 40
"""Steps of each of the two trainings."""

LEARNING_RATE = 1e-3
"""Adam's default: steps of this size per entry, whatever the scale of the loss."""

MOST = 8
"""Terms above which a loss is rather a sum over samples."""

Node = Any
Run = Callable[[nn.Module, Any], Any]

_SUMS = frozenset({"add", "sub"})
_FACTORS = frozenset({"mul", "div", "neg", "view", "squeeze", "cast", "clone"})
_REDUCTIONS = frozenset({"mean", "sum"})


@dataclass(frozen=True)
class _Term:
    """A summand of a loss: its node, what the loss makes of it, and its share of the loss."""

    edge: GradientEdge
    slope: Tensor
    value: float

    @property
    def kind(self) -> str:
        return kind_of(self.edge.node.name())

    @property
    def factor(self) -> float:
        """The factor that stands before it; a mean over samples belongs to the term."""
        return float(self.slope.abs().sum())


class _Values(TorchFunctionMode):
    """Keeps scalars, and what the loss makes of the model's output for each sample, by node."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[Node, Tensor] = {}
        self.inside = False

    def enter(self, path: str, module: nn.Module, inputs: Any) -> None:
        """Note that the model starts: a sum in it is no sum of losses."""
        self.inside = self.inside or not path

    def leave(self, path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note that the model is done."""
        self.inside = self.inside and bool(path)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or result.grad_fn is None:
            return result
        if result.numel() == 1 or (result.ndim == 1 and not self.inside):
            self.of[result.grad_fn] = result.detach().clone()
        return result


def loss_terms(model: nn.Module, run: Run, batches: Sequence[Any]) -> Mapping[str, Any] | None:
    """Compare the gradients of a loss's terms on the parameters they share, on a copy.

    Where one outweighs another by more than `SUSPICIOUS`, and that has no smaller factor or the
    larger one a factor of `BOOST` or more, two copies train their shared parameters for some
    steps: on the outweighed term alone, and on all of them together.

    Args:
        model: The model after training; unchanged.
        run: Calls a model on a batch and returns the loss first.
        batches: Batches of the training, at least one.

    Returns:
        Of the two terms that are furthest apart: ``ratio`` (of the norms of their gradients on
        the parameters they share, factors included, the median over the batches), ``large``
        and ``small`` (their place in the sum, and what computes them), ``factor`` (of the small
        one over the large one's), ``boost`` (the large one's), ``terms`` (their number),
        ``value`` (of the small one), ``alone`` and ``together`` (shares by which the small one
        falls in the two trainings; None where they were not made); None where the loss has no
        two terms that share parameters.
    """
    twin = copied(model, model)
    seen: dict[tuple[int, int], list[float]] = {}
    terms: list[_Term] = []
    for batch in batches[:BATCHES]:
        terms = _terms(twin, run, batch)
        if not 2 <= len(terms) <= MOST:
            return None
        parameters = [p for p in twin.parameters() if p.requires_grad]
        gradients = [_gradients(term, parameters) for term in terms]
        for i, j in combinations(range(len(terms)), 2):
            ratio = _ratio(gradients[i], gradients[j])
            if ratio is not None:
                seen.setdefault((i, j), []).append(ratio)
    found = {pair: statistics.median(decades) for pair, decades in seen.items()}
    if not found:
        return None
    pair = max(found, key=lambda p: (_factor(terms, p, found[p]) >= 1, abs(found[p])))
    apart, factor = abs(found[pair]), _factor(terms, pair, found[pair])
    large, small = pair if found[pair] > 0 else (pair[1], pair[0])
    alone = together = None
    boost = terms[large].factor
    if apart > math.log10(SUSPICIOUS) and (factor >= 1 or boost >= BOOST):
        alone = _fall(model, run, batches, small, pair, only=True)
        together = _fall(model, run, batches, small, pair, only=False)
    return {
        "ratio": 10**apart,
        "large": f"term {large + 1} ({terms[large].kind})",
        "small": f"term {small + 1} ({terms[small].kind})",
        "factor": factor,
        "boost": boost,
        "terms": len(terms),
        "value": terms[small].value,
        "alone": alone,
        "together": together,
    }


def _factor(terms: Sequence[_Term], pair: tuple[int, int], decades: float) -> float:
    """Return the factor of the term with the smaller gradient over the other's."""
    large, small = pair if decades > 0 else (pair[1], pair[0])
    return terms[small].factor / terms[large].factor


def _terms(model: nn.Module, run: Run, batch: Any) -> list[_Term]:
    """Return the summands of the loss of one batch, in the order they were added."""
    values = _Values()
    with HookManager(model, values), values:
        loss = run(model, batch)[0]
    found: list[_Term] = []
    first = _reduced(loss.grad_fn, values)
    stack: list[tuple[Node, int]] = [(first, 0)]
    while stack and len(found) <= MOST:
        node, number = stack.pop()
        kind = kind_of(node.name())
        following = [(n, i) for n, i in node.next_functions if n is not None]
        if kind in _SUMS:
            stack += reversed(following)
        elif kind in _FACTORS and len(following) == 1:
            stack.append(following[0])
        elif kind in _REDUCTIONS and base_name(following[0][0].name()) == "Stack":
            stack += [edge for edge in reversed(following[0][0].next_functions) if edge[0]]
        elif node in values.of and (values.of[node].ndim == 0 or kind in _REDUCTIONS):
            edge = GradientEdge(node, number)
            (slope,) = torch.autograd.grad(loss, [edge], retain_graph=True)
            found.append(_Term(edge, slope, float((slope * values.of[node]).sum())))
        else:
            return []  # not a sum of scalars, or of one for each sample
    return found


def _reduced(node: Node, values: _Values) -> Node:
    """Return what a mean over the samples is taken of, if those are sums; or `node` itself."""
    following = [n for n, _ in node.next_functions if n is not None]
    if kind_of(node.name()) not in _REDUCTIONS or len(following) != 1:
        return node
    behind = following[0]
    return behind if behind in values.of and kind_of(behind.name()) in _SUMS else node


def _gradients(term: _Term, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of what a term adds to the loss."""
    return list(
        torch.autograd.grad(
            term.edge, parameters, grad_outputs=[term.slope], retain_graph=True, allow_unused=True
        )
    )


def _ratio(ours: list[Tensor | None], theirs: list[Tensor | None]) -> float | None:
    """Return how many decades the first term's gradients are larger; None if that says nothing."""
    shared = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not shared:
        return None
    norms = [math.hypot(*(float(pair[side].norm()) for pair in shared)) for side in (0, 1)]
    if not all(0 < norm < math.inf for norm in norms):
        return None  # a term that has nothing to say for now: a warm-up, a hinge that is met
    return math.log10(norms[0] / norms[1])


def _fall(
    model: nn.Module,
    run: Run,
    batches: Sequence[Any],
    term: int,
    pair: tuple[int, int],
    *,
    only: bool,
) -> float | None:
    """Return the share by which a term falls when the shared parameters are trained."""
    twin = copied(model, model)
    first = _terms(twin, run, batches[0])
    candidates = [p for p in twin.parameters() if p.requires_grad]
    gradients = [_gradients(first[i], candidates) for i in pair]
    shared = [
        p for p, a, b in zip(candidates, *gradients, strict=True) if a is not None and b is not None
    ]
    optimizer = torch.optim.Adam(shared, lr=LEARNING_RATE)
    for step in range(STEPS):
        terms = _terms(twin, run, batches[step % len(batches)])
        if len(terms) != len(first):
            return None
        wanted = [terms[term]] if only else terms
        total: list[Tensor | None] = [None] * len(shared)
        for part in wanted:
            for index, gradient in enumerate(_gradients(part, shared)):
                if gradient is not None:
                    known = total[index]
                    total[index] = gradient if known is None else known + gradient
        for parameter, gradient in zip(shared, total, strict=True):
            parameter.grad = gradient
        optimizer.step()
    last = _terms(twin, run, batches[0])
    begun = first[term].value
    if not (math.isfinite(begun) and begun != 0):
        return None
    return (begun - last[term].value) / abs(begun)
