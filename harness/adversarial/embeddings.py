"""Where tokens become vectors: gradients are taken there, and there vectors are moved.

The points of a lifted victim are tokens with the move of each one's vector: ``(n, length, 1 + width)`` float32, of
which ``[..., 0]`` is the token and ``[..., 1:]`` is added to what the embedding layer gives for it. A move can be
replayed on every variant, whose own vectors may differ, and one that is zero is the clean example.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pruneproof import inference
from pruneproof.adversarial.sequences import EditSpace, is_integer
from pruneproof.adversarial.victim import Loss, Victim
from pruneproof.domain import Tokens
from pruneproof.errors import MeasurementError, SubjectError

EXACT = 2**24
"""Above it not every whole number is a float32."""


def lift(victims: Sequence[Victim], clean: torch.Tensor, tokens: Tokens) -> tuple[list[Victim], torch.Tensor]:
    """The same victims and clean examples ``(n, length)``, as attacks in the space of embeddings see them.

    Raises:
        SubjectError: the examples are no tokens, or an embedding is not found.
        MeasurementError: the variants embed in different widths, so that they cannot share points.
    """
    EditSpace(tokens, 1).check(clean)
    widths = {victim.name: table(embedding(victim, tokens), tokens.size).shape[1] for victim in victims}
    if len(set(widths.values())) > 1:
        raise MeasurementError(
            f"the variants' embeddings differ in width: {', '.join(f'{name} {wide}' for name, wide in widths.items())}",
            "ask for 'token_swap', whose points every variant reads, or audit them one by one",
        )
    return [lifted(victim, tokens) for victim in victims], carried(clean, next(iter(widths.values())))


def carried(tokens: torch.Tensor, width: int) -> torch.Tensor:
    """``(n, length, 1 + width)`` points of a lifted victim that move nothing."""
    still = torch.zeros(*tokens.shape, width, device=tokens.device)
    return torch.cat([tokens[..., None].to(still.dtype), still], dim=-1)


def lifted(victim: Victim, tokens: Tokens) -> Victim:
    """The victim whose points carry moves of the embedding; its work is counted with the original's.

    Raises:
        SubjectError: no embedding is found in it.
    """
    moved = _Moved(victim.model, embedding(victim, tokens))

    def inputs(points: torch.Tensor, rows: torch.Tensor) -> Any:
        moved.ids = points[..., 0].detach().round().long()
        moved.moves = points[..., 1:]
        return victim.inputs(moved.ids, rows)

    return dataclasses.replace(victim, model=moved, inputs=inputs, approximate=None)


def gradients(
    lifted_victim: Victim, points: torch.Tensor, rows: torch.Tensor, loss: Loss, width: int, aim: int | None
) -> torch.Tensor:
    """``(n, length, width)`` gradient of each example's loss in the vectors of its tokens ``points (n, length)``.

    Raises:
        MeasurementError: the backward pass raised, or the model does not read its tokens through the layer.
    """
    return lifted_victim.gradient(carried(points, width), rows, loss, aim).value[..., 1:]


def embedding(victim: Victim, tokens: Tokens) -> torch.nn.Module:
    """The layer in which the victim's tokens become vectors: the subject's, the model's own answer, the only one.

    Raises:
        SubjectError: there is none, or more than one, or it has fewer rows than the vocabulary has tokens.
    """
    found = _stated(victim.model, tokens) or _only(victim, tokens.size)
    rows = getattr(found, "num_embeddings", tokens.size)
    if rows < tokens.size:
        raise SubjectError(
            f"{victim.name}: the embedding has {rows} rows, the vocabulary {tokens.size} tokens",
            "correct Tokens(size=…), or point Tokens(embedding=…) to the layer that reads the tokens",
        )
    if tokens.size > EXACT:
        raise SubjectError(f"a vocabulary of {tokens.size} tokens", f"gradients are taken of up to {EXACT} tokens")
    return found


def _stated(model: torch.nn.Module, tokens: Tokens) -> torch.nn.Module | None:
    if tokens.embedding is not None:
        found: object = tokens.embedding(model)
        if not isinstance(found, torch.nn.Module):
            raise SubjectError(
                f"Tokens(embedding=…) gave {type(found).__name__}", "return the model's layer that embeds tokens"
            )
        return found
    ask = getattr(model, "get_input_embeddings", None)
    try:
        found = ask() if callable(ask) else None
    except NotImplementedError:  # of transformers' models that have none
        return None
    return found if isinstance(found, torch.nn.Embedding) else None


def _only(victim: Victim, size: int) -> torch.nn.Module:
    layers = {
        name: module
        for name, module in victim.model.named_modules()
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == size
    }
    if len(layers) == 1:
        return next(iter(layers.values()))
    what = f"more than one embedding of {size} rows: {', '.join(layers)}" if layers else f"no embedding of {size} rows"
    raise SubjectError(
        f"{victim.name} has {what}",
        'name it with Tokens(embedding=lambda model: model.…), or ask for search = "loss", which needs none',
    )


def table(layer: torch.nn.Module, size: int) -> torch.Tensor:
    """``(size, width)`` float32 vectors of all tokens, as the layer gives them (scaled ones scaled), on the CPU."""
    if getattr(layer, "max_norm", None) is not None:
        layer = copy.deepcopy(layer)  # it would shorten the vectors of its weight in place
    every = torch.arange(size, device=inference.device_of(layer))
    with torch.no_grad():
        vectors: torch.Tensor = layer(every)
    return vectors.detach().float().cpu()


class _Moved(torch.nn.Module):
    """A model whose embedding layer's answer for ``ids (n, length)`` is moved by ``moves (n, length, width)``."""

    ids: torch.Tensor
    moves: torch.Tensor

    def __init__(self, model: torch.nn.Module, layer: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        self._layer: Callable[[], torch.nn.Module] = lambda: layer  # not a second registration of the module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._met = False
        handle = self._layer().register_forward_hook(self._move, with_kwargs=True)
        try:
            output = self.model(*args, **kwargs)
        finally:
            handle.remove()
        if not self._met:
            raise MeasurementError(
                "the model does not read its tokens, one vector each, through the embedding layer that was found",
                "point Tokens(embedding=…) to the layer that does",
            )
        return output

    def _move(self, layer: torch.nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> torch.Tensor:
        """Moves what was looked up for these tokens, in whatever layout; other calls of the layer are left alone."""
        asked = args[0] if args else kwargs.get("input")
        if not isinstance(asked, torch.Tensor) or not is_integer(asked) or asked.numel() != self.ids.numel():
            return output
        ids, moves = self.ids.to(asked.device), self.moves.to(output)
        if torch.equal(asked.reshape(-1), ids.reshape(-1).to(asked.dtype)):
            self._met = True
            return output + moves.reshape(output.shape)
        if torch.equal(asked.reshape(-1), ids.t().reshape(-1).to(asked.dtype)):  # sequence first
            self._met = True
            return output + moves.transpose(0, 1).reshape(output.shape)
        return output
