"""A loss that wants probabilities and gets something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import first_behind, loss_groups, place, predictions, refused
from gradlint.rules.base import Rule
from gradlint.trace import LossFacts, TensorFacts, Trace

_LOG = {"nll": "NLLLoss", "ctc": "CTCLoss"}
"""Losses on log-probabilities."""

_SIGMOID = "End the model in a sigmoid, or use BCEWithLogitsLoss on the raw outputs."


@dataclass(frozen=True)
class MissingOutputActivation(Rule):
    """A loss on probabilities that is given raw outputs.

    ## What it does
    Flags `NLLLoss` and `CTCLoss` on values that are no log-probabilities (some above 0, or rows
    whose exponentials do not sum to 1 within `tolerance`), `BCELoss` on values outside 0…1, and
    `KLDivLoss` on a softmax, of which it wants the logarithm. Of losses by hand it knows two: an
    overlap (Dice, Jaccard, Tversky) of values below 0, and the gradient of a policy, one chosen
    entry of each row times data, of rows that are no log-probabilities.

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
    less are a warning: distributions with some outcomes left out on purpose look so. Chosen
    probabilities are an expected reward, not its gradient; scores that another term reads, too
    (a logsumexp, an entropy), or whose data are signs or a mask (critics) are not meant. Sizes
    that are positive, of whatever scale, have an overlap.

    ## References
    - PyTorch documentation of `NLLLoss`, `CTCLoss`, `BCELoss`, `KLDivLoss`: what each expects
    - Milletari, Navab & Ahmadi (2016), "V-Net", section 3: Dice of the softmax's voxels
    - Williams (1992), "Simple statistical gradient-following algorithms for connectionist
      reinforcement learning": the gradient is that of the logarithm of a probability
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
        if not found:
            yield from self._kl_div(trace)
            yield from self._by_hand(trace)
        said = refused(trace)
        if not found and said is not None and said[0] == "bce" and not _not_a_number(trace):
            yield self.finding(
                None, "binary_cross_entropy raised: its input is not in 0…1", help=_SIGMOID
            )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no loss was seen."""
        seen = len(trace.graph) or trace.facts.losses or trace.events("exception")
        return None if seen else "no loss with a known input was seen"

    def _kl_div(self, trace: Trace) -> Iterator[Finding]:
        """Find t·log t − t·p, which is `F.kl_div` of probabilities p, in the graph."""
        graph = trace.graph
        kept = trace.facts.probes.get("written-losses", {}).get("divergence", {})
        known = all(abs(total - 1) < 1e-3 for total in kept.values()) and bool(kept)
        for op in graph.of_kind("shift"):
            product = graph.by_id[op.inputs[0]] if op.in_loss and op.inputs else None
            if product is None or product.kind != "mask" or product.shape != op.shape:
                continue
            last = first_behind(graph, product)
            classes = op.shape[-1] if op.shape else 0
            fits = known or any(
                target.shape == op.shape and abs(target.mean * classes - 1) < self.tolerance
                for target in trace.facts.targets
            )
            if fits and product.in_loss and last and last[0].kind in ("softmax", "sigmoid"):
                yield self.finding(
                    last[0].module,
                    f"KLDivLoss receives the {last[0].kind} itself, not its logarithm",
                    trace=trace,
                    help="Pass log_softmax(outputs) as the input of KLDivLoss.",
                    evidence={"loss": "kl_div"},
                )
                return

    def _by_hand(self, trace: Trace) -> Iterator[Finding]:
        """Judge losses without a bound: a quotient with a pole, a mean of what has no limit."""
        written = trace.facts.probes.get("written-losses", {})
        seen = written.get("overlap")
        if seen is not None and seen["minimum"] < 0:
            low, high = seen["minimum"], seen["maximum"]
            yield self.finding(
                None,
                f"an overlap (Dice, Jaccard) receives values from {low:.2g} to {high:.2g}, not "
                "probabilities in 0…1: the sum that it divides by can reach 0",
                trace=trace,
                help="Apply sigmoid (softmax for several classes) before the overlap.",
                evidence={"loss": "overlap", "minimum": low, "maximum": high},
            )
        seen = written.get("chosen")
        if seen is None or (seen["minimum"] >= 0 and seen["maximum"] <= 1):
            return
        low, high = seen["row_sum_min"], seen["row_sum_max"]
        if high > 1 + self.tolerance:
            yield self.finding(
                None,
                "one raw score of each row is weighed and averaged, where its log-probability is "
                f"due: exp sums to {low:.2g}…{high:.2g} a row, and the loss has no lower bound",
                trace=trace,
                help="Apply log_softmax to the scores before the chosen ones are taken.",
                evidence={"loss": "chosen", "row_sum_min": low, "row_sum_max": high},
            )

    def _first(self, trace: Trace, group: list[LossFacts]) -> Finding | None:
        judged = (self._judge(trace, seen) for seen in group)
        return next((found for found in judged if found is not None), None)

    def _judge(self, trace: Trace, seen: LossFacts) -> Finding | None:
        if seen.output is None:
            return None
        if seen.kind in _LOG:
            return self._nll(trace, seen, seen.output)
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

    def _nll(self, trace: Trace, seen: LossFacts, output: TensorFacts) -> Finding | None:
        low, high = seen.row_sum_min, seen.row_sum_max
        if low is None or high is None:
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
            axis = "the last one for CTCLoss" if seen.kind == "ctc" else "axis 1 for NLLLoss"
            hint = f"Run log_softmax over the class axis, which is {axis}."
        elif "softmax" in last:
            hint = "Take the logarithm: end the model in log_softmax instead of softmax."
        return self.finding(
            place(trace, seen),
            f"{_LOG[seen.kind]} receives values that are no log-probabilities: exp sums to "
            f"{low:.2g}…{high:.2g} a row where 1 is due, the largest value is "
            f"{output.maximum:.2g}",
            trace=trace,
            severity=severity,
            help=hint,
            evidence={
                "loss": seen.kind,
                "row_sum_min": low,
                "row_sum_max": high,
                "maximum": output.maximum,
                "limit": 1 + self.tolerance,
            },
        )


def _not_a_number(trace: Trace) -> bool:
    """Whether the loss was given NaN, which is no probability, either, and another rule's."""
    outputs = [loss.output for loss in trace.facts.losses if loss.kind == "bce"]
    return any(output is not None and output.non_finite for output in outputs)
