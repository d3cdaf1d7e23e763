"""Corruptions by name: one file each, with a ``CORRUPTION``.

A corruption changes clean examples as the world outside the laboratory does, at a severity from 0, which changes
nothing, to 5; 1 to 5 are the published ones where there are any, and between them parameters are interpolated.
Importing a file must be cheap: the policy is read with it, so torch is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

from pydantic import BaseModel

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

Kind = Literal["image", "signal", "table", "tokens"]
EVERY: frozenset[Kind] = frozenset({"image", "signal", "table", "tokens"})
Parameters: TypeAlias = "Mapping[str, float | int | str]"
"""What a severity comes to, in the units of the data, for reports: ``{"sigma": 0.08}``."""
SEVERITIES = (1, 2, 3, 4, 5)


class Named(Protocol):
    """What corruptions and resamplings have in common."""

    @property
    def name(self) -> str:
        """As the policy names it: the name of its file."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of input that it knows."""

    @property
    def options(self) -> type[BaseModel]:
        """Its own keys in ``corruptions = [{ name = …, … }]``, beside ``name``, ``label`` and ``severities``, which
        the suite reads."""

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """Why it cannot be applied to this subject's inputs, in one line; ``None``: it can."""

    def parameters(self, ground: Ground, severity: float, options: BaseModel) -> Parameters:
        """What ``severity``, in [0, 5], comes to."""


@runtime_checkable
class Corruption(Named, Protocol):
    """Changes inputs. Contract of the ``CORRUPTION`` object of a file in this folder."""

    def apply(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """``(n, …)`` corrupted examples of the shape, dtype and range of ``clean``, which is not changed.

        What becomes of an example depends on it, its draws and the severity alone, to the last bit: not on the other
        examples of the batch, their number or order, nor on threads. Severity 0 gives the clean bytes.

        Args:
            clean: ``(n, …)`` on the CPU, within the domain.
            severity: in [0, 5].
            draws: the examples' own random numbers, the same at every severity.
        """


@runtime_checkable
class Resampling(Named, Protocol):
    """Changes how often kinds of examples occur, not the examples: contract as of :class:`Corruption`."""

    def kept(
        self,
        inputs: torch.Tensor | None,
        targets: torch.Tensor,
        segments: pd.DataFrame,
        ground: Ground,
        severity: float,
        draws: Draws,
        options: BaseModel,
    ) -> torch.Tensor:
        """``(n,)`` booleans: the examples of the test set that are drawn, each at most once.

        By rejection (von Neumann 1951) a draw is kept with the shifted density over the clean one, divided by its
        maximum; so those kept are an independent sample of the shifted distribution. Severity 0 keeps all.

        Args:
            inputs: ``(n, …)`` the whole test set, where it is a table.
            targets: ``(n,)``.
            segments: its segment columns.
            draws: of the whole test set.
        """
