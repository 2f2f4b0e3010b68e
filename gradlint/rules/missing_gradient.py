"""Trainable parameters that backward does not reach."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._inputs import reading
from gradlint.rules._loop import (
    cleared,
    learned,
    left_alone,
    new_leaf,
    nobody_trains,
    roots,
    same_model,
)
from gradlint.rules._optimizer import is_copy, topmost
from gradlint.rules._parts import held_in_vain, quiet_alone, quiet_before, reader_of
from gradlint.rules._zero_derivative import starved
from gradlint.rules.base import Rule
from gradlint.trace import ModuleFacts, ParameterFacts, Trace

_LIKELY, _PROVEN = 1, 2


@dataclass(frozen=True)
class MissingGradient(Rule):
    """Trainable parameters without a gradient after backward.

    ## What it does
    Names trainable parameters whose `.grad` is None although backward ran. It is an error
    where a whole module ran, its output has the size of what the next module reads, and
    nothing in front of that next module learns: the cut is between the two. It is a warning
    where the module's output is added in as a constant. In a loop that calls the parts of its
    model one by one it is an error, too, where a part that learns is called on the detached output
    of one that never does, and a warning where a part runs under no_grad in front of all that
    learns: if an optimizer steps it, and its weights are as PyTorch made them. All else (unused
    heads, poolers, idle experts) is a note. A gradient of exactly zero in front of a step function
    (round, floor, sign) is an error as well.

    ## Why is this bad?
    These weights never change. In front of a `detach` or `no_grad` the model trains a small
    head on random features, and the loss falls just enough to hide it.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32))
            self.head = nn.Linear(32, 5)

        def forward(self, x):
            return self.head(self.encoder(x).detach())

    model = Net()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32))
            self.head = nn.Linear(32, 5)

        def forward(self, x):
            return self.head(self.encoder(x))

    model = Net()
    ```

    ## When it is wrong
    Teachers and target networks run without gradient: a copy of a part that learns is a note.
    So is an encoder whose weights were loaded (features of a pretrained network), and one
    that the optimizer was not given. In a watched loop a gradient at any step counts: the
    sides of a GAN learn in turn, and some layers later than others. Random features that no
    optimizer holds, teachers that follow by averages and what is read beside them are not meant.

    ## References
    - PyTorch notes, "Autograd mechanics"; the gradient of what backward does not reach is None
    """

    code: ClassVar = "GL701"
    name: ClassVar = "missing-gradient"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = (
        "Remove the detach() or no_grad behind it; if it is meant to stay as it is, freeze it "
        "with requires_grad_(False)."
    )
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each topmost module without gradients, or parameter."""
        trainable = [p for p in trace.parameters.values() if p.requires_grad]
        yield from self._starved(trace)
        lost = [p for p in trainable if _lost(trace, p)]
        learning = [p for p in trainable if p.gradient != "missing" or learned(trace, p.path)]
        if not lost or trace.events("detached-loss") or nobody_trains(trace) or cleared(trace):
            return
        if not learning:
            if new_leaf(trace) is not None:
                return  # detached-loss says so
            yield self.finding(
                "",
                f"none of {len(lost)} trainable parameters received a gradient",
                trace=trace,
                evidence={"parameters": len(lost)},
            )
            return
        reader = _first_learner(trace, learning)
        groups = topmost(lost, [p for p in trainable if not _lost(trace, p)])
        upstream = {
            path
            for path, group in groups.items()
            if reader is not None
            and _runs_whole(trace, path)
            and _ran(trace, path) < reader.depth
            and not is_copy(path, group, learning)
            and not left_alone(trace, path)
        }
        certain = [_feeds(trace, p, reader, upstream) for p in upstream] if reader else []
        for path, group in groups.items():
            found = self._judge(trace, path, group, learning)
            if reader is not None and path in upstream and any(certain):
                found = self._cut(trace, found, reader, max(certain))
            elif found.severity is Severity.NOTE and not is_copy(path, group, learning):
                found = self._apart(trace, found, group, learning, reader)
            yield found

    def _starved(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for a step function that leaves what is in front without gradient."""
        found = starved(trace)
        if found is None:
            return
        op, group = found
        modules = tuple(dict.fromkeys(p.module for p in group))
        noun = "parameter" if len(group) == 1 else "parameters"
        yield self.finding(
            modules[-1],
            f"{len(group)} trainable {noun} in front of {op.kind} received a gradient of exactly "
            f"0: the derivative of {op.kind} is 0 everywhere",
            trace=trace,
            modules=modules,
            help=f"Let the gradient around {op.kind}: x + ({op.kind}(x) - x).detach().",
            evidence={"operation": op.kind, "parameters": len(group)},
        )

    def _judge(
        self,
        trace: Trace,
        path: str,
        group: Sequence[ParameterFacts],
        learning: Sequence[ParameterFacts],
    ) -> Finding:
        facts = trace.modules.get(path)
        severity, because = Severity.NOTE, "nothing that leads to the loss uses them"
        help_ = "Use it, or leave its parameters out of the optimizer."
        if quiet_alone(trace, path) and not is_copy(path, group, learning):
            because = "it runs under no_grad alone, and an optimizer holds it"
            help_ = (
                "Call it with gradient for what enters the loss; freeze it with "
                "requires_grad_(False) if it is meant to stay as it is."
            )
        elif facts is not None and facts.calls == 0 and facts.parameters:
            because = "the module was not called"
        elif is_copy(path, group, learning):
            because = "it runs without gradient, as a copy of a part that learns"
        elif _runs_whole(trace, path) and _added_as_constant(trace, trace.modules[path]):
            severity = Severity.WARNING
            because = "its output is added in as a constant"
        elif _stepped_in_vain(trace, path):
            severity = Severity.WARNING if trace.facts.pretrained else Severity.ERROR
            because = "an optimizer steps it, and the loss does not depend on it"
        count = len(group)
        return self.finding(
            path,
            f"{_lost_text(path, count)}: {because}",
            trace=trace,
            severity=severity,
            parameter=group[0].path if count == 1 else None,
            help=help_ if severity is Severity.NOTE else self.help,
            evidence={"parameters": count, "entries": sum(p.numel for p in group)},
        )

    def _cut(self, trace: Trace, found: Finding, reader: ModuleFacts, certain: int) -> Finding:
        """Return `found` as the cut in front of `reader` that it is."""
        error = certain == _PROVEN and not trace.facts.pretrained
        text = _lost_text(found.module or "", int(found.evidence["parameters"]))
        return found.but(
            severity=Severity.ERROR if error else Severity.WARNING,
            message=f"{text}: its output is cut from the graph before {reader.path}",
            help=self.help,
        )

    def _apart(
        self,
        trace: Trace,
        found: Finding,
        group: Sequence[ParameterFacts],
        learning: Sequence[ParameterFacts],
        first: ModuleFacts | None,
    ) -> Finding:
        """Return `found` as what it is where a loop calls the parts of its model one by one."""
        path = found.module or ""
        if not held_in_vain(trace, path, group):
            return found
        text = _lost_text(path, len(group))
        reader = reader_of(trace, path, learning)
        if reader is not None:
            return found.but(
                severity=Severity.ERROR,
                message=f"{text}: {reader} is called on its detached output",
                help=self.help,
            )
        if first is not None and quiet_before(trace, path, first):
            return found.but(
                severity=Severity.WARNING,
                message=f"{text}: it runs under no_grad in front of {first.path}, and an optimizer "
                "holds it",
                help=self.help,
            )
        return found


def _lost_text(path: str, count: int) -> str:
    noun = "parameter" if count == 1 else "parameters"
    return f"{count} trainable {noun} of {path or 'the model'} received no gradient"


def _lost(trace: Trace, parameter: ParameterFacts) -> bool:
    return (
        parameter.requires_grad
        and parameter.gradient == "missing"
        and parameter.in_optimizer is not False
        and not learned(trace, parameter.path)
    )


def _inside(parameter: ParameterFacts, path: str) -> bool:
    return not path or parameter.module == path or parameter.module.startswith(f"{path}.")


def _first_learner(trace: Trace, learning: Sequence[ParameterFacts]) -> ModuleFacts | None:
    """Return the module with a gradient that ran first."""
    modules = [trace.modules[p.module] for p in learning if p.module in trace.modules]
    ran = [m for m in modules if m.calls > 0 and m.depth >= 0]
    return min(ran, key=lambda m: m.depth, default=None)


def _runs_whole(trace: Trace, path: str) -> bool:
    """Whether the module at `path` was called, and none of its trainable parameters learns."""
    facts = trace.modules.get(path)
    return (
        facts is not None
        and facts.calls > 0
        and all(
            _lost(trace, p)
            for p in trace.parameters.values()
            if p.requires_grad and _inside(p, path)
        )
    )


def _ran(trace: Trace, path: str) -> int:
    """Return when a module had run: by its parts, since a loop may find a model while it runs."""
    inside = f"{path}." if path else ""
    parts = [
        m.depth
        for m in trace.modules.values()
        if m.leaf and m.calls > 0 and m.path.startswith(inside)
    ]
    own = trace.modules[path]
    return own.depth if own.leaf or not parts else min(own.depth, max(parts))


def _feeds(trace: Trace, path: str, reader: ModuleFacts, upstream: set[str]) -> int:
    """How surely `reader`, the first module that learns, reads what the module at `path` made.

    Sizes agree; or this is the last module in front of a reader that does not read the batch
    itself, with nothing frozen in between that may have made what it reads. Where the batch
    has the size of what the reader reads, and the scale its output tells of, the reader may
    stand beside a single layer: likely, not proven.
    """
    module = trace.modules[path]
    if not reader.input_shape:
        return 0
    size = prod(reader.input_shape)
    batch = {prod(tensor.shape) for tensor in trace.facts.inputs}
    if module.output_shape and prod(module.output_shape) == size:
        lost = [p for p in trace.parameters.values() if _lost(trace, p)]
        layers = {p.module for p in lost if any(_inside(p, cut) for cut in upstream)}
        beside = len(layers) < 2 and _reads_batch(trace, reader, size)
        return _LIKELY if beside else _PROVEN
    frozen = any(
        not p.requires_grad
        and p.module in trace.modules
        and 0 <= trace.modules[p.module].depth < reader.depth
        for p in trace.parameters.values()
    )
    last = max(upstream, key=lambda p: _ran(trace, p))
    parallel = module.input_shape == reader.input_shape
    alone = path == last and bool(batch) and size not in batch and not frozen and not parallel
    # What the second of several models is given was not seen: only sizes that agree tell.
    return _PROVEN if alone and same_model(trace, path, reader.path) else 0


def _reads_batch(trace: Trace, reader: ModuleFacts, size: int) -> bool:
    """Whether `reader` can be reading the batch: an input of its size, on its scale."""
    layers = [op for p in reader.parameters for op in trace.graph.reading(p)]
    for tensor in trace.facts.inputs:
        if prod(tensor.shape) == size:
            scale = math.hypot(tensor.mean, tensor.std)
            ratio = reading(trace, layers[0], scale) if layers else None
            if ratio is None or 2 / 3 <= ratio <= 3 / 2:
                return True
    return False


def _stepped_in_vain(trace: Trace, path: str) -> bool:
    """Whether a whole model runs and is an optimizer's, all optimizers step, and it never learns.

    With one optimizer for all it may be there for another purpose.
    """
    loop = trace.facts.loop
    each = loop is not None and len(loop.optimizers) > 1 and not loop.idle_optimizers
    if not each or path not in roots(trace) - {""} or not _runs_whole(trace, path):
        return False
    return all(p.in_optimizer for p in trace.parameters.values() if _inside(p, path))


def _added_as_constant(trace: Trace, module: ModuleFacts) -> bool:
    """Whether the parent adds a tensor without gradient of the shape of `module`'s output."""
    parent = module.path.rpartition(".")[0]
    return any(
        op.kind in ("shift", "concat")
        and op.missing > 0
        and not op.in_loss
        and op.module == parent
        and op.shape == module.output_shape
        for op in trace.graph
    )
