"""judge_trace: from a trace to a report. No torch: saved traces are judged by it, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradlint.config import Config, active_rules, apply_severity, module_ignores, take_suppressed
from gradlint.diagnosis.causes import Linked, link
from gradlint.diagnosis.exemptions import EXEMPTIONS
from gradlint.diagnosis.judge import Judgement, judge
from gradlint.report import Report, build_report
from gradlint.trace import Trace


def judge_trace(
    trace: Trace, config: Config, target: Mapping[str, Any], *, notices: Iterable[str] = ()
) -> Report:
    """Judge `trace` by all active rules; causes first, symptoms beneath them.

    Args:
        trace: What was measured.
        config: Which rules, severities, exemptions; and from which severity on to fail.
        target: What the report says of the target.
        notices: What else the user is told.
    """
    rules = active_rules(config)
    judgement = judge(trace, rules, [*module_ignores(config), *EXEMPTIONS])
    judgement, suppressed = take_suppressed(judgement)
    linked = link(apply_severity(judgement.findings, config))
    return reported(linked, judgement, suppressed, trace, config, target, notices=notices)


def reported(
    linked: Sequence[Linked],
    judgement: Judgement,
    suppressed: Any,
    trace: Trace,
    config: Config,
    target: Mapping[str, Any],
    *,
    notices: Iterable[str] = (),
) -> Report:
    """Return the report of findings that are linked already."""
    return build_report(
        [numbered(item) for item in linked],
        trace=trace,
        explained=judgement.explained,
        skipped=judgement.skipped,
        suppressed=suppressed,
        target=dict(target),
        fail_on=config.fail_on,
        rules_run=judgement.rules_run,
        notices=notices,
    )


def numbered(item: Linked) -> Linked:
    """Count findings from 1, as reports do."""
    cause = None if item.cause is None else item.cause + 1
    return replace(item, cause=cause, symptoms=tuple(i + 1 for i in item.symptoms))
