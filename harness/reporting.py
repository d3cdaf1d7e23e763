"""Rendering reports: from the evidence alone."""

from __future__ import annotations

from pathlib import Path

from pruneproof import registry
from pruneproof.errors import UsageError
from pruneproof.evidence import Evidence

PACKAGE = "pruneproof.reports"


def formats() -> tuple[str, ...]:
    """Names of the report formats; each is one file in ``reports/``."""
    return registry.names(PACKAGE)


def render(evidence: Evidence, form: str, folder: Path) -> Path:
    """Writes the report of format ``form`` into ``folder``; its path.

    A format is a module with ``FILE``, the report's file name, and ``render(evidence) -> str | bytes``.

    Raises:
        UsageError: no such format, or the folder cannot be written.
    """
    try:
        module = registry.member(PACKAGE, form)
    except KeyError:
        raise UsageError(f"no report format '{form}'", f"use one of: {', '.join(formats())}") from None
    content = module.render(evidence)
    path: Path = folder / module.FILE
    try:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, "utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot write: {error.strerror}", "name another folder with --out") from None
    return path
