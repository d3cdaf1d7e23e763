"""Where an audit ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from pruneproof.evidence import EnvironmentRow

PACKAGES = (
    "pruneproof", "torch", "torchattacks", "torch-pruning", "numpy", "scipy", "scikit-learn",
    "pandas", "pyarrow", "pydantic", "safetensors", "pytest", "pytest-xdist",
)  # fmt: skip


def row(folder: Path, threads: int) -> EnvironmentRow:
    """This machine, the versions of what takes part, and the commit of the repository that ``folder`` is in."""
    commit = _git(folder, "rev-parse", "HEAD")
    return EnvironmentRow(
        packages=versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu(),
        cpu_count=os.cpu_count() or 1,
        threads=threads,
        git_commit=commit or None,
        git_dirty=bool(_git(folder, "status", "--porcelain", "--untracked-files=no")) if commit else None,
    )


def versions() -> dict[str, str]:
    """Installed versions of the packages that take part in an audit."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """The processor's model name and the instruction set that torch uses."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model} ({torch.backends.cpu.get_cpu_capability()})"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
