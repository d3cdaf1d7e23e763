"""One entry of ``attacks`` in the policy: which attack, within which budget, with which of its own parameters."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pruneproof import registry
from pruneproof.attacks import Attack, Domain
from pruneproof.errors import PolicyError
from pruneproof.tables import Name, offer

Norm = Literal["Linf", "L2", "L1", "L0", "edits"]
ATTACKS = "pruneproof.attacks"
AUDIT = "audit"
AUDITS: dict[Domain, str] = {"box": "audit", "table": "table_audit", "tokens": "token_swap"}
"""What ``name = "audit"`` stands for on each kind of input."""
WORST = "worst"
"""The label of all attacks together: an example stands that stands under each of them."""


def _fraction(value: Any) -> Any:
    """``"8/255"`` as the number that it spells."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise ValueError(f"expected a number, or a fraction such as '8/255', got '{value}'") from None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Budget = Annotated[float, BeforeValidator(_fraction), Field(gt=0, allow_inf_nan=False)]


class Entry(BaseModel):
    """``{ name = "audit", norm = "Linf", eps = "8/255", … }``; further keys are the attack's own."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str = AUDIT
    label: Name | None = None
    """What gates call it; default: its name."""
    norm: Norm | None = None
    """What the budget is measured in; default: the first that the attack knows."""
    eps: Budget
    """The budget, in the unit of the data (tables: of the columns' costs; tokens: edits)."""
    curve: Annotated[tuple[Budget, ...], Field(strict=False)] = ()
    """Further budgets, for robust accuracy against ε."""

    @model_validator(mode="after")
    def _known(self) -> Entry:
        if self.called == WORST:
            raise ValueError(f"expected another label: '{WORST}' stands for all attacks together")
        if self.name == AUDIT:
            problems = [problem for name in AUDITS.values() if (problem := _problem(name, self.own))]
            if len(problems) == len(AUDITS):
                raise ValueError(problems[0])
        else:
            problem = _problem(self.name, self.own)
            if problem:
                raise ValueError(problem)
        if self.norm is not None and self.name != AUDIT and self.norm not in attack(self.name).norms:
            raise ValueError(f"expected a norm of {self.name}: {' '.join(sorted(attack(self.name).norms))}")
        return self

    @property
    def called(self) -> str:
        """Its label."""
        return self.label or self.name

    @property
    def own(self) -> dict[str, Any]:
        """The attack's own parameters."""
        return dict(self.model_extra or {})

    @property
    def budgets(self) -> tuple[float, ...]:
        """``eps`` and ``curve``, ascending."""
        return tuple(sorted({self.eps, *self.curve}))


def names() -> tuple[str, ...]:
    """Every attack that a policy can name, ours first."""
    from pruneproof.adversarial import published

    return (*registry.names(ATTACKS), *published.names())


def able() -> tuple[str, ...]:
    """Of them, those that a policy can run."""
    from pruneproof.adversarial import published

    return (*registry.names(ATTACKS), *published.able())


def attack(name: str, domain: Domain | None = None) -> Attack:
    """The attack called ``name``; ``"audit"`` is another one on each kind of input.

    Raises:
        KeyError: there is none.
    """
    from pruneproof.adversarial import published

    if name == AUDIT and domain is not None:
        name = AUDITS[domain]
    if name in registry.names(ATTACKS):
        found: Attack = registry.member(ATTACKS, name).ATTACK
        return found
    return published.attack(name)


def options(name: str, own: dict[str, Any], domain: Domain | None = None) -> BaseModel:
    """The attack's own parameters, checked against what it takes.

    Raises:
        ValueError: an unknown parameter, the nearest one named, or an impossible value.
    """
    from pruneproof.adversarial import published

    if name in published.names():
        return published.options(name, own)
    record = attack(name, domain).options
    for key in own:
        if key not in record.model_fields:
            raise ValueError(f"{name} takes no '{key}' ({offer(key, tuple(record.model_fields))})")
    return record.model_validate(own)


def own(entry: Entry, domain: Domain) -> BaseModel:
    """The attack's own parameters, on this kind of input.

    Raises:
        PolicyError: ``"audit"`` is another attack on each kind of input, and this one does not take them.
    """
    try:
        return options(entry.name, entry.own, domain)
    except ValueError as error:
        why = _said(error)
        raise PolicyError(f"attack '{entry.called}' on a {domain} domain: {why}", "correct its parameters") from None


def _problem(name: str, own: dict[str, Any]) -> str | None:
    if name not in names():
        return f"expected a known attack ({offer(name, names())})"
    try:
        options(name, own)
    except ValueError as error:
        return _said(error)
    return None


def _said(error: ValueError) -> str:
    """One line; of pydantic's errors the first."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"


def norm_of(entry: Entry, domain: Domain) -> Norm:
    """The norm that its budget is measured in, on this kind of input.

    Raises:
        PolicyError: the attack does not know such inputs, or such a norm.
    """
    found = attack(entry.name, domain)
    if domain not in found.domains:
        able = [name for name in registry.names(ATTACKS) if domain in attack(name).domains]
        raise PolicyError(
            f"attack '{entry.name}' does not know inputs of a {domain} domain", f"use {', '.join(sorted(able))}"
        )
    edits = domain == "tokens" and "edits" in found.norms
    norms: tuple[Norm, ...] = ("edits",) if edits else ("Linf", "L2", "L1", "L0", "edits")
    known = [norm for norm in norms if norm in found.norms]
    if entry.norm is None:
        return "L1" if domain == "table" and "L1" in known else known[0]
    if entry.norm not in known:
        raise PolicyError(
            f"attack '{entry.called}' cannot measure its budget in {entry.norm} on a {domain} domain",
            f"use {' or '.join(known)}",
        )
    return entry.norm


def spelled(budget: float) -> str:
    """A budget as gates name it."""
    return f"{budget:g}" if math.isclose(float(f"{budget:g}"), budget) else repr(budget)
