"""Importing the target: a file as `python FILE` would see it, or a module by its name."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import linecache
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradlint.errors import TargetNotFoundError, UsageError
from gradlint.target.user_code import quietly, say, shown

MOST_STEPS = 3
"""Optimizer steps during an import after which the file is taken to train: a test of one
or two steps is none."""

MOST_BACKWARDS = 8
"""Backward passes during an import after which the same is said, for training by hand."""


@dataclass(frozen=True)
class Imported:
    """The module of a target, the path as written, and the name behind the colon."""

    module: ModuleType
    path: str
    name: str | None

    def command(self, name: str) -> str:
        """The exact command that checks `name`."""
        return f"gradlint check {self.path}:{name}"


class _TrainsAtImport(BaseException):
    """Raised inside the user's import to end a training."""


class _Loader(SourceFileLoader):
    """Loads a file from its source, and leaves no compiled copy beside it."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


def import_target(target: str) -> Imported:
    """Import what ``path.py``, ``path.py:name`` or ``package.module:name`` says.

    The file's folder (for a module the working directory) is put first on the path and
    stays there, for imports that come later. What the file prints goes to stderr.

    Raises:
        UsageError: If there is no such file or module, or importing it raises or trains.
    """
    path, name = _divided(target)
    file = Path(path)
    if file.suffix == ".py" or os.sep in path or file.exists():
        _check_file(file, target)
        return Imported(_import_file(file, path), path, name)
    return Imported(_import_module(path), path, name)


def _divided(target: str) -> tuple[str, str | None]:
    path, colon, name = target.rpartition(":")
    if not colon or (os.name == "nt" and len(path) == 1) or os.sep in name:
        return target, None
    if not path or not name:
        raise UsageError(
            f"expected path.py, path.py:name or package.module:name, got {target!r}; for "
            "example gradlint check model.py:Net"
        )
    return path, name


def _check_file(file: Path, target: str) -> None:
    if file.is_dir():
        found = sorted(p.name for p in file.glob("*.py") if p.name != "__init__.py")
        example = next((n for n in ("model.py", "train.py") if n in found), (found or [""])[0])
        hint = f"; name a file in it, for example gradlint check {file / example}"
        raise TargetNotFoundError(
            f"expected a Python file, got the directory {str(file)!r}"
            + (hint if found else ", which holds no Python file")
        )
    if not file.exists():
        folder = file.parent
        beside = [p.name for p in folder.glob("*.py")] if folder.is_dir() else []
        close = difflib.get_close_matches(file.name, beside, n=1)
        hint = f"did you mean {str(folder / close[0])!r}?" if close else "check the path"
        raise TargetNotFoundError(f"expected a Python file, found no file {str(file)!r}; {hint}")
    if file.suffix != ".py":
        raise TargetNotFoundError(
            f"expected a Python file, got {target!r}; name the file that builds the model, for "
            "example gradlint check model.py"
        )


def _import_file(file: Path, path: str) -> ModuleType:
    real = file.resolve()
    digest = hashlib.sha256(str(real).encode()).hexdigest()[:8]
    stem = "".join(c if c.isalnum() else "_" for c in file.stem)
    name = f"_gradlint_target_{stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, real, loader=_Loader(name, str(real)))
    if spec is None or spec.loader is None:
        raise TargetNotFoundError(f"expected a Python file that can be imported, got {path!r}")
    module = importlib.util.module_from_spec(spec)
    _forget_neighbors_of_others(real.parent)
    _first_on_path(str(real.parent))
    linecache.checkcache(str(real))
    sys.modules.pop(name, None)  # the latest target comes last
    sys.modules[name] = module
    with _guarded(path, str(real)):
        spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    _first_on_path(str(Path.cwd()))
    importlib.invalidate_caches()
    with _guarded(name, None):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and (name == error.name or name.startswith(f"{error.name}.")):
                near = f"{name.replace('.', os.sep)}.py"
                raise TargetNotFoundError(
                    f"expected a file or a module, found no file {name!r} and no module "
                    f"{error.name!r} here or in the environment; a file is named with its suffix, "
                    f"for example gradlint check {near}"
                ) from error
            raise
        except (TypeError, ValueError) as error:
            if not all(part.isidentifier() for part in name.split(".")):
                raise TargetNotFoundError(
                    f"expected path.py or package.module, got {name!r}"
                ) from error
            raise


def _first_on_path(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)


def _forget_neighbors_of_others(folder: Path) -> None:
    """Drop the modules that an earlier target of another folder imported from beside it.

    Two targets may each have a ``utils.py``; the second must not get the first one's.
    """
    others = {
        Path(str(module.__file__)).parent
        for name, module in sys.modules.items()
        if name.startswith("_gradlint_target_") and getattr(module, "__file__", None)
    } - {folder}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not name.startswith("_gradlint_target_") and Path(file).parent in others:
            del sys.modules[name]


@contextlib.contextmanager
def _guarded(path: str, file: str | None) -> Iterator[None]:
    """Turn whatever an import raises into one sentence; end a training at import."""
    arguments = sys.argv
    sys.argv = [file or path]
    try:
        with quietly(), _no_training():
            yield
    except UsageError:
        raise
    except _TrainsAtImport as stop:
        raise UsageError(
            f"{path} trains when it is imported{_at(stop, file)}; put the training under "
            f'`if __name__ == "__main__":`, or watch the script with `gradlint run {path}`'
        ) from None
    except SyntaxError as error:
        place = shown(error.filename) if error.filename else path
        text = f": {error.text.strip()}" if error.text else ""
        raise UsageError(
            f"expected {path} to be valid Python, got a syntax error at {place}:{error.lineno}"
            f"{text} ({error.msg})"
        ) from error
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} imports {error.name!r}{_at(error, file)}, which is not installed; install it "
            "into the environment gradlint runs in"
        ) from error
    except SystemExit as error:
        raise UsageError(
            f"{path} exits with status {error.code!r} when it is imported{_at(error, file)}; put "
            'what is a script under `if __name__ == "__main__":`, or watch it with '
            f"`gradlint run {path}`"
        ) from error
    except Exception as error:
        relative = "relative import" in str(error)
        hint = f"; name it as a module, gradlint check {_as_module(path)}" if relative else ""
        raise UsageError(
            f"{path} raises {say(error)} when it is imported{_at(error, file)}{hint}"
        ) from error
    finally:
        sys.argv = arguments


def _as_module(path: str) -> str:
    return ".".join(Path(path).with_suffix("").parts)


def _at(error: BaseException, file: str | None) -> str:
    """Return `` (line N: text)`` of the file's own statement that was under way."""
    frames: list[tuple[FrameType, int]] = list(traceback.walk_tb(error.__traceback__))
    for frame, line in frames:
        name = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" and (file is None or name == file):
            text = linecache.getline(name, line).strip()
            return f" (line {line}: {text})" if text else f" (line {line})"
    return ""


@contextlib.contextmanager
def _no_training() -> Iterator[None]:
    """Raise `_TrainsAtImport` from the step or backward that makes it a training."""
    counts = {"step": 0, "backward": 0}

    def stepping(*_: Any) -> None:
        counts["step"] += 1
        if counts["step"] >= MOST_STEPS:
            raise _TrainsAtImport

    original = torch.autograd.backward

    def backward(*args: Any, **kwargs: Any) -> None:
        counts["backward"] += 1
        if counts["backward"] >= MOST_BACKWARDS:
            raise _TrainsAtImport
        original(*args, **kwargs)

    handle = register_optimizer_step_pre_hook(stepping)
    torch.autograd.backward = backward
    try:
        yield
    finally:
        torch.autograd.backward = original
        handle.remove()
