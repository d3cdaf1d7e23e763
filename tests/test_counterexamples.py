"""Counterexamples: what is reported is real, minimal and repeatable, on models whose disagreement is known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_oracle import Case, cases, problems

from pruneproof.corruptions import Kind
from pruneproof.domain import Box, Column, Domain, OneHot, Sum, Table, Tokens
from pruneproof.errors import SubjectError
from pruneproof.keyboard import typos
from pruneproof.outcomes import Predictions
from pruneproof.shift.changes import changes
from pruneproof.shift.counterexample import Search, counterexamples
from pruneproof.shift.disagreement import Ask, Disagreement, Rivals
from pruneproof.shift.ground import Ground
from pruneproof.shift.polishing import Polish
from pruneproof.suite import Facts

Score = Callable[[torch.Tensor], torch.Tensor]
CARD = Table(
    [
        Column("amount", "integer", low=0),
        Column("age", mutable=False),
        Column("rate"),
        Column("web"),
        Column("shop"),
        Column("post"),
    ],
    [OneHot("channel", ("web", "shop", "post"))],
)


def payments(n: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    amount = torch.randint(100, 2000, (n,), generator=generator).double()
    age, rate = torch.rand(n, generator=generator) * 60, torch.rand(n, generator=generator)
    channel = torch.nn.functional.one_hot(torch.arange(n) % 2, 3)  # nobody pays by post
    return torch.cat([torch.stack([amount, age, rate], dim=1), channel], dim=1).float()


def asking(score: Score, classes: tuple[str, ...] = ("genuine", "fraud")) -> Ask:
    def ask(inputs: torch.Tensor) -> Predictions:
        logits = score(inputs).double().reshape(len(inputs), -1)
        kind = "binary" if len(classes) == 2 else "multiclass"
        return Predictions(logits.numpy(), Facts(kind, len(inputs), classes, {}), None)

    return ask


def search(
    dense: Score,
    variant: Score,
    clean: torch.Tensor,
    domain: Domain = CARD,
    reference: torch.Tensor | None = None,
    kind: Kind = "table",
    seed: int = 5,
    batch_size: int = 16,
    **asked: int,
) -> Search:
    ground = Ground(kind, tuple(clean.shape[1:]), clean.dtype, domain, clean if reference is None else reference)
    found = changes(ground, clean, list(range(len(clean))), seed)
    positions = np.arange(100, 100 + len(clean))
    rivals = Rivals(asking(dense), asking(variant), found, positions, batch_size)
    return counterexamples(rivals, seed, **asked)


def over(limit: float) -> Score:
    """Fraud from an amount on."""
    return lambda rows: (rows[:, 0] - limit + 0.5) * 0.1


# Tables


def test_the_smallest_change_of_the_amount_is_found_and_read_as_a_person_would() -> None:
    clean = payments(1).clone()
    clean[0, 0] = 940
    found = search(over(1500), over(1010), clean, reference=payments())
    (record,) = found.records
    assert record["text"] == "amount 940 → 1 010, all else equal: dense genuine, pruned fraud"
    assert record["changes"] == [{"name": "amount", "before": "940", "after": "1 010"}]
    assert (record["clean"], record["dense"], record["variant"]) == ("genuine", "genuine", "fraud")
    spread = float(payments()[:, 0].double().std(correction=0))
    assert record["size"] == pytest.approx(70 / spread)
    assert record["unit"] == "spreads"
    assert record["example"] == 100
    assert torch.equal(found.points[0], clean[0] + torch.tensor([70.0, 0, 0, 0, 0, 0]))


@settings(deadline=None, max_examples=5)
@given(st.integers(200, 1900), st.integers(0, 2**31))
def test_of_an_integer_column_it_is_the_nearest_value_on_which_they_differ(limit: int, seed: int) -> None:
    clean = payments()
    found = search(over(1e9), over(limit), clean, seed=seed, most=1)
    assert found.records
    for record, point in zip(found.records, found.points, strict=True):
        row = record["example"] - 100
        assert float(clean[row, 0]) < limit  # both say genuine before
        assert float(point[0]) == limit
        assert torch.equal(point[1:], clean[row, 1:])


def test_of_a_real_column_the_value_is_shown_with_digits_that_suffice() -> None:
    clean = payments(1).clone()
    clean[0, 2] = 0.25
    edge = 0.4137256
    found = search(lambda rows: rows[:, 2] * 0 - 1, lambda rows: rows[:, 2] - edge, clean, reference=payments())
    (record,) = found.records
    (change,) = record["changes"]
    assert (change["name"], change["before"]) == ("rate", "0.25")
    shown = float(change["after"])
    assert edge <= shown <= 0.25 + 1.1 * (edge - 0.25)
    assert float(found.points[0][2]) == pytest.approx(shown, rel=1e-6)
    assert len(change["after"]) <= 5


def test_a_change_that_decode_rounds_away_is_shown_in_the_numbers_of_the_input() -> None:
    coarse = Table(CARD.columns, CARD.one_hot, decode=lambda row: {"amount": f"{float(row[0]) / 1000:.0f} thousand"})
    clean = payments(1).clone()
    clean[0, 0] = 940
    (record,) = search(over(1500), over(1010), clean, coarse, reference=payments()).records
    assert record["text"] == "amount 940 → 1010, all else equal: dense genuine, pruned fraud"
    (record,) = search(over(1600), over(1500), clean, coarse, reference=payments()).records
    assert record["text"] == "amount 1 thousand → 2 thousand, all else equal: dense genuine, pruned fraud"


def test_a_group_moves_as_one_to_a_setting_that_occurs() -> None:
    clean = payments()
    found = search(lambda rows: rows[:, 4] * 0 - 1, lambda rows: rows[:, 4] + rows[:, 5] - 0.5, clean)
    assert found.apart == 30  # every second example is in a shop already
    for record in found.records:
        assert record["changes"] == [{"name": "channel", "before": "web", "after": "shop"}]
        assert record["size"] == 1
    only_post = search(lambda rows: rows[:, 5] * 0 - 1, lambda rows: rows[:, 5] - 0.5, clean)
    assert only_post.records == []
    assert only_post.apart == 0


def test_changes_that_are_not_needed_are_dropped() -> None:
    # They differ where the amount is high in a shop: from a shop one change does, from the web two.
    clean = payments()
    clean[:, 0] = clean[:, 0].clamp(max=900)
    reference = payments()
    clean = clean[clean[:, 3] == 1]

    def both(rows: torch.Tensor) -> torch.Tensor:
        return torch.minimum(rows[:, 0] - 999.5, rows[:, 4] * 100 - 50)

    found = search(lambda rows: rows[:, 0] * 0 - 1, both, clean, reference=reference)
    assert found.records
    for record in found.records:
        assert [change["name"] for change in record["changes"]] == ["amount", "channel"]
        assert record["changes"][0]["after"] == "1 000"


def test_of_three_changes_of_which_two_are_needed_polishing_keeps_the_two() -> None:
    clean = payments(1).clone()
    clean[0, 0] = 500
    found = changes(Ground("table", (6,), clean.dtype, CARD, payments()), clean, [0], 0)

    def both(rows: torch.Tensor) -> torch.Tensor:
        return torch.minimum(rows[:, 0] - 999.5, rows[:, 4] * 100 - 50)

    models = Disagreement(Rivals(asking(lambda rows: rows[:, 0] * 0 - 1), asking(both), found, np.arange(1)))
    asked = torch.tensor([[1.0, 0.5, 1.0]], dtype=torch.float64)  # amount, rate, channel
    wide = models.smallest(0, asked)
    assert wide is not None
    assert wide.asked.count_nonzero() == 3
    small = Polish(models)(wide)
    assert small.point[0] == 1000
    assert small.point[2] == clean[0, 2]
    assert small.point[4] == 1


def test_of_several_ways_the_smallest_in_spreads_is_reported() -> None:
    # The amount would have to move by about a spread, the rate by a hundredth of one.
    clean = payments(1).clone()
    clean[0, 0], clean[0, 2] = 500, 0.497

    def either(rows: torch.Tensor) -> torch.Tensor:
        return torch.maximum(rows[:, 0] - 1000, rows[:, 2] * 1000 - 500)

    found = search(lambda rows: rows[:, 0] * 0 - 1, either, clean, reference=payments())
    assert [change["name"] for change in found.records[0]["changes"]] == ["rate"]


def test_what_does_not_vary_in_the_reference_or_is_out_of_what_was_observed_is_never_asked_for() -> None:
    clean = payments()
    limit = float(clean[:, 0].max()) + 1
    assert search(over(1e9), over(limit), clean).records == []
    assert search(over(1e9), over(limit - 1), clean).records


def test_rows_that_are_out_of_what_was_observed_themselves_are_no_start() -> None:
    clean = payments()
    found = search(over(1e9), over(1500), clean, reference=clean[clean[:, 0] < 1000])
    assert found.unrealistic == int((clean[:, 0] > clean[clean[:, 0] < 1000, 0].max()).sum())
    assert found.records == []
    # They could be moved to where they would be realistic, and that is a large step from a strange example.
    low = search(
        lambda rows: rows[:, 0] * 0 - 1,
        lambda rows: 500 - rows[:, 0],
        clean[clean[:, 0] > 1000],
        CARD,
        clean[clean[:, 0] < 1000],
    )
    assert low.records == []
    assert low.started == 0


def test_examples_that_are_decided_differently_anyway_are_no_counterexamples() -> None:
    clean = payments()
    found = search(over(1e9), over(1000), clean)
    assert found.apart == int((clean[:, 0] >= 1000).sum())
    assert found.started == len(clean) - found.apart
    for record in found.records:
        assert float(clean[record["example"] - 100, 0]) < 1000


def test_models_that_decide_alike_have_none_and_the_search_says_what_it_covered() -> None:
    found = search(over(1000), over(1000), payments(), tries=30)
    assert (found.records, found.points) == ([], [])
    assert found.tried >= 20
    assert found.evaluated > found.tried
    assert found.says().startswith("none found: ")


def test_they_are_of_different_examples_and_no_more_than_asked_for() -> None:
    for most in (1, 2, 5):
        found = search(over(1e9), over(1000), payments(), most=most)
        assert len({record["example"] for record in found.records}) == len(found.records) == most


@settings(deadline=None, max_examples=12)
@given(cases(rows=6), st.integers(0, 2**31))
def test_every_counterexample_of_any_table_is_a_valid_row_within_what_was_observed(case: Case, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(2, case.clean.shape[1], generator=generator, dtype=torch.float64)
    dense, variant = (
        lambda rows, w=w: ((rows.double() - case.clean.double().mean(dim=0)) * w).sum(dim=1) for w in weights
    )
    found = search(dense, variant, case.clean, case.table, seed=seed, tries=20, most=1)
    low, high = case.clean.amin(dim=0), case.clean.amax(dim=0)
    unlimited = Case(case.table, case.clean, "L1", 1e15)
    for record, point in zip(found.records, found.points, strict=True):
        clean = case.clean[record["example"] - 100]
        assert problems(unlimited, clean, point) == []
        assert bool(((point >= low) & (point <= high)).all())
        assert bool((dense(point[None]) >= 0) != (variant(point[None]) >= 0))
        assert bool((dense(clean[None]) >= 0) == (variant(clean[None]) >= 0))
        assert record["size"] > 0


def test_a_sum_and_a_derived_column_follow() -> None:
    def derive(rows: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows[:, :3], (rows[:, 2] * 2)[:, None]], dim=1)

    table = Table(
        [Column("net"), Column("tax"), Column("gross"), Column("double", "derived")],
        sums=[Sum(("net", "tax"), "gross")],
        derive=derive,
    )
    parts = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = torch.cat([parts, parts.sum(dim=1, keepdim=True), 2 * parts.sum(dim=1, keepdim=True)], dim=1)
    found = search(lambda rows: rows[:, 3] * 0 - 1, lambda rows: rows[:, 3] - 2.0, clean, table)
    assert found.records
    for point in found.points:
        assert float(point[2]) == pytest.approx(float(point[0] + point[1]))
        assert float(point[3]) == pytest.approx(2 * float(point[2]))


def test_a_disagreement_that_only_the_arithmetic_of_a_batch_makes_does_not_count() -> None:
    clean = payments()

    def moody(rows: torch.Tensor) -> torch.Tensor:  # fraud only in the company of others
        return over(1000)(rows) if len(rows) > 1 else rows[:, 0] * 0 - 1

    found = search(over(1e9), moody, clean[clean[:, 0] < 1000], reference=clean)
    assert found.records == []
    assert found.unconfirmed > 0

    def alone(rows: torch.Tensor) -> torch.Tensor:  # fraud only where the rows are not the example's own batch
        return (
            over(1000)(rows) if len(rows) != 16 or bool((rows == rows[0]).all(dim=1).sum() > 1) else rows[:, 0] * 0 - 1
        )

    found = search(over(1e9), alone, clean[clean[:, 0] < 1000][:16], reference=clean)
    assert found.records == []
    assert found.unconfirmed > 0


def test_a_table_of_which_nothing_can_be_changed_is_refused() -> None:
    with pytest.raises(SubjectError, match="nothing"):
        search(over(1), over(2), payments(), Table([Column(f"x{i}", mutable=False) for i in range(6)]))


# Images, signals, tokens


def test_an_image_is_changed_as_a_camera_would_and_no_more_than_needed() -> None:
    clean = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5

    def bright(images: torch.Tensor) -> torch.Tensor:
        return images.double().mean(dim=(1, 2, 3)) - 0.4

    found = search(lambda images: images.double().mean(dim=(1, 2, 3)) - 2, bright, clean, Box(0.0, 1.0), kind="image")
    assert found.records
    for record, point in zip(found.records, found.points, strict=True):
        row = record["example"] - 100
        assert [change["name"] for change in record["changes"]] == ["brightness"]
        shown = float(record["changes"][0]["after"].split()[0])
        needed = 0.4 - float(clean[row].double().mean())
        assert needed - 1e-6 <= shown <= 1.1 * needed + 1e-6
        assert torch.allclose(point, (clean[row] + shown).clamp(0, 1), atol=1e-3)
        assert record["size"] == pytest.approx(shown / float(clean.double().std(correction=0)), rel=1e-2)


def test_a_moved_image_is_reported_in_whole_pixels() -> None:
    clean = torch.zeros(3, 1, 12, 12)
    clean[:, :, 4:8, 4:8] = 1.0

    def right(images: torch.Tensor) -> torch.Tensor:  # needs two pixels to the right; brighter alone does not help
        return (images[:, 0, 4:8, 9] - images[:, 0, :4, 0]).double().sum(dim=1) - 3.9

    found = search(lambda images: images[:, 0, 0, 0].double() - 5, right, clean, Box(0.0, 1.0), kind="image")
    record = found.records[0]
    assert record["changes"] == [{"name": "place", "before": "as it was", "after": "2 px right"}]
    assert record["text"] == "2 px right, all else equal: dense genuine, pruned fraud"
    assert torch.equal(found.points[0], clean[0].roll(2, dims=2))


def test_a_signal_stays_in_its_range_and_dtype() -> None:
    clean = (torch.rand(10, 2, 32, generator=torch.Generator().manual_seed(0)) * 200 - 100).short()

    def loud(signals: torch.Tensor) -> torch.Tensor:
        return signals.double().abs().mean(dim=(1, 2)) - 60

    def quiet(signals: torch.Tensor) -> torch.Tensor:
        return signals.double().abs().mean(dim=(1, 2)) - 500

    found = search(quiet, loud, clean, Box(-128, 127), kind="signal")
    assert found.records
    for point in found.points:
        assert point.dtype == torch.int16
        assert int(point.min()) >= -128
        assert int(point.max()) <= 127
        assert float(loud(point[None])) >= 0


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(["image", "signal"]), st.booleans(), st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_whatever_is_asked_of_images_and_signals_they_stay_in_their_box(kind: Any, whole: bool, shares: Any) -> None:
    shape = (2, 6, 6) if kind == "image" else (2, 20)
    clean = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 255 - 128
    clean = clean.round().to(torch.int16) if whole else clean
    found = changes(Ground(kind, shape, clean.dtype, Box(-128, 127), clean), clean, [0, 1, 2], 7)
    asked = torch.tensor([shares, [0.0] * 5], dtype=torch.float64)[:, : len(found.settings(0))]
    points = found.built(1, asked)
    assert points.dtype == clean.dtype
    assert points.shape == (2, *shape)
    assert float(points.min()) >= -128
    assert float(points.max()) <= 127
    assert torch.equal(points[1], clean[1])
    assert float(found.sizes(1, points)[1]) == 0
    assert bool(points[0].equal(clean[1])) or found.told(1, asked[0], points[0])


LETTERS = "abcdefghijklmnopqrstuvwxyz "


def encoded(*words: str) -> torch.Tensor:
    return torch.tensor([[LETTERS.index(letter) for letter in f"{word:<10}"] for word in words])


def test_a_text_is_changed_by_an_allowed_slip_of_one_letter() -> None:
    domain = Tokens(27, frozen=frozenset({26}), alternatives=typos(LETTERS[:26]), text=lambda token: LETTERS[token])
    clean = encoded("cart paid", "hold call", "main root")

    def spots(rows: torch.Tensor) -> torch.Tensor:
        return (rows == LETTERS.index("x")).double().sum(dim=1) - 0.5

    found = search(lambda rows: rows[:, 0].double() * 0 - 1, spots, clean, domain, kind="tokens")
    assert [record["example"] for record in found.records] == [100, 101]  # x touches c, d, s and z
    for record, point in zip(found.records, found.points, strict=True):
        row = clean[record["example"] - 100]
        (place,) = (point != row).nonzero().flatten().tolist()
        assert LETTERS[point[place]] == "x"
        assert int(point[place]) in typos(LETTERS[:26])[int(row[place])]
        assert (record["size"], record["unit"]) == (1, "edits")
        assert "→" in record["text"]


# The process around it


def test_the_same_seed_finds_the_same_in_another_process_with_other_modules(tmp_path: Path) -> None:
    script = tmp_path / "again.py"
    (tmp_path / "constants_of_the_users.py").write_text("LIMITS = [3, 17, 255, 1024, 'fraud']\n", "utf-8")
    script.write_text(
        "import sys\nsys.path[:0] = [sys.argv[1], sys.argv[2]]\nimport constants_of_the_users, json\n"
        "from test_counterexamples import *\n"
        "print(json.dumps(search(over(1e9), crossed, payments(), seed=9).records))\n",
        "utf-8",
    )
    import subprocess
    import sys

    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert json.loads(done.stdout) == search(over(1e9), crossed, payments(), seed=9).records
    assert done.stderr == ""
    assert not (tmp_path / ".hypothesis").exists()


def crossed(rows: torch.Tensor) -> torch.Tensor:
    """Differs from dense in a corner: a high amount at a high rate."""
    return torch.minimum(rows[:, 0] - 1700, rows[:, 2] * 100 - 93)


def test_global_random_states_are_left_as_they_were_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def states() -> list[Any]:
        return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]  # type: ignore[index]

    before = states()
    search(over(1e9), over(1000), payments())
    search(over(1000), over(1000), payments(), tries=20)
    assert states() == before
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_records_are_plain_values() -> None:
    found = search(over(1e9), over(1000), payments())
    assert json.loads(json.dumps(found.records, allow_nan=False)) == found.records


def test_what_a_model_raises_comes_out_as_it_is_and_the_model_is_not_asked_again() -> None:
    class Overheated(Exception):
        pass

    raised = []

    def fails(rows: torch.Tensor) -> torch.Tensor:
        assert not raised
        if bool((rows[:, 0] > 1900).any()):
            raised.append(rows)
            raise Overheated("at 1900")
        return rows[:, 0] * 0 - 1

    clean = payments()
    with pytest.raises(Overheated, match="at 1900"):
        search(over(1e9), fails, clean[clean[:, 0] < 1800], reference=clean)
    assert len(raised) == 1


def test_models_that_write_into_their_inputs_spoil_nothing() -> None:
    clean = payments()
    kept = clean.clone()

    def writing(limit: float) -> Score:
        def score(rows: torch.Tensor) -> torch.Tensor:
            found = over(limit)(rows).clone()
            rows.fill_(1e6)
            return found

        return score

    found = search(writing(1500), writing(1000), clean)
    assert torch.equal(clean, kept)
    assert found.records
    assert found.unconfirmed == 0
    for record, point in zip(found.records, found.points, strict=True):
        was = float(clean[record["example"] - 100, 0])
        assert float(point[0]) == (1000 if was < 1000 else 1499)
