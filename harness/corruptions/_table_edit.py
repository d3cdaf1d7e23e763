"""Changes to the rows of one batch, and the valid rows that they come to."""

from __future__ import annotations

import torch

from pruneproof.adversarial.repair import Proposal
from pruneproof.corruptions._table import Touches
from pruneproof.corruptions._table_sheet import Sheet


class Edit:
    """What becomes of the selected numbers and settings of ``clean (n, columns)``.

    Attributes:
        numbers: ``(a,)`` selected positions among the layout's numbers.
        choices: selected positions among its choices.
        values: ``(n, a)`` float64 their clean values; :attr:`Sheet.typical` ones where there is none.
        picks: ``(n, b)`` the clean settings.
    """

    def __init__(self, sheet: Sheet, clean: torch.Tensor, names: tuple[str, ...] | None, touches: Touches) -> None:
        self.sheet, self.clean, self._selection = sheet, clean, (names, touches)
        numbers, self.choices = sheet.selected(names, touches)
        self.numbers = torch.tensor(numbers, dtype=torch.int64)
        self._filled = sheet.filled(clean)
        self._own = sheet.repairs.own(self._filled)
        self._before = self._filled[:, sheet.layout.numbers].double()
        self.values, self.picks = self._before[:, self.numbers], self._own[:, self.choices]
        self._moves, self._picks = torch.zeros_like(self._before), self._own.clone()
        self._lost = torch.zeros(clean.shape, dtype=torch.bool)

    def of(self, clean: torch.Tensor) -> Edit:
        """The same selection of other rows."""
        return Edit(self.sheet, clean, *self._selection)

    def missing(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(n, a)`` and ``(n, b)`` booleans: selected numbers and settings that the clean rows do not have."""
        layout, blank = self.sheet.layout, self.clean.isnan()
        found = torch.zeros(self.picks.shape, dtype=torch.bool)
        for position, place in enumerate(self.choices):
            found[:, position] = blank[:, layout.choices[place].columns].any(dim=1)
        return blank[:, layout.numbers[self.numbers]], found

    def names(self) -> list[str]:
        """Of the selected numbers."""
        return [self.sheet.layout.names[place] for place in self.sheet.layout.numbers[self.numbers].tolist()]

    def write(self, values: torch.Tensor, where: torch.Tensor) -> None:
        """Asks for ``values (n, a)`` float64 where ``where (n, a)`` or ``(n, 1)``; not finite ones ask for nothing."""
        asked = where & values.isfinite()
        self._moves[:, self.numbers] = torch.where(asked, values - self.values, self._moves[:, self.numbers])

    def choose(self, picks: torch.Tensor, where: torch.Tensor) -> None:
        """Asks for settings ``picks (n, b)`` where ``where (n, b)`` or ``(n, 1)``."""
        self._picks[:, self.choices] = torch.where(where, picks, self._picks[:, self.choices])

    def lose(self, numbers: torch.Tensor, choices: torch.Tensor) -> None:
        """Has NaN stand for selected numbers ``(n, a)`` and settings ``(n, b)``; a sum's total stays as it was."""
        layout = self.sheet.layout
        self._lost[:, layout.numbers[self.numbers]] |= numbers
        for position, place in enumerate(self.choices):
            self._lost[:, layout.choices[place].columns] |= choices[:, position, None]

    def allowed(self, position: int) -> torch.Tensor:
        """``(n, settings)`` booleans: what bounds grant the selected choice at ``position``."""
        return self.sheet.layout.choices[self.choices[position]].allowed(self._filled)

    def rows(self) -> torch.Tensor:
        """``(n, columns)`` valid rows as near to what is asked for as they come; what is as before keeps its bytes."""
        sheet, hidden = self.sheet, self._lost | self.clean.isnan()
        moves = self._moves.masked_fill(hidden[:, sheet.layout.numbers], 0.0)
        picks = self._picks.clone()
        for place, choice in enumerate(sheet.layout.choices):
            unknown = hidden[:, choice.columns].any(dim=1)
            picks[:, place] = torch.where(unknown, self._own[:, place], picks[:, place])
        asked = ((moves != 0).any(dim=1) | (picks != self._own).any(dim=1)).nonzero().flatten()
        whole, changed = self._filled.clone(), self._lost.any(dim=1)
        if len(asked):
            before = self._filled[asked]
            rows = sheet.repairs.settle(Proposal(before, moves[asked], picks[asked]))
            differs = (rows != before)[:, sheet.kept]
            # A cell that nobody sees cannot make up for the others in a sum.
            moved = differs.any(dim=1) & ~(differs & hidden[asked][:, sheet.kept]).any(dim=1)
            whole[asked[moved]] = rows[moved]
            changed[asked[moved]] = True
        found = torch.where(changed[:, None], whole, self.clean)
        if bool(hidden.any()):
            found[hidden] = torch.nan
            self._derive(found, whole, hidden.any(dim=1) & changed)
        return found

    def _derive(self, found: torch.Tensor, whole: torch.Tensor, holed: torch.Tensor) -> None:
        """Leaves out of ``found``, in place, the derived columns that follow from missing cells: those that come out
        otherwise when they are filled, were they swallowed by a comparison."""
        layout = self.sheet.layout
        places = layout.derived
        if not bool(holed.any()) or not len(places):
            return
        without = layout.derive(found[holed], self.clean[holed])[:, places]
        filled = layout.derive(whole[holed], self._filled[holed])[:, places]
        rows = found[holed]
        rows[:, places] = torch.where(without == filled, whole[holed][:, places], torch.nan).detach()
        found[holed] = rows
