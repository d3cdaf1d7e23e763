"""What the corruptions of tables have in common: which columns they change, and that what comes out is a valid row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from pruneproof.corruptions import Kind
from pruneproof.tables import Record, Text

if TYPE_CHECKING:
    import torch

    from pruneproof.corruptions._table_edit import Edit
    from pruneproof.shift.draws import Draws
    from pruneproof.shift.ground import Ground

Touches = Literal["numbers", "choices", "cells"]
"""Numbers; categories and one-hot groups; or both."""


class Options(Record):
    """Which columns are corrupted; default: all that can be changed and are of the right type."""

    columns: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] | None = None
    """Names of columns and one-hot groups."""
    column: Text | None = None
    """The same, of a single one."""

    @model_validator(mode="after")
    def _once(self) -> Options:
        if self.column is not None and self.columns is not None:
            raise ValueError("give 'column' or 'columns', not both")
        return self

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """The names; ``None``: all."""
        return self.columns if self.column is None else (self.column,)


class OnTables:
    """Corrupts rows ``(columns,)`` of a :class:`~pruneproof.domain.Table`, in its numbers and settings.

    Every row that comes out is valid: columns that are not mutable stay; numbers keep their bounds and steps, groups
    and categories their settings; totals follow their parts, derived columns are computed again, ``valid`` holds. What
    would leave the bounds stops there; a row that ``valid`` refuses is moved less, and as a last resort stays clean.
    A column's ``direction`` binds an attacker, not an accident: corruptions go both ways.
    """

    kinds: frozenset[Kind] = frozenset({"table"})
    options: type[BaseModel] = Options
    touches: Touches = "numbers"

    def refuses(self, ground: Ground, options: BaseModel) -> str | None:
        """Unknown columns, columns that cannot be changed or are of another type, and what :meth:`unfit` says."""
        from pruneproof.corruptions import _table_edit, _table_sheet

        assert isinstance(options, Options)
        sheet = _table_sheet.of(ground)
        reason = sheet.refuses(options.chosen, self.touches)
        if reason is not None:
            return reason
        return self.unfit(_table_edit.Edit(sheet, ground.reference[:1], options.chosen, self.touches), ground, options)

    def unfit(self, edit: Edit, ground: Ground, options: BaseModel) -> str | None:
        """Why the selected columns do not do; ``None``: they do."""
        return None

    def apply(
        self, clean: torch.Tensor, ground: Ground, severity: float, draws: Draws, options: BaseModel
    ) -> torch.Tensor:
        """Valid rows ``(n, columns)``.

        Raises:
            SubjectError: a function of the table's raised.
        """
        from pruneproof.corruptions import _table_edit, _table_sheet

        assert isinstance(options, Options)
        if severity == 0:
            return clean.clone()
        edit = _table_edit.Edit(_table_sheet.of(ground), clean, options.chosen, self.touches)
        self.edit(edit, ground, severity, draws, options)
        return edit.rows()

    def edit(self, edit: Edit, ground: Ground, severity: float, draws: Draws, options: BaseModel) -> None:
        """Writes into ``edit`` what becomes of the rows."""
        raise NotImplementedError
