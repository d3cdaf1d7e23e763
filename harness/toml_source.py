"""What a TOML file holds, and where in it a key stands, for error messages that name the line.

``tomllib`` keeps no positions. A key is found by its effect instead: the text up to some line, with the
arrays closed that are open there, parses and holds the key. The key ends on the first such line, and
starts after the last earlier line at which the text parsed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Keys = Sequence[str | int]

CLOSERS = ("", "\n]", "\n]]", "\n]}]", "\n]]]", "\n]}")
"""What may be missing at the end of a line within an array; each starts a line, since the last may be a comment."""


def holds_policy(path: Path) -> bool:
    """Whether a ``pyproject.toml`` has a ``[tool.pruneproof]`` table."""
    try:
        tools = tomllib.loads(path.read_text("utf-8-sig")).get("tool")
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(tools, dict) and "pruneproof" in tools


def line_of(text: str, path: Keys) -> int | None:
    """Line (from 1) on which ``path`` starts; its nearest parent where the document does not hold it.

    Args:
        text: the TOML document, syntactically valid.
        path: keys and list indices from the root, as in pydantic's error locations.
    """
    # splitlines() also splits at separators that end no line in TOML.
    lines = text.replace("\r\n", "\n").split("\n")
    whole = _parsed(lines)
    while path and not holds(whole, path):
        path = path[:-1]
    return _start(lines, path) if path else None


def _start(lines: list[str], path: Keys) -> int:
    """Bisection: once the text holds a key it does so at every later line at which it parses."""
    without, found = 0, len(lines)
    high = found
    while high - without > 1:
        middle = (without + high) // 2
        end = next((end for end in range(middle, high) if _parsed(lines[:end]) is not None), None)
        if end is None:
            high = middle
        elif holds(_parsed(lines[:end]), path):
            found, high = end, middle
        else:
            without = end
    return next(end for end in range(found - 1, -1, -1) if _parsed(lines[:end]) is not None) + 1


def _parsed(lines: list[str]) -> dict[str, Any] | None:
    text = "\n".join(lines)
    for closer in CLOSERS:
        try:
            return tomllib.loads(text + closer)
        except (ValueError, RecursionError):
            continue
    return None


def holds(document: Any, path: Keys) -> bool:
    """Whether ``document`` has something at ``path``."""
    here: Any = document
    for key in path:
        if not isinstance(here, dict | list):
            return False
        try:
            here = here[key]  # type: ignore[index]
        except (LookupError, TypeError):
            return False
    return True
