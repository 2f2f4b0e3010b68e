"""Run the gallery and its faults under `gradlint run`; print who was judged rightly.

python -m tests.scripts.bench                    # everything
python -m tests.scripts.bench gpt no-zero-grad   # what has one of these in its name
python -m tests.scripts.bench --healthy --keep reports/
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.scripts.faults import FAULTS, GALLERY, original
from tests.scripts.running import Outcome, run


@dataclass(frozen=True)
class Case:
    """A script to run, and the codes accepted for its first finding (none: nothing found)."""

    script: str
    fault: str
    text: str
    causes: frozenset[str] = frozenset()
    missed: bool = False

    @property
    def id(self) -> str:
        """Return the name of its files."""
        return f"{self.script}-{self.fault}" if self.fault else self.script

    def passed(self, outcome: Outcome) -> bool:
        """Tell whether it was judged rightly."""
        if outcome.broken:
            return False
        if self.causes:
            return outcome.first in self.causes
        return outcome.status == 0 and bool(outcome.report) and not outcome.alarms


def cases() -> Iterator[Case]:
    """Yield the healthy scripts, then the faulty ones."""
    for name in GALLERY:
        yield Case(name, "", original(name))
    for fault in FAULTS:
        yield Case(fault.script, fault.name, fault.planted(), fault.causes, bool(fault.missed))


def row(case: Case, outcome: Outcome) -> str:
    """Return one line of the table."""
    verdict = "ok" if case.passed(outcome) else "missed" if case.missed else "WRONG"
    wanted = "/".join(sorted(case.causes)) or "healthy"
    first = (outcome.findings and outcome.alarms and outcome.alarms[0].strip()) or "nothing"
    if not outcome.report:
        first = f"no report (status {outcome.status}): {outcome.errors.strip()[-200:]}"
    if outcome.broken:
        first = f"gradlint failed: {outcome.broken}"
    return (
        f"{case.script:26} {case.fault:29} {verdict:7}{wanted:18} {outcome.seconds:5.1f}s  {first}"
    )


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="run only what has one of these in its name")
    parser.add_argument("--healthy", action="store_true", help="the scripts without a fault")
    parser.add_argument("--faults", action="store_true", help="the scripts with a fault")
    parser.add_argument("--keep", type=Path, help="keep scripts, reports, outputs in this folder")
    args = parser.parse_args()

    right = total = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for case in cases():
            if (args.healthy and case.fault) or (args.faults and not case.fault):
                continue
            if args.names and not any(name in case.id for name in args.names):
                continue
            options = ("--trace", str(folder / f"{case.id}.jsonl")) if args.keep else ()
            outcome = run(case.text, case.id, folder, *options)
            (folder / f"{case.id}.err").write_text(outcome.errors, encoding="utf-8")
            total += 1
            right += case.passed(outcome)
            print(row(case, outcome), flush=True)
            if not case.passed(outcome):
                for alarm in outcome.alarms[1:6]:
                    print(f"{'':88}{alarm}", flush=True)
    print(f"{right} of {total} right")


if __name__ == "__main__":
    main()
