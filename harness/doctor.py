"""What this machine can and cannot certify."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pruneproof import environment, registry

EXTRAS = {
    "llm": "transformers",
    "onnx": "onnxruntime",
    "ray": "ray",
    "pdf": "weasyprint",
    "sign": "cryptography",
    "test": "xdist",
}
CALLS = 2000
QUIET = 2.0
"""A control kernel whose 99th percentile is over this many medians: the machine is not quiet."""


def findings() -> Iterator[tuple[str, str]]:
    """``(what, finding)`` lines."""
    yield "python", platform.python_version()
    yield from environment.versions().items()
    yield "processor", f"{environment.cpu()}, {os.cpu_count()} cores, {_usable()} usable"
    yield "torch threads", f"{torch.get_num_threads()} by default; an audit uses its policy's (1 unless it says more)"
    yield "gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
    for extra, module in EXTRAS.items():
        installed = importlib.util.find_spec(module) is not None
        yield f"extra [{extra}]", "installed" if installed else f"not installed: pip install 'pruneproof[{extra}]'"
    yield "load", _load()
    median, tail = noise()
    quiet = tail <= QUIET * median
    yield (
        "timing noise",
        (
            f"control kernel: median {median:.0f} µs, 99th percentile {tail:.0f} µs over {CALLS} calls: "
            + ("quiet" if quiet else "noisy, other work shares this machine")
        ),
    )
    yield (
        "can certify",
        f"suites {', '.join(registry.names('pruneproof.suites'))}: nothing in them depends on the clock",
    )
    yield "cannot certify", "latency and deadlines: this version has no suite for them"


def noise() -> tuple[float, float]:
    """Median and 99th percentile in µs of a fixed computation (SHA-256 of 100 kB)."""
    block = bytes(100_000)
    taken = np.empty(CALLS)
    for call in range(CALLS):
        start = time.perf_counter_ns()
        hashlib.sha256(block).digest()
        taken[call] = (time.perf_counter_ns() - start) / 1000
    return float(np.median(taken)), float(np.quantile(taken, 0.99))


def _usable() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _load() -> str:
    try:
        one, five, _ = os.getloadavg()
        found = f"{one:.2f} over 1 minute, {five:.2f} over 5"
    except OSError:
        return "not known on this system"
    pressure = Path("/proc/pressure/cpu")
    if pressure.exists():
        with contextlib.suppress(OSError, IndexError):
            found += f"; CPU pressure {pressure.read_text('utf-8').split()[1].removeprefix('avg10=')} % over 10 s"
    return found
