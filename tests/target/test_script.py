"""A script under gradlint does what it does under python: output, status, surroundings."""

from __future__ import annotations

import os
import py_compile
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from pathlib import Path

import pytest

from gradlint.entry import Entry, find_entry
from gradlint.errors import UsageError
from gradlint.target.script import run_script
from gradlint.target.signals import without_end

RUNNER = """
import atexit, os, sys, types
import gradlint
package = types.ModuleType("gradlint.target")  # spares the import of torch
package.__path__ = [os.path.join(gradlint.__path__[0], "target")]
sys.modules["gradlint.target"] = package
import rich, yaml  # what the command line has loaded
from gradlint.entry import find_entry
from gradlint.target.script import run_script

given = sys.argv[1:]
module = given[0] == "-m"
name, *arguments = given[module:]
outcome = run_script(find_entry(name, tuple(arguments), module=module))
atexit.register(outcome.reinstate)
sys.exit(outcome.status)
"""

SHAPES = {
    "surroundings": """
        '''The docstring.'''
        import os, sys
        print({k: v for k, v in sorted(globals().items()) if k not in ("__loader__", "__spec__")})
        print(type(__loader__).__name__, __loader__.name, __loader__.path)
        print(__spec__ and (__spec__.name, __spec__.origin, __spec__.parent))
        print(sys.argv, sys.path[0], len(sys.path), os.getcwd(), sys.modules["__main__"].__name__)
        import __main__
        print(vars(__main__) is globals(), sys.excepthook is sys.__excepthook__, sys.flags)
    """,
    "exit text": "import sys; print('out'); sys.exit('text')",
    "exit nothing": "import sys; sys.exit()",
    "exit 3": "import sys; sys.exit(3)",
    "exit -1": "import sys; sys.exit(-1)",
    "exit 300": "import sys; sys.exit(300)",
    "exit True": "import sys; sys.exit(True)",
    "exit list": "raise SystemExit(['a', 1])",
    "_exit": "import os; print('out', flush=True); os._exit(7)",
    "exception": """
        def inner(x):
            try:
                return 1 / x
            except ZeroDivisionError as error:
                raise ValueError("no\\nway") from error
        try:
            inner(0)
        finally:
            print("finally")
    """,
    "exception group": """
        errors = []
        for n in range(2):
            try:
                raise KeyError(n)
            except KeyError as error:
                error.add_note("a note")
                errors.append(error)
        raise ExceptionGroup("several", errors)
    """,
    "recursion": """
        def f(n):
            return f(n - 1) if n else 1 / 0
        f(30)
    """,
    "syntax error": "x = 1\ny = = 2\n",
    "bad indentation": "if True:\nprint(1)\n",
    "arguments": """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--lr", type=float)
        parser.add_argument("rest", nargs="*")
        print(parser.parse_args())
    """,
    "argparse error": """
        import argparse
        argparse.ArgumentParser().parse_args(["--nope"])
    """,
    "stdin": "import sys; print(sum(int(line) for line in sys.stdin), input)",
    "pickle": """
        import pickle
        from dataclasses import dataclass
        @dataclass
        class Config:
            lr: float = 0.1
        text = pickle.dumps(Config())
        print(text, pickle.loads(text))
    """,
    "spawned pool": """
        import multiprocessing as mp, sys
        print("imported as", __name__, flush=True)
        def square(x):
            return x * x, __name__, "gradlint" in sys.modules, sys.argv
        if __name__ == "__main__":
            with mp.get_context("spawn").Pool(1) as pool:
                print(pool.map(square, [1, 2, 3]))
    """,
    "forked processes": """
        import multiprocessing as mp, os, sys, time
        def work(n):
            print("work", n, flush=True)
            sys.exit(n)
        def wait():
            time.sleep(60)
        context = mp.get_context("fork")
        process = context.Process(target=work, args=(4,))
        process.start(); process.join()
        killed = context.Process(target=wait)
        killed.start(); killed.terminate(); killed.join()
        print(process.exitcode, killed.exitcode, flush=True)
        child = os.fork()
        if child == 0:
            print("the child goes on")
            raise SystemExit(5)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """,
    "at exit": """
        import atexit, pickle, sys
        class Kept:
            pass
        def last():
            import neighbor
            print("last", pickle.dumps(Kept()), sys.argv, neighbor.value)
        atexit.register(last)
        atexit.register(print, "first")
        print("end of script")
    """,
    "threads": """
        import threading
        go = threading.Event()
        def work():
            go.wait()
            print("from the thread", __name__)
        threading.Thread(target=work).start()
        threading.Timer(0.05, go.set).start()
        print("end of script")
    """,
    "thread that raises": """
        import threading
        def work():
            raise ValueError("in a thread")
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join()
    """,
    "executor left open": """
        from concurrent.futures import ThreadPoolExecutor
        executor = ThreadPoolExecutor(2)
        print(executor.submit(lambda: 3).result())
    """,
    "own excepthook": """
        import sys
        sys.excepthook = lambda kind, error, tb: print("hook", kind, error, tb.tb_lineno)
        raise ValueError("x")
    """,
    "excepthook that exits": """
        import sys
        def hook(*_):
            sys.exit(9)
        sys.excepthook = hook
        raise ValueError("x")
    """,
    "warning": """
        import warnings
        warnings.warn("old", DeprecationWarning)
    """,
    "encoding": "# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n".encode("latin-1"),
    "byte order mark": b"\xef\xbb\xbfprint('\xc3\xa9'.encode())\n",
    "neighbors": """
        import neighbor, rich, yaml.inner
        print(neighbor.value, rich.__file__, yaml.inner.__file__)
    """,
    "streams replaced": """
        import io, sys
        keep = sys.stdout
        sys.stdout = io.StringIO()
        print("unseen")
        print("seen", file=keep)
        sys.stderr.close()
    """,
    "asyncio": """
        import asyncio
        async def main():
            return await asyncio.to_thread(lambda: 5)
        print(asyncio.run(main()))
    """,
    "introspection": """
        from __future__ import annotations
        import inspect, typing
        class Config:
            lr: float
        print(inspect.getsource(Config), typing.get_type_hints(Config), __annotations__)
    """,
}


def write(folder: Path, name: str, source: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, str):
        source = textwrap.dedent(source).encode()
    path.write_bytes(source)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a script's neighbors, which is not the working directory."""
    write(tmp_path, "code/neighbor.py", "value = 'neighbor'")
    write(tmp_path, "code/rich.py", "")
    write(tmp_path, "code/yaml/__init__.py", "")
    write(tmp_path, "code/yaml/inner.py", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def both(*arguments: str, stdin: str = "") -> tuple[object, object]:
    """Run by python, and by python's likeness; gives stdout, stderr and status of each."""

    def run(*command: str) -> tuple[str, str, int]:
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        return done.stdout, done.stderr, done.returncode

    return run(), run("-c", RUNNER)


@pytest.mark.parametrize("name", SHAPES)
def test_a_script_behaves_as_under_python(place, name):
    write(place, "code/s.py", SHAPES[name])

    python, ours = both("code/s.py", "a", "--lr", "0.1", stdin="1\n2\n")

    assert ours == python


@pytest.mark.parametrize("given", ["./code/../code/s.py", "code/link.py", "{here}/code/s.py"])
def test_a_script_has_the_path_it_was_given(place, given):
    write(place, "code/s.py", SHAPES["surroundings"])
    (place / "code" / "link.py").symlink_to(place / "code" / "s.py")

    python, ours = both(given.format(here=place), "--", "-h", "--help")

    assert ours == python


@pytest.fixture
def package(place):
    write(place, "pkg/__init__.py", "print('package', __import__('sys').argv)")
    write(place, "pkg/other.py", "value = 1")
    main = "\nfrom . import other\nprint(__package__, __spec__.name, other.value)"
    for name in ("module", "__main__"):
        write(place, f"pkg/{name}.py", textwrap.dedent(SHAPES["surroundings"]) + main)
    write(place, "pkg/spawned.py", SHAPES["spawned pool"])
    write(place, "pkg/raising.py", "raise ValueError(3)")
    write(place, "pkg/exiting.py", "raise SystemExit('text')")
    write(place, "sick/__init__.py", "raise ImportError('sick')")
    write(place, "sick/module.py", "")
    write(place, "plain.py", "print(__spec__.name, repr(__package__))")
    return place


@pytest.mark.parametrize(
    "name",
    ["pkg.module", "pkg", "pkg.spawned", "pkg.raising", "pkg.exiting", "sick.module", "plain"],
)
def test_a_module_behaves_as_under_python(package, name):
    python, ours = both("-m", name, "a", "-m", "--help")

    assert ours == python


def test_a_folder_and_a_zip_behave_as_under_python(place):
    source = "import neighbor, sys\nprint(neighbor.value, sys.argv, sys.path[0], __spec__.name)\n"
    write(place, "code/__main__.py", source)
    with zipfile.ZipFile(place / "code.zip", "w") as archive:
        archive.writestr("__main__.py", source)
        archive.writestr("neighbor.py", "value = 'zipped'")

    for given in ("code", "./code/", "code.zip"):
        python, ours = both(given, "a")
        assert ours == python


def test_a_compiled_script_and_a_pipe_behave_as_under_python(place):
    script = write(place, "code/s.py", "import sys\nprint(type(__loader__), sys.argv)\n1 / 0\n")
    py_compile.compile(str(script), cfile=str(place / "s.pyc"))
    script.unlink()

    python, ours = both("s.pyc", "a")
    assert ours == python

    python, ours = both("/dev/stdin", stdin="print(__file__)")
    assert ours == python


@pytest.mark.slow
def test_loader_workers_import_the_script_and_not_gradlint(place):
    source = """
        import sys, torch
        from torch.utils.data import DataLoader, Dataset
        class Numbers(Dataset):
            def __len__(self):
                return 4
            def __getitem__(self, i):
                return torch.tensor([i, "gradlint" in sys.modules])
        if __name__ == "__main__":
            for batch in DataLoader(Numbers(), 2, num_workers=1, multiprocessing_context="spawn"):
                print(batch)
    """
    write(place, "code/s.py", source)

    python, ours = both("code/s.py")

    assert ours == python
    assert "tensor" in python[0]


# -- in this process ------------------------------------------------------------------------


def state():
    handlers = [signal.getsignal(s) for s in signal.valid_signals()]
    main = sys.modules["__main__"]
    return sys.argv, list(sys.argv), sys.path, list(sys.path), main, sys.excepthook, handlers


RUDE = """
import signal, sys
sys.argv.append("x")
sys.argv = []
sys.path.append("y")
sys.path = ["z"]
sys.modules["__main__"] = None
sys.excepthook = print
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.alarm(1)
"""


@pytest.mark.parametrize("end", ["", "raise ValueError", "raise SystemExit(2)"])
def test_everything_is_put_back(place, end):
    path = write(place, "code/s.py", RUDE + end)
    before = state()

    outcome = run_script(find_entry(str(path)))

    assert state() == before
    assert outcome.status == {"": 0, "raise ValueError": 1}.get(end, 2)
    assert signal.alarm(0) == 0


@pytest.mark.parametrize(
    ("source", "status", "ended", "kind"),
    [
        ("", 0, "", None),
        ("raise SystemExit", 0, "", None),
        ("raise SystemExit(4)", 4, "", SystemExit),
        ("raise SystemExit('text')", 1, "", SystemExit),
        ("1 / 0", 1, "exception", ZeroDivisionError),
        ("x = =", 1, "exception", SyntaxError),
        ("raise KeyboardInterrupt", 130, "interrupted", KeyboardInterrupt),
        ("raise GeneratorExit", 1, "exception", GeneratorExit),
    ],
)
def test_the_outcome_says_how_it_ended(place, source, status, ended, kind):
    path = write(place, "code/s.py", source)

    outcome = run_script(Entry(str(path)))

    assert (outcome.status, outcome.ended) == (status, ended)
    assert outcome.error is None if kind is None else type(outcome.error) is kind


class Stop(BaseException):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@pytest.mark.parametrize("reason", ["until", "fail-on"])
def test_a_stop_is_no_failure_and_is_not_told(place, capsys, reason):
    source = """
        import sys
        try:
            sys.stop_here()
        except Exception:
            print("caught")
        finally:
            print("finally")
        print("not reached")
    """
    path = write(place, "code/s.py", source)

    def stop_here():
        raise Stop(reason)

    sys.stop_here = stop_here
    try:
        outcome = run_script(Entry(str(path)), Stop)
    finally:
        del sys.stop_here

    assert (outcome.status, outcome.ended, outcome.error) == (0, reason, None)
    assert capsys.readouterr() == ("finally\n", "")


def test_a_stop_in_a_thread_ends_the_thread_without_a_word(place, capsys):
    source = """
        import sys, threading
        thread = threading.Thread(target=sys.stop_here)
        thread.start()
        thread.join()
        print("goes on")
    """
    path = write(place, "code/s.py", source)
    hook = threading.excepthook

    def stop_here():
        raise Stop("until")

    sys.stop_here = stop_here
    try:
        outcome = run_script(Entry(str(path)), Stop)
    finally:
        del sys.stop_here

    assert (outcome.status, outcome.ended) == (0, "until")
    assert capsys.readouterr() == ("goes on\n", "")
    assert threading.excepthook is hook


def test_termination_ends_the_script_in_order(place, capsys):
    source = """
        import os, signal
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            print("not reached")
        finally:
            print("finally")
    """
    path = write(place, "code/s.py", source)

    outcome = run_script(Entry(str(path)))

    assert (outcome.status, outcome.ended) == (143, "killed")
    assert capsys.readouterr().out == "finally\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_termination_waits_for_the_report():
    with without_end():
        signal.raise_signal(signal.SIGTERM)

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_script_that_handles_termination_itself_is_left_to_it(place, capsys):
    source = """
        import os, signal
        signal.signal(signal.SIGTERM, lambda *_: print("handled"))
        os.kill(os.getpid(), signal.SIGTERM)
    """
    path = write(place, "code/s.py", source)

    assert run_script(Entry(str(path))).status == 0
    assert capsys.readouterr().out == "handled\n"


def test_further_ranks_die_by_termination_as_under_python(place, monkeypatch):
    path = write(place, "code/s.py", "import signal; assert not signal.getsignal(signal.SIGTERM)")
    monkeypatch.setenv("RANK", "1")

    assert run_script(Entry(str(path))).status == 0


def test_beside_the_main_thread_no_signal_is_touched(place):
    path = write(place, "code/s.py", "import signal; assert not signal.getsignal(signal.SIGTERM)")
    outcomes = []

    thread = threading.Thread(target=lambda: outcomes.append(run_script(Entry(str(path)))))
    thread.start()
    thread.join()

    assert outcomes[0].status == 0


def test_a_traceback_holds_none_of_our_frames_in_its_middle(place, capsys):
    source = """
        def boom():
            raise ValueError("mine")
        class Bad(dict):
            def __iter__(self):
                boom()
            items = keys = __iter__
        from gradlint.config import parse_config
        parse_config(Bad())
    """
    path = write(place, "code/s.py", source)

    run_script(Entry(str(path)))

    told = capsys.readouterr().err
    assert "in boom" in told
    assert f"{os.sep}gradlint{os.sep}" not in told


def test_what_gradlint_itself_raises_is_told_with_its_frames(place, capsys):
    source = "from gradlint.config import parse_config\nparse_config({'nope': 1})"
    path = write(place, "code/s.py", source)

    outcome = run_script(Entry(str(path)))

    assert outcome.ended == "exception"
    assert "config.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "module", "sentence"),
    [
        ("no.py", False, "expected a script, found no file 'no.py'"),
        ("code/s.pi", False, "did you mean 'code/s.py'?"),
        ("code", False, "has no __main__.py, so nothing to run; name a script in it"),
        ("empty.zip", False, "the archive 'empty.zip' has no __main__.py"),
        ("torchrun", False, "the launcher goes first"),
        ("code/s.py:main", False, "a script is run whole, as python does it"),
        ("mine.mod", False, "a module is run with -m: gradlint run -m mine.mod"),
        ("notes.ipynb", False, "expected a Python script, got the notebook"),
        ("nowhere.module", True, "found no module 'nowhere'"),
        (".module", True, "expected a module's whole name"),
        ("code/s.py", True, "-m takes a module's name, got a file's: gradlint run code/s.py"),
    ],
)
def test_what_cannot_be_run_is_one_clear_sentence(place, name, module, sentence):
    write(place, "code/s.py", "")
    write(place, "mine/mod.py", "")
    write(place, "notes.ipynb", "{}")
    with zipfile.ZipFile(place / "empty.zip", "w") as archive:
        archive.writestr("a.py", "")

    with pytest.raises(UsageError) as caught:
        find_entry(name, module=module)

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pkg.nope", "pkg.sub", "plain.inner"])
def test_a_module_that_is_not_there_is_a_usage_error(package, name):
    (package / "pkg" / "sub").mkdir()

    with pytest.raises(UsageError, match="cannot be run: "):
        run_script(find_entry(name, module=True))
