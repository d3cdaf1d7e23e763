"""A state dict laid on the subject's architecture: every tensor of the one has its place in the other."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

import torch

from pruneproof import profile
from pruneproof.errors import SubjectError
from pruneproof.surgery import copied

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict, beside optimizer, epoch and the like."""
_REMEDY = "use load = 'module:function' for a model of another shape"


def unwrapped(content: Mapping[Any, Any]) -> Any:
    """What stands under one of :data:`WRAPPERS`, or ``content`` itself where it is no wrapper.

    Raises:
        SubjectError: it stands under several of them.
    """
    found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping | torch.nn.Module)]
    if len(found) > 1:
        raise SubjectError(f"holds a state dict under {' and under '.join(found)}", "save the one that is meant")
    return content[found[0]] if found else content


def laid_on(model: torch.nn.Module, content: Mapping[Any, Any]) -> torch.nn.Module:
    """A copy of ``model`` with the tensors of a state dict.

    Read as what they stand for: a common prefix of all names (``module.`` of ``DataParallel``, ``_orig_mod.``
    of ``torch.compile``) falls away where the rest fits, and ``<name>_orig`` with ``<name>_mask`` of
    ``torch.nn.utils.prune`` is their product. A wider type of the model takes a narrower one of the file.

    Raises:
        SubjectError: a tensor is missing, left over, of another shape, or would be rounded; two names that share a
            tensor in the model are given different values.
    """
    built = copied(model)
    own = built.state_dict(keep_vars=True)
    state = _named_as(own, _masked(_tensors(content), own))
    _same_where_shared(own, state)
    _exact(own, state)
    try:
        unmatched = built.load_state_dict(profile.versioned(state, built), strict=False)
    except RuntimeError as error:
        raise _misfit(str(error)) from None
    missing = [name for name in unmatched.missing_keys if not _given(own, name, state)]
    if missing or unmatched.unexpected_keys:
        raise _misfit(f"missing {missing}, unexpected {unmatched.unexpected_keys}")
    return built


def _tensors(content: Mapping[Any, Any]) -> dict[str, Any]:
    odd = [
        str(name)
        for name, value in content.items()
        if not isinstance(value, torch.Tensor) and not str(name).endswith("_extra_state")
    ]
    if odd or not content:
        held = f"{textwrap.shorten(', '.join(odd), 200)} in it are no tensors" if odd else "it is empty"
        raise SubjectError(
            f"is not a state dict: {held}",
            f"save model.state_dict(), by itself or under one of: {', '.join(WRAPPERS)}",
        )
    return {str(name): value for name, value in content.items()}


def _masked(state: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Weights in place of ``torch.nn.utils.prune``'s ``_orig`` and ``_mask``, unless the model has these itself."""
    found = dict(state)
    for name in state:
        stem = name.removesuffix("_orig")
        if stem == name or f"{stem}_mask" not in state or any(name.endswith(key) for key in own):
            continue
        original, mask = found.pop(name), found.pop(f"{stem}_mask")
        if original.shape != mask.shape or stem in state:
            raise _misfit(f"{name} and {stem}_mask do not make one tensor")
        found[stem] = original * mask.to(original.dtype)
    return found


def _named_as(own: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """``state`` without the prefix that all its names have in common, if it fits better without."""
    levels = zip(*(name.split(".")[:-1] for name in state), strict=False)
    common = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, levels)]
    for depth in range(len(common) + 1):
        prefix = "".join(f"{part}." for part in common[:depth])
        if all(name.removeprefix(prefix) in own for name in state):
            return {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _same_where_shared(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    first: dict[int, str] = {}
    for name in state:
        if isinstance(own.get(name), torch.Tensor):
            other = first.setdefault(id(own[name]), name)
            if other != name and not torch.equal(state[other], state[name]):
                raise _misfit(f"{other} and {name} are one tensor in the subject, and two in the file")


def _exact(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Copying rounds silently; a rounded weight may be another weight, or zero."""
    for name, value in state.items():
        place = own.get(name)
        if not isinstance(place, torch.Tensor) or not isinstance(value, torch.Tensor):
            continue
        widened = torch.promote_types(value.dtype, place.dtype) == place.dtype
        if not widened or value.is_floating_point() != place.is_floating_point():
            raise _misfit(f"{name} is {value.dtype}, and {place.dtype} in the subject")


def _given(own: Mapping[str, Any], name: str, state: Mapping[str, Any]) -> bool:
    """Whether ``state`` gives the tensor under another name: a file holds a shared tensor once."""
    return any(own[name] is own[other] for other in state if other in own)


def _misfit(problem: str) -> SubjectError:
    return SubjectError(f"does not fit the subject's architecture: {textwrap.shorten(problem, 400)}", _REMEDY)
