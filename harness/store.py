"""A run's shared folder: every task is done once, whichever process asks.

Tasks are locked one at a time: nobody waits for one lock while holding another. A lock is the operating
system's, so it is released when its holder dies; what the dead process had begun becomes an ERROR
instead of being tried, and crashing, again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from pruneproof.outcomes import Floats


class Store:
    """The folder of one audit in one run.

    Args:
        folder: created where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        head = self.once("audit", _head)
        self.id: str = head["id"]
        self.started: str = head["started"]

    @property
    def today(self) -> datetime.date:
        """The day the audit started, UTC."""
        return datetime.datetime.fromisoformat(self.started).date()

    def once(self, task: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``compute`` gave, in this process or another; computed now where nobody has.

        Where ``compute`` raises, nothing is stored and the next who asks computes again.
        """
        stem = self.folder / hashlib.sha256(task.encode()).hexdigest()[:24]
        done, begun = stem.with_suffix(".json"), stem.with_suffix(".begun")
        if not done.exists():
            with filelock.FileLock(stem.with_suffix(".lock")):
                if not done.exists():
                    if begun.exists():
                        died = {"cause": f"the process that was at '{task}' died", "remedy": "run it alone to see why"}
                        self._write(done, {"error": died})
                    else:
                        begun.touch()
                        try:
                            self._write(done, compute())
                        except BaseException:
                            begun.unlink()
                            raise
        found: dict[str, Any] = json.loads(done.read_text("utf-8"))
        return found

    def peek(self, task: str) -> dict[str, Any] | None:
        """What :meth:`once` has stored, if it has."""
        done = self.folder / f"{hashlib.sha256(task.encode()).hexdigest()[:24]}.json"
        return json.loads(done.read_text("utf-8")) if done.exists() else None

    def keep(self, name: str, outputs: Floats) -> None:
        """Stores a model's outputs."""
        part = self._array(name).with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.save(file, outputs, allow_pickle=False)
        part.replace(self._array(name))

    def kept(self, name: str) -> Floats:
        """The outputs that :meth:`keep` stored."""
        found: Floats = np.load(self._array(name), allow_pickle=False)
        return found

    def _array(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npy"

    @staticmethod
    def _write(path: Path, value: dict[str, Any]) -> None:
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(value, allow_nan=False), "utf-8")
        part.replace(path)


def _head() -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "started": now()}


def now() -> str:
    """UTC in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
