"""Token sequences corrupted: as a person, or a tokenizer, would bring them about."""

from __future__ import annotations

import itertools
import string
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruneproof import keyboard, registry
from pruneproof.corruptions import Corruption
from pruneproof.domain import Tokens
from pruneproof.shift.draws import Draws
from pruneproof.shift.ground import Ground

NAMES = ("casing", "token_drop", "token_noise", "token_repeat", "token_swap", "typos")
CHARACTERS = ("<pad>", "<s>", "</s>", " ", *string.ascii_letters, *string.digits)
PAD, START, END = 0, 1, 2
TEXT = Tokens(
    len(CHARACTERS),
    frozen=frozenset({PAD, START, END}),
    alternatives=keyboard.typos(CHARACTERS),
    text=lambda token: CHARACTERS[token],
)


def member(name: str) -> Corruption:
    found: Corruption = registry.member("pruneproof.corruptions", name).CORRUPTION
    return found


def ground_of(clean: torch.Tensor, tokens: Tokens = TEXT) -> Ground:
    return Ground("tokens", tuple(clean.shape[1:]), clean.dtype, tokens, clean)


def corrupted(
    name: str, clean: torch.Tensor, severity: float, positions: Any = None, ground: Ground | None = None, **keys: Any
) -> torch.Tensor:
    one, ground = member(name), ground or ground_of(clean)
    options = one.options(**keys)
    assert one.refuses(ground, options) is None
    draws = Draws(9, name, range(len(clean)) if positions is None else positions)
    return one.apply(clean, ground, severity, draws, options)


def refusal(name: str, ground: Ground, **keys: Any) -> str | None:
    return member(name).refuses(ground, member(name).options(**keys))


def encoded(*texts: str, length: int = 40, left: bool = False) -> torch.Tensor:
    rows = []
    for text in texts:
        tokens = [START, *(CHARACTERS.index(character) for character in text), END]
        padding = [PAD] * (length - len(tokens))
        rows.append(padding + tokens if left else tokens + padding)
    return torch.tensor(rows)


def decoded(row: torch.Tensor) -> str:
    return "".join(CHARACTERS[token] for token in row.tolist() if token > END)


def frozen(rows: torch.Tensor) -> list[list[int]]:
    """Frozen tokens but padding, in order."""
    return [[token for token in row if token in (START, END)] for row in rows.tolist()]


LETTERS = st.text(string.ascii_letters + string.digits + " ", max_size=38)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(LETTERS, min_size=1, max_size=7),
    st.booleans(),
    st.sampled_from([0.01, 1.0, 3.7, 5.0]),
    st.sampled_from([torch.int64, torch.int32]),
)
def test_any_text_stays_a_sequence_of_known_tokens_with_its_frozen_ones_and_is_the_same_in_any_batch(
    texts: list[str], left: bool, severity: float, dtype: torch.dtype
) -> None:
    clean = encoded(*texts, left=left).to(dtype)
    # A short one, so that the padding and its side can be seen whatever the texts.
    ground = Ground("tokens", (40,), dtype, TEXT, torch.cat([clean, encoded("a", left=left).to(dtype)]))
    before = clean.clone()
    for name in NAMES:
        out = corrupted(name, clean, severity, ground=ground)
        assert out.shape == clean.shape
        assert out.dtype == dtype
        assert 0 <= int(out.min()) <= int(out.max()) < TEXT.size
        assert frozen(out) == frozen(clean)
        order = list(range(len(clean)))[::-1]
        assert torch.equal(corrupted(name, clean[order], severity, order, ground), out[order])
        alone = [corrupted(name, clean[i : i + 1], severity, [i], ground) for i in order]
        assert torch.equal(torch.cat(alone), out[order])
        assert torch.equal(corrupted(name, clean, 0.0, ground=ground), clean)
        assert torch.equal(clean, before)


@pytest.mark.parametrize("name", NAMES)
def test_sequences_are_the_same_in_batches_of_1_2_7_and_64_and_on_two_threads(name: str) -> None:
    clean = encoded(*[f"Payment {i} to The Shop" for i in range(64)])
    ground, wanted, threads = ground_of(clean), corrupted(name, clean, 4), torch.get_num_threads()
    for size, count in ((1, 2), (2, 1), (7, 2), (64, 2)):
        torch.set_num_threads(count)
        parts = [
            corrupted(name, clean[i : i + size], 4, range(i, min(i + size, 64)), ground) for i in range(0, 64, size)
        ]
        torch.set_num_threads(threads)
        assert torch.equal(torch.cat(parts), wanted)


LONG = encoded(*["the quick brown Fox jumps over a Dog"] * 200)


def test_a_typo_is_one_of_the_alternatives_and_hits_its_share_of_the_tokens_that_have_some() -> None:
    out = corrupted("typos", LONG, 4)
    stated = TEXT.alternatives
    assert stated is not None
    pairs = set(zip(LONG[out != LONG].tolist(), out[out != LONG].tolist(), strict=True))
    assert all(new in stated[old] for old, new in pairs)
    assert {new for old, new in pairs if old == CHARACTERS.index("q")} == set(stated[CHARACTERS.index("q")])
    able = torch.isin(LONG, torch.tensor(sorted(stated)))
    assert (out != LONG)[able].double().mean() == pytest.approx(0.2, abs=0.02)


def test_without_alternatives_a_typo_is_a_neighbour_on_the_keyboard_and_never_a_frozen_token() -> None:
    plain = Tokens(TEXT.size, text=TEXT.text, frozen=frozenset({PAD, START, END, CHARACTERS.index("w")}))
    out = corrupted("typos", LONG, 5, ground=ground_of(LONG, plain))
    slips = keyboard.typos(CHARACTERS)
    assert all(
        new in slips[old] and CHARACTERS[new] != "w"
        for old, new in zip(LONG[out != LONG].tolist(), out[out != LONG].tolist(), strict=True)
    )
    assert "neither alternatives nor the text" in str(refusal("typos", ground_of(LONG, Tokens(99))))
    assert "no token has an alternative" in str(refusal("typos", ground_of(LONG, Tokens(99, alternatives={}))))


@pytest.mark.parametrize(("to", "turn"), [("swapped", str.swapcase), ("upper", str.upper), ("lower", str.lower)])
def test_casing_turns_letters_into_the_other_case_and_leaves_the_rest(to: str, turn: Any) -> None:
    out = corrupted("casing", LONG, 5, to=to)
    text = decoded(LONG[0])
    for row in out:
        assert all(new in (old, turn(old)) for old, new in zip(text, decoded(row), strict=True))
    able = torch.tensor([[turn(CHARACTERS[token]) != CHARACTERS[token] and token > END for token in LONG[0].tolist()]])
    assert (out != LONG)[able.expand_as(out)].double().mean() == pytest.approx(0.4, abs=0.04)


def test_casing_finds_words_as_well_and_is_refused_where_there_is_one_case() -> None:
    words = ["Loan", "loan", "LOAN", "rate"]
    tokens = Tokens(4, text=lambda token: words[token])
    clean = torch.tensor([[0, 1, 2, 3] * 20])
    out = corrupted("casing", clean, 5, ground=ground_of(clean, tokens), to="lower")
    assert {(old, new) for old, new in zip(clean[0].tolist(), out[0].tolist(), strict=True)} == {
        *((0, 0), (0, 1), (1, 1), (2, 2), (2, 1), (3, 3))
    }
    single = Tokens(2, text=lambda token: "ab"[token])
    assert "differ in case" in str(refusal("casing", ground_of(clean, single)))
    assert "text of a token" in str(refusal("casing", ground_of(clean, Tokens(4))))


@pytest.mark.parametrize("left", [False, True])
def test_dropped_tokens_leave_the_others_in_order_and_padding_fills_up(left: bool) -> None:
    texts = [string.ascii_lowercase] * 200
    clean = encoded(*texts, left=left)
    out = corrupted("token_drop", clean, 4)
    kept = [decoded(row) for row in out]
    assert all(list(text) == sorted(set(text)) for text in kept)
    assert sum(map(len, kept)) / (26 * 200) == pytest.approx(0.8, abs=0.02)
    assert torch.equal(out, encoded(*kept, left=left))


def test_at_least_one_token_is_kept_however_many_are_dropped() -> None:
    clean = encoded(*["ab"] * 500)
    assert {len(decoded(row)) for row in corrupted("token_drop", clean, 5)} == {1, 2}


def test_padding_is_what_the_subject_freezes_at_the_end_or_what_is_named_or_dropping_is_refused() -> None:
    clean = torch.tensor([[5, 6, 7, 8]] * 50)
    bare = ground_of(clean, Tokens(10))
    assert "give padding" in str(refusal("token_drop", bare))
    assert "10 tokens" in str(refusal("token_drop", bare, padding=10))
    assert "10 tokens" in str(refusal("token_repeat", bare, padding=10))
    out = corrupted("token_drop", clean, 5, ground=bare, padding=9)
    assert set(out[:, -1].tolist()) == {8, 9}
    ending = ground_of(torch.tensor([[5, 6, 7, 3]] * 50), Tokens(10, frozen=frozenset({3, 4})))
    dropped = corrupted("token_drop", ending.reference, 5, ground=ending)
    assert set(dropped[:, -1].tolist()) == {3}


def swaps(length: int) -> set[tuple[int, ...]]:
    """By brute force: what disjoint swaps of neighbours make of ``0 … length - 1``."""
    found = set()
    for chosen in itertools.product([False, True], repeat=length - 1):
        if not any(a and b for a, b in itertools.pairwise(chosen)):
            row = list(range(length))
            for place, swap in enumerate(chosen):
                if swap:
                    row[place], row[place + 1] = row[place + 1], row[place]
            found.add(tuple(row))
    return found


def test_swapped_tokens_are_neighbours_and_each_is_moved_once() -> None:
    clean = torch.arange(5).repeat(2000, 1)
    out = corrupted("token_swap", clean, 5, ground=ground_of(clean, Tokens(5)))
    assert {tuple(row) for row in out.tolist()} == swaps(5)
    assert (out[:, 0] == 1).double().mean() == pytest.approx(0.4, abs=0.04)
    # The second pair is free where the first was not swapped.
    assert (out[:, 1] == 2).double().mean() == pytest.approx(0.6 * 0.4, abs=0.04)


def test_a_repeated_token_stands_twice_and_padding_makes_room() -> None:
    clean = encoded(*["abcdefghij"] * 300, length=40)
    out = corrupted("token_repeat", clean, 4)
    texts = [decoded(row) for row in out]
    assert all("".join(character for character, _ in itertools.groupby(text)) == "abcdefghij" for text in texts)
    assert max(len(list(same)) for text in texts for _, same in itertools.groupby(text)) == 2
    assert sum(map(len, texts)) / (10 * 300) == pytest.approx(1.2, abs=0.03)
    assert torch.equal(out, encoded(*texts))


def test_without_room_the_last_tokens_that_are_not_frozen_are_cut_off() -> None:
    clean = encoded(*["abcd"] * 300, length=6)
    ground = Ground("tokens", (6,), clean.dtype, TEXT, encoded("a", length=6))
    out = corrupted("token_repeat", clean, 5, ground=ground)
    possible = set()
    for twice in itertools.product([1, 2], repeat=4):
        possible.add("".join(character * count for character, count in zip("abcd", twice, strict=True))[:4])
    assert {decoded(row) for row in out} == possible
    assert set(out[:, -1].tolist()) == {END}


def test_token_noise_draws_any_other_token_that_is_not_frozen_as_often() -> None:
    tokens = Tokens(6, frozen=frozenset({2}), alternatives={})
    clean = torch.tensor([[2, 3] * 20]).repeat(600, 1)
    out = corrupted("token_noise", clean, 5, ground=ground_of(clean, tokens))
    assert bool((out[:, ::2] == 2).all())
    moved = out[:, 1::2][out[:, 1::2] != 3]
    assert len(moved) / (20 * 600) == pytest.approx(0.4, abs=0.02)
    assert set(moved.tolist()) == {0, 1, 4, 5}
    for token in (0, 1, 4, 5):
        assert (moved == token).double().mean() == pytest.approx(0.25, abs=0.03)
    assert "fewer than two" in str(refusal("token_noise", ground_of(clean, Tokens(4, frozen=frozenset({0, 1, 2})))))
