"""Dropout in front of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.graph import ACTIVATIONS, POOLS, SHAPES, WEIGHTED, Operation
from gradlint.rules._dropout import is_dropout
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class DropoutBeforeBatchnorm(Rule):
    """Dropout whose result reaches a BatchNorm.

    ## What it does
    Notes a BatchNorm in training mode with a dropout in front of it, with only weights,
    activations, pooling and changes of shape between the two.

    ## Why is this bad?
    Dropout raises the variance in training and not in evaluation; BatchNorm remembers the
    training variance and divides by it in evaluation. The outputs shift between the two.

    ## Example
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.BatchNorm1d(64),
        nn.ReLU(), nn.Linear(64, 5),
    )
    ```

    Use instead:
    ```python
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(64, 5),
    )
    ```

    ## When it is wrong
    Wide residual networks do this between convolutions and train well; it is a note.

    ## References
    - Li, Chen, Hu & Yang (2019), "Understanding the disharmony between dropout and batch
      normalization by variance shift"
    - Reference [2], question 4
    """

    code: ClassVar = "GL803"
    name: ClassVar = "dropout-before-batchnorm"
    severity: ClassVar = Severity.NOTE
    help: ClassVar = "Place dropout behind the last BatchNorm."
    stage: ClassVar = Stage.FORWARD

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each BatchNorm behind a dropout."""
        passed = ACTIVATIONS | WEIGHTED | SHAPES | POOLS | {"parameter_add", "parameter_mul"}

        def through(op: Operation) -> bool:
            return op.kind in passed and not is_dropout(trace, op)

        for op in trace.graph.of_kind("batch_norm"):
            if not op.attributes.get("training", True):
                continue
            before = [o for o in trace.graph.behind(op, through) if is_dropout(trace, o)]
            if before:
                yield self.finding(
                    op.module,
                    f"the dropout of {before[0].module or 'the model'} feeds the BatchNorm "
                    f"{op.module or 'behind it'}: its variance differs in evaluation",
                    trace=trace,
                    evidence={"dropout": before[0].module},
                )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there is no BatchNorm."""
        return None if trace.graph.of_kind("batch_norm") else "no BatchNorm in the graph"
