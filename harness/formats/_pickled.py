"""What ``torch.save`` wrote: a state dict, or with ``unpickle = true`` whatever the file makes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pruneproof.errors import PruneProofError, SubjectError
from pruneproof.formats import _state_dict
from pruneproof.isolation import Interrupt
from pruneproof.subject import Subject

_SAFE = "save model.state_dict() instead, or, where the file's maker is trusted, say unpickle = true in its [[variant]]"


def load(path: Path, subject: Subject, *, unpickle: bool) -> torch.nn.Module:
    """A copy of the subject's model with the file's tensors; with ``unpickle`` also a whole module.

    Raises:
        SubjectError: the file cannot be read, needs code that ``unpickle`` does not allow, or does not fit.
    """
    content = read(path, unpickle=unpickle)
    if isinstance(content, Mapping):
        content = _state_dict.unwrapped(content)
    if isinstance(content, torch.nn.Module):
        return content
    if not isinstance(content, Mapping):
        raise SubjectError(f"holds {type(content).__name__}", "save model.state_dict()")
    return _state_dict.laid_on(subject.model, content)


def read(path: Path, *, unpickle: bool) -> Any:
    """The file's content, on the CPU. Code of the file's own runs only if ``unpickle``, and only where it is needed.

    Raises:
        SubjectError: see :func:`load`.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of TorchScript
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SubjectError(f"cannot be read: {error}", "name a readable file") from None
    except Exception as error:
        needed = _code(path, error)
    if needed is None:
        raise SubjectError("is damaged, or nothing that torch.save wrote", "save it again with torch.save")
    if not unpickle:
        raise SubjectError(f"would run code of its own when it is read ({needed})", _SAFE)
    try:
        with warnings.catch_warnings(action="ignore"):  # of TorchScript, and of classes whose source has changed
            return torch.load(path, map_location="cpu", weights_only=False)
    except (KeyboardInterrupt, Interrupt, PruneProofError):
        raise
    except BaseException as error:  # it may do anything, exit included
        raise SubjectError(
            f"raised {type(error).__name__} when it was unpickled: {error}",
            "the classes that it names have to be importable from the policy's folder",
        ) from error


def _code(path: Path, error: Exception) -> str | None:
    """What the file wants to call beyond making tensors; ``None`` if it is only damaged."""
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        named = []
    if named:
        return ", ".join(sorted(named)[:5])
    text = str(error)
    if "TorchScript" in text:
        return "a TorchScript archive"
    if ".tar" in text:
        return "torch's legacy .tar format"
    told = [line for line in text.splitlines() if "Unsupported global" in line or "Unsupported class" in line]
    return told[0].partition(": ")[2] or told[0] if told else None
