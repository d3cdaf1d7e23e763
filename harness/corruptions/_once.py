"""What is worked out once for a ground, and forgotten with it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pruneproof.shift.ground import Ground

Made = TypeVar("Made")
_KNOWN: weakref.WeakKeyDictionary[Ground, dict[Hashable, Any]] = weakref.WeakKeyDictionary()


def of(ground: Ground, key: Hashable, make: Callable[[], Made]) -> Made:
    """What ``make`` gives, made at the first call of ``ground`` and ``key``; it must not hold on to the ground."""
    kept = _KNOWN.setdefault(ground, {})
    if key not in kept:
        kept[key] = make()
    found: Made = kept[key]
    return found
