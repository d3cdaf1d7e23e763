"""Whether an attack can be trusted: what each strength check saw, judged by its numbers alone.

Robust accuracy is an upper bound, and a weak or broken attack makes it meaningless without any error. The checks are
those of Carlini et al. 2019 (On Evaluating Adversarial Robustness, arXiv 1902.06705, section 3.2 and the list in its
appendix), Pintor et al. 2022 (Indicators of Attack Failure, arXiv 2106.09947), Zimmermann et al. 2022 (Increasing
Confidence in Adversarial Robustness Evaluations, arXiv 2206.13991) and AutoAttack's own (Croce & Hein 2020, arXiv
2003.01690).

All of them ask one question: of how many examples is it doubtful that they stand? Between two random starts of one
sound attack 2 to 3 % of the examples change sides, one half in each direction. So a check fails only where more than
:data:`TOLERANCE` of the examples are doubtful, beyond what chance makes of so few, at :data:`CONFIDENCE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pruneproof.statistics import binomial_bounds, tango_bounds

State = Literal["held", "failed", "not applicable"]
CONFIDENCE = 0.999
"""One-sided, of each check: one that holds in truth fails in at most one of a thousand audits."""
TOLERANCE = 0.03
"""Share of the examples that may be doubtful: twice what a fresh random start of a sound attack brings down."""
LEAST = 10
"""Examples under which nothing is concluded."""
RISING = 0.75
"""Share of the examples at which an attack has to come out above a random point of the space."""
FULL = 0.9
"""Share of the budget from which on a point counts as being at the boundary."""
USUAL = 0.5
"""What at least half of the examples or gradients do."""


@dataclass(frozen=True)
class Observation:
    """What one strength check saw.

    Args:
        name: of the check, one of :data:`NAMES`.
        numbers: finite.
        not_applicable: why the check says nothing here, a sentence; its numbers are then not judged.
    """

    name: str
    numbers: Mapping[str, float]
    not_applicable: str = ""


@dataclass(frozen=True)
class Check:
    """The result of one strength check.

    Args:
        says: one sentence with the numbers that it rests on.
    """

    name: str
    state: State
    says: str


def judge(observation: Observation) -> Check:
    """The result of one check, a pure function of what was observed.

    Raises:
        KeyError: no check of that name, or a number that it needs is missing.
    """
    rule = _RULES[observation.name]
    if observation.not_applicable:
        return Check(observation.name, "not applicable", observation.not_applicable)
    state, says = rule(observation.numbers)
    return Check(observation.name, state, says)


_Numbers = Mapping[str, float]
_Verdict = tuple[State, str]


def _range(seen: _Numbers) -> _Verdict:
    """A budget that reaches everything (Carlini: "accuracy at unbounded ε"; Pintor's indicator 6)."""
    n, stood, chance = seen["examples"], seen["stood"], seen["chance"]
    says = f"at ε = {seen['eps']:g}, all the range of the data, {stood:.0f} of {n:.0f} examples stand"
    level = f"; always answering one class would keep {chance:.0%}"
    if n < LEAST:
        return _few(n)
    if binomial_bounds(stood, n, CONFIDENCE).lower > chance:
        return "failed", f"{says}{level}: the attack misses points that are there"
    return "held", says + level


def _more_steps(seen: _Numbers) -> _Verdict:
    return _harder(seen, "twice the steps", converges=True)


def _more_restarts(seen: _Numbers) -> _Verdict:
    return _harder(seen, "another random start", converges=True)


def _more_eps(seen: _Numbers) -> _Verdict:
    return _harder(seen, f"{seen['factor']:.3g} times the ε", converges=False)


def _harder(seen: _Numbers, what: str, converges: bool) -> _Verdict:
    """The same examples once more, by an attack that can only be stronger.

    It may not leave more of them standing, by Tango's interval for paired shares; and what only repeats the attack may
    not bring down much more either, or it had not converged (Pintor's indicator 4).
    """
    n, fell, stood = seen["examples"], seen["fell"], seen["stood"]
    raised, tested, lowered = seen["raised"], seen["tested"], seen["lowered"]
    if n < LEAST:
        return _few(n)
    also = lowered * stood / tested if tested else 0.0
    says = (
        f"with {what} {raised:.0f} of {fell:.0f} examples that fell do not fall again,"
        f" and {lowered:.0f} of {tested:.0f} tried of the {stood:.0f} that stood fall"
    )
    if raised > also and tango_bounds(raised, min(also, n - raised), n, CONFIDENCE).lower > 0:
        return "failed", f"{says}: more robust accuracy against a stronger attack, which no sound attack gives"
    if converges and tested and binomial_bounds(lowered, tested, CONFIDENCE).lower * stood / n > TOLERANCE:
        return "failed", f"{says}: the attack gave up too early"
    return "held", says


def _gradient_free(seen: _Numbers) -> _Verdict:
    """Carlini: "gradient-free attacks should not do better"; AutoAttack's check of Square."""
    n, stood, tested, fell = seen["examples"], seen["stood"], seen["tested"], seen["fell"]
    says = f"a search without gradients fools {fell:.0f} of {tested:.0f} tried of the {stood:.0f} examples that stand"
    if n < LEAST:
        return _few(n)
    if tested and binomial_bounds(fell, tested, CONFIDENCE).lower * stood / n > TOLERANCE:
        return "failed", f"{says}: gradients lead this attack astray"
    return "held", says


def _transfer(seen: _Numbers) -> _Verdict:
    """Carlini: "transfer attacks should not do better than white-box ones"."""
    n, fell, stood = seen["examples"], seen["fell"], seen["stood"]
    says = f"of {stood:.0f} examples that its own attack left standing {fell:.0f} fall by points of other variants"
    if n < LEAST:
        return _few(n)
    if _doubtful(fell, n):
        return "failed", f"{says}: points of others beat its own"
    return "held", says


def _gradients(seen: _Numbers) -> _Verdict:
    """Neither zero nor broken nor random (Pintor, indicators 1 and 2; AutoAttack, zero gradients and randomness)."""
    n = seen["examples"]
    if n < LEAST:
        return _few(n)
    says = (
        f"of {n:.0f} right examples {seen['zero']:.0f} have a gradient of zero ({seen['zero_ce']:.0f} of"
        f" cross-entropy) and {seen['non_finite']:.0f} one that is not finite; {seen['blind']:.0f} stand to which"
        " no gradient led"
    )
    if seen["draws"] > 1:
        says += (
            f"; the model draws random numbers, so gradients are averaged over {seen['draws']:.0f} passes"
            f" (two such averages have a mean cosine of {seen['agreement']:.2f})"
        )
    if _doubtful(seen["blind"], n):
        return "failed", f"{says}: the attack is blind there"
    if seen["taken"] and seen["empty"] > USUAL * seen["taken"]:
        return (
            "failed",
            f"{says}; {seen['empty']:.0f} of {seen['taken']:.0f} gradients that it took were zero or not finite",
        )
    if _doubtful(seen["non_finite"], n):
        return "failed", f"{says}: the attack has no direction there"
    if seen["draws"] <= 1 and _doubtful(seen["random"], n):
        return "failed", f"{says}; {seen['random']:.0f} differ between two passes, and are not averaged"
    return "held", says


def _loss_rises(seen: _Numbers) -> _Verdict:
    """Carlini: "attacks should increase the loss"; Pintor's loss landscape."""
    n, rose = seen["examples"], seen["rose"]
    says = f"the attack ends higher in the loss than a random point of the space at {rose:.0f} of {n:.0f} examples"
    if n < LEAST:
        return _few(n)
    if binomial_bounds(rose, n, CONFIDENCE).upper < RISING:
        return "failed", f"{says}: it climbs no better than chance"
    return "held", says


def _control(seen: _Numbers) -> _Verdict:
    """A model that is known to break, as the unit test of an attack (Zimmermann et al.)."""
    known, fell, wrong = seen["breakable"], seen["fell"], seen["impossible"]
    says = f"it breaks {fell:.0f} of {known:.0f} examples of a linear model without defence that are known to break"
    if wrong:
        return "failed", f"{says}, and {wrong:.0f} that no allowed point breaks: the space is not what it says"
    if known < LEAST:
        return _few(known)
    if _doubtful(known - fell, known):
        return "failed", f"{says}: the attack itself is broken or too weak"
    return "held", says


def _boundary(seen: _Numbers) -> _Verdict:
    """An attack that maximises the loss spends its budget."""
    n, at = seen["examples"], seen["at"]
    says = f"it spends {FULL:.0%} or more of the budget at {at:.0f} of {n:.0f} examples that stand"
    if n < LEAST:
        return _few(n)
    if binomial_bounds(at, n, CONFIDENCE).upper < USUAL:
        return "failed", f"{says}: it looks at a smaller ball than the policy's"
    return "held", says


def _outside(seen: _Numbers) -> _Verdict:
    """Points outside the space are refused; an attack that proposes many attacks another space."""
    tried, refused = seen["tried"], min(seen["refused"], seen["tried"])
    says = f"{seen['refused']:.0f} points were outside the ball, the box or the constraints, of {tried:.0f} attempts"
    if tried < LEAST:
        return _few(tried)
    if _doubtful(refused, tried):
        return "failed", f"{says}: the attack knows another threat model than the policy"
    return "held", says


def _unconfirmed(seen: _Numbers) -> _Verdict:
    """Points that fooled on the way and did not count (Pintor's indicator 3, silent success)."""
    n, lost = seen["examples"], seen["lost"]
    says = f"of {n:.0f} examples {lost:.0f} stand although the attack saw a point that fooled"
    if n < LEAST:
        return _few(n)
    if _doubtful(lost, n):
        return "failed", f"{says}: it does not keep what it finds, or its scores are not the model's"
    return "held", says


_RULES: Mapping[str, Callable[[_Numbers], _Verdict]] = {
    "range": _range,
    "more_steps": _more_steps,
    "more_eps": _more_eps,
    "more_restarts": _more_restarts,
    "gradient_free": _gradient_free,
    "transfer": _transfer,
    "gradients": _gradients,
    "loss_rises": _loss_rises,
    "control": _control,
    "boundary": _boundary,
    "outside": _outside,
    "unconfirmed": _unconfirmed,
}
NAMES = tuple(_RULES)
"""Every check, in the order in which they are reported."""


def _doubtful(count: float, n: float) -> bool:
    return binomial_bounds(count, n, CONFIDENCE).lower > TOLERANCE


def _few(n: float) -> _Verdict:
    return "not applicable", f"{n:.0f} examples are too few to tell; {LEAST} are needed"
