"""Suites, criteria and report formats by name: each is one file in its folder, found by listing it.

A file whose name starts with an underscore is not a member. Nothing is registered anywhere else.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names(package: str) -> tuple[str, ...]:
    """Names of the modules in ``package``, sorted; none of them is imported."""
    folder = importlib.import_module(package)
    found = (module.name for module in pkgutil.iter_modules(folder.__path__) if not module.ispkg)
    return tuple(sorted(name for name in found if not name.startswith("_")))


def member(package: str, name: str) -> ModuleType:
    """The module ``name`` of ``package``.

    Raises:
        KeyError: no such member.
    """
    if name not in names(package):
        raise KeyError(name)
    return importlib.import_module(f"{package}.{name}")
