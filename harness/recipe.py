"""A recipe, ``[[prune]]`` in the policy: how to prune, and how to train in between."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pruneproof import registry
from pruneproof.tables import Name, Ratio, Record, Text, canonical, one_of


class Recovery(Record):
    """``recovery`` of a ``[[prune]]``: the fine-tuning loop for subjects without a function of their own."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 5
    """At most; of each fine-tuning between two steps of the schedule."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-4
    batch_size: Annotated[int, Field(ge=1)] = 32
    patience: Annotated[int, Field(ge=1)] = 2
    """Epochs without a better loss on the held-out tenth of the training set after which it stops."""
    distill: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the loss that follows the dense model's outputs instead of the targets."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    """Of the distillation's softmax."""
    lora_rank: Annotated[int, Field(ge=1)] | None = None
    """Train low-rank adapters of this rank and merge them, instead of every weight; needs peft."""


class Prune(Record):
    """``[[prune]]``: one recipe, at several ratios."""

    name: Name
    ratios: Annotated[tuple[Ratio, ...], Field(strict=False, min_length=1)]
    granularity: Literal["element", "n_of_m", "channel", "head", "block"] = "element"
    criterion: Text = "magnitude"
    scope: Literal["global", "layer", "row"] = "global"
    """Over what the units are ranked: everything, each layer, each row of a layer's weights (one output)."""
    denominator: Literal["units", "layer_weights", "all_parameters", "macs"] = "units"
    """What the ratio is a share of."""
    keep_n: Annotated[int, Field(ge=1)] | None = None
    of_m: Annotated[int, Field(ge=2, le=256)] | None = None
    exclude: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Layers that stay whole, by name; ``*`` stands for anything."""
    layer_floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of its units that every layer keeps; of channels, heads and blocks one stays in any case."""
    schedule: Literal["one_shot", "linear", "cubic"] = "one_shot"
    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    fine_tune: bool = False
    """Train after every step: by the subject's ``fine_tune``, or as ``recovery`` says."""
    rewind: Literal["dense", "initial"] | None = None
    """Before each fine-tuning what stays goes back to the dense model's weights, or to the subject's ``initial``."""
    recovery: Recovery | None = None
    samples: Annotated[int, Field(ge=1)] = 256
    """Calibration examples that the criterion looks at: the first ones."""
    graph_timeout_s: Annotated[float, Field(gt=0, le=1e6)] = 60.0
    """Seconds that finding out which channels hang together may take."""

    @field_validator("criterion")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of(value, registry.names("pruneproof.criteria"), "criterion")

    @field_validator("ratios")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("expected distinct ratios")
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Prune:
        for wrong, problem in _contradictions(self):
            if wrong:
                raise ValueError(problem)
        return self


def _contradictions(recipe: Prune) -> Iterator[tuple[bool, str]]:
    pattern = recipe.granularity == "n_of_m"
    given = recipe.keep_n is not None, recipe.of_m is not None
    yield pattern and not all(given), "expected keep_n and of_m with granularity 'n_of_m'"
    yield not pattern and any(given), "expected granularity 'n_of_m' with keep_n and of_m"
    if pattern and recipe.keep_n is not None and recipe.of_m is not None:
        yield recipe.keep_n >= recipe.of_m, f"expected keep_n < of_m, got {recipe.keep_n} of {recipe.of_m}"
        share = Fraction(recipe.of_m - recipe.keep_n, recipe.of_m)
        exact = len(recipe.ratios) == 1 and recipe.ratios[0] == float(share)
        yield not exact, f"expected ratios = [{float(share)!r}]: {recipe.keep_n} of {recipe.of_m} stay, whatever else"
        yield recipe.scope != "global", "expected no scope: an n_of_m pattern ranks within each group of of_m weights"
        yield recipe.denominator != "units", "expected no denominator: an n_of_m pattern fixes what it removes"
        yield recipe.layer_floor > 0, "expected no layer_floor: an n_of_m pattern fixes what a layer keeps"
        yield recipe.steps > 1, "expected steps = 1: an n_of_m pattern has nothing between none and all"
    elif recipe.scope == "row":
        yield recipe.granularity != "element", "expected granularity 'element' with scope 'row'"
        yield recipe.denominator != "units", "expected no denominator: scope 'row' takes the ratio in every row"
    zeroed = recipe.granularity in ("element", "n_of_m")
    yield zeroed and recipe.denominator == "macs", "expected another denominator: zeroed weights save no MACs"
    yield (
        recipe.schedule == "one_shot" and recipe.steps > 1,
        f"expected schedule 'linear' or 'cubic' with steps = {recipe.steps}",
    )
    yield (
        recipe.schedule != "one_shot" and recipe.steps == 1 and not pattern,
        f"expected steps above 1 with schedule '{recipe.schedule}'",
    )
    yield recipe.rewind is not None and not recipe.fine_tune, "expected fine_tune = true with rewind"
    yield recipe.recovery is not None and not recipe.fine_tune, "expected fine_tune = true with recovery"
    yield (
        recipe.criterion == "movement" and not recipe.fine_tune,
        "expected fine_tune = true: movement is what weights do while they are trained",
    )
    adapters = recipe.recovery is not None and recipe.recovery.lora_rank is not None
    yield (
        recipe.criterion == "movement" and adapters,
        "expected no lora_rank: adapters leave the weights themselves where they are, and movement is theirs",
    )
    yield (
        zeroed and adapters,
        "expected no lora_rank: merged adapters would fill in the single weights that were zeroed",
    )


def words(recipe: Prune) -> dict[str, str]:
    """Every setting of a recipe but its name and ratios, spelled; those that are not given are left out."""
    table = recipe.model_dump(exclude_none=True, exclude={"name", "ratios"})
    return {key: value if isinstance(value, str) else canonical(value) for key, value in table.items()}
