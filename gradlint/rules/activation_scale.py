"""Hidden activations far from unit scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._hidden import hidden_activations
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class ActivationScale(Rule):
    """Hidden layers whose standard deviation at step 0 is far from 1.

    ## What it does
    Notes a network in which, at step 0, the standard deviation of the activation is more than
    `max_factor` times away from 1, up or down, in more than half of the hidden activations, of
    which there are at least `min_layers`.

    ## Why is this bad?
    The sizes of gradients and updates follow from the sizes of activations; far from 1 the
    usual learning rates do not fit, and the next layers die, saturate or see nothing.

    ## Example
    ```python
    layers = []
    for _ in range(4):
        layers += [nn.Linear(32, 32), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, std=3.0)
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    batch = (torch.randn(64, 32), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    layers = []
    for _ in range(4):
        layers += [nn.Linear(32, 32), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    batch = (torch.randn(64, 32), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    Residual and normalized networks learn at many scales. A note never changes the verdict: it
    stands beside GL101, GL103 and GL104, which judge how the scale changes with depth.

    ## References
    - [0] section 4.4.4: the standard deviation should be near 1
    - Of 255 healthy models 80 % have a module outside 0.1 to 10, so the limit is ten times
      wider and asks for most of the layers; both are our choice.
    """

    code: ClassVar = "GL204"
    name: ClassVar = "activation-scale"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("activation_std",)
    stage: ClassVar = Stage.INITIALIZATION
    help: ClassVar = (
        "Initialize with the gain of the activation, normalize the inputs, or normalize between "
        "the layers."
    )

    max_factor: float = 100.0
    min_layers: int = 3

    def skip_reason(self, trace: Trace) -> str | None:
        """Return why there is no initialization to judge, or None."""
        if trace.facts.pretrained:
            return "weights were loaded or trained before"
        return super().skip_reason(trace)

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        stds = trace.of("activation_std").initial
        seen = {op.site: stds.at(op.site) for op in hidden_activations(trace)}
        values = {site: found.median for site, found in seen.items() if found}
        low, high = 1 / self.max_factor, self.max_factor
        over = [site for site, std in values.items() if std < low or std > high]
        if len(values) < self.min_layers or 2 * len(over) <= len(values):
            return
        modules = tuple(dict.fromkeys(seen[site].sites[0].module for site in over))
        outside = [values[site] for site in over]
        yield self.finding(
            modules[0],
            f"standard deviations from {min(outside):.2g} to {max(outside):.2g} at step 0, outside "
            f"{low:g} to {high:g} in {len(over)} of {len(values)} hidden activations",
            trace=trace,
            modules=modules,
            step=0,
            evidence={"stds": values, "limit": [low, high]},
        )
