"""What a suite has to show beside its numbers: tables, charts, matrices, pictures, as plain data.

A suite fills them from what it observed, every report format draws them; neither knows the other.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Mark = Literal["pass", "fail", "inconclusive"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _finite(value: Any) -> Any:
    """As everywhere in the record, a float that is not finite is ``null``."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spelled(value: Any) -> Any:
    """A truth value as the policy spells it; otherwise it would be shown as a count."""
    return str(value).lower() if isinstance(value, bool) else _finite(value)


Value = Annotated[str | int | float | None, BeforeValidator(_spelled)]
Share = Annotated[Annotated[float, Field(ge=-1, le=1)] | None, BeforeValidator(_finite)]


class Table(_Row):
    """Rows of text and numbers; ``None``: nothing to say there.

    Integers are shown as counts, floats with four decimals; rows that follow each other with the same text in their
    first column are shown as one group. A row has a value for each column.
    """

    kind: Literal["table"] = "table"
    title: str
    about: str = ""
    """One sentence on how to read it."""
    columns: list[str]
    rows: list[list[Value]]
    marks: list[Mark | None] = Field(default_factory=list)
    """For each row a state to colour it by, and to find it by in a long table; empty: no colours."""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        for place, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {place} has {len(row)} values, the table {len(self.columns)} columns")
        if self.marks and len(self.marks) != len(self.rows):
            raise ValueError(f"{len(self.marks)} marks for {len(self.rows)} rows")
        return self


class Band(_Row):
    """One point of a line, with the bounds of its interval where it has one."""

    x: float
    y: float
    lower: float | None = None
    upper: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"the interval [{self.lower}, {self.upper}] is the wrong way round")
        return self


class Line(_Row):
    """A line of a chart; its points are drawn by ``x``."""

    name: str
    points: list[Band]


class Curves(_Row):
    """Lines over one axis; ``limit``: a level that must not be crossed."""

    kind: Literal["curves"] = "curves"
    title: str
    about: str = ""
    x: str
    """What runs along the horizontal axis, with its unit."""
    y: str
    lines: list[Line]
    limit: float | None = None


class Panel(_Row):
    """One of several small charts, its lines told apart by their names; ``limit``: a level not to be crossed in it."""

    title: str
    lines: list[Line]
    limit: float | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [line.name for line in self.lines]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"panel {self.title!r} has two lines named {twice[0]!r}")
        return self


class Multiples(_Row):
    """Small charts beside each other, all with the same axes; a line of one name looks the same in each of them."""

    kind: Literal["multiples"] = "multiples"
    title: str
    about: str = ""
    x: str
    """What runs along the horizontal axes, with its unit."""
    y: str
    panels: list[Panel]


class Matrix(_Row):
    """Numbers by row and column, in [0, 1] or, ``signed``, in [-1, 1], drawn as a heat map with the numbers in it."""

    kind: Literal["matrix"] = "matrix"
    title: str
    about: str = ""
    rows: list[str]
    columns: list[str]
    across: str
    """What the columns are."""
    down: str
    """What the rows are."""
    values: list[list[Share]]
    """By row; ``None``: not measured."""
    signed: bool = False
    """Differences: above 0 is worse, below 0 better; shown with their sign, in two colours that part at 0."""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if [len(row) for row in self.values] != [len(self.columns)] * len(self.rows):
            raise ValueError(f"values are not {len(self.rows)} rows of {len(self.columns)} columns")
        return self

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        least = min((value for row in self.values for value in row if value is not None), default=0.0)
        if least < 0 and not self.signed:
            raise ValueError(f"{least:g} is less than 0, and the matrix is not signed")
        return self


class Picture(_Row):
    """A grey or colour picture.

    Args:
        shape: ``[channels, height, width]``, 1 or 3 channels.
        pixels: base64 of ``channels · height · width`` bytes, channel by channel.
        signed: a difference: 128 is none, 1 and 255 are the largest ones that are shown apart; it is shown in
            two colours, of three channels the one that differs most.
    """

    shape: list[int]
    pixels: str
    signed: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise ValueError(f"shape {self.shape} is not [1 or 3 channels, height, width]")
        try:
            size = len(base64.b64decode(self.pixels, validate=True))
        except binascii.Error as error:
            raise ValueError(f"pixels are not base64: {error}") from None
        if size != math.prod(self.shape):
            raise ValueError(f"{size} bytes of pixels for shape {self.shape}")
        return self


class Shot(_Row):
    """One example in a gallery: pictures, each with its caption, side by side, or a text where it is no picture.

    Captions that no picture is left for are shown as lines of their own.
    """

    title: str
    pictures: list[Picture] = Field(default_factory=list)
    captions: list[str] = Field(default_factory=list)
    text: str = ""


class Gallery(_Row):
    """Examples to look at."""

    kind: Literal["gallery"] = "gallery"
    title: str
    about: str = ""
    shots: list[Shot]


Exhibit = Annotated[Table | Curves | Multiples | Matrix | Gallery, Field(discriminator="kind")]


class Chapter(_Row):
    """Everything that one suite shows.

    Args:
        suite: its name.
        title: of the chapter.
        exhibits: in the order to be read.
    """

    suite: str
    title: str
    exhibits: list[Exhibit]
