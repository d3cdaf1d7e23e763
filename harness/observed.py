"""What a suite saw of one variant with the model itself at hand.

Measurements are pure functions of it, so it is kept beside the record: verdicts can be derived from it again, and
points replayed, without another attack.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruneproof.errors import EvidenceError

RECORD = "record"


@dataclass(frozen=True, eq=False)
class Observed:
    """One suite's observations of one variant.

    Args:
        record: plain values; ``{"error": …}`` where nothing could be observed.
        arrays: by name; the first axis is mostly the examples.
    """

    record: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def error(self) -> str | None:
        """Why there is nothing to measure."""
        found: str | None = self.record.get("error")
        return found


def failed(reason: str) -> Observed:
    """What stands for observations that could not be made."""
    return Observed({"error": reason})


def write(path: Path, seen: Observed) -> None:
    """Writes one compressed ``.npz``, the same bytes for the same observations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(seen.record, sort_keys=True, ensure_ascii=False, allow_nan=False)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(
            file, allow_pickle=False, **{RECORD: np.frombuffer(text.encode(), dtype=np.uint8)}, **seen.arrays
        )
    part.replace(path)


def read(path: Path) -> Observed:
    """What :func:`write` wrote.

    Raises:
        EvidenceError: missing, or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != RECORD}
            record = json.loads(file[RECORD].tobytes().decode())
        if not isinstance(record, dict):
            raise ValueError("its record is no table")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise EvidenceError(
            f"{path}: {type(error).__name__}: {error}", "run the audit again; the observations are damaged or missing"
        ) from None
    return Observed(record, arrays)
