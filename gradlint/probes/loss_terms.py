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


@dataclass(frozen=True)
class _Term:
    """A summand of a loss: its node, its value, and the factor that stands before it."""

    edge: GradientEdge
    value: float
    factor: float

    @property
    def kind(self) -> str:
        return kind_of(self.edge.node.name())


class _Scalars(TorchFunctionMode):
    """Keeps the value of every scalar that is computed, by its node."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[Node, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() == 1 and result.grad_fn is not None:
            self.values[result.grad_fn] = result.detach().clone()
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
        falls in the two trainings; None where they were not made); None where the loss has no two terms that share parameters.
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
            ratio = _ratio(terms[i], terms[j], gradients[i], gradients[j])
            if ratio is not None:
                seen.setdefault((i, j), []).append(ratio)
    found = {pair: statistics.median(decades) for pair, decades in seen.items()}
    if not found:
        return None
    pair = max(found, key=lambda p: (_factor(terms, p, found[p]) >= 1, abs(found[p])))
    apart, factor = abs(found[pair]), _factor(terms, pair, found[pair])
    large, small = pair if found[pair] > 0 else (pair[1], pair[0])
    alone = together = None
    boost = abs(terms[large].factor)
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
    return abs(terms[small].factor / terms[large].factor)


def _terms(model: nn.Module, run: Run, batch: Any) -> list[_Term]:
    """Return the summands of the loss of one batch, in the order they were added."""
    with _Scalars() as scalars:
        loss = run(model, batch)[0]
    found: list[_Term] = []
    stack: list[tuple[Node, int]] = [(loss.grad_fn, 0)]
    while stack and len(found) <= MOST:
        node, number = stack.pop()
        kind = kind_of(node.name())
        following = [(n, i) for n, i in node.next_functions if n is not None]
        if kind in _SUMS:
            stack += reversed(following)
        elif kind in _FACTORS and len(following) == 1:
            stack.append(following[0])
        elif kind in ("sum", "mean") and base_name(following[0][0].name()) == "Stack":
            stack += [edge for edge in reversed(following[0][0].next_functions) if edge[0]]
        elif node in scalars.values:
            edge = GradientEdge(node, number)
            (slope,) = torch.autograd.grad(loss, [edge], retain_graph=True)
            found.append(_Term(edge, float(scalars.values[node]), float(slope)))
        else:
            return []  # not a sum of scalars
    return found


def _gradients(term: _Term, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    one = torch.ones((), dtype=parameters[0].dtype, device=parameters[0].device)
    return list(
        torch.autograd.grad(
            term.edge, parameters, grad_outputs=[one], retain_graph=True, allow_unused=True
        )
    )


def _ratio(
    one: _Term, other: _Term, ours: list[Tensor | None], theirs: list[Tensor | None]
) -> float | None:
    """Return how many decades the first term's gradient is larger; None if that says nothing."""
    shared = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if not shared:
        return None
    norms = [
        abs(term.factor) * math.hypot(*(float(pair[side].norm()) for pair in shared))
        for side, term in enumerate((one, other))
    ]
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
                    scaled = part.factor * gradient
                    known = total[index]
                    total[index] = scaled if known is None else known + scaled
        for parameter, gradient in zip(shared, total, strict=True):
            parameter.grad = gradient
        optimizer.step()
    last = _terms(twin, run, batches[0])
    begun = first[term].value
    if not (math.isfinite(begun) and begun != 0):
        return None
    return (begun - last[term].value) / abs(begun)
