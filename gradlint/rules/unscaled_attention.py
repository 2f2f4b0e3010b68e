"""Attention that looks at one key only, before it has learned anything."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import NORMALIZATIONS, WEIGHTED, Operation
from gradlint.rules._chains import initial_value, why_not_initial
from gradlint.rules.base import Rule
from gradlint.trace import Site, Trace


@dataclass(frozen=True)
class UnscaledAttention(Rule):
    """Attention whose softmax is one-hot at initialization.

    ## What it does
    Measures, at step 0, the largest attention weight of each query that sees at least
    eight keys. Flags an attention in which its median is above `max_peak`: a warning where
    that is so in most of the model's attentions, or where nothing scales its scores and the
    middle one of all attentions is above `max_middle`; a note where it is so in some of them,
    or in a single one whose scores are scaled.

    ## Why is this bad?
    Products of queries and keys have a standard deviation of √d; without the factor 1/√d the
    softmax picks one key at random and has next to no gradient: queries and keys do not
    learn where to look.

    ## Example
    ```python
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(256, 256) for _ in range(3))
            for layer in (self.q, self.k):
                nn.init.xavier_uniform_(layer.weight)
            self.head = nn.Linear(256, 3)

        def forward(self, x):
            weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(dim=-1)
            return self.head((weights @ self.v(x)).mean(dim=1))

    model = Attend()
    batch = (torch.randn(16, 12, 256), torch.randint(0, 3, (16,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(256, 256) for _ in range(3))
            for layer in (self.q, self.k):
                nn.init.xavier_uniform_(layer.weight)
            self.head = nn.Linear(256, 3)

        def forward(self, x):
            scores = self.q(x) @ self.k(x).transpose(1, 2) / 256**0.5
            return self.head((scores.softmax(dim=-1) @ self.v(x)).mean(dim=1))

    model = Attend()
    batch = (torch.randn(16, 12, 256), torch.randint(0, 3, (16,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    A first layer that reads large embeddings (√d times N(0, 1)) is one-hot and learns: a note.
    Weights that were loaded are not judged: trained heads are sharp. Attention built to be
    hard from the start (a low temperature on purpose) is flagged. Fused attention is measured
    on a part of its queries and keys, attention inside a compiled region not at all.

    ## References
    - [0] section 4.3.3; Vaswani et al. (2017), "Attention is all you need", section 3.2.1
    - Among 24 keys, scores of standard deviation 1 give a median of 0.18, 4 of 0.66, 8 of
      0.91, 16 of 0.99 (`tests/metrics/test_attention_peak.py`); 0.8, and 0.6 for the middle one
      of several, are our choice
    """

    code: ClassVar = "GL107"
    name: ClassVar = "unscaled-attention"
    severity: ClassVar = Severity.WARNING
    metrics: ClassVar = ("attention_peak",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Divide the scores by √d, d the size of a head; if they are divided, initialize queries "
        "and keys smaller, or normalize them."
    )

    max_peak: float = 0.8
    max_middle: float = 0.6

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        return why_not_initial(trace) or super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each attention that is one-hot."""
        sites = trace.of("attention_peak").initial.sites
        peaks = {s: initial_value(trace, "attention_peak", s.path) for s in sites}
        sharp = {s: p for s, p in peaks.items() if p is not None and p > self.max_peak}
        known = [p for p in peaks.values() if p is not None and p == p]
        most = 2 * len(sharp) > len(known)
        high = bool(known) and statistics.median(known) > self.max_middle
        for site, peak in sharp.items():
            scaled = _is_scaled(trace, site)
            certain = (most and len(sharp) > 1) or ((most or high) and not scaled)
            by = "" if scaled else ", and nothing scales its scores"
            yield self.finding(
                site,
                f"the median query gives {peak:.0%} of its attention to one key at step 0 (limit "
                f"{self.max_peak:.0%}){by}",
                severity=self.severity if certain else Severity.NOTE,
                step=0,
                evidence={"peak": peak, "limit": self.max_peak, "scaled": scaled},
            )


def _is_scaled(trace: Trace, site: Site) -> bool:
    """Whether the scores of an attention are made smaller, by a constant or by a parameter."""
    graph = trace.graph
    for op in graph.of_kind("softmax"):
        if op.site == site.path:
            ends = graph.behind(op, lambda o: o.kind not in WEIGHTED and not _shrinks(o))
            return any(_shrinks(o) for o in ends)
    return True  # fused kernels scale by themselves


def _shrinks(op: Operation) -> bool:
    if op.kind == "scale":
        return bool(op.attributes.get("scalar", 0.0) < 1)
    return op.kind in NORMALIZATIONS | {"parameter_mul", "div"}
