"""The attack classes of torchattacks, by name, made fit for an audit.

They are run as published, with what an audit needs around them: the threat model in the units of the data, private
random numbers, a model that is left as it was, and points that the arena confirms. Nothing is shared between variants.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field, create_model

from pruneproof.adversarial import shapes, signatures
from pruneproof.attacks import Domain
from pruneproof.errors import MeasurementError
from pruneproof.tables import Record, offer

if TYPE_CHECKING:
    from pruneproof.adversarial.arena import Arena

UNAVAILABLE = {
    "MultiAttack": "it takes attacks that were made in Python; list several attacks in the policy instead",
    "LGV": "it trains the model on a data loader, which a policy cannot give",
}
"""Classes that need what a policy cannot give."""
BLIND = frozenset({"VANILA", "GN", "SPSA", "OnePixel", "Pixle", "Square"})
"""Without gradients of the model."""
EUCLIDEAN = frozenset({"PGDL2", "PGDRSL2"})
"""Of those with an ``eps`` and no ``norm``; the others mean the largest change of an element."""
REALS = frozenset({"c", "kappa", "lam", "nsig", "scale"})
"""Have a whole number as default, and mean any."""
POSITIVE = frozenset({"alpha", "delta", "lr", "noise_sd", "std"})
"""Reals that make no sense at or below 0."""
CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("APGD", "loss"): ("ce", "dlr"),
    ("AutoAttack", "version"): ("standard", "plus", "rand"),
    ("PGDRS", "noise_type"): ("guassian", "uniform"),
    ("PGDRSL2", "noise_type"): ("guassian", "uniform"),
    ("Pixle", "pixel_mapping"): ("random", "similarity", "similarity_random", "distance", "distance_random"),
    ("Square", "loss"): ("margin", "ce"),
    ("TIFGSM", "kernel_name"): ("gaussian", "linear", "uniform"),
    ("UPGD", "loss"): ("ce", "margin", "dlr"),
}
"""Compared by the class with these words alone; ``guassian`` is its own spelling."""
SUITE = {
    "eps": "eps and norm are the threat model's: write them beside the attack's name",
    "max_epsilon": "the threat model's eps stands in its place: write eps beside the attack's name",
    "norm": "eps and norm are the threat model's: write them beside the attack's name",
    "seed": "it is drawn from the audit's seed: leave it out",
    "verbose": "what an attack prints is not shown: leave it out",
}
"""Parameters that are set, and why a policy does not give them among the attack's own."""


def names() -> tuple[str, ...]:
    """Every attack class of torchattacks, those of :data:`UNAVAILABLE` included; torch is not imported."""
    return signatures.names()


def able() -> tuple[str, ...]:
    """Those that can be run from a policy."""
    return tuple(name for name in names() if name not in UNAVAILABLE)


def parameters(name: str) -> Mapping[str, Any]:
    """Parameter → default of a class, as in its source.

    Raises:
        KeyError: there is no such class.
    """
    return signatures.parameters(name)


def options(name: str, table: Mapping[str, Any]) -> BaseModel:
    """The attack's own parameters, checked; those that are not given keep the class's own defaults.

    Raises:
        ValueError: an unknown class or parameter (the nearest is named), a wrong type, one that the suite sets, or a
            class that needs what a policy cannot give.
    """
    record = attack(name).options
    for key in table:
        if key in SUITE and key in parameters(name):
            raise ValueError(f"{name} does not take '{key}' from a policy: {SUITE[key]}")
        if key not in record.model_fields:
            raise ValueError(f"{name} takes no '{key}' ({offer(key, tuple(record.model_fields))})")
    return record.model_validate(dict(table))


@functools.cache
def attack(name: str) -> Published:
    """The class ``name`` as an attack of the suite; follows :class:`pruneproof.attacks.Attack`.

    Raises:
        ValueError: there is no such class, or it needs what a policy cannot give.
    """
    if name in UNAVAILABLE:
        raise ValueError(f"{name} cannot be run from a policy: {UNAVAILABLE[name]} (these can: {', '.join(able())})")
    if name not in able():
        raise ValueError(f"torchattacks has no attack '{name}' ({offer(name, able())})")
    return Published(name, _options(name))


def budget(name: str) -> str | None:
    """The parameter of a class that bounds what it does; ``None``: there is none."""
    return next((key for key in ("eps", "max_epsilon") if key in parameters(name)), None)


@dataclass(frozen=True)
class Published:
    """One class of torchattacks as an attack of the suite.

    Its points are checked against the ball of the policy. Classes without an ``eps`` of their own (CW, DeepFool, EADL1,
    EADEN, SparseFool: as near as they can; JSMA, OnePixel, Pixle, GN, VANILA: as their other parameters say) may
    therefore name any norm; what they find outside the ball does not count.

    ``AutoAttack`` is torchattacks': 10 steps of APGD, APGD-T and FAB where the original has 100, and reports 0.9 to 2.2
    points more robust accuracy on small networks; the ``audit`` attack's ``strength = "reference"`` is the original.

    Where the policy gives no ``alpha``, it keeps the ratio to ``eps`` that the class's defaults have: with the default
    itself, steps of 2/255 in a ball of 0.3 would not reach its edge.
    """

    name: str
    options: type[BaseModel]
    domains: ClassVar[frozenset[Domain]] = frozenset({"box"})

    @property
    def norms(self) -> frozenset[str]:
        """The norms that a budget can be measured in."""
        known = parameters(self.name)
        if "norm" in known:
            return frozenset({"Linf", "L2"})  # FAB's L1 raises in torchattacks 3.5.1
        if not self.bounded:
            return frozenset({"Linf", "L2", "L1", "L0"})
        return frozenset({"L2" if self.name in EUCLIDEAN else "Linf"})

    @property
    def bounded(self) -> bool:
        """Whether it takes ``eps`` itself; what others find has the size that it has."""
        return budget(self.name) is not None

    @property
    def gradients(self) -> bool:
        """Whether it needs the gradient of the model."""
        return self.name not in BLIND

    @property
    def aims(self) -> bool:
        """Whether it can be sent after one class. FAB's own way of that attacks nothing that is already wrong."""
        return signatures.aims(self.name) and self.name != "FAB"

    def refuses(self, shape: tuple[int, ...], classes: int, norm: str | None = None) -> str | None:
        """Why it cannot attack inputs of ``shape`` (one example) with so many classes, and what can; ``None``: it can.

        ``norm``: of the threat model, where it is known; some break in one norm alone.
        """
        reason = shapes.refused(self.name, shape, classes, norm)
        if reason is None:
            return None
        others = (attack(name) for name in able() if shapes.refused(name, shape, classes, norm) is None)
        return f"{self.name} {reason}; these can: {', '.join(o.name for o in others if norm in (None, *o.norms))}"

    def unfit(self, space: object) -> str | None:
        """Why the threat model ``space`` cannot be put to this class; ``None``: it can."""
        from pruneproof.adversarial.ball import Ball

        if not isinstance(space, Ball):
            return f"{self.name} knows balls in a box alone"
        if space.norm not in self.norms:
            return f"{self.name} measures its budget in {' or '.join(sorted(self.norms))}, not in {space.norm}"
        if not bool(space.width().isfinite().all()):
            return f"{self.name} moves inside a box, and Box(low, high) is not finite everywhere"
        if self.bounded and space.evenness() is None:
            return f"{self.name} has one eps for all elements, and the box is not equally many units wide everywhere"
        return None

    def run(self, arena: Arena, options: BaseModel) -> None:
        """Attacks every victim of the arena at the rows where it still stands, one stage each.

        Raises:
            MeasurementError: the class cannot be put to this model, data or threat model, or it raised.
        """
        from pruneproof.adversarial.bout import Bout

        if reason := self.unfit(arena.space):
            raise MeasurementError(
                reason, "give Box(low, high, unit) finite and evenly wide, or use the audit attack, which takes any"
            )
        if arena.aim is not None and not self.aims:
            raise MeasurementError(f"{self.name} cannot be sent after one class", "name one that can, such as PGD")
        for victim in arena.victims:
            rows = arena.rows(victim)
            with arena.stage(self.name, victim, len(rows)) as stage, victim.attacked():
                if len(rows):
                    Bout(self.name, options, arena, victim).fight(stage, rows)


def _options(name: str) -> type[BaseModel]:
    own = {key: default for key, default in parameters(name).items() if key not in SUITE}
    fields: dict[str, Any] = {key: (_type(name, key, default), default) for key, default in own.items()}
    return create_model(f"{name}Options", __base__=Record, **fields)


def _type(name: str, key: str, default: Any) -> Any:
    if (name, key) in CHOICES:
        return Literal[CHOICES[name, key]]
    if isinstance(default, bool):
        return bool
    if isinstance(default, int) and key not in REALS:
        # EADL1 and EADEN divide by a tenth of it, rounded down
        return Annotated[int, Field(ge=10 if key == "max_iterations" and name.startswith("EAD") else 1)]
    if isinstance(default, tuple):
        side = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]
        return Annotated[tuple[side, side], BeforeValidator(_pair)]
    return Annotated[float, BeforeValidator(_number), *([Field(gt=0)] if key in POSITIVE else [])]


def _number(value: Any) -> Any:
    """A fraction such as ``"8/255"`` as the number that it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"expected a number, or a fraction such as '8/255', got '{value}'") from None


def _pair(value: Any) -> Any:
    """TOML has no tuples."""
    return tuple(value) if isinstance(value, list) else value
