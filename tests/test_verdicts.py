"""How verdicts combine, and that nothing but evidence makes one PASS."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruneproof.verdicts import GLYPHS, WAIVABLE, Verdict, exit_code, releases, worst

verdicts = st.sampled_from(Verdict)

WORST_FIRST = ["ERROR", "FAIL", "NOT_RUN", "INCONCLUSIVE", "WAIVED", "PASS"]
"""As the contract has it."""


def severity(verdict: Verdict) -> int:
    return -WORST_FIRST.index(verdict.value)


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations(WORST_FIRST, 2)))
def test_of_two_verdicts_the_worse_decides(worse: str, better: str) -> None:
    assert worst([Verdict(better), Verdict(worse)]) is Verdict(worse)


def test_there_are_six_verdicts() -> None:
    assert [verdict.value for verdict in Verdict] == WORST_FIRST


def test_the_worst_of_nothing_is_that_nothing_ran() -> None:
    assert worst([]) is Verdict.NOT_RUN
    assert worst(iter(())) is Verdict.NOT_RUN


@given(st.lists(verdicts, min_size=1))
def test_the_worst_is_one_of_them_and_none_is_worse(found: list[Verdict]) -> None:
    assert worst(found) in found
    assert severity(worst(found)) == max(severity(verdict) for verdict in found)


@given(st.lists(verdicts), st.randoms())
def test_order_and_repetition_do_not_matter(found: list[Verdict], random: object) -> None:
    shuffled = [*found, *found[:2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert worst(shuffled) is worst(found)


@given(st.lists(verdicts, min_size=1), verdicts)
def test_one_more_verdict_never_improves_the_whole(found: list[Verdict], more: Verdict) -> None:
    assert severity(worst([*found, more])) >= severity(worst(found))


@given(st.lists(verdicts, min_size=1), st.lists(verdicts, min_size=1))
def test_the_worst_of_groups_is_the_worst_of_all(some: list[Verdict], others: list[Verdict]) -> None:
    assert worst([worst(some), worst(others)]) is worst(some + others)


@given(st.lists(verdicts))
def test_only_pass_and_waived_together_release(found: list[Verdict]) -> None:
    assert releases(worst(found)) == (bool(found) and set(found) <= {Verdict.PASS, Verdict.WAIVED})


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("inconclusive", ["fail", "warn"])
def test_the_exit_code_is_zero_for_a_release_and_for_a_warned_inconclusive_only(
    verdict: Verdict, inconclusive: str
) -> None:
    warned = verdict is Verdict.INCONCLUSIVE and inconclusive == "warn"
    assert exit_code(verdict, inconclusive) == (0 if verdict in (Verdict.PASS, Verdict.WAIVED) or warned else 1)


def test_a_warned_inconclusive_is_still_not_released() -> None:
    assert not releases(Verdict.INCONCLUSIVE)


def test_an_error_and_a_gate_that_did_not_run_cannot_be_waived() -> None:
    assert {Verdict.FAIL, Verdict.INCONCLUSIVE} == WAIVABLE


def test_each_verdict_has_a_glyph_of_its_own() -> None:
    assert len({GLYPHS[verdict] for verdict in Verdict}) == 6
