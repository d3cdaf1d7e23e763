"""PruneProof: is this pruned network still safe to ship?

Importing this package costs nothing: it imports the standard library only, and each public name is
loaded when it is first used (PEP 562), since every pytest run imports it with the plugin.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruneproof.auditing import audit
    from pruneproof.domain import Box, Column, Criterion, OneHot, Sum, Table, Tokens
    from pruneproof.errors import PruneProofError
    from pruneproof.evidence import Evidence
    from pruneproof.subject import Data, Subject

__all__ = [
    "Box",
    "Column",
    "Criterion",
    "Data",
    "Evidence",
    "OneHot",
    "PruneProofError",
    "Subject",
    "Sum",
    "Table",
    "Tokens",
    "audit",
]

_HOMES = {
    "Box": "pruneproof.domain",
    "Column": "pruneproof.domain",
    "Criterion": "pruneproof.domain",
    "Data": "pruneproof.subject",
    "Evidence": "pruneproof.evidence",
    "OneHot": "pruneproof.domain",
    "PruneProofError": "pruneproof.errors",
    "Subject": "pruneproof.subject",
    "Sum": "pruneproof.domain",
    "Table": "pruneproof.domain",
    "Tokens": "pruneproof.domain",
    "audit": "pruneproof.auditing",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("pruneproof")
    if name not in _HOMES:
        raise AttributeError(f"module 'pruneproof' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
