"""Custom functions whose backward contradicts their forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace

REVERSED = -0.99
"""Cosine up to which a gradient is reversed: a choice, as its scale is."""

PROPORTIONAL = 0.9999
"""Cosine from which on a gradient is a multiple of the slope: of x³ the two terms are."""

HELP_OF_NOTE = (
    "Compare it with torch.autograd.gradcheck; leave it where it is meant to be another function."
)


@dataclass(frozen=True)
class GradientCheckFailed(Rule):
    """A custom autograd.Function whose backward is not the derivative of its forward.

    ## What it does
    Compares, for each `autograd.Function` of your own, what backward passes to its inputs with
    central differences of forward, in float64, on what the model gives it. Flags an input

    - that is changed entry by entry, where backward has nothing, or the other sign, at more
      than `max_against` of the `min_entries` or more entries at which forward rises or falls,
      and passes something at as many at which forward is flat;
    - that is changed entry by entry, where backward has the right sign at some of the entries
      at which forward rises (or falls) and the wrong one at others, both at `min_entries`
      and a share of `min_mixed` or more of those where the slopes are clear, with a cosine
      of both below `max_along`;
    - that is changed entry by entry, where forward is x·h(x) and backward h(x) - x·h'(x): one
      term of the product rule with the sign turned round;
    - in which forward is linear, where most of `min_entries` or more outputs pass a gradient
      on to where forward takes the entry in their place, and none to one that moved them
      (edges taken the wrong way, a roll made twice), or where backward is
      forward itself, not its transpose, with a cosine to the slope below `min_cosine`;
    - of several, which is passed the exact opposite of the slope while all others get the
      slope itself (a warning);
    - in which forward is curved, where the cosine of what is passed with the slope is below
      `min_cosine` (a note: it is a fact, and there are methods that want it so).

    ## Why is this bad?
    Everything in front of the function is pushed by the wrong samples. The layers behind it
    learn all the same, so that the loss falls, to a worse end.

    ## Example
    ```python
    class Clamp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (x.abs() > 1)

    class HardTanh(nn.Module):
        def forward(self, x):
            return Clamp.apply(x)

    model = nn.Sequential(nn.Linear(8, 32), HardTanh(), nn.Linear(32, 3))
    nn.init.normal_(model[0].weight, std=0.4)
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Clamp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(-1, 1)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (x.abs() <= 1)

    class HardTanh(nn.Module):
        def forward(self, x):
            return Clamp.apply(x)

    model = nn.Sequential(nn.Linear(8, 32), HardTanh(), nn.Linear(32, 3))
    nn.init.normal_(model[0].weight, std=0.4)
    batch = (torch.randn(64, 8), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Backward is another function on purpose in straight-through estimators, surrogates of
    spikes, gradient reversal, scaling, clipping and stopping, and in learned step sizes. So
    these are silent: functions that are a step, or jump, in any input; straight lines whose
    gradients are not sent on; a backward that keeps to one sign where forward does, whatever
    it passes elsewhere; one that passes nothing at all, is not linear in what it is given,
    draws, or looks at an input that forward does not look at (feedback alignment); one of the
    opposite sign throughout; and the reversal of an input that only shifts, weighs or adds to
    another, or of a loss, whose player is an adversary. A wrong factor is not found, nor
    anything in functions of several outputs. Terms left out on purpose (truncated or one-step
    solvers, traces of eligibility) are a note where they are most of the slope, as is a
    feedback that the function holds itself.

    ## References
    - Reference [0], "Common pitfalls", 1: compare with numerical differences
    - Bengio, Léonard & Courville (2013), "Estimating or propagating gradients through
      stochastic neurons": the straight-through estimator
    - `max_against` and `min_entries` are our choice: a correct backward is against nothing,
      one of the inverted condition against everything
    - `min_mixed` and `max_along` are our choice: on normal inputs a swish without its sigmoid
      term has the wrong sign at 0.36 of the entries and a cosine of 0.6, 1 - x² for tanh 0.26
      and 0.35, x (1 - x) for a sigmoid 0.66 and -0.33; the identity and steps of four values
      for the slopes of SiLU and GELU (Yang et al., 2024, "Reducing fine-tuning memory overhead
      by approximate and memory-sharing backpropagation") none, wherever the inputs lie
    - A turned term is an identity: what is passed is 2·f(x)/x less the slope, to a thousandth
    - Half of the outputs is our choice: edges taken the wrong way make 0.7 to 1 on random
      graphs, with loops and without, a running sum forwards 0.7 to 1; feedback, blurred gradients,
      neighbors left out and the identity for means of groups none
    - `min_cosine` is our choice: a scan that forgets its decay has 0.4; a scan that drops its
      carry 0.8, the identity for a softmax 0.68, a LayerNorm of constant statistics 0.97
    """

    code: ClassVar = "GL503"
    name: ClassVar = "gradient-check-failed"
    severity: ClassVar = Severity.ERROR
    stage: ClassVar = Stage.BACKWARD
    exact: ClassVar = True
    help: ClassVar = (
        "Correct the function's backward; torch.autograd.gradcheck compares it with differences."
    )

    max_against: float = 0.9
    min_entries: int = 16
    min_mixed: float = 0.1
    max_along: float = 0.9
    min_cosine: float = 0.6

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no custom function was compared."""
        if "custom-derivatives" not in trace.facts.probes:
            return "no function of the user's own was compared with differences"
        return None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each function whose backward contradicts its forward."""
        for name, seen in trace.facts.probes.get("custom-derivatives", {}).items():
            said = next(self._said(seen), None)
            if said is None:
                continue
            nodes = (op for op in trace.graph.of_kind("custom") if op.name == f"{name}Backward")
            op = next(nodes, None)
            severity, message, evidence = said
            yield self.finding(
                op.module if op is not None else "",
                f"{name}.backward {message}",
                trace=trace,
                source=op.source if op is not None else None,
                severity=severity,
                help=HELP_OF_NOTE if severity is Severity.NOTE else self.help,
                exact=severity > Severity.NOTE,
                evidence=evidence,
            )

    def _said(self, seen: Mapping[str, Any]) -> Iterator[tuple[Severity, str, Mapping[str, Any]]]:
        """Yield what is wrong with a function, the gravest first."""
        for entries in seen["entries"].values():
            sloped, against, flat = (int(entries[key]) for key in ("sloped", "against", "flat"))
            if min(sloped, flat) >= self.min_entries and against > self.max_against * sloped:
                message = (
                    f"has no gradient, or one of the wrong sign, at {against} of the {sloped} "
                    f"entries at which forward rises or falls, and passes one at {flat} at which "
                    "it is flat"
                )
                evidence = {"against": against / sloped, "limit": self.max_against}
                yield Severity.ERROR, message, {**evidence, "sloped": sloped, "flat": flat}
        for entries in seen["entries"].values():
            counts = int(entries["agreeing"]), int(entries["opposite"])
            least = max(self.min_entries, self.min_mixed * sum(counts))
            if min(counts) >= least and entries["along"] < self.max_along:
                message = (
                    f"has the wrong sign at {counts[1]} of {sum(counts)} entries at which forward "
                    "slopes, and the right one at the others"
                )
                share = counts[1] / sum(counts)
                yield Severity.ERROR, message, {"opposite": share, "limit": self.min_mixed}
        for entries in seen["entries"].values():
            along = float(entries["along"])
            turned = entries.get("turned") and int(entries["sloped"]) >= self.min_entries
            if turned and abs(along) < PROPORTIONAL:
                message = (
                    "has one of two terms with the wrong sign: forward is x h(x), backward "
                    f"h(x) - x h'(x) or its opposite, at all of {entries['sloped']} entries"
                )
                evidence = {"cosine": along, "limit": PROPORTIONAL, "entries": entries["sloped"]}
                yield Severity.ERROR, message, evidence
        slopes = seen["slopes"]
        for name, ways in seen.get("ways", {}).items():
            pairs, both = int(ways["pairs"]), min(int(ways["missed"]), int(ways["onward"]))
            if pairs >= self.min_entries and 2 * both > pairs:
                message = (
                    f"sends gradients of {name} on, not back: {both} of {pairs} outputs pass one "
                    "to entries that do not move them, and none to an entry that does"
                )
                yield Severity.ERROR, message, {"onward": both / pairs, "limit": 0.5}
            elif ways["itself"] and slopes[name]["cosine"] < self.min_cosine:
                message = (
                    f"applies forward itself to the gradient of {name}, not its transpose: their "
                    f"cosine is {slopes[name]['cosine']:.2g}"
                )
                evidence = {"cosine": slopes[name]["cosine"], "limit": self.min_cosine}
                yield Severity.ERROR, message, evidence
        for name, slope in slopes.items():
            others = [s for n, s in slopes.items() if n != name]
            right = all(s["right"] for s in others) and any(s["curved"] for s in others)
            if slope["opposed"] and slope["curved"] and right:
                message = f"returns the opposite of the slope for {name}, the slope for all others"
                yield Severity.WARNING, message, {"input": name}
        off = {
            n: s["cosine"]
            for n, s in slopes.items()
            if s["curved"] and REVERSED < s["cosine"] < self.min_cosine and n not in seen["entries"]
        }
        if off:
            name = min(off, key=lambda n: off[n])
            message = f"is not the slope of forward for {name}: their cosine is {off[name]:.2g}"
            yield Severity.NOTE, message, {"cosine": off[name], "limit": self.min_cosine}
