"""What shifts are called, in gates and in observations."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

NOMINAL = "nominal"
"""The clean test set, where it stands beside shifts."""
CORRUPTED = "corruptions"
"""All corruptions at all their severities together, where they stand beside shifts."""


def before(window: str) -> str:
    """What the part of the test set before a window of time is called."""
    return f"before {window}"


def after(window: str) -> str:
    """What the part after it is called."""
    return f"after {window}"


def parts(windows: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """The parts that windows cut the test set into: before each that has a start, in it, after each that has an end."""
    found: list[str] = []
    for name, (start, end) in windows.items():
        found += [before(name)] * bool(start) + [name] + [after(name)] * bool(end)
    return tuple(found)


def sampled(label: str, severity: int) -> str:
    """What a resampling at one severity is called."""
    return f"{label}@{severity}"


def moment(text: str) -> datetime.datetime:
    """The moment that an ISO 8601 text spells, in UTC where it has an offset.

    Raises:
        ValueError: it spells none.
    """
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a date or a time as ISO 8601 has it, got '{text}'") from None
    return found.astimezone(datetime.UTC).replace(tzinfo=None) if found.tzinfo is not None else found
