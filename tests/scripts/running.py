"""Runs a script under `gradlint run`, as a user would, and reads its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a watched script came to; `report` is empty where none was written."""

    status: int
    report: dict[str, Any]
    output: str
    errors: str
    seconds: float

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Return what was found, causes first."""
        return self.report.get("findings", [])

    @property
    def alarms(self) -> list[str]:
        """Return the warnings and errors, a line each."""
        return [said(f) for f in self.findings if f["severity"] != "note"]

    @property
    def first(self) -> str:
        """Return the code of the first finding, empty where it is a note or there is none."""
        heads = [f["code"] for f in self.findings[:1] if f["severity"] != "note"]
        return heads[0] if heads else ""

    @property
    def broken(self) -> str:
        """Return what went wrong inside gradlint while it watched, empty where nothing did."""
        return str(self.report.get("target", {}).get("watching_failed", ""))


def said(finding: dict[str, Any]) -> str:
    """Return a finding as one line."""
    folded = "  " if finding.get("cause") is not None else ""
    place = finding.get("parameter") or finding.get("module") or "model"
    return f"{folded}{finding['severity']} {finding['code']} {place}: {finding['message']}"


def run(text: str, name: str, folder: Path, *options: str, limit: float = 300) -> Outcome:
    """Run a script of that text in `folder`, on one thread."""
    script, target = folder / f"{name}.py", folder / f"{name}.json"
    script.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "gradlint", "run", "-f", f"json:{target}", *options]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, str(script)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=limit,
    )
    seconds = time.perf_counter() - began
    report = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    return Outcome(done.returncode, report, done.stdout, done.stderr, seconds)
