"""One tensor twice in an optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.rules._optimizer import NOT_GIVEN, given
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class DuplicateParameters(Rule):
    """One parameter listed more than once in the optimizer.

    ## What it does
    Names parameters that the optimizer's groups list twice.

    ## Why is this bad?
    Such a parameter is updated twice a step, and its momentum is counted twice. Later
    versions of torch make it an error.

    ## Example
    ```python
    import warnings

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = torch.optim.SGD([*model.parameters(), *model[2].parameters()], lr=0.1)
    ```

    Use instead:
    ```python
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ```

    ## When it is wrong
    Never.

    ## References
    - pytorch/pytorch#40967: "optimizer contains a parameter group with duplicate parameters"
    """

    code: ClassVar = "GL711"
    name: ClassVar = "duplicate-parameters"
    severity: ClassVar = Severity.WARNING
    help: ClassVar = "List each parameter once; build groups from sets of names."
    stage: ClassVar = Stage.WIRING
    exact: ClassVar = True

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each parameter that is held twice."""
        optimizer = given(trace)
        for path in optimizer.duplicates if optimizer is not None else ():
            yield self.finding(
                path.rpartition(".")[0],
                f"{path} is listed more than once in the optimizer: it is updated twice a step",
                trace=trace,
                parameter=path,
            )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where no optimizer was seen."""
        return NOT_GIVEN if given(trace) is None else None
