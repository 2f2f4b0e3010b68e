"""Meeting: where ranks leave what they saw when their loop is over. Never a collective."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch.distributed as dist

PREFIX = "gradlint"
_PAUSE = 0.02

_count = itertools.count()
"""Numbers the exchanges that this process opened."""


class Place(Protocol):
    """Keys and values that all ranks see."""

    def set(self, key: str, value: bytes) -> None:
        """Leave a value."""

    def has(self, key: str) -> bool:
        """Whether a value is there; does not wait for one."""

    def get(self, key: str) -> bytes:
        """Return a value that is there."""

    def agree(self, key: str, value: bytes) -> bytes:
        """Leave a value unless there is one; return the one that is there."""


class Store:
    """The store through which the process group found itself; it outlives the group."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def set(self, key: str, value: bytes) -> None:
        """Leave a value."""
        self._store.set(key, value)

    def has(self, key: str) -> bool:
        """Whether a value is there."""
        return bool(self._store.check([key]))

    def get(self, key: str) -> bytes:
        """Return a value that is there."""
        return bytes(self._store.get(key))

    def agree(self, key: str, value: bytes) -> bytes:
        """Leave a value unless there is one; return the one that is there."""
        return bytes(self._store.compare_set(key, "", value.decode()))


class Folder:
    """A folder of this machine: for ranks that torchrun started and that share no group."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _file(self, key: str) -> Path:
        return self._path / key.replace("/", "-")

    def set(self, key: str, value: bytes) -> None:
        """Leave a value; a reader finds all of it or none."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and self._path.stat().st_uid != os.getuid():
            raise PermissionError(f"{self._path} is not ours")
        new = self._file(f"{key}.new")
        new.write_bytes(value)
        new.replace(self._file(key))

    def has(self, key: str) -> bool:
        """Whether a value is there."""
        return self._file(key).exists()

    def get(self, key: str) -> bytes:
        """Return a value that is there."""
        return self._file(key).read_bytes()

    def agree(self, key: str, value: bytes) -> bytes:
        """Leave a value unless there is one; return the one that is there."""
        if not self.has(key):
            self.set(key, value)
        return self.get(key)

    def clear(self, prefix: str) -> None:
        """Remove what was left under keys that start with `prefix`, and the folder if empty."""
        with suppress(OSError):
            for file in self._path.glob(f"{prefix.replace('/', '-')}*"):
                file.unlink()
            self._path.rmdir()


def place() -> Place | None:
    """Return where the ranks of this run can leave something; None where there is no run."""
    if dist.is_available() and dist.is_initialized():
        from torch.distributed.distributed_c10d import _get_default_store

        with suppress(Exception):  # a private name, and groups without a store (MPI)
            return Store(_get_default_store())
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    return Folder(_folder()) if one_machine else None


def _folder() -> Path:
    names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    parts = [os.environ.get(name, "") for name in names]
    # All ranks of a machine have the same parent, and no other run has it.
    key = hashlib.sha256("\n".join([*parts, str(os.getppid())]).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"{PREFIX}-{key}"


class Meeting:
    """One exchange: every rank leaves something, the first takes it.

    The first rank gives the exchange a number before its first backward; the others ask for it
    after theirs, which in a distributed training waits for the first rank's. Two exchanges of
    one process at a time are told apart by their `slot`.

    Args:
        place: Where.
        slot: Which of the exchanges that are open in this process it is.
        rank: This rank.
        world: Number of ranks.
    """

    def __init__(self, place: Place, slot: int, rank: int, world: int) -> None:
        self._place = place
        self._slot = slot
        self._number: int | None = None
        self.rank = rank
        self.world = world

    def _key(self, what: str, rank: int) -> str:
        return f"{PREFIX}/{self._number or 0}/{what}/{rank}"

    def open(self) -> None:
        """Give the exchange a number; for the first rank."""
        self._number = next(_count)
        self._place.set(f"{PREFIX}/now/{self._slot}", str(self._number).encode())

    def join(self) -> None:
        """Learn the number, and let the first rank know that this one will leave something."""
        now = f"{PREFIX}/now/{self._slot}"
        if self._number is None and self._place.has(now):
            self._number = int(self._place.get(now))
            self._place.set(self._key("here", self.rank), b"1")

    def ask_to_stop(self, step: int) -> int:
        """Ask that all ranks stop after `step`; return the step that was asked for first."""
        return int(self._place.agree(self._key("stop", 0), str(step).encode()))

    def asked_to_stop(self) -> int | None:
        """Return the step after which all ranks are asked to stop, if they are."""
        key = self._key("stop", 0)
        return int(self._place.get(key)) if self._place.has(key) else None

    def leave(self, value: bytes, limit: float) -> bool:
        """Leave `value`, within `limit` seconds; tell whether that was possible."""

        def put() -> None:
            self.join()
            self._place.set(self._key("part", self.rank), value)

        return _within(limit, put)

    def collect(self, limit: float) -> tuple[dict[int, bytes], Collection[int]]:
        """Return by rank what the others left within `limit` seconds, and who never came."""
        found: dict[int, bytes] = {}
        missing = set(range(self.world)) - {self.rank}
        absent: set[int] = set()
        deadline = time.monotonic() + limit

        def look() -> None:
            first = True
            while missing - absent and (first or time.monotonic() < deadline):
                for rank in sorted(missing - absent):
                    if self._place.has(self._key("part", rank)):
                        found[rank] = self._place.get(self._key("part", rank))
                        missing.discard(rank)
                    elif first and not self._place.has(self._key("here", rank)):
                        absent.add(rank)
                first = False
                if missing - absent:
                    time.sleep(_PAUSE)

        _within(limit + 1, look)
        if isinstance(self._place, Folder):
            for prefix in (f"{PREFIX}/now/{self._slot}", f"{PREFIX}/{self._number}/"):
                self._place.clear(prefix)
        return dict(found), frozenset(absent)


def _within(limit: float, work: Callable[[], None]) -> bool:
    """Run `work` in a thread and wait at most `limit` seconds; a store may not answer."""
    done: list[bool] = []

    def run() -> None:
        with suppress(Exception):  # nobody is there any more
            work()
            done.append(True)

    thread = threading.Thread(target=run, name="gradlint-ranks", daemon=True)
    thread.start()
    thread.join(limit)
    return bool(done)
