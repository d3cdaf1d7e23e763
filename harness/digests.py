"""Content digests: what an audit was about, independent of file names and times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pruneproof import inference
from pruneproof.subject import Data


def of_file(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def of_text(text: str) -> int:
    """A seed from any text: 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def of_model(model: torch.nn.Module) -> str:
    """SHA-256 of the architecture's class names and of every parameter and buffer: name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        digest.update(f"{name}:{class_name(module)};".encode())
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            digest.update(name.encode())
            _update(digest, tensor)
    return digest.hexdigest()


def class_name(module: torch.nn.Module) -> str:
    """The class that a module was written as, also after TorchScript compiled it."""
    return str(getattr(module, "original_name", type(module).__name__))


def of_data(data: Data, batch_size: int) -> str:
    """SHA-256 of inputs, targets and segments, whatever the ``batch_size`` they are read in."""
    parts: list[Any] = []
    for inputs, targets in inference.batches(data, batch_size):
        tensors = [*inference.tensors(inputs), *([] if targets is None else [torch.as_tensor(targets)])]
        if not parts:
            names = list(inputs) if isinstance(inputs, Mapping) else []
            parts = [hashlib.sha256(f"{names}{tensor.dtype}{tuple(tensor.shape[1:])}".encode()) for tensor in tensors]
        for part, tensor in zip(parts, tensors, strict=True):
            part.update(_bytes(tensor))
    digest = hashlib.sha256(b"".join(part.digest() for part in parts))
    if data.targets is not None:
        targets = data.targets
        digest.update(_bytes(targets) if isinstance(targets, torch.Tensor) else np.asarray(targets).tobytes())
    if data.segments is not None:
        digest.update(pd.util.hash_pandas_object(data.segments.astype(str), index=False).to_numpy().tobytes())
        digest.update(",".join(map(str, data.segments.columns)).encode())
    return digest.hexdigest()


def _update(digest: Any, tensor: torch.Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(_bytes(tensor))


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
