"""Run the calibration bench and print its table.

python -m tests.calibration                                # everything, hours on a small machine
python -m tests.calibration --part sealed --seeds 0 1 2
python -m tests.calibration --resume runs.jsonl            # goes on where it was interrupted
python -m tests.calibration --resume runs.jsonl --table    # runs nothing more
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.calibration.case import Case
from tests.calibration.recipes import every, tenth
from tests.calibration.run_one import MODES, run_one
from tests.calibration.table import judgements, stability, table, wrong

LEARNED = 0.02
"""Share by which the loss has to fall over the run of a healthy case."""

SAMPLE = 10
"""Every such case is run under five seeds."""


def planned(
    cases: Sequence[Case], seeds: Sequence[int], modes: Sequence[str]
) -> Iterator[tuple[Case, int, str]]:
    """Yield what to run: the first seed of everything, then the next; five in a sample."""
    for seed in seeds:
        for case in cases:
            yield from ((case, seed, m) for m in modes if not (case.in_loop and m == "check"))
    if list(seeds) == [0, 1, 2]:
        for case in cases[::SAMPLE]:
            for seed in (3, 4):
                yield from ((case, seed, m) for m in modes if not (case.in_loop and m == "check"))


def main() -> int:
    """Run what was asked for and print what is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only cases with one of these in their name")
    parser.add_argument("--part", choices=("sealed", "tuning", "all"), default="all")
    parser.add_argument("--group", choices=("healthy", "sick", "mixture"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--modes", nargs="+", choices=(*MODES, "plain"), default=list(MODES))
    parser.add_argument("--tenth", action="store_true", help="every tenth case")
    parser.add_argument("--resume", type=Path, help="JSONL of runs, read and appended to")
    parser.add_argument("--table", action="store_true", help="run nothing more")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    args = parser.parse_args()

    torch.set_num_threads(1)
    cases = every()
    if args.part != "all":
        cases = tuple(case for case in cases if case.part == args.part)
    if args.group:
        cases = tuple(case for case in cases if case.group == args.group)
    if args.names:
        cases = tuple(case for case in cases if any(name in case.name for name in args.names))
    if args.tenth:
        cases = tenth(cases)
    records = read(args.resume)
    if not args.table:
        ends = time.monotonic() + args.seconds
        for case, seed, mode in planned(cases, args.seeds, args.modes):
            if (case.name, seed, mode) in records:
                continue
            if time.monotonic() > ends:
                break
            record = records[case.name, seed, mode] = run_one(case, seed, mode)
            if args.resume:
                with args.resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
            print(line(case, record), file=sys.stderr, flush=True)
    return show(cases, [r for r in records.values() if any(c.name == r["case"] for c in cases)])


def read(path: Path | None) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Return the runs in a file, the last of each."""
    if path is None or not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {(r["case"], r["seed"], r["mode"]): r for r in map(json.loads, lines)}


def line(case: Case, record: dict[str, Any]) -> str:
    """Return one run as a line."""
    said = " ".join(
        f"{'' if top else '>'}{code}{'' if severity != 'note' else 'n'}"
        for code, severity, top, _, _ in record.get("findings", [])
    )
    wanted = "/".join(sorted(case.accepted)) or "healthy"
    fall = record.get("fall")
    tail = f" fall {fall:.2f}" if fall is not None else ""
    error = record.get("error") or record.get("raised") or ""
    head = f"{case.name:44} {record['seed']} {record['mode']:5} {record['seconds']:5.1f}s"
    return f"{head} {wanted:14} {said}{tail} {error[:120]}"


def show(cases: Sequence[Case], records: Sequence[dict[str, Any]]) -> int:
    """Print the table, the mistakes and what did not learn; return 1 if a run broke."""
    by_name = {case.name: case for case in cases}
    judged = judgements(cases, records)
    for part in ("sealed", "tuning"):
        in_part = [j for j in judged if j.case.part == part and j.column != "both"]
        if not in_part:
            continue
        counts = ", ".join(
            f"{len({j.case.name for j in in_part if j.case.group == group})} {name}"
            for group, name in (("healthy", "healthy"), ("sick", "sick"), ("mixture", "with two"))
        )
        faults = len({j.case.fault for j in in_part if j.case.group == "sick"})
        print(f"\n{table(judged, part)}\n")
        print(f"{len(in_part)} runs of {counts} recipes, {faults} kinds of fault.")
    print()
    for text in stability(judged):
        print(text)
    mistakes = list(wrong(judged))
    print(f"\nJudged wrongly ({len(mistakes)}):")
    for text in mistakes:
        print(f"- {text}")
    idle = sorted({
        f"{r['case']} (seed {r['seed']}, {r['fall']})"
        for r in records
        if by_name[r["case"]].group == "healthy" and by_name[r["case"]].learns
        and "fall" in r and (r["fall"] is None or r["fall"] < LEARNED)
    })  # fmt: skip
    print(f"\nHealthy and did not learn ({len(idle)}): {'; '.join(idle) or 'none'}")
    broken = [
        f"{r['case']} {r['mode']} seed {r['seed']}: {r['error']}"
        for r in records
        if "error" in r and not _unseen(r, by_name[r["case"]])
    ]
    print(f"\nBroke ({len(broken)}): {'; '.join(broken) or 'none'}")
    return 1 if broken or idle else 0


def _unseen(record: dict[str, Any], case: Case) -> bool:
    """Tell whether a sick loop raised before anything could be observed: a miss, no crash."""
    return case.group != "healthy" and "NotObserved" in record["error"]


if __name__ == "__main__":
    raise SystemExit(main())
