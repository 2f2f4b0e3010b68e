"""Guards of the rules, disabled one by one: ``python -m tests.rules.guards [FILE…]``.

Disabling one must make a test of its rule fail. What a guard is, `finding_guards` says.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
import torch

from tests.rules.finding_guards import guards_of

ROOT = Path(__file__).parents[2]
RULES = ROOT / "gradlint" / "rules"
TESTS = Path(__file__).parent
EVERY = TESTS / "test_little_known.py"
"""Tests of all rules alike; each is run for its own rule."""
PATIENCE = 10.0
"""Seconds a guard's tests have: a loop that never ends is noticed, too."""


def functions_of(module: ModuleType) -> dict[str, FunctionType]:
    """Functions and methods defined in a module, by their qualified names."""
    found: dict[str, FunctionType] = {}
    for value in vars(module).values():
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            inner = getattr(member, "fget", None) or getattr(member, "func", None) or member
            function = inspect.unwrap(getattr(inner, "__func__", inner))
            if isinstance(function, FunctionType):
                code = function.__code__
                if code.co_filename == module.__file__:
                    found[code.co_qualname] = function
    return found


def tests_of(file: Path) -> list[Path]:
    """The test files that hold a rule, or a helper and the rules that use it, its own first."""
    own = TESTS / f"test_{file.stem.lstrip('_')}.py"
    found = [path for path in (own, EVERY) if path.exists()]
    if file.name.startswith("_") or file.stem == "base":
        name = f"gradlint.rules.{file.stem} import"
        for user in sorted(RULES.glob("*.py")):
            if f"from {name}" in user.read_text() and user.name != "__init__.py":
                found += tests_of(user)
    return list(dict.fromkeys(found))


@dataclass
class Test:
    """A test as a call without pytest, and what it takes."""

    path: Path
    name: str
    call: Callable[[], object]
    seconds: float = 0.0


class Hung(Exception):
    """A test does not end without the guard."""


def _hang(*_: object) -> None:
    raise Hung


class Disabler:
    """A pytest plugin that runs the collected tests once for each guard."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = list(files)
        self.noticed: dict[str, str | None] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run nothing as it stands; disable, run, restore."""
        tests: dict[Path, list[Test]] = {}
        for item in session.items:
            call = _bare(item)
            if call is not None and item.get_closest_marker("slow") is None:
                tests.setdefault(item.path, []).append(Test(item.path, item.name, call))
        for of_file in tests.values():
            for test in of_file:
                start = time.process_time()
                error = _error(test.call)
                if error is not None:
                    self.failed.append(f"{test.path.name}::{test.name}: {error!r}")
                test.seconds = time.process_time() - start
            of_file.sort(key=lambda test: test.seconds)
        if not self.failed:
            for file in self.files:
                self._disable_all(file, tests)
        return True

    def _disable_all(self, file: Path, tests: dict[Path, list[Test]]) -> None:
        stem = "" if file.stem == "__init__" else f".{file.stem}"
        functions = functions_of(importlib.import_module(f"gradlint.rules{stem}"))
        asked = [
            test
            for path in tests_of(file)
            for test in tests.get(path, ())
            if path != EVERY or _names(test.name, file)
        ]
        for guard in guards_of(file):
            function = functions[guard.function]
            code = function.__code__
            function.__code__ = guard.code
            try:
                self.noticed[guard.name] = _notices(asked)
            finally:
                function.__code__ = code


def _notices(tests: list[Test]) -> str | None:
    """Return the first test that fails; it comes first from now on if that spares time."""
    spent = 0.0
    for index, test in enumerate(tests):
        if _error(test.call) is not None:
            if test.seconds < spent:  # the next guard is often noticed by the same test
                tests.insert(0, tests.pop(index))
            return f"{test.path.name}::{test.name}"
        spent += test.seconds
    return None


def _names(test: str, file: Path) -> bool:
    """Whether `test` is of the rule in `file`; of all rules for a helper."""
    return file.name.startswith("_") or test.endswith(f"[{file.stem.replace('_', '-')}]")


def _bare(item: pytest.Item) -> Callable[[], object] | None:
    """The test as a call without pytest; None where it needs fixtures."""
    if not isinstance(item, pytest.Function):
        return None
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if set(inspect.signature(item.obj).parameters) - set(params):
        return None
    return lambda: item.obj(**params)


def _error(call: Callable[[], object]) -> BaseException | None:
    random.seed(0)
    torch.manual_seed(0)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        call()
    except (Exception, pytest.fail.Exception) as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def noticed(files: Iterable[Path]) -> dict[str, str | None]:
    """Each guard's name, and the test that fails without it (None where none does).

    Raises:
        RuntimeError: If tests fail with all guards in place, or cannot be collected.
    """
    files = list(files)
    signal.signal(signal.SIGALRM, _hang)
    torch.set_num_threads(1)
    plugin = Disabler(files)
    paths = dict.fromkeys(str(path) for file in files for path in tests_of(file))
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--rootdir={ROOT}"]
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        status = pytest.main([*options, *paths], plugins=[plugin])
    if plugin.failed or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"the tests fail as they are: {plugin.failed}\n{said.getvalue()}")
    return plugin.noticed


def rule_files(*names: str) -> list[Path]:
    """Source files of rules and their helpers; those named, or all."""
    found = [RULES / f"{name.removesuffix('.py')}.py" for name in names]
    return found or [f for f in sorted(RULES.glob("*.py")) if f.name != "__init__.py"]


def main() -> int:
    """Print the guards that no test notices, or, with ``--json``, who notices each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="*", help="names of rule files; all of them if none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true")
    arguments = parser.parse_args()

    found = noticed(rule_files(*arguments.files))
    survivors = [name for name, test in found.items() if test is None]
    if arguments.json:
        json.dump(found, sys.stdout, indent=1)
        return 0
    if arguments.verbose:
        for name, test in found.items():
            print(f"{name}\n    {test}")
    print("\n".join(survivors))
    print(f"{len(found)} guards, {len(survivors)} that no test notices")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
