"""What every table of the policy is made of: frozen records, and the types of their values."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=100)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
Words = Annotated[str, Field(pattern=r"\S")]
REFERENCE = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"
Reference = Annotated[str, Field(pattern=f"^{REFERENCE}$")]


class Record(BaseModel):
    """A frozen table of the policy; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space; dates in ISO 8601."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str, allow_nan=False)


def one_of(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise ValueError(f"expected a known {what} ({offer(value, known)})")
    return value


def offer(given: object, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    spelled = {name.lower(): name for name in reversed(list(known))}
    close = difflib.get_close_matches(str(given).lower(), list(spelled), n=1, cutoff=0.5)
    nearest = [spelled[name] for name in close]
    every = ", ".join(list(known)[:20]) or "none"
    return f"did you mean '{nearest[0]}'? known: {every}" if nearest else f"known: {every}"
