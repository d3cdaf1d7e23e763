"""The test set cut by time: named windows with what came before and after them, and periods of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pruneproof.errors import SubjectError
from pruneproof.shift.naming import after, before, moment
from pruneproof.subject import Data

Period = Literal["day", "week", "month", "quarter", "year"]
_FREQUENCIES: dict[Period, str] = {"day": "D", "week": "W", "month": "M", "quarter": "Q", "year": "Y"}
MOST_PERIODS = 400


def times(data: Data, column: str) -> pd.Series[Any]:
    """``(n,)`` the time of each example, from a column of the segments; times with an offset in UTC.

    Raises:
        SubjectError: there is no such column, or some of it is no time.
    """
    if data.segments is None or column not in data.segments.columns:
        have = "nothing" if data.segments is None else ", ".join(map(str, data.segments.columns))
        raise SubjectError(f"no segment column '{column}' to tell the time by", f"the data have: {have}")
    given = data.segments[column].reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(given) or pd.api.types.is_bool_dtype(given):
        raise SubjectError(f"column '{column}' holds numbers, not times", "give dates, timestamps or ISO 8601 texts")
    # Of texts, ISO 8601 alone: whether 03/02/2026 is in February or in March is not to be guessed.
    known = pd.api.types.is_datetime64_any_dtype(given)
    found = pd.to_datetime(given, errors="coerce", utc=True, format=None if known else "ISO8601")
    bad = np.flatnonzero(found.isna())
    if len(bad):
        raise SubjectError(
            f"column '{column}': {given[bad[0]]!r} of example {bad[0]} is no time",
            "give dates, timestamps or ISO 8601 texts, and none missing",
        )
    return found.dt.tz_localize(None)


def cut(when: pd.Series[Any], windows: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each part by name, and which examples are in it; a window holds its start and not its end."""
    for name, (start, end) in windows.items():
        early = np.asarray(when < moment(start), dtype=bool) if start else np.zeros(len(when), dtype=bool)
        late = np.asarray(when >= moment(end), dtype=bool) if end else np.zeros(len(when), dtype=bool)
        if start:
            yield before(name), early
        yield name, ~early & ~late
        if end:
            yield after(name), late


def periods(when: pd.Series[Any], period: Period) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the periods in the order of time, and ``(n,)`` the period of each example.

    Raises:
        SubjectError: there are more than :data:`MOST_PERIODS`.
    """
    spelled = when.dt.to_period(_FREQUENCIES[period])
    codes, found = pd.factorize(spelled, sort=True)
    if len(found) > MOST_PERIODS:
        raise SubjectError(f"the test set spans {len(found)} periods of a {period}", "choose a longer period")
    starts = [one.start_time for one in found]
    shown = {
        "day": "%Y-%m-%d",
        "week": "week of %Y-%m-%d",
        "month": "%Y-%m",
        "quarter": "%Y-Q",
        "year": "%Y",
    }[period]
    labels = [start.strftime(shown) + (str(start.quarter) if period == "quarter" else "") for start in starts]
    return labels, np.asarray(codes, dtype=np.int64)
