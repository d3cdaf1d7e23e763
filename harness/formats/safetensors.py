"""``.safetensors``: a state dict on the subject's architecture; reading it runs nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pruneproof.errors import SubjectError
from pruneproof.formats import _state_dict
from pruneproof.subject import Subject


def load(path: Path, subject: Subject, *, unpickle: bool) -> torch.nn.Module:
    """A copy of the subject's model with the file's tensors.

    Raises:
        SubjectError: the file cannot be read, or does not fit the subject's architecture.
    """
    try:
        state = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise SubjectError(f"cannot be read: {error}", "name a readable .safetensors file") from None
    return _state_dict.laid_on(subject.model, state)
