"""The default attack on numbers: all variants of an audit together, as strong as PGD of 100 steps and AutoAttack.

What it rests on, each measured (``benchmarks/README.md``): steps along half a cosine reach in 10 what constant ones do
not in 100; a few steps of cross-entropy, then steps on the strongest other class from where they ended, beat either; an
example most of whose way is left after a short climb is not reached by a long one, nor by the rest of a climb that is
far behind, which is checked on a sample; gradients from coarse tiles find what Square does and those from noise do not;
points that fooled one variant are tried on the others before any gradient is spent on them, and on all at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from pruneproof.attacks import Domain
from pruneproof.tables import Record

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena
    from pruneproof.adversarial.pursuit import Leg

STEPS = 20
"""Of the longest climbs, by default."""
SPARSE = 4.0
"""Times the reach in sparse balls: what a climb gains there comes late, as it finds the elements that count."""


class Options(Record):
    """How hard to try."""

    strength: Literal["quick", "standard", "reference"] = "standard"
    """``"quick"``: at least PGD of 100 steps; ``"standard"``: near AutoAttack; ``"reference"``: AutoAttack's own
    stages, at 100 steps as published, after those."""
    steps: int = Field(default=STEPS, ge=1, le=10_000)
    """Of the longest climbs; all the others are in proportion, down to one."""
    restarts: int = Field(default=1, ge=1, le=1000)
    """From how many random points, each the same for every variant."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the gradients; ``"float32"``: the model's own. The model itself confirms every success."""
    channels_last: bool = False
    """Gradients are taken from a copy whose memory holds the channels of a pixel side by side; often faster."""
    checked: float = Field(default=0.05, ge=0, le=1)
    """Share of the examples that are attacked to the end, however far from falling they seem."""


class Audit:
    """Gradient ascent on all variants together."""

    name = "audit"
    options = Options
    domains: frozenset[Domain] = frozenset({"box"})
    norms = frozenset({"Linf", "L2", "L1", "L0"})
    gradients = True

    def refuses(self, shape: tuple[int, ...], classes: int) -> str | None:
        """Nothing: it knows every shape and number of classes."""
        return None

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena.

        Raises:
            MeasurementError: a backward pass raised; the model cannot be copied or run in bfloat16;
                ``strength = "reference"`` on a norm, a shape or classes that AutoAttack's stages do not know.
        """
        from pruneproof.adversarial import reference
        from pruneproof.adversarial.approximate import approximated
        from pruneproof.adversarial.pursuit import Pursuit

        own = Options.model_validate(options.model_dump())
        if own.strength == "reference":
            reference.check(arena)
        sparse = getattr(arena.space, "norm", None) in ("L1", "L0")
        pursuit = Pursuit(arena, legs(own, SPARSE if sparse else 1.0), own.restarts, own.checked)
        with approximated(arena.victims, own.precision, own.channels_last):
            pursuit.run()
        if own.strength == "reference":
            reference.run(arena, max(1, round(100 * own.steps / STEPS)), own.checked)
            pursuit.close()


def legs(own: Options, wider: float = 1.0) -> list[Leg]:
    """The stages of the options' strength; ``wider``: times their usual reach, and so far behind may climbs be."""
    from pruneproof.adversarial.pursuit import Leg

    def steps(count: int) -> int:
        return max(1, round(count * own.steps / STEPS))

    opening = Leg("opening", steps(3), "entropy", "fresh", last=False)
    if own.strength == "quick":
        return [opening, Leg("lead", steps(4), "lead", reach=0.7 * wider)]
    # where FAB-T and Square find more than the others, more climbs from tiles found most of it, at a tenth of the time
    tiles, near = ((1, 1, 2, 1), 0.15) if own.strength == "standard" else ((1, 1, 2, *[1] * 9), 0.3)
    return [
        opening,
        Leg("lead", steps(5), "lead", reach=1.5 * wider, last=False, hope=wider),
        Leg("longer lead", steps(10), "lead", reach=0.4 * wider, hope=wider),
        Leg("targeted", steps(10), (1, 2, 3, 4), "clean", reach=0.2 * wider, hope=wider),
        Leg("tiles", steps(20), tiles, "tiles", reach=near * wider, first=2.0, hope=wider),
        Leg("last lead", steps(20), "lead", reach=0.04 * wider, hope=wider),
    ]


ATTACK = Audit()
