"""Importing the target: a file as `python FILE` would see it, or a module by its name."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import linecache
import os
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from gradlint.errors import TargetNotFoundError, UsageError
from gradlint.target.import_guard import Trained, guarded

FILES = (".py", ".txt", ".ipynb", ".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".onnx", ".yaml")
"""Suffixes by which a target is a file's name, and no module's."""


@dataclass(frozen=True)
class Imported:
    """The module of a target, the path as written, and the name behind the colon."""

    module: ModuleType
    path: str
    name: str | None
    trained: Trained

    def command(self, name: str) -> str:
        """The exact command that checks `name`."""
        return f"gradlint check {self.path}:{name}"


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
    if file.suffix in FILES or os.sep in path or file.exists():
        _check_file(file, target)
        module, trained = _import_file(file, path)
    else:
        module, trained = _import_module(path)
    return Imported(module, path, name, trained)


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


def _import_file(file: Path, path: str) -> tuple[ModuleType, Trained]:
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
    with guarded(path, str(real)) as trained:
        spec.loader.exec_module(module)
    return module, trained


def _import_module(name: str) -> tuple[ModuleType, Trained]:
    _first_on_path(str(Path.cwd()))
    importlib.invalidate_caches()
    with guarded(name, None) as trained:
        try:
            return importlib.import_module(name), trained
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
