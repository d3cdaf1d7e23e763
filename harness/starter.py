"""The starter that ``pruneproof init`` writes: a commented policy and a subject module."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from pruneproof.errors import UsageError

POLICY = "audit.toml"
MODULE = "audited.py"


def write(folder: Path, model: str | None) -> tuple[Path, Path]:
    """Writes ``audit.toml`` and ``audited.py`` into ``folder``; overwrites nothing.

    Args:
        model: the user's own ``module:function`` that gives the dense model, or ``None``.

    Raises:
        UsageError: a file is there already, ``model`` is malformed, or the folder cannot be written.
    """
    if model is not None:
        _check(model)
    files = (folder / POLICY, folder / MODULE)
    for file in files:
        if file.exists():
            raise UsageError(f"{file} is there already", "name another folder with --out, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files[0].write_text(_template("starter_policy.toml"), "utf-8")
        files[1].write_text(_subject(model), "utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there: {error.strerror}", "name another folder with --out") from None
    return files


def _subject(model: str | None) -> str:
    text = _template("starter_subject.txt")
    if model is None:
        return text.replace("@import@", "").replace(
            "@model@", 'raise NotImplementedError("audited.py: return your dense model here")'
        )
    module, function = model.split(":")
    return text.replace("@import@", f"import {module}\n").replace("@model@", f"return {module}.{function}()")


def _check(model: str) -> None:
    identifiers = all(part.isidentifier() for part in model.replace(":", ".").split("."))
    if not identifiers or model.count(":") != 1:
        raise UsageError(f"'{model}' is not module:function", "name a function like bank.models:net")
    if model.partition(":")[0] == Path(MODULE).stem:
        raise UsageError(f"your module is called {MODULE}, as the starter is", "rename yours, or import it elsewhere")


def _template(name: str) -> str:
    return importlib.resources.files("pruneproof").joinpath(name).read_text("utf-8")
