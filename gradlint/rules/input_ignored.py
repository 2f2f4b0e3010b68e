"""Outputs that do not depend on the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import WEIGHTED
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class InputIgnored(Rule):
    """A model that returns the same whatever it is given.

    ## What it does
    After at least `min_steps` training steps, gives the model two different batches in
    evaluation mode. Flags it if its output changes by at most `max_change` of its size, entries
    filled in where a mask hides (from 1e4 on) left out, and names the first module from which
    on nothing changes any more. Where the inputs hold a mask, samples also exchange the tokens
    at which it is the same in both; where they are padded and hold none, all tokens but the
    padding and those that are the same in all samples: flags a model whose output changes by no
    more than that.

    ## Why is this bad?
    A constant can fit the mean of the targets and nothing else. A mask the wrong way round
    leaves the padding to attend to, which says how long a text is and nothing of it.

    ## Example
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(8, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            h = F.relu(self.encoder(x))
            return self.head(torch.ones_like(h) * 0.5)

    model = Net()
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Linear(8, 16)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            h = F.relu(self.encoder(x))
            return self.head(h)

    model = Net()
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A zero-initialized head ignores its input until it has moved: the rule waits for
    `min_steps` and says nothing while the learning rate is below `min_learning_rate` (a
    warm-up's first steps). It says nothing either if no module at all saw a difference and the
    batch holds fewer than two samples, since then the two batches were the same. A mask that
    chooses one position of each sample, all of whose other positions are ignored on purpose, is
    none that two samples have in common. A model that is to count its tokens, whatever they are, is
    flagged if they are padded.

    ## References
    - `max_change` is ten times the rounding error of float32 (1.2e-7): an output that changes
      less is a constant. The rule asks for the fact, not for a degree.
    """

    code: ClassVar = "GL206"
    name: ClassVar = "input-ignored"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.PROGRESS
    exact: ClassVar = True
    help: ClassVar = (
        "Follow the input through forward to the named module: look for a result that is "
        "overwritten, multiplied by zero or replaced by a constant."
    )

    max_change: float = 1e-6
    min_steps: int = 5
    min_learning_rate: float = 1e-6

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why the rule cannot speak about `trace`, or None if it can."""
        found = trace.facts.probes.get("input-ignored")
        if found is None:
            return "the outputs of two batches were not compared"
        steps = int(found.get("steps", 0))
        if steps < self.min_steps:
            return f"judged after {self.min_steps} training steps, {steps} were made"
        rates = trace.of("learning_rate").training.values
        if rates and max(rates) < self.min_learning_rate:
            return f"the learning rate stayed below {self.min_learning_rate:.0e}"
        return None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        found = trace.facts.probes["input-ignored"]
        change = float(found["output_change"])
        masked = trace.facts.probes.get("masked-tokens")
        padded = trace.facts.probes.get("padded-tokens")
        if change > self.max_change and masked is not None:
            yield from self._masked(trace, masked, int(found["steps"]))
        if change > self.max_change and padded is not None:
            yield from self._padded(trace, padded, int(found["steps"]))
        layers: Mapping[str, Any] = found.get("layers", {})
        if not change <= self.max_change:
            return
        told_apart = any(float(v) > self.max_change for v in layers.values())
        if not told_apart and not _two_inputs(trace):
            return
        start = _first_constant(layers, self.max_change)
        place = f" from {start} on" if start else ""
        yield self.finding(
            start or "",
            f"the output changes by {change:.1e} of its size between two batches after "
            f"{found['steps']} steps (limit {self.max_change:.0e}): the input is ignored{place}",
            trace=trace,
            step=int(found["steps"]),
            evidence={
                "output_change": change,
                "limit": self.max_change,
                "steps": found["steps"],
                "from": start,
                "constant_input": _is_given_a_constant(trace, start),
                "layers": dict(layers),
            },
        )

    def _masked(self, trace: Trace, masked: Mapping[str, Any], steps: int) -> Iterator[Finding]:
        """Yield a finding if nothing that samples with the same mask exchange is seen."""
        change = float(masked["change"])
        if not change <= self.max_change:
            return
        yield self.finding(
            "",
            f"{masked['tokens']} entries of {masked['of']} exchanged between samples, where their "
            f"{masked['mask']} agrees, change the output by {change:.1e} of its size after {steps} "
            f"steps (limit {self.max_change:.0e}): what the mask shows is the same in all samples",
            trace=trace,
            step=steps,
            help="Turn the mask round: look up which of its values hides a position (0 in an "
            "attention_mask of transformers, True in a key_padding_mask of torch).",
            evidence={"output_change": change, "limit": self.max_change, "steps": steps},
        )

    def _padded(self, trace: Trace, padded: Mapping[str, Any], steps: int) -> Iterator[Finding]:
        """Yield a finding if tokens exchanged between samples are not seen, padding left alone."""
        change = float(padded["change"])
        if not change <= self.max_change:
            return
        yield self.finding(
            "",
            f"{padded['tokens']} entries of {padded['of']} exchanged between samples, the padding "
            f"({padded['padding']:g}) left alone, change the output by {change:.1e} of its size "
            f"after {steps} steps (limit {self.max_change:.0e}): all it tells is where padding is",
            trace=trace,
            step=steps,
            help="Turn the mask round that the model makes of its tokens (True hides in a "
            "key_padding_mask of torch), or read its output where a token is.",
            evidence={"output_change": change, "limit": self.max_change, "steps": steps},
        )


def _two_inputs(trace: Trace) -> bool:
    """Whether the batch holds several samples that differ."""
    varied = any(t.std > 0 or t.unique > 1 for t in trace.facts.inputs)
    return (trace.facts.batch_size or 0) > 1 and varied


def _is_given_a_constant(trace: Trace, start: str | None) -> bool:
    """Whether the module from which nothing changes multiplies its input by weights.

    It would pass a change on, so what it is given is a constant already.
    """
    return any(op.module == start and op.kind in WEIGHTED | {"embedding"} for op in trace.graph)


def _first_constant(layers: Mapping[str, Any], limit: float) -> str | None:
    """Return the first module from which on nothing changes, in the order they ran."""
    start = None
    for path in reversed(list(layers)):
        if float(layers[path]) > limit:
            break
        start = path
    return start
