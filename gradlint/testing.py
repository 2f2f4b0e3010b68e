"""Helpers for tests: traces written by hand, models from a rule's own documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gradlint.diagnosis.exemptions import Exemption
from gradlint.diagnosis.judge import judge
from gradlint.finding import Finding
from gradlint.graph import Graph, Operation
from gradlint.rules.base import Rule
from gradlint.trace import Facts, ModuleFacts, Observation, ParameterFacts, Site, Trace


def observe(
    metric: str,
    path: str,
    values: Iterable[float],
    *,
    kind: str = "Linear",
    depth: int = 0,
    module: str | None = None,
    start: int = 1,
    step: int | None = None,
) -> list[Observation]:
    """Observations of `metric` at `path`: one a step from `start`, or all at `step`."""
    site = Site(path, kind, depth, path if module is None else module)
    return [
        Observation(metric, site, start + i if step is None else step, float(value))
        for i, value in enumerate(values)
    ]


def trace_of(
    *observations: Iterable[Observation],
    operations: Iterable[Operation] = (),
    modules: Iterable[ModuleFacts] = (),
    parameters: Iterable[ParameterFacts] = (),
    **facts: Any,
) -> Trace:
    """A trace written by hand; keywords beyond the named ones are fields of `Facts`."""
    return Trace(
        [o for group in observations for o in group],
        modules={m.path: m for m in modules},
        parameters={p.path: p for p in parameters},
        graph=Graph(tuple(operations)),
        facts=Facts(**facts),
    )


def chain(*kinds: str, modules: Mapping[int, str] | None = None) -> tuple[Operation, ...]:
    """Operations one after another: ``chain("linear", "relu", "linear")``.

    Weighted operations read a parameter ``"<i>.weight"`` and are in module ``"<i>"``, where
    `i` is their position; `modules` overrides the module of a position.
    """
    from gradlint.graph import LOSSES, WEIGHTED

    names = dict(modules or {})
    return tuple(
        Operation(
            id=i,
            kind=kind,
            name=kind,
            module=names.get(i, str(i)),
            inputs=(i - 1,) if i else (),
            parameters=(f"{names.get(i, str(i))}.weight",) if kind in WEIGHTED else (),
            missing=0 if i else 1,
            in_loss=kind in LOSSES,
            site=names.get(i, str(i)),
        )
        for i, kind in enumerate(kinds)
    )


def findings_of(
    rule: Rule, trace: Trace, exemptions: Iterable[Exemption] | None = None
) -> tuple[Finding, ...]:
    """What `rule` says of `trace`, exemptions applied and places gathered."""
    return judge(trace, [rule], exemptions).findings


def documented_programs(rule: type[Rule]) -> tuple[str, str]:
    """The *Example* and the *Use instead* program of a rule's docstring.

    Raises:
        ValueError: If the docstring does not hold exactly these two code blocks.
    """
    import inspect

    text = inspect.cleandoc(rule.__doc__ or "")
    match = re.search(r"## Example\n(.*?)\n## ", text, re.DOTALL)
    blocks = re.findall(r"```python\n(.*?)```", match.group(1), re.DOTALL) if match else []
    if len(blocks) != 2 or "Use instead:" not in (match.group(1) if match else ""):
        raise ValueError(
            f"{rule.__name__}: expected '## Example' with a sick block, 'Use instead:' and a "
            f"cured block, got {len(blocks)} blocks"
        )
    return blocks[0], blocks[1]
