"""A loss that wants probabilities and gets something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import loss_groups, place, predictions, refused
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, Trace

_SIGMOID = "End the model in a sigmoid, or use BCEWithLogitsLoss on the raw outputs."


@dataclass(frozen=True)
class MissingOutputActivation(Rule):
    """A loss on probabilities that is given raw outputs.

    ## What it does
    Flags `NLLLoss` on values that are no log-probabilities (some above 0, or rows whose
    exponentials do not sum to 1 within `tolerance`), and `BCELoss` on values outside 0…1.

    ## Why is this bad?
    `NLLLoss` is minus the chosen entry: on raw outputs it has no lower bound, so training
    pushes that one output to infinity, whatever the input. `BCELoss` raises, or is NaN.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.NLLLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5), nn.LogSoftmax(dim=1)
    )
    batch = (torch.randn(64, 16), torch.randint(0, 5, (64,)))
    loss_fn = nn.NLLLoss()
    ```

    ## When it is wrong
    Log-mixtures and log(p + ε) sum to 1 within the tolerance and pass. Rows that sum to
    less are a warning: distributions with some outcomes left out on purpose look so.

    ## References
    - PyTorch documentation of `NLLLoss` and `BCELoss`: what each expects
    - The tolerance is our choice: log(p + 1e-3) over 50 classes sums to 1.05, raw outputs
      near 0 sum to K (tests/rules/test_missing_output_activation.py)
    """

    code: ClassVar = "GL602"
    name: ClassVar = "missing-output-activation"
    severity: ClassVar = Severity.ERROR
    help: ClassVar = "End the model in log_softmax, or use CrossEntropyLoss on the raw outputs."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    tolerance: float = 0.1

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each loss whose input is of the wrong kind."""
        found = [f for group in loss_groups(trace) if (f := self._first(trace, group))]
        yield from found
        said = refused(trace)
        if not found and said is not None and said[0] == "bce":
            yield self.finding(
                None, "binary_cross_entropy raised: its input is not in 0…1", help=_SIGMOID
            )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loss was seen."""
        seen = trace.facts.losses or trace.events("exception")
        return None if seen else "no loss with a known input was seen"

    def _first(self, trace: Trace, group: list[LossFacts]) -> Finding | None:
        judged = (self._judge(trace, seen) for seen in group)
        return next((found for found in judged if found is not None), None)

    def _judge(self, trace: Trace, seen: LossFacts) -> Finding | None:
        if seen.output is None:
            return None
        if seen.kind == "nll":
            return self._nll(trace, seen)
        low, high = seen.output.minimum, seen.output.maximum
        if seen.kind == "bce" and (low < 0 or high > 1):
            return self.finding(
                place(trace, seen),
                f"BCELoss receives values from {low:.2g} to {high:.2g}, not probabilities in 0…1",
                trace=trace,
                help=_SIGMOID,
                evidence={"loss": "bce", "minimum": low, "maximum": high},
            )
        return None

    def _nll(self, trace: Trace, seen: LossFacts) -> Finding | None:
        low, high = seen.row_sum_min, seen.row_sum_max
        if seen.output is None or low is None or high is None:
            return None
        if high > 1 + self.tolerance:
            severity = Severity.ERROR
        elif high < 1 - self.tolerance:
            severity = Severity.WARNING
        else:
            return None
        last = {op.kind for op in predictions(trace, seen)}
        hint = self.help
        if "log_softmax" in last:
            hint = "Run log_softmax over the class axis, which is axis 1 for NLLLoss."
        elif "softmax" in last:
            hint = "Take the logarithm: end the model in log_softmax instead of softmax."
        return self.finding(
            place(trace, seen),
            "NLLLoss receives values that are no log-probabilities: exp sums to "
            f"{low:.2g}…{high:.2g} a row where 1 is due, the largest value is "
            f"{seen.output.maximum:.2g}",
            trace=trace,
            severity=severity,
            help=hint,
            evidence={
                "loss": "nll",
                "row_sum_min": low,
                "row_sum_max": high,
                "maximum": seen.output.maximum,
                "limit": 1 + self.tolerance,
            },
        )
