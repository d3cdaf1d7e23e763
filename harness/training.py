"""Training between two steps of a schedule: the user's function runs, and what was pruned stays zero."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pruneproof import surgery
from pruneproof.errors import PruneProofError, PruningError, SubjectError
from pruneproof.isolation import Interrupt, untouched_globals

FineTune = Callable[..., None]
"""``fine_tune(model, *, step, steps, generator) -> None``; ``step`` runs from 1 to ``steps``."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What training did.

    Args:
        revived: weights that the masks leave out and that were not zero when training ended, counted before they
            were set to zero again. Something other than a ``torch.optim`` step wrote to them.
        movement: parameter name → ``-Σ_t w_t · ∂L/∂w_t`` in float32, t over the optimizer steps (Sanh et al. 2020,
            arXiv 2005.07683, eq. 5, without the learning rate); empty unless asked for.
    """

    revived: int
    movement: Mapping[str, torch.Tensor]


class Held:
    """Keeps masks through optimizer steps; its two hooks run before and after each step of any optimizer."""

    def __init__(self, model: torch.nn.Module, masks: Mapping[str, torch.Tensor], movement: bool) -> None:
        self._model = model
        self._gone = {name: ~mask for name, mask in masks.items()}
        self._moves = movement
        self.movement: dict[str, torch.Tensor] = {}
        if movement:
            parameters = model.named_parameters(remove_duplicate=False)
            self.movement = {name: torch.zeros_like(p, dtype=torch.float32).detach() for name, p in parameters}

    def before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Adds up movement: now, or when a closure has computed the gradients of this step."""
        if not self._moves:
            return None
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._moving(optimizer, args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._moving(optimizer, kwargs["closure"])}
        self._move(optimizer)
        return None

    def after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Sets to zero again what the masks leave out of the parameters that ``optimizer`` has."""
        with torch.no_grad():
            for name, parameter in self._of(optimizer):
                if name in self._gone:
                    gone = self._gone[name] = self._gone[name].to(parameter.device)
                    parameter.masked_fill_(gone, 0)

    def _of(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Looked up at every step, since parameters may be replaced and optimizers made anew."""
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in self._model.named_parameters(remove_duplicate=False):
            if id(parameter) in held:
                yield name, parameter

    def _moving(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        first = True

        def moving() -> Any:
            nonlocal first
            loss = closure()
            if first:  # a line search calls it again, at weights that are not those of the step
                first = False
                self._move(optimizer)
            return loss

        return moving

    def _move(self, optimizer: torch.optim.Optimizer) -> None:
        if bool(getattr(optimizer, "found_inf", None)):
            return  # mixed precision: the optimizer is going to skip this step
        scale = getattr(optimizer, "grad_scale", None)
        with torch.no_grad():
            for name, parameter in self._of(optimizer):
                if parameter.grad is None or name not in self.movement:
                    continue
                gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
                product = parameter.float() * gradient.float()
                so_far = self.movement[name].to(product.device)
                self.movement[name] = so_far - (product if scale is None else product / scale)


@contextlib.contextmanager
def held(model: torch.nn.Module, masks: Mapping[str, torch.Tensor], *, movement: bool = False) -> Iterator[Held]:
    """Inside, what ``masks`` leave out is zero: at once, and again after every step of an optimizer that has it.

    Every ``torch.optim.Optimizer`` is seen, whenever it was made, with closures and fused kernels too; weights that
    are written in another way are not. Parameters of other models are not touched. The hooks are gone afterwards,
    whatever happened.

    Args:
        masks: tensor of ``model`` → booleans of its shape, true where a weight stays.
        movement: add up :attr:`Held.movement`.

    Raises:
        PruningError: a mask names a tensor that the model does not have, or does not fit its shape.
    """
    surgery.zero(model, masks)
    keeper = Held(model, masks, movement)
    handles = (
        register_optimizer_step_pre_hook(keeper.before_step),
        register_optimizer_step_post_hook(keeper.after_step),
    )
    try:
        yield keeper
    finally:
        for handle in handles:
            handle.remove()


def train(
    model: torch.nn.Module,
    masks: Mapping[str, torch.Tensor],
    fine_tune: FineTune,
    *,
    step: int,
    steps: int,
    seed: int,
    movement: bool = False,
) -> Trained:
    """Trains ``model`` in place with the user's function, while ``masks`` hold.

    The function finds the model in train mode and the global random states seeded; its ``generator`` is seeded by
    ``seed`` and ``step``. Afterwards every submodule is in eval mode, ``requires_grad`` and device of every tensor
    and the global states are as they were, gradients are ``None``, and what the masks leave out is zero.

    Args:
        masks: tensor of ``model`` → booleans of its shape, true where a weight stays.
        step: from 1 to ``steps``.

    Raises:
        SubjectError: ``fine_tune`` raised, or changed which tensors the model has.
        PruningError: a weight is NaN or infinite afterwards; no parameter changed; movement is asked for and no
            step of an optimizer with a gradient was seen, or it is not finite.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:8]) >> 1
    generator = torch.Generator().manual_seed(drawn)
    with _in_training(model, drawn), held(model, masks, movement=movement) as keeper:
        before, built = _recorded(model), _built(model)
        _call(fine_tune, model, step=step, steps=steps, generator=generator)
    after = _recorded(model)
    _require_same_tensors(before, after)
    if _built(model) != built:
        raise SubjectError(
            "fine_tune changed the network's modules or hooks",
            "train the weights in place; what it adds for training it has to remove again",
        )
    _require_finite(before, after)
    if all(entry.digest == after[name].digest for name, entry in before.items() if entry.parameter):
        raise PruningError(
            f"fine-tuning trained nothing: after step {step} of {steps} no parameter differs",
            "train the model that fine_tune is given, in place, with parameters that require gradients",
        )
    _require_moved(keeper.movement)
    revived = _alive(model, masks)
    surgery.zero(model, masks)
    _move_back(model, before)
    return Trained(revived, {name: moved.to(before[name].device) for name, moved in keeper.movement.items()})


def _built(model: torch.nn.Module) -> list[tuple[str, type, int]]:
    """Modules and the number of their forward hooks: what is shipped has those of the dense network."""
    return [
        (name, type(module), len(module._forward_hooks) + len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]


def rewind(model: torch.nn.Module, values: Mapping[str, torch.Tensor], masks: Mapping[str, torch.Tensor]) -> None:
    """Sets the parameters and buffers of ``model`` back to ``values``, in place, and what ``masks`` leave out to zero
    (lottery ticket: Frankle and Carbin 2019, arXiv 1803.03635).

    Args:
        values: a state dict; of tensors that share memory one name is enough.

    Raises:
        SubjectError: ``values`` lacks a tensor of the model, or has one that the model has not, or of another shape.
            Nothing was changed.
    """
    state = model.state_dict(keep_vars=True)
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    for name, value in values.items():
        if name not in state:
            raise _no_rewinding(f"the model has no {name}")
        if name in tensors and (not isinstance(value, torch.Tensor) or value.shape != tensors[name].shape):
            found = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise _no_rewinding(f"{name} is {found}, not {tuple(tensors[name].shape)}")
    given = {id(tensors[name]) for name in values if name in tensors}
    missing = [name for name, tensor in tensors.items() if id(tensor) not in given]
    if missing:
        raise _no_rewinding(f"{missing[0]} is missing")
    with torch.no_grad():
        for name, value in values.items():
            if name in tensors:
                tensors[name].copy_(value)
    surgery.zero(model, masks)


def _no_rewinding(reason: str) -> SubjectError:
    return SubjectError(f"no rewinding: {reason}", "give the state_dict() of this model, from when training started")


@contextlib.contextmanager
def _in_training(model: torch.nn.Module, seed: int) -> Iterator[None]:
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with untouched_globals(torch.get_num_threads(), seed), torch.inference_mode(False), torch.enable_grad():
        try:
            model.zero_grad(set_to_none=True)
            model.train()
            yield
        finally:
            model.eval()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(wanted.get(name, parameter.requires_grad))
                parameter.grad = None


def _call(fine_tune: FineTune, model: torch.nn.Module, *, step: int, steps: int, generator: torch.Generator) -> None:
    try:
        fine_tune(model, step=step, steps=steps, generator=generator)
    except (PruneProofError, KeyboardInterrupt, Interrupt):
        raise
    except BaseException as error:  # a user's function may exit, or skip a test
        raise SubjectError(
            f"fine_tune raised {type(error).__name__} at step {step} of {steps}: {error}",
            "mend it: it is called as fine_tune(model, step=…, steps=…, generator=…)",
        ) from error


@dataclass(frozen=True)
class _Entry:
    parameter: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    alias: str
    """First name of the same tensor."""
    finite: bool
    digest: str


def _recorded(model: torch.nn.Module) -> dict[str, _Entry]:
    """Digests, not copies: a copy of every weight would be one more model in memory."""
    names: dict[int, str] = {}
    found: dict[str, _Entry] = {}
    for name, tensor in surgery.named_tensors(model).items():
        alias = names.setdefault(id(tensor), name)
        if alias != name:
            finite, digest = found[alias].finite, found[alias].digest
        else:
            finite = bool(torch.isfinite(tensor.detach()).all())
            data = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
            digest = hashlib.sha256(data.numpy().data).hexdigest()
        parameter = isinstance(tensor, torch.nn.Parameter)
        found[name] = _Entry(parameter, tuple(tensor.shape), tensor.dtype, tensor.device, alias, finite, digest)
    return found


def _require_same_tensors(before: Mapping[str, _Entry], after: Mapping[str, _Entry]) -> None:
    remedy = "train the weights in place; merge and remove what is added for training"
    for name in sorted(before.keys() ^ after.keys()):
        what = "removed" if name in before else "added"
        raise SubjectError(f"fine_tune {what} {name}", remedy)
    for name, was in before.items():
        now = after[name]
        if (was.shape, was.dtype, was.parameter) != (now.shape, now.dtype, now.parameter):
            raise SubjectError(
                f"fine_tune changed {name} from {was.dtype} {was.shape} to {now.dtype} {now.shape}", remedy
            )
        if was.alias != now.alias:
            raise SubjectError(f"fine_tune changed which tensors {name} shares its memory with", remedy)


def _require_finite(before: Mapping[str, _Entry], after: Mapping[str, _Entry]) -> None:
    """Buffers may hold an infinity by design, such as an attention mask; then they held it before."""
    for name, now in after.items():
        if not now.finite and (now.parameter or before[name].finite):
            raise PruningError(f"after fine-tuning {name} holds NaN or infinity", "lower the learning rate")


def _require_moved(movement: Mapping[str, torch.Tensor]) -> None:
    for name, moved in movement.items():
        if not torch.isfinite(moved).all():
            raise PruningError(f"the movement of {name} is NaN or infinite", "lower the learning rate")
    if movement and not any(bool(moved.any()) for moved in movement.values()):
        raise PruningError(
            "no movement: fine_tune made no step of a torch.optim optimizer with gradients of the model's weights",
            "train the model's own parameters with an optimizer of torch.optim, or use another criterion",
        )


def _alive(model: torch.nn.Module, masks: Mapping[str, torch.Tensor]) -> int:
    tensors = surgery.named_tensors(model)
    return sum(
        int(tensors[name].detach()[~mask.to(tensors[name].device)].count_nonzero()) for name, mask in masks.items()
    )


def _move_back(model: torch.nn.Module, before: Mapping[str, _Entry]) -> None:
    for name, tensor in surgery.named_tensors(model).items():
        if tensor.device != before[name].device:
            tensor.data = tensor.data.to(before[name].device)
