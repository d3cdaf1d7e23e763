"""Blocks that a network can do without: residual blocks in a row, found by looking at a forward pass.

A block can be left out when it is called exactly once, hands on a tensor of the shape and type that it was given, and
computes ``input + something``. The last is read off its autograd graph: from the output there is a way back to the
input that passes an addition and no operation that mixes (:data:`MIXING`), be it pre-norm, post-norm, scaled or with
an activation after the sum. That the rest of the network does not depend on a block in another way, such as by its
place in a list, is tried out: without the blocks it must compute what it computes when they hand on what they were
given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from pruneproof import inference, surgery
from pruneproof.errors import PruningError
from pruneproof.observations import quiet
from pruneproof.plan import PrunePlan
from pruneproof.subject import Inputs
from pruneproof.units import Found, Group, Kept, Setting

CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList)
MIXING = ("convolution", "addmm", "mm", "bmm", "baddbmm", "attention", "pool", "rnn", "lstm", "gru", "linear", "einsum")
"""What the names of autograd's nodes hold when an operation sums over channels or positions."""
IN_PLACE = "it changes what it is given in place, so that nothing could be handed on in its stead"
TOLERANCE = 1e-5


def find(model: torch.nn.Module, inputs: Inputs) -> Found:
    """One group for each container with blocks that can be left out.

    Raises:
        PruningError: the network cannot be run on ``inputs``.
    """
    looked = _Look(model, inputs)
    good = {path for path, reason in looked.reasons.items() if not reason}
    good = {path for path in good if not _inside(good, path)}  # a stage of blocks is not a block
    whole = {
        path: reason
        for path, reason in looked.reasons.items()
        if reason and not _inside(good, path) and not _within(looked.reasons, path)
    }
    containers = dict.fromkeys(_parent(path) for path in looked.reasons if path in good)
    paths = {name: [path for path in looked.reasons if path in good and _parent(path) == name] for name in containers}
    return Found(tuple(_group(model, name, members) for name, members in paths.items()), tuple(whole.items()))


def tried(model: torch.nn.Module, inputs: Inputs, found: Found) -> Found:
    """``found`` without the groups whose blocks the network depends on otherwise than by what they compute."""
    groups = list(found.groups)
    if not groups or not _depended_on(model, inputs, groups):
        return found
    alone = {group.name: _depended_on(model, inputs, [group]) for group in groups}
    whole = [(path, alone[group.name]) for group in groups if alone[group.name] for path in group.blocks]
    return Found(tuple(group for group in groups if not alone[group.name]), (*found.whole, *whole))


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _inside(paths: Iterable[str], outer: str) -> bool:
    """Whether any of ``paths`` lies in ``outer``."""
    return any(path.startswith(f"{outer}.") for path in paths)


def _within(paths: Iterable[str], inner: str) -> bool:
    """Whether ``inner`` lies in any of ``paths``."""
    return any(inner.startswith(f"{path}.") for path in paths)


def _candidates(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules with parts and parameters of their own that stand in a container."""
    found = {}
    for path, container in model.named_modules():
        if not isinstance(container, CONTAINERS):
            continue
        for key, child in container.named_children():
            composite = any(True for _ in child.children()) and type(child) not in CONTAINERS
            if composite and any(True for _ in child.parameters()):
                found[f"{path}.{key}".lstrip(".")] = child
    return found


class _Look:
    """Why each candidate cannot be left out, as one forward pass shows it; empty where it can.

    Attributes:
        reasons: in the order in which the network holds them.
    """

    def __init__(self, model: torch.nn.Module, inputs: Inputs) -> None:
        self._busy = False
        copy = surgery.copied(model)
        named = _candidates(copy)
        self._calls = dict.fromkeys(named.values(), 0)
        self._verdicts: dict[torch.nn.Module, str] = {}
        self._versions: dict[torch.nn.Module, int] = {}
        for block in named.values():
            block.register_forward_pre_hook(self._entered, with_kwargs=True)
            block.register_forward_hook(self._seen, with_kwargs=True)
        with quiet(copy), torch.no_grad():
            _run(copy, inputs)
        self.reasons = {path: self._reason(block) for path, block in named.items()}

    def _entered(self, block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = _first_tensor(args, kwargs)
        if not self._busy and given is not None:
            self._versions[block] = given._version

    def _seen(self, block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._busy:
            return
        self._calls[block] += 1
        self._busy = True
        try:
            given = _first_tensor(args, kwargs)
            if given is not None and given._version != self._versions[block]:
                self._verdicts[block] = IN_PLACE
            else:
                self._verdicts[block] = _verdict(block, args, kwargs, output)
        finally:
            self._busy = False

    def _reason(self, block: torch.nn.Module) -> str:
        calls = self._calls[block]
        if calls != 1:
            return f"it is called {calls} times" if calls else "it takes no part in the forward pass that was traced"
        return self._verdicts[block]


def _run(model: torch.nn.Module, inputs: Inputs) -> Any:
    try:
        return inference.call(model, inputs)
    except Exception as error:
        raise PruningError(
            f"blocks: the network cannot be run: {type(error).__name__}: {error}", "use granularity = 'element'"
        ) from error


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)


def _verdict(block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> str:
    given = _first_tensor(args, kwargs)
    made = output[0] if isinstance(output, tuple) and output else output
    if given is None or not isinstance(made, torch.Tensor):
        return "it does not take and return a tensor"
    if made.shape != given.shape:
        return "it changes the shape of what it is given"
    if made.dtype != given.dtype or not given.is_floating_point():
        return "it changes the type of what it is given"
    try:
        return "" if _adds(block, given, args, kwargs) else "its output is not its input plus something"
    except Exception as error:
        return f"whether it is residual cannot be seen: {type(error).__name__}: {error}"


def _adds(block: torch.nn.Module, given: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether ``block`` returns ``given`` plus something: a way back that adds and does not mix."""
    start = given.detach().clone().requires_grad_()
    with torch.enable_grad():

        def swapped(value: Any) -> Any:
            return start if value is given else value

        output = block(*map(swapped, args), **{name: swapped(value) for name, value in kwargs.items()})
    end = (output[0] if isinstance(output, tuple) else output).grad_fn
    seen: set[tuple[Any, bool]] = set()
    ways = [(end, False)]
    while ways:
        node, added = ways.pop()
        if node is None or (node, added) in seen:
            continue
        seen.add((node, added))
        if getattr(node, "variable", None) is start:
            if added:
                return True
            continue
        name = node.name().lower()
        if any(word in name for word in MIXING):
            continue
        if name.startswith("subbackward"):  # of a difference the first part alone stays as it is
            ways.append((node.next_functions[0][0], True))
            continue
        added = added or name.startswith(("addbackward", "addcmulbackward"))
        ways += [(before, added) for before, _ in node.next_functions]
    return False


def _depended_on(model: torch.nn.Module, inputs: Inputs, groups: list[Group]) -> str:
    """Why the network depends on the blocks of ``groups`` otherwise than by what they compute.

    Tried twice, once with the first block of each group left in and once with the last.
    """
    for stays in (0, -1):
        try:
            plan = _without_all_but(groups, stays)
        except PruningError:  # the configuration refuses so few
            continue
        try:
            without = _answer(surgery.shrunk(plan, model), inputs)
        except Exception as error:
            return f"without it the network does not run: {type(error).__name__}: {error}"
        passed = _answer(surgery.masked(plan, model), inputs)
        scale = max(float(passed.abs().max()), 1e-12)
        if without.shape != passed.shape or not float((without - passed).abs().max()) <= TOLERANCE * scale:
            return "without it the network computes something else than when it hands on what it is given"
    return ""


def _without_all_but(groups: list[Group], stays: int) -> PrunePlan:
    """The block ``stays`` of each group is left in, but where it is the only one."""
    kept = [range(group.size)[stays : stays + 1 or None] if group.size > 1 else range(0) for group in groups]
    blocks = [
        path
        for group, stay in zip(groups, kept, strict=True)
        for index, path in enumerate(group.blocks)
        if index not in stay
    ]
    settings = [entry for group, stay in zip(groups, kept, strict=True) for entry in group.settings(list(stay))]
    return PrunePlan({}, 0.5, 0, "", 0, 0, 0.0, blocks=tuple(blocks), settings=tuple(settings))


def _answer(model: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    with quiet(model), torch.no_grad():
        return inference.output_tensor(inference.call(model, inputs)).double()


def _group(model: torch.nn.Module, container: str, paths: list[str]) -> Group:
    return Group(container, len(paths), blocks=tuple(paths), settings=_settings(model, container, paths))


def _settings(model: torch.nn.Module, container: str, paths: list[str]) -> Callable[[Kept], list[Setting]]:
    owner = container.rpartition(".")[0]
    holder = model.get_submodule(owner)
    counts = isinstance(holder, torch.nn.TransformerEncoder | torch.nn.TransformerDecoder)
    total = len(model.get_submodule(container))  # type: ignore[arg-type]

    def settings(kept: Kept) -> list[Setting]:
        return [Setting(owner, "num_layers", total - len(paths) + len(kept))] if counts else []

    return settings
