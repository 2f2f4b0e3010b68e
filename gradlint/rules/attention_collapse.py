"""Attention that training has made one-hot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._losses import noise, progress
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class AttentionCollapse(Rule):
    """Attention that was spread at the start, is one-hot after some steps, and helps nobody.

    ## What it does
    Compares how much of its attention the median query gives to one key at step 0 and after
    the watched training. Flags an attention that gave less than `max_start` and now gives more
    than `max_peak`, in a training whose loss is within `min_fall` of its start or above it.

    ## Why is this bad?
    The softmax is on its flat part: next to no gradient passes to queries and keys, so they
    stay as they are. Where the attention had not learned what to look for before that, it
    never will.

    ## Example
    ```python
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            q, k, v = (layer(x) for layer in self.qkv)
            weights = (q @ k.transpose(1, 2) / 32**0.5).softmax(dim=-1)
            return self.head((weights @ v).mean(dim=1))

    model = Attend()
    batch = lambda: (torch.randn(64, 12, 32), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    ```

    Use instead:
    ```python
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
            self.head = nn.Linear(32, 3)

        def forward(self, x):
            q, k, v = (layer(x) for layer in self.qkv)
            weights = (q @ k.transpose(1, 2) / 32**0.5).softmax(dim=-1)
            return self.head((weights @ v).mean(dim=1))

    model = Attend()
    batch = lambda: (torch.randn(64, 12, 32), torch.randint(0, 3, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    ```

    ## When it is wrong
    Heads that copy or look up get sharp because that is what they learned: while the loss
    falls it is silent, and of weights that were loaded it is silent, too. Attention that is
    one-hot from the start is `unscaled-attention`'s.

    ## References
    - Zhai et al. (2023), "Stabilizing transformer training by preventing attention entropy
      collapse", section 3: low entropy comes with a loss that oscillates or diverges
    - `max_peak` and `max_start` are our choice: among 24 keys scores of standard deviation 16
      give a peak of 0.99, of 2 of 0.37 (tests/metrics/test_attention_peak.py)
    """

    code: ClassVar = "GL205"
    name: ClassVar = "attention-collapse"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.PROGRESS
    help: ClassVar = (
        "Lower the learning rate or warm it up, normalize queries and keys, and clip gradients."
    )

    max_peak: float = 0.95
    max_start: float = 0.5
    min_fall: float = 0.02

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no attention was measured again."""
        if "attention-peaks" not in trace.facts.probes:
            return "no attention was measured after training"
        return "weights were loaded: trained heads are sharp" if trace.facts.pretrained else None

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield a finding for each attention that has become one-hot."""
        seen = progress(trace)
        if seen is None:
            return
        first, late = seen
        if first - late >= max(self.min_fall * abs(first), noise(trace)):
            return
        for path, peak in trace.facts.probes.get("attention-peaks", {}).items():
            start = trace.of("attention_peak").at(path).initial
            if not start.median < self.max_start or not peak > self.max_peak:
                continue
            yield self.finding(
                start.sites[0],
                f"the median query gives {peak:.0%} of its attention to one key, "
                f"{start.median:.0%} at step 0 (limit {self.max_peak:.0%}), and the loss has not "
                "fallen",
                evidence={"peak": peak, "peak_at_start": start.median, "limit": self.max_peak},
            )
