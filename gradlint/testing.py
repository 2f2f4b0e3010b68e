"""Helpers for tests: a healthy model asserted; traces written by hand, rules' own programs."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gradlint.diagnosis.exemptions import Exemption
from gradlint.diagnosis.judge import judge
from gradlint.errors import UnhealthyModelError
from gradlint.finding import Finding, Severity
from gradlint.graph import Graph, Operation
from gradlint.rules.base import Rule
from gradlint.trace import Facts, ModuleFacts, Observation, ParameterFacts, Site, Trace

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from gradlint.config import Config
    from gradlint.report import Report

_judged: deque[Report] = deque(maxlen=64)
"""Reports since the pytest plugin last asked; few are kept where nobody asks."""


def assert_healthy(
    model: nn.Module | Callable[[], nn.Module],
    batch: Any = None,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    optimizer: optim.Optimizer | Callable[..., optim.Optimizer] | None = None,
    *,
    severity: str = "warning",
    ignore: Sequence[str] = (),
    steps: int | None = None,
    config: Config | None = None,
    **options: Any,
) -> Report:
    """Assert that `gradlint.check` finds nothing at or above `severity`; needs no pytest.

    The objects given stay as they are, bit for bit. Always as many steps are made, however
    fast the machine is.

    Args:
        model: See `gradlint.check`, as for `batch`, `loss_fn`, `optimizer`, `options`.
        batch: Inputs, or inputs and targets.
        loss_fn: ``loss_fn(outputs, targets)``.
        optimizer: The optimizer, or a function that builds one.
        severity: "note", "warning" or "error".
        ignore: Rules that are not run, by code, beginning of a code, or name.
        steps: Training steps; 40 by default.
        config: Settings; none are read from files.
        options: `training_step`, `seed`, `device` and others.

    Returns:
        The report, for what else a test wants to know.

    Raises:
        UnhealthyModelError: An `AssertionError` with the concise report as its message.
    """
    __tracebackhide__ = True
    from gradlint.config import Config, parse_config
    from gradlint.session import DEFAULT_STEPS, check

    Severity.parse(severity)
    settings = (config or Config()).settings()
    settings["ignore"] = [*settings["ignore"], *([ignore] if isinstance(ignore, str) else ignore)]
    settings["fail-on"] = severity
    report = check(
        model,
        batch,
        loss_fn,
        optimizer,
        steps=DEFAULT_STEPS if steps is None else steps,
        config=parse_config(settings),
        **{"cures": False, **options},
    )
    require(report, severity)
    return report


def require(report: Report, severity: str) -> None:
    """Assert that a report has no finding at or above `severity`; "never" asserts nothing.

    Raises:
        UnhealthyModelError: With the concise report and what to do as its message.
    """
    __tracebackhide__ = True
    _judged.append(report)
    if severity == "never":
        return
    limit = Severity.parse(severity)
    if any(found.severity >= limit for found in report.findings):
        helps = [f"help: {f.code}: {f.help}" for f in report.causes if f.severity >= limit]
        raise UnhealthyModelError("\n".join([report.verdict, str(report), *helps]), report)


def take_judged() -> list[Report]:
    """Return the reports that were asserted since this was last asked."""
    taken = list(_judged)
    _judged.clear()
    return taken


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
