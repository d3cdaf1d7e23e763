"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import datetime
import string
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from pruneproof import policy as policies
from pruneproof.suite import Metric

NAME = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=8)
REFERENCE = st.sampled_from(["m:f", "bank.models:subject", "a_b.c:d.e"])
TEXT = st.text(min_size=1, max_size=12)
WORDS = TEXT.filter(lambda text: bool(text.strip()))
"""What a person has to give: more than white space."""
LIMIT = {
    "min": st.floats(0, 1, exclude_min=True),
    "max": st.floats(0, 1, exclude_max=True),
    "max_drop": st.floats(-1, 1, exclude_max=True),
    "max_rise": st.floats(-1, 1, exclude_max=True),
    "max_ratio": st.floats(0.001, 10),
}

odd_values = st.sampled_from(
    [
        *(True, False, 0, 1, -1, 2, 50, 10**30, 10**400, -(2**63) - 1),
        *(0.0, -0.0, 0.5, 1.0, 1.5, -0.1, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
        *("", " ", "0.5", "dense", "previous", "m:f", "a b", "\n", "\x1b[31m", "é", "x" * 3000, "x.safetensors"),
        *([], [[]], [0.5], [0.5, 0.5], [True], ["a", "a"], [{}], [0.5, "a"], {}, {"": 1}, {"a": {"b": []}}),
        *(datetime.date(2027, 1, 31), datetime.datetime(2027, 1, 31, 12), datetime.time(12, 30)),
    ]
)
"""What somebody might write where something else belongs."""

toml_values = st.recursive(
    odd_values | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def limits(draw: st.DrawFn, metric: Metric, previous: bool, must_gate: bool) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(metric.limits), min_size=1, unique=True))
    table: dict[str, Any] = {}
    for key in keys:
        if metric.unit == "share" or key == "max_ratio":
            table[key] = draw(LIMIT[key])
        else:
            table[key] = draw(st.floats(-1e6, 1e6))
    table |= draw(
        st.fixed_dictionaries(
            {}, optional={"rationale": TEXT, "confidence": st.floats(0.51, 0.999), "comparator": st.just("dense")}
        )
    )
    if previous and draw(st.booleans()):
        table["comparator"] = "previous"
    if not must_gate and draw(st.booleans()):
        table["up_to"] = draw(st.floats(0.01, 0.99))
    return table


@st.composite
def policy_tables(draw: st.DrawFn) -> dict[str, Any]:
    """A valid policy as the table of its TOML file."""
    names = iter(
        draw(st.lists(NAME.filter(lambda name: name not in policies.RESERVED), min_size=4, max_size=4, unique=True))
    )
    table: dict[str, Any] = {"audit": draw(_audits()), "subject": {"load": draw(REFERENCE)}}
    recipes = [draw(_recipes(next(names))) for _ in range(draw(st.integers(0, 2)))]
    imported = [draw(_imported(next(names))) for _ in range(draw(st.integers(0 if recipes else 1, 2)))]
    if recipes:
        table["prune"] = recipes
    if imported:
        table["variant"] = imported
    every = [*(f"{recipe['name']}@{ratio!r}" for recipe in recipes for ratio in recipe["ratios"])]
    every += [
        entry["name"] if ratio is None else f"{entry['name']}@{ratio!r}"
        for entry in imported
        for ratio in entry.get("ratios", (None,))
    ]
    if draw(st.booleans()):
        table["audit"]["release"] = draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    previous = draw(st.none() | REFERENCE | st.just("old.safetensors"))
    if previous:
        table["comparators"] = {"previous": previous}
    if recipes and draw(st.booleans()):
        ratio = st.floats(0, 1, exclude_min=True, exclude_max=True)
        table["sensitivity"] = {
            "recipe": draw(st.sampled_from(recipes))["name"],
            "ratios": sorted(draw(st.lists(ratio, min_size=1, max_size=3, unique=True))),
        }
    table["suites"] = draw(_suites(bool(previous)))
    waivers = draw(_waivers(table["suites"], every))
    if waivers:
        table["waivers"] = waivers
    if draw(st.booleans()):
        table["tests"] = {"required": draw(st.lists(NAME, max_size=2))}
    return table


def _audits() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"name": NAME.filter(lambda name: name not in (".", ".."))},
        optional={
            "seed": st.integers(0, 2**63 - 1),
            "confidence": st.floats(0.51, 0.999),
            "inconclusive": st.sampled_from(["fail", "warn"]),
            "timeout_s": st.floats(0.1, 1e4) | st.integers(1, 1000),
            "threads": st.integers(1, 1024),
            "resamples": st.integers(200, 1_000_000),
        },
    )


@st.composite
def _recipes(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A recipe whose settings agree with each other."""
    granularity = draw(st.sampled_from(["element", "n_of_m", "channel", "head", "block"]))
    table: dict[str, Any] = {"name": name, "granularity": granularity}
    zeroed = granularity in ("element", "n_of_m")
    if granularity == "n_of_m":
        of_m = draw(st.integers(2, 16))
        keep_n = draw(st.integers(1, of_m - 1))
        table |= {"ratios": [(of_m - keep_n) / of_m], "keep_n": keep_n, "of_m": of_m}
    else:
        ratio = st.floats(0, 1, exclude_min=True, exclude_max=True)
        table["ratios"] = draw(st.lists(ratio, min_size=1, max_size=3, unique=True))
        table |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "scope": st.sampled_from(["global", "layer", *(["row"] if zeroed else [])]),
                    "denominator": st.sampled_from(
                        ["units", "layer_weights", "all_parameters", *([] if zeroed else ["macs"])]
                    ),
                    "layer_floor": st.floats(0, 1, exclude_max=True),
                },
            )
        )
    if table.get("scope") == "row":
        table.pop("denominator", None)
    table |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "criterion": st.sampled_from(["magnitude", "random", "taylor_abs"]),
                "exclude": st.lists(TEXT, max_size=2),
                "samples": st.integers(1, 1000),
                "graph_timeout_s": st.floats(0.1, 1000) | st.integers(1, 100),
            },
        )
    )
    if granularity != "n_of_m" and draw(st.booleans()):
        table |= {"schedule": draw(st.sampled_from(["linear", "cubic"])), "steps": draw(st.integers(2, 10))}
    if draw(st.booleans()):
        table["fine_tune"] = draw(st.booleans())
    if table.get("fine_tune") and draw(st.booleans()):
        table["rewind"] = draw(st.sampled_from(["dense", "initial"]))
    if table.get("fine_tune") and draw(st.booleans()):
        table["recovery"] = draw(_recoveries(adapters=not zeroed))
    return table


def _recoveries(adapters: bool) -> st.SearchStrategy[dict[str, Any]]:
    optional: dict[str, st.SearchStrategy[Any]] = {
        "epochs": st.integers(1, 10),
        "learning_rate": st.floats(1e-6, 1),
        "batch_size": st.integers(1, 100),
        "patience": st.integers(1, 5),
        "distill": st.floats(0, 1),
        "temperature": st.floats(0.1, 10),
    }
    if adapters:
        optional["lora_rank"] = st.integers(1, 64)
    return st.fixed_dictionaries({}, optional=optional)


@st.composite
def _imported(draw: st.DrawFn, name: str) -> dict[str, Any]:
    source = draw(st.sampled_from(["load", "prune", "checkpoint"]))
    table: dict[str, Any] = {"name": name}
    if source == "checkpoint":
        file = draw(st.sampled_from(["a.safetensors", "b/c.pt", "d.pth", "e.bin", "f.onnx", "g.pt2"]))
        table["checkpoint"] = file
        if not file.endswith((".safetensors", ".onnx")) and draw(st.booleans()):
            table["unpickle"] = draw(st.booleans())
        if draw(st.booleans()):
            table["sha256"] = draw(st.text("0123456789abcdef", min_size=64, max_size=64))
    else:
        table[source] = draw(REFERENCE)
    if source == "prune":
        ratio = st.floats(0, 1, exclude_min=True, exclude_max=True)
        table["ratios"] = draw(st.lists(ratio, min_size=1, max_size=2, unique=True))
    elif draw(st.booleans()):
        table["claimed_ratio"] = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
    if (source == "prune" or "claimed_ratio" in table) and draw(st.booleans()):
        table["claimed_of"] = draw(st.sampled_from(["layer_weights", "all_parameters", "macs"]))
    return table


@st.composite
def _suites(draw: st.DrawFn, previous: bool) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name in draw(
        st.sampled_from([("accuracy",), ("accuracy", "segments"), ("segments", "accuracy"), ("segments",)])
    ):
        metrics = draw(st.lists(st.sampled_from(policies.suite(name).metrics), min_size=1, max_size=3, unique=True))
        gates = {
            metric.name: draw(limits(metric, previous, must_gate=not table and not position))
            for position, metric in enumerate(metrics)
        }
        table[name] = {"gates": gates}
    if "segments" in table:
        table["segments"] |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "by": st.lists(TEXT.filter(lambda column: column != "by"), min_size=1, max_size=3, unique=True),
                    "min_n": st.integers(1, 1000),
                    "small": st.sampled_from(["inconclusive", "pool"]),
                },
            )
        )
    return table


@st.composite
def _waivers(draw: st.DrawFn, suites: dict[str, Any], every: list[str]) -> list[dict[str, Any]]:
    gates = list(_gates(suites))
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from(gates), st.sampled_from(every)),
            max_size=2,
            unique_by=lambda pair: (pair[0], pair[1]),
        )
    )
    return [
        {
            "gate": gate,
            "variant": variant,
            "observed_max": draw(st.floats(-1, 1, exclude_min=True, exclude_max=True)),
            "reason": draw(WORDS),
            "approved_by": draw(WORDS),
            "expires": draw(st.dates()),
        }
        for gate, variant in pairs
    ]


def _gates(suites: dict[str, Any]) -> Iterator[str]:
    for name, entry in suites.items():
        family = {metric.name: metric.family for metric in policies.suite(name).metrics}
        for metric, table in entry["gates"].items():
            for key in table:
                if key in policies.LIMIT_KEYS:
                    yield f"{name}/{metric}:{key}" + ("[a=b]" if family[metric] else "")
