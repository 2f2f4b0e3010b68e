"""Terms: summands of a loss that lead to no parameter, but to what a model was called with."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gradlint.hooks.kinds import base_name, is_custom
from gradlint.hooks.tensor_facts import named_tensors
from gradlint.loop_facts import TermFacts
from gradlint.watching.readback import Readback
from gradlint.watching.sampling import local, staged

MOST = 64
"""Calls and summands of a step beyond which nothing is said of it, and leaves remembered."""

WAY = 64
"""Operations between a leaf and a model, at most: a batch is put together of few."""

_SUMS = frozenset({"Add", "Sub", "Rsub", "Stack", "Cat"})
_LINEAR = frozenset(
    {"Neg", "Mean", "Sum", "View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "ToCopy"}
)

Node = Any


@dataclass
class _Known:
    """A leaf that one term or more led to, as it was when it was first seen."""

    leaf: weakref.ref[Tensor]
    version: int
    values: Tensor


class Terms:
    """Of the steps that are looked at in full: what each summand of the loss leads to.

    A summand that leads to no parameter teaches nobody. That it is no slip of an attack, of a
    latent code or of a learned constant is known where it leads to what a model was called with,
    no other summand leads there (or to what else that call was given) by way of a parameter, and
    its leaves are new at every step, or never change. Functions of the user's own, whose
    parameters the graph does not show, are taken to have some.
    """

    def __init__(self) -> None:
        self._calls: list[list[Tensor]] = []
        self._alone: list[list[Tensor]] = []
        self._reached: set[int] = set()
        self._known: list[_Known] = []
        self._used = False
        self._steps = self._first = 0
        self._shape: tuple[int, ...] = ()

    def begin(self) -> None:
        """A step begins, or was not made."""
        self._calls, self._alone, self._reached = [], [], set()

    def enter(self, inputs: Any) -> None:
        """A model is called, with gradient."""
        given = [t for _, t in named_tensors(inputs, "") if t.requires_grad]
        leaves = [leaf for t in given for leaf in _behind(t)]
        if leaves and not self._used and len(self._calls) <= MOST:
            self._calls.append(leaves)

    def note(self, loss: Tensor, own: set[int]) -> None:
        """Backward begins from `loss`; `own` are the parameters of models and optimizers."""
        if not self._calls:
            return
        summands = _summands(loss.grad_fn)
        alone: list[list[Tensor]] = []
        learns = False
        for node in summands:
            leaves, closed = _leaves(node)
            named = any(id(leaf) in own for leaf in leaves)
            if closed or named or any(isinstance(leaf, nn.Parameter) for leaf in leaves):
                self._reached.update(map(id, leaves))
                learns = learns or named
            elif leaves:
                alone.append(leaves)
        if learns and len(summands) <= MOST:
            self._alone += alone
        else:
            self._reached.update(id(leaf) for leaves in alone for leaf in leaves)

    def end(self, number: int, own: set[int], readback: Readback) -> None:
        """The step was made; the optimizers that made it are known now."""
        self._reached |= own if self._alone else set()
        found = [term for term in self._alone if self._teaches_nobody(term)]
        if found and len(self._calls) <= MOST:
            self._steps += 1
            self._first = self._first or number
            given = {id(leaf) for call in self._calls for leaf in call}
            self._shape = next(tuple(leaf.shape) for leaf in found[0] if id(leaf) in given)
            for leaf in {id(leaf): leaf for term in found for leaf in term}.values():
                self._remember(leaf, readback)
        self.begin()

    def facts(self) -> TermFacts | None:
        """Return what was seen at all steps alike; None where there is no such term."""
        if self._used or not self._steps:
            return None
        return TermFacts(self._first, self._steps, self._shape)

    def _teaches_nobody(self, term: list[Tensor]) -> bool:
        leaves = {id(leaf) for leaf in term}
        calls = [{id(leaf) for leaf in call} for call in self._calls]
        given = [call for call in calls if not leaves.isdisjoint(call)]
        used = any(not self._reached.isdisjoint(call | leaves) for call in given)
        self._used = self._used or used
        return bool(given) and not used

    def _remember(self, leaf: Tensor, readback: Readback) -> None:
        self._known = [known for known in self._known if known.leaf() is not None]
        for known in self._known:
            if known.leaf() is leaf:
                now = staged(local(leaf))
                moved = leaf._version != known.version or now.shape != known.values.shape
                self._used = self._used or moved
                if not moved:
                    readback.submit([(now != known.values).any()], self._compared)
                return
        if len(self._known) < MOST:
            values = staged(local(leaf))
            self._known.append(_Known(weakref.ref(leaf), leaf._version, values))

    def _compared(self, values: list[float]) -> None:
        self._used = self._used or any(values)


def _behind(tensor: Tensor) -> list[Tensor]:
    """Return the leaves that what a model was called with is put together of, if those are near."""
    if tensor.is_leaf:
        return [tensor]
    leaves, closed = _leaves(tensor.grad_fn, most=WAY)
    learned = any(isinstance(leaf, nn.Parameter) for leaf in leaves)
    return [] if closed or learned else leaves


def _summands(root: Node) -> list[Node]:
    """Return the nodes that a loss is a sum of, each times a number; `MOST` of them and more."""
    found: list[Node] = []
    waiting = [root]
    while waiting and len(found) <= MOST:
        node = waiting.pop()
        name = base_name(node.name())
        following = [n for n, _ in node.next_functions]
        read = [n for n in following if n is not None]
        scaled = name == "Mul" or (name == "Div" and following[0] is not None)
        if name in _SUMS or (len(read) == 1 and (name in _LINEAR or scaled)):
            waiting += read
        else:
            found.append(node)
    return found


def _leaves(root: Node, *, most: int | None = None) -> tuple[list[Tensor], bool]:
    """Return the leaves behind a node, and whether there may be others that it does not show."""
    seen, waiting = {root}, [root]
    leaves: list[Tensor] = []
    closed = False
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and not node.next_functions:
            leaves.append(variable)
            continue
        closed = closed or is_custom(node.name()) or (most is not None and len(seen) > most)
        if closed and most is not None:
            break
        fresh = {n for n, _ in node.next_functions if n is not None and n not in seen}
        seen |= fresh
        waiting += fresh
    return leaves, closed
