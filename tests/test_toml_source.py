"""Which line a key of a TOML file stands on."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Sequence
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneproof.toml_source import line_of

DOCUMENT = """\
# first a comment
title = "x"

[audit]
name = "a" # not here: seed = 1
seed = 3
release = [
    "one",
    # a comment in between

    "two", "three",
    "four"
]
note = '''
seed = 5
[suites]
'''
after = 1

[[prune]]
name = "p"
ratios = [0.5]

[[prune]]
name = "q"
nested = [
    [1, 2],
    [3,
     4],
]
tables = [
    { name = "a" },
    { name = "b", ratios = [
        0.1,
        0.2,
    ] },
]

[suites.accuracy.gates]
accuracy = { min = 0.9, max_drop = 0.01 }
recall.min = 0.5
recall.max_drop = 0.1
"quoted.key" = 1
"tab\\tkey" = 2
[ suites . segments ]
by = ["x"]
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["title"], 2),
        (["audit"], 4),
        (["audit", "name"], 5),
        (["audit", "seed"], 6),
        (["audit", "release"], 7),
        (["audit", "release", 0], 8),
        (["audit", "release", 1], 11),
        (["audit", "release", 2], 11),
        (["audit", "release", 3], 12),
        (["audit", "note"], 14),
        (["audit", "after"], 18),
        (["prune"], 20),
        (["prune", 0], 20),
        (["prune", 0, "name"], 21),
        (["prune", 0, "ratios", 0], 22),
        (["prune", 1], 24),
        (["prune", 1, "name"], 25),
        (["prune", 1, "nested"], 26),
        (["prune", 1, "nested", 0, 1], 27),
        (["prune", 1, "nested", 1, 0], 28),
        (["prune", 1, "nested", 1, 1], 29),
        (["prune", 1, "tables", 0, "name"], 32),
        (["prune", 1, "tables", 1, "name"], 33),
        (["prune", 1, "tables", 1, "ratios", 1], 35),
        (["suites"], 39),
        (["suites", "accuracy", "gates"], 39),
        (["suites", "accuracy", "gates", "accuracy", "max_drop"], 40),
        (["suites", "accuracy", "gates", "recall"], 41),
        (["suites", "accuracy", "gates", "recall", "max_drop"], 42),
        (["suites", "accuracy", "gates", "quoted.key"], 43),
        (["suites", "accuracy", "gates", "tab\tkey"], 44),
        (["suites", "segments"], 45),
        (["suites", "segments", "by", 0], 46),
    ],
)
def test_a_key_is_found_on_its_own_line(path: Sequence[str | int], line: int, newline: str) -> None:
    assert line_of(DOCUMENT.replace("\n", newline), path) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (["audit", "confidence"], 4),
        (["prune", 1, "criterion"], 24),
        (["prune", 0, "ratios", 7], 22),
        (["suites", "accuracy", "gates", "accuracy", "max"], 40),
        (["suites", "latency", "gates"], 39),
        (["subject"], None),
        ([], None),
    ],
)
def test_a_key_that_is_not_there_is_looked_for_at_its_nearest_parent(
    path: Sequence[str | int], line: int | None
) -> None:
    assert line_of(DOCUMENT, path) == line


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\u2029"])
def test_a_separator_that_ends_no_line_in_toml_is_not_counted(separator: str) -> None:
    assert line_of(f"# a{separator}b\nx = '{separator}'\ny = 1\n", ["y"]) == 3


def test_a_document_without_a_final_newline_is_searched_to_its_end() -> None:
    assert line_of("x = 1\ny = 2", ["y"]) == 2


def test_a_file_of_thousands_of_lines_is_searched_fast() -> None:
    text = "".join(f"[table{number}]\nkey = {number}\n" for number in range(1500)) + "[last]\nwrong = 1\n"
    started = time.perf_counter()
    assert line_of(text, ["last", "wrong"]) == 3002
    assert line_of(text, ["table700", "key", "missing"]) == 1402
    assert time.perf_counter() - started < 15  # a parse for each line would take a minute


scalars = st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=5), st.dates())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, entry in inner for leaf in leaves(entry, (*path, key)))]


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), values, max_size=4), st.data())
def test_everything_up_to_the_line_before_a_key_lacks_it_and_the_line_belongs_to_it(
    table: dict[str, Any], data: st.DataObject
) -> None:
    text = tomli_w.dumps(table)
    paths = leaves(table)[1:]
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    line = line_of(text, path)
    assert line is not None
    before = "\n".join(text.split("\n")[: line - 1])
    assert not any(holds(before + closing, path) for closing in ("", "\n]", "\n]]", "\n]]]"))


def holds(text: str, path: tuple[str | int, ...]) -> bool:
    try:
        here: Any = tomllib.loads(text)
        for key in path:
            here = here[key]
    except (tomllib.TOMLDecodeError, LookupError):
        return False
    return True
