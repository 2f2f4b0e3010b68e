"""Batches in which every label is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import CLASSIFICATION
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ConstantTargets(Rule):
    """Class labels that do not vary within a batch, or at all.

    ## What it does
    Looks at the labels of a classification, in at least two batches of at least
    `min_samples` labels each. Flags batches that each hold one class only: different ones
    (sorted data; of `many` batches or more `min_share` have to, since some hold the end of one
    class and the beginning of the next), or always the same, if that is so in at least
    `min_total` labels: a note, and a warning where others are ignored and `min_kept` are left.

    ## Why is this bad?
    Each step teaches the network to answer the class of the day, and the next one to forget
    it; BatchNorm sees one class at a time. If there is only one class there is nothing to
    learn but a bias; a mask the wrong way round leaves a language model its padding alone.

    ## Example
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    x, y = torch.randn(128, 16), torch.arange(4).repeat_interleave(32)
    batch = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 128, 32)]
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    x, y = torch.randn(128, 16), torch.arange(4).repeat_interleave(32)[torch.randperm(128)]
    batch = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 128, 32)]
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A rare class of 1 % is missing from 128 labels in a quarter of the cases: batches of the
    one frequent class are a note. Continual learning feeds one class after another on
    purpose, and a discriminator may get the real and the false in batches of their own: loops
    of several losses are not judged, nor are binary masks and regression.

    ## References
    - Bengio (2012), "Practical recommendations for gradient-based training of deep
      architectures", section 2.1.2: shuffle the samples
    - `min_samples` 8: of two equally frequent classes, two batches hold one each with a
      probability of 3e-5
    - `min_kept` 1000: of tokens of which one in a hundred is another, as many hold one with a
      probability of 0.99996
    - `min_share` 0.6 of 5: shuffled, three of five batches of 8 hold one of two classes each,
      not all the same, with a probability below 1e-5
    """

    code: ClassVar = "GL613"
    name: ClassVar = "constant-targets"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.DATA
    help: ClassVar = "Shuffle the data (DataLoader(shuffle=True)) before it is cut into batches."

    min_samples: int = 8
    min_total: int = 128
    min_kept: int = 1000
    min_share: float = 0.6
    many: int = 5

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why the labels say nothing, or None."""
        if trace.facts.synthesized:
            return "the batch was made up: its targets say nothing"
        if not any(loss.kind in CLASSIFICATION for loss in trace.facts.losses):
            return "no class labels were seen"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        seen = trace.facts.probes.get("targets")
        if not seen or not all(t.integral for t in trace.facts.targets):
            return
        batches, constant, values = seen["batches"], seen["constant"], seen["values"]
        loop = trace.facts.loop
        several = loop is not None and loop.streams > 1
        if batches < 2 or seen["fewest"] < self.min_samples or several:
            return
        mostly = batches >= self.many and constant >= self.min_share * batches
        if values > 1 and (constant == batches or mostly):
            each = f"each of {batches}" if constant == batches else f"{constant} of {batches}"
            holds = "holds" if constant == batches else "hold"
            yield self.finding(
                None,
                f"{each} batches {holds} one class only, {values} different ones: the "
                "data are sorted by class",
                evidence=dict(seen),
            )
        elif constant == batches and seen["all"] >= self.min_total:
            masked = seen.get("ignored", False)
            kept = "labels that are not ignored" if masked else "labels"
            yield self.finding(
                None,
                f"all {seen['all']} {kept} of {batches} batches are the same class",
                severity=(
                    Severity.WARNING if masked and seen["all"] >= self.min_kept else Severity.NOTE
                ),
                help=(
                    "Look at the mask: the labels to learn from are to be kept, the others -100."
                    if masked
                    else "Look at the labels: where they come from, and how the data are split."
                ),
                evidence=dict(seen),
            )
