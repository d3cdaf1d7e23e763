"""What shifts are called, in gates and in observations."""

from __future__ import annotations

from collections.abc import Iterable

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


def parts(windows: Iterable[str]) -> tuple[str, ...]:
    """The parts that windows cut the test set into: before, in, and after each."""
    return tuple(part for name in windows for part in (before(name), name, after(name)))


def sampled(label: str, severity: int) -> str:
    """What a resampling at one severity is called."""
    return f"{label}@{severity}"
