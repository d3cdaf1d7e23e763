"""Attacks by name: one file each, with an ``ATTACK``. The classes of torchattacks need no file of their own.

An attack proposes points (:meth:`~pruneproof.adversarial.arena.Arena.submit`) for the rows that still stand; whether
they count is not its business. Importing a file must be cheap: the policy is read with it, so torch is imported where
it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena

Domain = Literal["box", "table", "tokens"]


class Attack(Protocol):
    """Contract of the ``ATTACK`` object of a file in this folder."""

    @property
    def name(self) -> str:
        """As the policy names it."""

    @property
    def options(self) -> type[BaseModel]:
        """The attack's own keys in ``attacks = [{ name = …, … }]``, beside ``name``, ``label``, ``norm``, ``eps`` and
        ``curve``, which the suite reads."""

    @property
    def domains(self) -> frozenset[Domain]:
        """The kinds of input that it knows."""

    @property
    def norms(self) -> frozenset[str]:
        """The norms that its budget can be measured in: of ``Linf L2 L1 L0``; ``edits`` of tokens."""

    @property
    def gradients(self) -> bool:
        """Whether it needs the gradient of the model."""

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        """Why it cannot attack inputs of ``shape`` (one example) with that many classes; ``None``: it can."""

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena, as strongly as ``options`` ask, each stage recorded."""
