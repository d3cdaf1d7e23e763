"""The test set cut by time: windows, what lies around them, and periods."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shifted_models import audited, gate, row, value

from pruneproof.errors import SubjectError
from pruneproof.shift import windows
from pruneproof.subject import Data

TIMES = st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2030, 1, 1))


def data(times: Any, column: str = "when") -> Data:
    return Data(torch.zeros(len(times), 1), segments=pd.DataFrame({column: times}))


def read(times: Any) -> list[str]:
    return [str(one) for one in windows.times(data(times), "when")]


EXPECTED = ["2026-01-31 00:00:00", "2026-02-01 12:30:00"]


@pytest.mark.parametrize(
    "times",
    [
        ["2026-01-31", "2026-02-01 12:30"],
        ["2026-01-31", "2026-02-01T12:30:00"],
        pd.Series(["2026-01-31", "2026-02-01T12:30:00"], dtype="str"),
        pd.Series(["2026-01-31", "2026-02-01T12:30:00"], dtype="object"),
        pd.Series(["2026-01-31", "2026-02-01T12:30:00"], dtype="category"),
        ["2026-01-31T02:00:00+02:00", "2026-02-01T12:30:00Z"],
        [datetime.datetime(2026, 1, 31), datetime.datetime(2026, 2, 1, 12, 30)],
        pd.DatetimeIndex(["2026-01-31 00:00", "2026-02-01 12:30"]),
        pd.DatetimeIndex(["2026-01-31 01:00", "2026-02-01 13:30"]).tz_localize("Europe/Berlin"),
        pd.Series([datetime.date(2026, 1, 31), datetime.datetime(2026, 2, 1, 12, 30)], dtype="object"),
    ],
    ids=["dates and times", "iso", "str", "object", "category", "offsets", "datetimes", "timestamps", "zone", "date"],
)
def test_times_may_be_spelled_in_every_usual_way(times: Any) -> None:
    assert read(times) == EXPECTED


@pytest.mark.parametrize(
    ("times", "cause"),
    [
        (["2026-01-31", "soon"], "column 'when': 'soon' of example 1 is no time"),
        (["2026-01-31", None], "of example 1 is no time"),
        (["2026-01-31", "03/02/2026"], "'03/02/2026' of example 1 is no time"),
        (["2026-02-30", "2026-01-31"], "'2026-02-30' of example 0 is no time"),
        ([20260131, 20260201], "column 'when' holds numbers, not times"),
        ([True, False], "column 'when' holds numbers, not times"),
    ],
)
def test_what_is_no_time_is_named_with_the_first_example_that_has_it(times: Any, cause: str) -> None:
    with pytest.raises(SubjectError) as caught:
        windows.times(data(times), "when")
    assert cause in caught.value.cause
    assert "ISO 8601" in caught.value.remedy


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(SubjectError, match="no segment column 'when'") as caught:
        windows.times(data(["2026-01-01"], "date"), "when")
    assert "date" in caught.value.remedy
    with pytest.raises(SubjectError, match="no segment column 'when'"):
        windows.times(Data(torch.zeros(1, 1)), "when")


@given(st.lists(TIMES, min_size=1, max_size=40), TIMES, TIMES)
def test_a_window_and_what_lies_before_and_after_it_hold_every_example_once(
    times: list[datetime.datetime], one: datetime.datetime, other: datetime.datetime
) -> None:
    start, end = sorted((one, other))
    when = windows.times(data(times), "when")
    parts = dict(windows.cut(when, {"w": (start.isoformat(), end.isoformat())}))
    assert list(parts) == ["before w", "w", "after w"]
    for place, time in enumerate(times):
        expected = "before w" if time < start else "w" if time < end else "after w"
        assert [name for name, inside in parts.items() if inside[place]] == [expected]


def test_a_window_holds_its_start_and_not_its_end() -> None:
    when = windows.times(data(["2026-01-31 23:59:59", "2026-02-01", "2026-02-28 23:59:59", "2026-03-01"]), "when")
    parts = dict(windows.cut(when, {"february": ("2026-02-01", "2026-03-01")}))
    assert parts["february"].tolist() == [False, True, True, False]


def test_a_window_with_an_offset_is_the_same_moment_in_utc() -> None:
    when = windows.times(data(["2026-02-01 03:59", "2026-02-01 04:00"]), "when")
    parts = dict(windows.cut(when, {"w": ("2026-02-01T06:00+02:00", "2026-02-02")}))
    assert parts["w"].tolist() == [False, True]


def key(period: str, time: datetime.datetime) -> tuple[int, ...]:
    """What the calendar calls a period."""
    return {
        "day": (time.year, time.month, time.day),
        "week": tuple(time.isocalendar())[:2],
        "month": (time.year, time.month),
        "quarter": (time.year, (time.month + 2) // 3),
        "year": (time.year,),
    }[period]


@given(st.lists(TIMES, min_size=1, max_size=40), st.sampled_from(["day", "week", "month", "quarter", "year"]))
@settings(deadline=None)
def test_periods_are_those_of_the_calendar_in_the_order_of_time(
    times: list[datetime.datetime], period: windows.Period
) -> None:
    names, codes = windows.periods(windows.times(data(times), "when"), period)
    keys = [key(period, time) for time in times]
    assert len(set(names)) == len(names) == len(set(keys))
    ordered = sorted(set(keys))
    assert [ordered[code] for code in codes] == keys


def test_periods_are_called_what_people_call_them() -> None:
    when = windows.times(data(["2026-05-14 10:00", "2026-12-31"]), "when")
    assert windows.periods(when, "day")[0] == ["2026-05-14", "2026-12-31"]
    assert windows.periods(when, "week")[0] == ["week of 2026-05-11", "week of 2026-12-28"]
    assert windows.periods(when, "month")[0] == ["2026-05", "2026-12"]
    assert windows.periods(when, "quarter")[0] == ["2026-Q2", "2026-Q4"]
    assert windows.periods(when, "year")[0] == ["2026"]


def test_more_periods_than_anybody_reads_are_refused() -> None:
    when = windows.times(data(pd.date_range("2020-01-01", periods=500)), "when")
    with pytest.raises(SubjectError, match="500 periods of a day"):
        windows.periods(when, "day")


VOLATILE = """

def volatile():
    \"\"\"In a storm of ten days the third number swings: a model that looks at it sees fraud that is none.\"\"\"
    found = data(4000, 1)
    hours = pd.date_range("2026-01-01", periods=4000, freq="h")
    storm = torch.tensor(((hours >= "2026-03-01") & (hours < "2026-03-31")).copy())
    found.inputs[storm, 2] = 3.5
    frame = pd.DataFrame({"when": hours})
    return subject(test=pruneproof.Data(found.inputs, found.targets, segments=frame), shifted={}, batch_size=512)


def nervous():
    return Net(2.0, 1.0, 0.9, 0.0)
"""
STORM = """
[suites.shift]
by_time = "when"
windows = { storm = ["2026-03-01", "2026-03-31"] }
[suites.shift.gates]
fpr_rise = { max = 0.15, max_rise = 0.05 }
"""


def test_a_volatile_time_in_which_false_alarms_rise_fails_and_only_for_the_variant_that_pruning_made_worse(
    tmp_path: Path,
) -> None:
    found = audited(tmp_path, STORM, variants=("nervous", "steady"), load="volatile", further=VOLATILE + STEADY)
    assert gate(found, "nervous", "fpr_rise:max[shift=storm]").verdict == "FAIL"
    assert gate(found, "nervous", "fpr_rise:max_rise[shift=storm]").verdict == "FAIL"
    assert gate(found, "nervous", "fpr_rise:max[shift=after storm]").verdict == "PASS"
    assert gate(found, "steady", "fpr_rise:max[shift=storm]").verdict == "PASS"
    assert gate(found, "steady", "fpr_rise:max_rise[shift=storm]").verdict == "PASS"
    rise = gate(found, "nervous", "fpr_rise:max_rise[shift=storm]").value
    own, of_dense = (value(found, name, "fpr_rise", {"shift": "storm"}) for name in ("nervous", "dense"))
    assert rise == pytest.approx(own - of_dense)


STEADY = """

def steady():
    return Net(2.0, 0.9, 0.0, 0.0)
"""


def test_a_window_that_starts_with_the_data_is_held_against_what_came_after(tmp_path: Path) -> None:
    suite = """
    [suites.shift]
    by_time = "when"
    windows = { first = ["", "2026-02-01"] }
    [suites.shift.gates]
    accuracy = { min = 0.5 }
    accuracy_drop = { max = 0.5 }
    """
    found = audited(tmp_path, suite)
    shifts = {one.id.partition("shift=")[2] for one in found.gates if one.variant == "weaker"}
    assert {"first]", "after first]"} <= shifts
    assert "before first]" not in shifts
    first, later = (row(found, "weaker", "accuracy", {"shift": name}) for name in ("first", "after first"))
    assert (first.n, later.n) == (124, 400 - 124)
    assert row(found, "weaker", "accuracy_drop", {"shift": "first"}).value == pytest.approx(later.value - first.value)
    assert gate(found, "weaker", "accuracy_drop:max[shift=first]").verdict == "PASS"


def test_a_window_with_nothing_before_it_is_refused_with_what_to_write(tmp_path: Path) -> None:
    suite = """
    [suites.shift]
    by_time = "when"
    windows = { first = ["2025-12-01", "2026-02-01"] }
    [suites.shift.gates]
    accuracy = { min = 0.5 }
    """
    found = audited(tmp_path, suite)
    assert found.subject.error is not None
    assert "'before first' holds no test example" in found.subject.error
    assert '"" for a window' in found.subject.error


def test_parts_smaller_than_min_n_are_shown_and_are_no_basis_for_a_verdict(tmp_path: Path) -> None:
    suite = """
    [suites.shift]
    by_time = "when"
    windows = { short = ["2026-02-01", "2026-02-06"] }
    min_n = 30
    [suites.shift.gates]
    accuracy = { min = 0.01 }
    accuracy_drop = { max = 0.99 }
    """
    found = audited(tmp_path, suite)
    for name in ("accuracy:min", "accuracy_drop:max"):
        short = gate(found, "weaker", f"{name}[shift=short]")
        assert short.verdict == "INCONCLUSIVE"
        assert "min_n" in short.reason
    assert row(found, "weaker", "accuracy", {"shift": "short"}).value is not None
    assert gate(found, "weaker", "accuracy:min[shift=before short]").verdict == "PASS"


def test_windows_may_overlap_and_each_is_held_against_its_own_before(tmp_path: Path) -> None:
    suite = """
    [suites.shift]
    by_time = "when"
    windows = { a = ["2026-01-20", "2026-03-01"], b = ["2026-02-10", "2026-03-20"] }
    [suites.shift.gates]
    accuracy_drop = { max = 0.9 }
    """
    found = audited(tmp_path, suite)
    right = {
        shift: value(found, "weaker", "accuracy", {"shift": shift}) for shift in ("before a", "a", "before b", "b")
    }
    for name in ("a", "b"):
        drop = value(found, "weaker", "accuracy_drop", {"shift": name})
        assert drop == pytest.approx(right[f"before {name}"] - right[name])
    sizes = {shift: row(found, "weaker", "accuracy", {"shift": shift}).n for shift in right}
    days = {"before a": 19, "a": 40, "before b": 40, "b": 38}
    assert sizes == {name: 4 * count for name, count in days.items()}
    assert np.isfinite(list(right.values())).all()
