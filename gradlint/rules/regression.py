"""A run that is worse than the one it is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gradlint.finding import Finding, Severity, Stage
from gradlint.health import MEASURES, Level, allowed, change, levels
from gradlint.health_samples import samples_of
from gradlint.rules.base import Rule
from gradlint.trace import Trace


@dataclass(frozen=True)
class Regression(Rule):
    """A run that is worse than its baseline runs by more than they differ among themselves.

    ## What it does
    Given the traces of one or more runs that were well (`gradlint report NEW --against BASE`),
    compares the loss at the end, and layer by layer the decades the gradient loses, the
    gradient ratio and the update-to-weight ratio at the start, the activation's standard
    deviation, the dead and the saturated share at the end. Flags what is worse by more than
    three times the spread of the baseline: from run to run where several are given (six times
    of two runs, less of more), from step to step where it is one. What is inside a documented
    band is not worse. Runs of different lengths are compared over the steps they share.

    ## Why is this bad?
    A change of code or data that makes training worse without breaking it trips no other
    limit: the loss is a tenth higher, a layer lost half of its units. Against its own past
    a run shows it.

    ## Example
    ```python
    # gradlint run --trace base.jsonl train.py      at the last good commit, and now, with
    model[0].bias.data.fill_(-3.0)  # new in train.py
    # gradlint run --trace new.jsonl train.py
    # gradlint report new.jsonl --against base.jsonl
    ```

    Use instead:
    ```python
    # gradlint run --trace base.jsonl train.py      at the last good commit, and now, with
    model[0].bias.data.fill_(0.0)  # new in train.py
    # gradlint run --trace new.jsonl train.py
    # gradlint report new.jsonl --against base.jsonl
    ```

    ## When it is wrong
    One baseline run says nothing about what another seed would have done: of runs that differed
    in the seed alone, 3 of 588 were found worse than a single other one, and none of 2076 worse
    than 2, 3 or 5 others. Give three or more, of different seeds. A change that is meant to alter
    these numbers (another learning rate, another activation) needs a new baseline.

    ## References
    - Hampel (1974), "The influence curve and its role in robust estimation": the median
      absolute deviation as a robust spread; 1.4826 times it is the standard deviation of
      normal noise
    - Tippett (1925), "On the extreme individuals and the range of samples taken from a normal
      population": the standard deviation from the range of few runs
    - Bouthillier et al. (2021), "Accounting for variance in machine learning benchmarks": seeds
      alone move results by as much as many published improvements
    """

    code: ClassVar = "GL910"
    name: ClassVar = "regression"
    severity: ClassVar = Severity.WARNING
    stage: ClassVar = Stage.PROGRESS
    help: ClassVar = (
        "Look for the change since the baseline that made it worse; if it is meant, record a new "
        "baseline."
    )

    def skip_reason(self, trace: Trace) -> str | None:
        """Say so where there is no baseline."""
        return None if "baseline" in trace.facts.probes else "no baseline run given"

    def check(self, trace: Trace) -> Iterator[Finding]:
        """Yield one finding for each metric and place that is worse."""
        baseline = trace.facts.probes.get("baseline", {})
        now = levels(samples_of(trace), int(baseline.get("until", 0)))
        for base in baseline.get("levels", ()):
            new = now.get((base.metric, base.place))
            if new is not None and change(base, new) > 1:
                yield self._found(trace, base, new, baseline)

    def _found(self, trace: Trace, base: Level, new: Level, baseline: Mapping[str, Any]) -> Finding:
        parameter = base.place if base.place in trace.parameters else None
        module = trace.parameters[parameter].module if parameter else base.place
        runs = int(baseline.get("runs", 1))
        what = MEASURES[base.metric].said
        limit = allowed(base, new)
        among = f"{runs} baseline runs" if runs > 1 else "the baseline run"
        place = f" at {base.place}" if base.place else ""
        return self.finding(
            module.partition(":")[0],
            f"{what}{place}: {new.value:.2g}, {base.value:.2g} in {among} (limit {limit:.2g})",
            trace=trace,
            parameter=parameter,
            evidence={
                "metric": base.metric,
                "value": new.value,
                "baseline": base.value,
                "spread": base.spread,
                "limit": limit,
                "times": change(base, new),
                "runs": runs,
            },
        )

    def gather(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Fold the places of each metric into one finding; the worst place speaks."""
        groups: dict[str, list[Finding]] = {}
        for found in findings:
            groups.setdefault(found.evidence["metric"], []).append(found)
        for group in groups.values():
            folded = self.fold(sorted(group, key=lambda f: -f.evidence["times"]))
            depths = {module: found.depth for found in group for module in found.modules}
            yield folded.but(modules=tuple(sorted(folded.modules, key=lambda m: depths[m])))
