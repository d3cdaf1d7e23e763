"""Words and numbers as reports print them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pruneproof.evidence import GateRow, MeasurementRow, SelfCheck, VariantRow
from pruneproof.recipe import Prune
from pruneproof.tables import canonical
from pruneproof.verdicts import GLYPHS, Verdict

WORDS = {verdict: verdict.value.replace("_", " ") for verdict in Verdict}
UNITS = {"element": "weights", "n_of_m": "weights", "channel": "channels", "head": "heads", "block": "blocks"}
"""Granularity → what is removed one by one."""
DENOMINATORS = {"layer_weights": "layer weights", "all_parameters": "parameters", "macs": "MACs"}
"""What a ratio is a share of, where it is no share of units."""
ALWAYS = ("granularity", "criterion", "scope", "denominator")
"""Settings of a recipe that are told even at their default."""

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """``text`` with what XML forbids, or what reorders the text around it, replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)


def mark(verdict: Verdict) -> str:
    """Glyph and word: ``✗ FAIL``."""
    return f"{GLYPHS[verdict]} {WORDS[verdict]}"


def number(value: float | None) -> str:
    """Four decimals below 10, as in a gate's reason; fewer above."""
    if value is None:
        return "no value"
    size = abs(value)
    text = f"{value:,.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 4}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def signed(value: float) -> str:
    """As :func:`number`, with its sign."""
    text = number(value)
    return f"+{text}" if value > 0 and text.strip("0.,") else text


def interval(bounds: tuple[float, float] | None) -> str:
    """``[lower, upper]``, or nothing."""
    return "" if bounds is None else f"[{number(bounds[0])}, {number(bounds[1])}]"


def measured(row: GateRow | MeasurementRow) -> str:
    """Value and interval."""
    return f"{number(row.value)} {interval(row.interval)}".strip()


def level(confidence: float) -> str:
    """Level of the two-sided interval whose ends are one-sided bounds at ``confidence``."""
    return f"{100 * (2 * confidence - 1):g} %"


def percent(share: float | None) -> str:
    """A share in percent, one decimal."""
    return "–" if share is None else f"{100 * share:.1f} %"


def count(value: int | None) -> str:
    """An integer with thousands separators."""
    return "–" if value is None else f"{value:,}"


def stem(row: GateRow) -> str:
    """The gate's id without its member."""
    return row.id.split("[", 1)[0]


def member(segment: dict[str, str] | None) -> str:
    """``column=value``, as the data spell it."""
    return ", ".join(f"{column}={value}" for column, value in (segment or {}).items())


def limit(row: GateRow) -> tuple[str, str]:
    """What the policy demands, in signs, and against what: ``("drop ≤ 0.03", "from dense")``."""
    key, value, other = row.limit.key, f"{row.limit.value:g}", row.comparator or "dense"
    return {
        "min": (f"≥ {value}", ""),
        "max": (f"≤ {value}", ""),
        "max_drop": (f"drop ≤ {value}", f"from {other}"),
        "max_rise": (f"rise ≤ {value}", f"over {other}"),
        "max_ratio": (f"ratio ≤ {value}", f"to {other}"),
        "required": ("required", "of a test"),
    }.get(key, (f"{key} {value}", ""))


def quantity(row: GateRow) -> str:
    """What the limit is about, in words."""
    other = row.comparator or "dense"
    return {
        "max_drop": f"drop of {row.metric} from {other}",
        "max_rise": f"rise of {row.metric} over {other}",
        "max_ratio": f"{row.metric}, ratio to {other}",
    }.get(row.limit.key, row.metric)


def beyond(row: GateRow) -> float:
    """How far the value lies outside the limit, in limits; negative inside; without a value infinitely far."""
    if row.value is None:
        return float("inf")
    over = row.limit.value - row.value if row.limit.key == "min" else row.value - row.limit.value
    return over / (abs(row.limit.value) or 1.0)


def recipe(variant: VariantRow) -> str:
    """Name of the recipe, or of another tool's function, that made the variant; of any other model its own."""
    return variant.name.rsplit("@", 1)[0]


def units(settings: Mapping[str, str] | None) -> str:
    """What a recipe removes one by one: ``weights``, ``channels``, ``heads`` or ``blocks``."""
    return UNITS.get((settings or {}).get("granularity", "element"), "units")


def counted(variant: VariantRow) -> str:
    """What the variant's ratio is a share of: ``channels``, or ``MACs``."""
    settings = variant.recipe or {}
    return DENOMINATORS.get(settings.get("denominator", "units"), units(settings))


def claim(check: SelfCheck) -> str:
    """What the self-check is about, without the remark that it decides nothing: reports say that beside it."""
    return check.claim.removesuffix(" (reported only)")


def settings(told: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a reader has to know of a recipe: :data:`ALWAYS`, and what is not at its default."""
    defaults = {name: _spelled(field.get_default()) for name, field in Prune.model_fields.items()}
    order = [*ALWAYS, *(name for name in [*defaults, *sorted(told)] if name not in ALWAYS)]
    named = [name for name in dict.fromkeys(order) if name in told]
    return [
        (name.replace("_", " "), _plain(told[name]))
        for name in named
        if name in ALWAYS or told[name] != defaults.get(name)
    ]


def _spelled(value: object) -> str:
    """As :func:`pruneproof.recipe.words` writes a setting."""
    return value if isinstance(value, str) else canonical(value)


def _plain(text: str) -> str:
    """A list or a table as people write it; any other text as it is."""
    if not text.startswith(("[", "{")):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {entry}".replace("_", " ") for key, entry in value.items()) + ")"
    return ", ".join(map(str, value))


def plural(n: int, noun: str) -> str:
    """``1 gate``, ``2 gates``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
