"""Slips of the finger: which characters stand beside which on a keyboard."""

from __future__ import annotations

from collections.abc import Sequence

QWERTY = ("1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./")
SHIFTED = ("!@#$%^&*()_+", "QWERTYUIOP{}", 'ASDFGHJKL:"', "ZXCVBNM<>?")
OFFSETS = (0.0, 0.5, 0.75, 1.25)
"""How far each row of the US layout is set in, in widths of a key."""


def typos(characters: Sequence[str], rows: Sequence[str] = QWERTY) -> dict[int, tuple[int, ...]]:
    """For ``Tokens(alternatives=…)`` of a vocabulary of characters: slips to a key that touches the one meant.

    A slip keeps the shift key as it was held. Characters that are on no key of ``rows``, and tokens that are more or
    less than one character, have no alternatives.

    Args:
        characters: the vocabulary, a character a token, in the tokens' order.
        rows: rows of the keyboard without shift, from the top, set in like a US keyboard's. Of other rows than
            ``QWERTY`` the shifted characters are their upper case.
    """
    known = {character: token for token, character in enumerate(characters)}
    shifted = SHIFTED if tuple(rows) == QWERTY else tuple(row.upper() for row in rows)
    near: dict[int, set[int]] = {}
    for layer in (tuple(rows), shifted):
        keys = {
            character: (line, offset + place)
            for line, (row, offset) in enumerate(zip(layer, OFFSETS, strict=False))
            for place, character in enumerate(row)
        }
        for character, (line, place) in keys.items():
            slips = [
                other
                for other, (its, where) in keys.items()
                if other != character and abs(its - line) <= 1 and abs(where - place) <= 1
            ]
            if character in known:
                near.setdefault(known[character], set()).update(known[other] for other in slips if other in known)
    return {token: tuple(sorted(others)) for token, others in near.items() if others}
