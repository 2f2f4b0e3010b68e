"""Hidden activations whose mean dwarfs their spread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._hidden import hidden_activations
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class UncenteredActivations(Rule):
    """Hidden layers that are nearly constant: a mean many times their standard deviation.

    ## What it does
    Notes a network in which, at step 0, the mean of the activation is more than `max_ratio`
    times its standard deviation in more than half of the hidden activations, of which there
    are at least `min_layers`.

    ## Why is this bad?
    What the next layer sees is a constant with a ripple on it: its bias learns, its weights
    hardly do, and all weights of a unit are pushed to one side.

    ## Example
    ```python
    layers = []
    for _ in range(4):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
        nn.init.normal_(layers[-2].weight, std=0.01)
    model = nn.Sequential(*layers, nn.Linear(16, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    Use instead:
    ```python
    layers = []
    for _ in range(4):
        layers += [nn.Linear(16, 16), nn.Tanh()]
        nn.init.xavier_normal_(layers[-2].weight)
        nn.init.zeros_(layers[-2].bias)
    model = nn.Sequential(*layers, nn.Linear(16, 4))
    batch = (torch.randn(64, 16), torch.randint(0, 4, (64,)))
    loss_fn = nn.CrossEntropyLoss()
    ```

    ## When it is wrong
    ReLU and sigmoid are never centered: half of a ReLU's activation is 0, a sigmoid's is around
    0.5. At torch's initialization their ratio is 0.7 and 7, well inside the limit. A note never
    changes the verdict.

    ## References
    - [0] section 4.4.4: the mean should be near 0; [0] section 4.2: sigmoid is not centered
    - LeCun et al. (1998), "Efficient BackProp", section 4.3
    - `max_ratio` is our choice: the largest median over 110 small networks was 7.4.
    """

    code: ClassVar = "GL203"
    name: ClassVar = "uncentered-activations"
    severity: ClassVar = Severity.NOTE
    metrics: ClassVar = ("activation_mean", "activation_std")
    stage: ClassVar = Stage.FORWARD
    help: ClassVar = "Use a centered activation (tanh, GELU), or normalize between the layers."

    max_ratio: float = 10.0
    min_layers: int = 3

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield at most one finding."""
        means, stds = trace.of("activation_mean").initial, trace.of("activation_std").initial
        ratios: dict[str, float] = {}
        modules: dict[str, str] = {}
        for op in hidden_activations(trace):
            mean, std = means.at(op.site), stds.at(op.site)
            if mean and std and std.median > 0:
                ratios[op.site] = abs(mean.median) / std.median
                modules[op.site] = mean.sites[0].module
        over = [site for site, ratio in ratios.items() if ratio > self.max_ratio]
        if len(ratios) < self.min_layers or 2 * len(over) <= len(ratios):
            return
        worst = max(over, key=lambda site: ratios[site])
        yield self.finding(
            modules[over[0]],
            f"the mean is up to {ratios[worst]:.2g} times the standard deviation, and more than "
            f"{self.max_ratio:.2g} times in {len(over)} of {len(ratios)} hidden activations",
            trace=trace,
            modules=tuple(dict.fromkeys(modules[site] for site in over)),
            step=0,
            evidence={"ratios": ratios, "limit": self.max_ratio},
        )
