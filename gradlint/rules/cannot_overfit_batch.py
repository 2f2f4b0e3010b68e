"""A model that cannot fit one batch in which there is something to fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class CannotOverfitBatch(Rule):
    """A model that cannot fit a batch although a plain two-layer network can.

    ## What it does
    Where the loss after the watched steps is less than a tenth below that of the best constant
    prediction, trains copies of the fresh model on up to 128 samples, 200 steps of Adam at each
    of three learning rates, without dropout. A plain network of 128 hidden units shows what
    there is to find: it has to beat the constant on samples left out by a tenth of the loss and
    four standard errors, and to halve the loss of the samples that are fitted. Flags a model
    that at no rate comes `max_share` of the way from the constant's loss to the plain network's.

    ## Why is this bad?
    A network that learns at all fits a batch by heart. One that cannot does not see what
    distinguishes the samples, mixes them up, or is too small; more data and more steps do not
    help it.

    ## Example
    ```python
    model = nn.Linear(2, 2)
    x = torch.randn(256, 2)
    batch = (x, (x[:, 0] * x[:, 1] > 0).long())
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    x = torch.randn(256, 2)
    batch = (x, (x[:, 0] * x[:, 1] > 0).long())
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    What learns after a long plateau looks the same. Recurrent networks do (memory over tens of
    steps takes thousands of updates), and are not judged. Nor are: batches that were made up,
    data of less than 32 different samples, inputs other than one tensor of floats, targets other
    than one class, up to 64 numbers or yes-or-no answers a sample, targets shaped as the inputs,
    several kinds of losses, models that do not make their steps within 5 seconds. Labels
    without a relation to the inputs are nothing to be found, and silent.

    ## References
    - Reference [0], debugging tip 1: overfit one batch first
    - Karpathy (2019), "A recipe for training neural networks": overfit one batch
    - The limits are our experiment: forty healthy networks (perceptrons of depth 2 to 22,
      convolutions, transformers of 2 to 24 layers before and behind normalization, mixtures,
      codebooks, frozen trunks; digits, diabetes, XOR) came past a tenth of the way, but for one
      whose only three units had died; blind, mixed and linear ones on what is not linear came
      0.00 to 0.04 of it. None of 326 healthy trainings of the bench was flagged
    """

    code: ClassVar = "GL611"
    name: ClassVar = "cannot-overfit-batch"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.PROGRESS
    help: ClassVar = (
        "Follow one sample from the input to the output and look for the layer behind which "
        "samples no longer differ or have changed places; then give the model a nonlinearity "
        "or more units."
    )

    max_share: float = 0.1

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding if the model did not come far enough."""
        seen = trace.facts.probes.get("batch-fit")
        if seen is None or seen["share"] >= self.max_share:
            return
        yield self.finding(
            "",
            f"at none of {len(seen['rates'])} learning rates does the model fit "
            f"{seen['samples']} samples in {seen['steps']} steps: its loss stays at "
            f"{seen['model']:.2g}, {_percent(seen['share'])} of the way from the best constant "
            f"prediction's {seen['constant']:.2g} to the {seen['plain']:.2g} of a plain two-layer "
            f"network, whose loss on samples left out is {_percent(seen['signal'])} below the "
            f"constant's",
            trace=trace,
            evidence={"share": seen["share"], "limit": self.max_share, **seen},
        )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no batch was fitted."""
        if "batch-fit" not in trace.facts.probes:
            return "no batch was fitted: the loss fell, or the data are none that is judged"
        return super().skip_reason(trace)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
