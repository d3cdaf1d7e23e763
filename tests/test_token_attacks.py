"""Attacks on tokens: edits of texts, and moves of their embeddings.

The texts are real: lines of documentation and lines of code of the standard library, in lower case, told apart by a
network that reads their characters.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers_models import TOKENS, bert, llama, tokens

from pruneproof.adversarial import embeddings
from pruneproof.adversarial.arena import CLEAN, Arena
from pruneproof.adversarial.embedding_ball import EmbeddingBall
from pruneproof.adversarial.margin import cross_entropy, margin
from pruneproof.adversarial.sequences import EditSpace
from pruneproof.adversarial.victim import Victim
from pruneproof.attacks import embedding, token_swap
from pruneproof.domain import Criterion, Tokens
from pruneproof.errors import MeasurementError, SubjectError
from pruneproof.keyboard import typos

CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
SIZE = len(CHARACTERS)
LENGTH = 16
SWAPS = SIZE * LENGTH
"""At least as many as there are single substitutions."""


class Reader(nn.Module):
    """Characters → embedding → GRU → two logits."""

    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE, 12)
        self.gru = nn.GRU(12, 24, batch_first=batch_first)
        self.out = nn.Linear(24, 2)
        self.batch_first = batch_first

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        states = self.gru(self.embedding(text if self.batch_first else text.t()))[0]
        logits: torch.Tensor = self.out(states.mean(dim=1 if self.batch_first else 0))
        return logits


class Bag(nn.Module):
    """The sum of its tokens' vectors → logits: linear, so that what an attacker can do is known in closed form."""

    def __init__(self, size: int = 12, width: int = 5, classes: int = 2) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.embedding = nn.Embedding.from_pretrained(torch.randn(size, width, generator=generator))
        self.out = nn.Linear(width, classes)
        with torch.no_grad():
            self.out.weight.copy_(torch.randn(classes, width, generator=generator))
            self.out.bias.zero_()

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.embedding(text).sum(dim=1))
        return logits


def sentences() -> tuple[torch.Tensor, torch.Tensor]:
    """``(n, LENGTH)`` tokens and ``(n,)`` classes: 0 documentation, 1 code."""
    prose: set[str] = set()
    code: set[str] = set()
    for name in ("argparse", "statistics", "textwrap", "difflib", "heapq", "random", "tarfile", "smtplib", "ast"):
        module = importlib.import_module(name)
        about = [inspect.getdoc(part) or "" for _, part in inspect.getmembers(module) if callable(part)]
        prose |= {line.strip() for text in about for line in text.splitlines()}
        code |= {line.strip() for line in inspect.getsource(module).splitlines() if "(" in line}
    kinds = [sorted(line for line in lines if len(line) > 30) for lines in (prose - code, code - prose)]
    n = min(450, *map(len, kinds))
    generator = torch.Generator().manual_seed(0)
    chosen = [kind[at] for kind in kinds for at in torch.randperm(len(kind), generator=generator)[:n].tolist()]
    order = torch.randperm(2 * n, generator=generator)
    return torch.tensor([encoded(line) for line in chosen])[order], torch.arange(2).repeat_interleave(n)[order]


def encoded(line: str) -> list[int]:
    return [max(CHARACTERS.find(character), 0) for character in line.lower()[:LENGTH].ljust(LENGTH)]


@pytest.fixture(scope="module")
def trained() -> tuple[Reader, torch.Tensor, torch.Tensor]:
    """A reader, and 120 texts and classes that it was not trained on."""
    texts, classes = sentences()
    train = len(texts) - 120
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Reader()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(10):
            for rows in torch.randperm(train).split(50):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(texts[rows]), classes[rows]).backward()
                optimizer.step()
    model.zero_grad(set_to_none=True)
    return model.eval(), texts[train:], classes[train:]


def pruned(model: nn.Module, ratio: float) -> nn.Module:
    """A copy without its smallest weights."""
    found = copy.deepcopy(model)
    weights = [parameter for parameter in found.parameters() if parameter.ndim > 1]
    least = torch.cat([weight.detach().abs().flatten() for weight in weights]).quantile(ratio)
    with torch.no_grad():
        for weight in weights:
            weight[weight.abs() < least] = 0
    return found


def said(model: nn.Module, texts: torch.Tensor) -> torch.Tensor:
    """The class that two logits say, the second where they tie."""
    with torch.no_grad():
        logits = model(texts)
    return (logits[:, 1] >= logits[:, 0]).long()


def searched(model: nn.Module, texts: torch.Tensor, classes: torch.Tensor, size: int = SIZE) -> torch.Tensor:
    """``(n,)`` whether any single substitution at all, or none, makes the model wrong."""
    found = []
    for text, wanted in zip(texts, classes, strict=True):
        every = text.repeat(len(text), size, 1)
        for position in range(len(text)):
            every[position, :, position] = torch.arange(size)
        found.append(bool((said(model, every.reshape(-1, len(text))) != wanted).any()))
    return torch.tensor(found)


def arena(models: Sequence[nn.Module], texts: torch.Tensor, classes: torch.Tensor, space: Any, **given: Any) -> Arena:
    victims = [Victim(f"v{place}", model, classes, batch=32) for place, model in enumerate(models)]
    return Arena(victims, texts, space, seed=7, **given)


def swapped(on: Arena, **options: Any) -> Arena:
    token_swap.ATTACK.run(on, token_swap.Options(**options))
    return on


def fallen_points(on: Arena, victim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that fell by a point, and the points."""
    rows = (on.fell_by[victim] >= 0).nonzero().flatten()
    return rows, torch.stack([on.pool.points[number] for number in on.fell_by[victim, rows].tolist()])


def moved(
    models: Sequence[nn.Module], texts: torch.Tensor, classes: torch.Tensor, about: Tokens, norm: str, eps: float,
    inputs: Callable[[torch.Tensor, torch.Tensor], Any] | None = None, **options: Any,
) -> Arena:  # fmt: skip
    victims = [Victim(f"v{place}", model, classes, batch=32) for place, model in enumerate(models)]
    if inputs is not None:
        for victim in victims:
            victim.inputs = inputs
    own = embedding.Options(**options)
    opened, clean, space = embedding.ATTACK.prepare(victims, texts, about, norm, eps, own)
    found = Arena(opened, clean, space, seed=7)
    embedding.ATTACK.run(found, own)
    return found


class TestTokenSwap:
    def test_finds_every_text_that_one_edit_can_change_when_it_may_try_all_edits(self, trained: Any) -> None:
        model, texts, classes = trained
        models = [model, pruned(model, 0.5)]
        truth = torch.stack([searched(each, texts, classes) for each in models])
        found = swapped(arena(models, texts, classes, EditSpace(Tokens(SIZE), 1)), candidates=SWAPS, polish=0, tries=0)
        assert torch.equal(~found.standing, truth)

    def test_finds_nearly_all_of_them_as_it_comes_and_nothing_else(self, trained: Any) -> None:
        model, texts, classes = trained
        models = [model, pruned(model, 0.5)]
        truth = torch.stack([searched(each, texts, classes) for each in models])
        found = ~swapped(arena(models, texts, classes, EditSpace(Tokens(SIZE), 1))).standing
        assert not (found & ~truth).any()
        assert found.sum() >= 0.97 * truth.sum()  # 0.995 of 545 when the defaults were chosen
        assert truth.float().mean() > 0.5

    def test_without_gradients_finds_all_of_them_when_it_may_try_all_edits(self, trained: Any) -> None:
        model, texts, classes = trained
        texts, classes = texts[:40], classes[:40]
        own = {"search": "loss", "candidates": SWAPS, "polish": 0, "tries": 0}
        found = swapped(arena([model], texts, classes, EditSpace(Tokens(SIZE), 1)), **own)
        assert torch.equal(~found.standing[0], searched(model, texts, classes))
        assert sum(stage.gradients for stage in found.stages) == 0

    @pytest.mark.parametrize("edits", [1, 2, 3])
    def test_falls_exactly_where_a_linear_model_can_be_changed(self, edits: int) -> None:
        """Of a sum of vectors the best edits are, position by position, the tokens with the largest gain."""
        model, size, length = Bag(), 12, 24
        texts = torch.randint(size, (300, length), generator=torch.Generator().manual_seed(2))
        classes = said(model, texts)
        weight = (model.out.weight[1] - model.out.weight[0]).detach()
        value = model.embedding.weight @ weight  # what each token adds to the margin of the second class
        sign = 1.0 - 2.0 * classes
        gains = (value * sign[:, None]).amax(dim=1, keepdim=True) - value[texts] * sign[:, None]
        best = gains.topk(edits, dim=1).values.sum(dim=1)
        truth = value[texts].sum(dim=1) * sign + best > 0
        own = {"beam": 1, "candidates": 1, "polish": 0, "tries": 0}
        found = swapped(arena([model], texts, classes, EditSpace(Tokens(size), edits)), **own)
        assert torch.equal(~found.standing[0], truth)
        assert 0.1 < truth.float().mean() < 0.97

    def test_every_success_is_a_text_of_the_space_that_the_model_gets_wrong(self, trained: Any) -> None:
        model, texts, classes = trained
        about = Tokens(SIZE, frozen=frozenset({0}), alternatives=typos(CHARACTERS))
        models = [model, pruned(model, 0.6)]
        found = swapped(arena(models, texts, classes, EditSpace(about, 2)))
        assert sum(stage.refused for stage in found.stages) == 0
        near = typos(CHARACTERS)
        for place, each in enumerate(models):
            rows, points = fallen_points(found, place)
            assert len(rows) > 5
            assert bool((said(each, points) != classes[rows]).all())
            for text, point in zip(texts[rows].tolist(), points.tolist(), strict=True):
                edits = [(old, new) for old, new in zip(text, point, strict=True) if old != new]
                assert 1 <= len(edits) <= 2
                assert all(old != 0 and new in near[old] for old, new in edits)

    def test_the_pool_is_closed_and_the_same_again(self, trained: Any) -> None:
        model, texts, classes = trained
        models = [model, pruned(model, 0.5), pruned(model, 0.8)]
        first, second = (
            swapped(arena(models, texts, classes, EditSpace(Tokens(SIZE), 1)), candidates=4) for _ in range(2)
        )
        assert torch.equal(first.standing, second.standing)
        assert all(map(torch.equal, first.pool.points, second.pool.points))
        for place, each in enumerate(models):
            for row, point in zip(first.pool.rows, first.pool.points, strict=True):
                if first.standing[place, row]:
                    assert said(each, point[None])[0] == classes[row]

    def test_more_edits_never_leave_more_texts_standing(self, trained: Any) -> None:
        model, texts, classes = trained
        left = [
            int(swapped(arena([model], texts, classes, EditSpace(Tokens(SIZE), edits))).standing.sum())
            for edits in (1, 2, 3)
        ]
        assert left == sorted(left, reverse=True)
        assert left[-1] < left[0]

    def test_an_aim_counts_only_the_answer_aimed_at(self) -> None:
        model = Bag(classes=4)
        texts = torch.randint(12, (80, 6), generator=torch.Generator().manual_seed(3))
        classes = model(texts).argmax(dim=1).detach()
        rows = classes != 2
        texts, classes = texts[rows], classes[rows]
        own = {"candidates": 12 * 6, "polish": 0, "tries": 0}
        found = swapped(arena([model], texts, classes, EditSpace(Tokens(12), 1), aim=2), **own)
        truth = []
        for text in texts:
            every = text.repeat(6, 12, 1)
            for position in range(6):
                every[position, :, position] = torch.arange(12)
            truth.append(bool((model(every.reshape(-1, 6)).argmax(dim=1) == 2).any()))
        assert torch.equal(~found.standing[0], torch.tensor(truth))
        assert any(truth)
        assert not all(truth)

    def test_a_model_that_reads_the_sequence_first_is_attacked_as_well(self, trained: Any) -> None:
        model, texts, classes = trained
        turned = Reader(batch_first=False).eval()
        turned.load_state_dict(model.state_dict())
        space = EditSpace(Tokens(SIZE), 1)
        rows = torch.arange(20)
        slopes = []
        for each in (model, turned):
            opened = embeddings.lifted(Victim("v", each, classes, batch=32), space.tokens)
            loss = lambda scores, targets: scores[:, 1] - scores[:, 0]  # noqa: E731
            slopes.append(embeddings.gradients(opened, texts[:20], rows, loss, 12, None))
        torch.testing.assert_close(*slopes)
        assert bool((slopes[0] != 0).any())


class Stubborn(torch.autograd.Function):
    """It has no gradient."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way back")


class Unfinished(torch.autograd.Function):
    """Its gradient is no number."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("nan")


class Backwards(torch.autograd.Function):
    """Its gradient points the wrong way."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return -gradient


class Changed(nn.Module):
    """A bag whose logits go through a function."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.bag, self.change = Bag(), change

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.change(self.bag(text))


class TestWithoutGradients:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (Stubborn.apply, "no way back"),
            (lambda logits: logits.round(decimals=4), "zero or not finite"),
            (Unfinished.apply, "zero or not finite"),
        ],
        ids=["raises", "zero", "not finite"],
    )
    def test_the_search_goes_on_by_the_loss_and_says_why(self, change: Any, why: str) -> None:
        model = Changed(change)
        texts = torch.randint(12, (40, 5), generator=torch.Generator().manual_seed(4))
        classes = said(model, texts)
        own = {"candidates": 12 * 5, "polish": 0, "tries": 0}
        found = swapped(arena([model], texts, classes, EditSpace(Tokens(12), 1)), **own)
        assert torch.equal(~found.standing[0], searched(model, texts, classes, 12))
        names = [stage.name for stage in found.stages if stage.fell]
        assert names
        assert all("without gradients" in name and why in name for name in names)

    def test_a_model_without_an_embedding_is_searched_by_the_loss(self) -> None:
        class OneHot(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bag = nn.Linear(12, 2)

            def forward(self, text: torch.Tensor) -> torch.Tensor:
                logits: torch.Tensor = self.bag(nn.functional.one_hot(text, 12).float().sum(dim=1))
                return logits

        model = OneHot()
        texts = torch.randint(12, (30, 5), generator=torch.Generator().manual_seed(5))
        classes = said(model, texts)
        on = arena([model], texts, classes, EditSpace(Tokens(12), 1))
        with pytest.raises(SubjectError, match=r'no embedding of 12 rows[\s\S]*search = "loss"'):
            swapped(on)
        found = swapped(on, search="loss", candidates=60, polish=0, tries=0)
        assert torch.equal(~found.standing[0], searched(model, texts, classes, 12))

    def test_random_edits_find_what_a_misleading_gradient_hides(self) -> None:
        model = Changed(Backwards.apply)
        texts = torch.randint(12, (40, 5), generator=torch.Generator().manual_seed(4))
        classes = said(model, texts)
        found = swapped(arena([model], texts, classes, EditSpace(Tokens(12), 1)), candidates=1, polish=0)
        fell = {stage.name: stage.fell for stage in found.stages}
        assert fell["swap 1"] == 0
        assert fell["random edits"] > 0


def lively_bert() -> nn.Module:
    """A random BERT answers the same whatever it reads; this one tells tokens apart, and every answer is near."""
    model: Any = bert()
    with torch.no_grad():
        model.get_input_embeddings().weight *= 50
        model.classifier.bias -= model(**tokens(n=100, length=6)).logits.mean(dim=0)
    return model  # type: ignore[no-any-return]


class TestLanguageModels:
    @pytest.mark.parametrize("make", [llama, lively_bert])
    def test_edits_leave_what_is_masked_and_frozen_alone(self, make: Callable[[], nn.Module]) -> None:
        model, given = make(), tokens(n=12, length=6)
        given["attention_mask"][::2, 4:] = 0
        given["input_ids"][::2, 4:] = 3  # padding that nobody froze
        given["input_ids"][:, 2] = 1
        found = self.swapped_on(model, given, Tokens(TOKENS, frozen=frozenset({0, 1})), edits=2)
        rows, points = fallen_points(found, 0)
        assert len(rows) > 2
        clean, mask = given["input_ids"][rows], given["attention_mask"][rows]
        assert torch.equal(points[mask == 0], clean[mask == 0])
        assert torch.equal(points[clean == 1], clean[clean == 1])
        assert not torch.isin(points[points != clean], torch.tensor([0, 1])).any()

    @staticmethod
    def swapped_on(model: nn.Module, given: dict[str, torch.Tensor], about: Tokens, edits: int) -> Arena:
        classes = model(**given).logits.argmax(dim=1).detach()
        with_mask = lambda points, rows: {"input_ids": points, "attention_mask": given["attention_mask"][rows]}  # noqa: E731
        victim = Victim("v", model, classes, inputs=with_mask, batch=16)
        return swapped(Arena([victim], given["input_ids"], EditSpace(about, edits), seed=1))

    def test_finds_what_exhaustive_search_finds(self) -> None:
        model, given = llama(), tokens(n=16, length=5)
        found = self.swapped_on(model, given, Tokens(TOKENS, frozen=frozenset({0})), edits=1)
        classes = model(**given).logits.argmax(dim=1)
        truth = []
        for text, wanted in zip(given["input_ids"], classes, strict=True):
            every = text.repeat(5, TOKENS - 1, 1)
            for position in range(5):
                every[position, :, position] = torch.arange(1, TOKENS)
            every = every.reshape(-1, 5)
            with torch.no_grad():
                answers = model(input_ids=every, attention_mask=torch.ones_like(every)).logits.argmax(dim=1)
            truth.append(bool((answers != wanted).any()))
        fell = ~found.standing[0]
        assert not (fell & ~torch.tensor(truth)).any()
        assert fell.sum() >= 0.9 * sum(truth)
        assert sum(truth) > 3

    @pytest.mark.parametrize("make", [llama, lively_bert])
    def test_a_move_that_fools_fools_as_inputs_embeds_too(self, make: Callable[[], nn.Module]) -> None:
        model, given = make(), tokens(n=12, length=5)
        given["attention_mask"][::2, 4:] = 0
        given["input_ids"][::2, 4:] = 0
        classes = model(**given).logits.argmax(dim=1).detach()
        with_mask = lambda points, rows: {"input_ids": points, "attention_mask": given["attention_mask"][rows]}  # noqa: E731
        about = Tokens(TOKENS, frozen=frozenset({0}))
        eps = 0.5 * float(model.get_input_embeddings().weight.detach().norm(dim=1).mean())
        found = moved([model], given["input_ids"], classes, about, "L2", eps, with_mask, positions=2, steps=10)
        rows, points = fallen_points(found, 0)
        assert len(rows) > 2
        if make is llama:  # without tokens it cannot see where a text ends
            full = given["attention_mask"][rows].all(dim=1)
            rows, points = rows[full], points[full]
        vectors = model.get_input_embeddings()(given["input_ids"][rows]) + points[..., 1:]
        with torch.no_grad():
            output = model(inputs_embeds=vectors, attention_mask=given["attention_mask"][rows])
        assert bool((output.logits.argmax(dim=1) != classes[rows]).all())
        sizes = points[..., 1:].double().norm(dim=-1)
        assert float(sizes.max()) <= eps * (1 + 1e-9)
        assert int((sizes > 0).sum(dim=1).max()) <= 2
        assert not (sizes[given["attention_mask"][rows] == 0] > 0).any()

    def test_moves_leave_what_is_masked_alone(self) -> None:
        model, given = lively_bert(), tokens(n=12, length=5)
        given["attention_mask"][:, 3:] = 0
        classes = model(**given).logits.argmax(dim=1).detach()
        with_mask = lambda points, rows: {"input_ids": points, "attention_mask": given["attention_mask"][rows]}  # noqa: E731
        found = moved([model], given["input_ids"], classes, Tokens(TOKENS), "L2", 2.0, with_mask, steps=5)
        rows, points = fallen_points(found, 0)
        assert len(rows) > 2
        assert not points[:, 3:, 1:].any()


class TestLosses:
    SCORES = torch.tensor([[1.0, 5.0, 3.0], [4.0, 0.0, 2.0]])
    TARGETS = torch.tensor([0, 0])

    def test_the_margin_is_the_lead_of_the_best_wrong_class(self) -> None:
        assert margin()(self.SCORES, self.TARGETS).tolist() == [4.0, -2.0]

    def test_the_margin_of_an_aim_is_its_lead_over_the_best_other_class(self) -> None:
        assert margin(2)(self.SCORES, self.TARGETS).tolist() == [-2.0, -2.0]

    def test_cross_entropy_rises_with_the_aim_and_falls_with_the_target(self) -> None:
        logs = [row - row.exp().sum().log() for row in self.SCORES.double()]
        wanted = [-logs[0][0], -logs[1][0]]
        torch.testing.assert_close(cross_entropy()(self.SCORES, self.TARGETS).double(), torch.stack(wanted))
        wanted = [logs[0][2], logs[1][2]]
        torch.testing.assert_close(cross_entropy(2)(self.SCORES, self.TARGETS).double(), torch.stack(wanted))


class TestEmbeddingAttack:
    @pytest.mark.parametrize("norm", ["Linf", "L2"])
    @pytest.mark.parametrize("positions", [None, 1, 3])
    def test_falls_exactly_where_a_linear_model_can_be_moved(self, norm: str, positions: int | None) -> None:
        """A move of k tokens by eps changes the margin by at most k · eps · the dual norm of its weight."""
        model, eps = Bag(), 0.1
        texts = torch.randint(12, (200, 6), generator=torch.Generator().manual_seed(2))
        classes = said(model, texts)
        found = moved([model], texts, classes, Tokens(12), norm, eps, positions=positions)
        weight = (model.out.weight[1] - model.out.weight[0]).detach().double()
        reach = (positions or 6) * eps * float(weight.norm(p=1 if norm == "Linf" else 2))
        with torch.no_grad():
            distance = (model(texts)[:, 1] - model(texts)[:, 0]).abs().double()
        clear = (distance - reach).abs() > 1e-4 * reach  # the steps end within rounding of the best move
        assert torch.equal(~found.standing[0][clear], (distance < reach)[clear])
        assert (distance < reach).any()
        assert (distance > reach).any()

    def test_moves_are_shared_between_variants(self, trained: Any) -> None:
        model, texts, classes = trained
        found = moved([model, pruned(model, 0.3)], texts, classes, Tokens(SIZE), "Linf", 0.3, steps=5)
        replayed = [stage for stage in found.stages if stage.name == "replay" and stage.victim == "v1"]
        assert sum(stage.fell for stage in replayed) > 10

    def test_frozen_tokens_stay(self) -> None:
        model = Bag()
        texts = torch.randint(12, (60, 6), generator=torch.Generator().manual_seed(2))
        about = Tokens(12, frozen=frozenset({3, 4}))
        rows, points = fallen_points(moved([model], texts, said(model, texts), about, "L2", 1.0), 0)
        assert len(rows) > 5
        assert not points[..., 1:][torch.isin(texts[rows], torch.tensor([3, 4]))].any()

    def test_variants_of_different_width_are_refused(self) -> None:
        texts = torch.randint(12, (4, 6), generator=torch.Generator().manual_seed(2))
        with pytest.raises(MeasurementError, match="differ in width: v0 5, v1 7"):
            moved([Bag(), Bag(width=7)], texts, torch.zeros(4), Tokens(12), "L2", 1.0)

    def test_an_arena_of_tokens_is_refused(self) -> None:
        on = arena([Bag()], torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2), EditSpace(Tokens(12), 1))
        with pytest.raises(SubjectError, match="moves vectors, and the space is a EditSpace"):
            embedding.ATTACK.run(on, embedding.Options())

    @settings(max_examples=60, deadline=None)
    @given(
        norm=st.sampled_from(["Linf", "L2"]),
        eps=st.floats(1e-6, 1e6),
        positions=st.none() | st.integers(1, 6),
        seed=st.integers(0, 2**32),
    )
    def test_a_start_lies_in_the_ball_and_twice_as_far_does_not(
        self, norm: Any, eps: float, positions: int | None, seed: int
    ) -> None:
        clean = embeddings.carried(torch.arange(12).reshape(2, 6), 4)
        space = EmbeddingBall(Tokens(12, frozen=frozenset({2})), norm, eps, positions)
        points = space.start(clean, torch.Generator().manual_seed(seed))
        assert bool(space.contains(clean, points).all())
        assert bool((space.distance(clean, points) <= eps * (1 + 1e-9)).all())
        assert int((points[..., 1:] != 0).any(dim=-1).sum(dim=1).max()) <= (positions or 6)
        anywhere = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(seed)) * 3 * eps
        few = torch.arange(6).expand(2, 6) < (positions or 6)
        assert bool(space.contains(clean, space.project(clean, anywhere, few)).all())
        far = torch.cat([points[..., :1], points[..., 1:] / space.distance(clean, points)[:, None, None] * 2 * eps], -1)
        assert not space.contains(clean, far.float()).any()


class TestEditSpace:
    @staticmethod
    def allowed(about: Tokens, edits: int, clean: list[int], point: list[int]) -> bool:
        """The definition, position by position."""
        changes = [(old, new) for old, new in zip(clean, point, strict=True) if old != new]
        for old, new in changes:
            if not 0 <= new < about.size or old in about.frozen or new in about.frozen:
                return False
            if about.alternatives is not None and new not in about.alternatives.get(old, ()):
                return False
        return len(changes) <= edits

    abouts = st.integers(3, 6).flatmap(
        lambda size: st.builds(
            Tokens,
            size=st.just(size),
            frozen=st.frozensets(st.integers(0, size - 1), max_size=size - 2),
            alternatives=st.none()
            | st.dictionaries(st.integers(0, size - 1), st.lists(st.integers(0, size - 1), max_size=4)),
        )
    )

    @settings(max_examples=200, deadline=None)
    @given(about=abouts, edits=st.integers(1, 4), data=st.data())
    def test_contains_what_the_definition_allows(self, about: Tokens, edits: int, data: st.DataObject) -> None:
        try:
            space = EditSpace(about, edits)
        except SubjectError as error:
            assert "no token may stand in the place of another" in str(error)  # noqa: PT017
            return
        texts = st.lists(st.lists(st.integers(0, about.size - 1), min_size=4, max_size=4), min_size=1, max_size=5)
        clean = torch.tensor(data.draw(texts))
        wild = torch.tensor(data.draw(st.lists(st.integers(-1, about.size), min_size=4, max_size=4)))
        one = clean.clone()
        one[:, 1] = wild[0]
        for points in (wild.expand_as(clean), one, clean):
            wanted = [self.allowed(about, edits, *pair) for pair in zip(clean.tolist(), points.tolist(), strict=True)]
            assert space.contains(clean, points).tolist() == wanted
        start = space.start(clean, torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
        able = space.replaceable(clean).sum(dim=1)
        assert bool(space.contains(clean, start).all())
        assert torch.equal(space.distance(clean, start), able.clamp(max=edits).double())
        for text, options in zip(clean.flatten().tolist(), space.options(clean).flatten(0, 1).tolist(), strict=True):
            found = [token for token in options if token >= 0]
            assert found == [new for new in range(about.size) if new != text and self.allowed(about, 1, [text], [new])]

    def test_a_start_does_not_depend_on_the_examples_behind_it(self) -> None:
        clean = torch.randint(9, (20, 7), generator=torch.Generator().manual_seed(1))
        space = EditSpace(Tokens(9), 3)
        few, all_of_them = (space.start(part, torch.Generator().manual_seed(2)) for part in (clean[:4], clean))
        assert torch.equal(few, all_of_them[:4])

    def test_every_alternative_is_drawn_about_equally_often(self) -> None:
        clean = torch.full((6000, 1), 2)
        drawn = EditSpace(Tokens(5, frozen=frozenset({4})), 1).start(clean, torch.Generator().manual_seed(1))
        counts = torch.bincount(drawn.flatten(), minlength=5)
        assert counts[[2, 4]].tolist() == [0, 0]
        assert bool(((counts[[0, 1, 3]] - 2000).abs() < 200).all())

    def test_floats_and_other_shapes_are_outside(self) -> None:
        space, clean = EditSpace(Tokens(5), 1), torch.zeros(2, 3, dtype=torch.int64)
        assert not space.contains(clean, clean.float()).any()
        assert not space.contains(clean, clean[:, :2]).any()
        assert space.contains(clean, clean.int()).all()

    def test_shows_words_where_tokens_are_characters(self) -> None:
        space = EditSpace(Tokens(SIZE, text=CHARACTERS.__getitem__), 2)
        clean, point = torch.tensor(encoded("pay the refund")), torch.tensor(encoded("pay thw refumd"))
        assert space.shown(clean, point) == "“the” → “thw”; “refund” → “refumd”"

    def test_shows_tokens_where_they_are_words_and_numbers_where_they_have_no_text(self) -> None:
        words = ["a", "good", "bad\n", "film"]
        clean, point = torch.tensor([0, 1, 3]), torch.tensor([0, 2, 3])
        assert EditSpace(Tokens(4, text=words.__getitem__), 1).shown(clean, point) == "“good” → “bad\\n”"
        assert EditSpace(Tokens(4), 1).shown(clean, point) == "token 1 → 2 at position 1"

    def test_describes_the_threat_by_a_digest_of_its_alternatives(self) -> None:
        first, same, other = (
            EditSpace(Tokens(5, alternatives=near), 2).describe() for near in ({1: [2, 3]}, {1: (3, 2)}, {1: [2]})
        )
        assert first == same != other
        assert first["eps"] == 2
        assert EditSpace(Tokens(5), 2).at(3).describe()["eps"] == 3


class TestKeyboard:
    def test_neighbours_touch_on_a_us_keyboard(self) -> None:
        near = {CHARACTERS[key]: {CHARACTERS[other] for other in others} for key, others in typos(CHARACTERS).items()}
        assert near["g"] == set("tyfhvb")
        assert near["q"] == set("wa")
        assert near["p"] == set("ol")
        assert " " not in near

    def test_touching_is_mutual_and_keeps_the_shift_key(self) -> None:
        every = [chr(code) for code in range(32, 127)]
        near = typos(every)
        assert all(key in near[other] for key, others in near.items() for other in others)
        for key, other in itertools.chain.from_iterable(((k, o) for o in others) for k, others in near.items()):
            if every[key].isalpha() and every[other].isalpha():
                assert every[key].isupper() == every[other].isupper()


class TestNothingIsLeftBehind:
    @staticmethod
    def state(model: nn.Module) -> list[Any]:
        return [
            [
                (module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
                for module in model.modules()
            ],
            [(parameter.requires_grad, parameter.grad is None) for parameter in model.parameters()],
            torch.get_rng_state().tolist(),
        ]

    def test_the_model_is_as_it_was(self, trained: Any) -> None:
        model, texts, classes = copy.deepcopy(trained[0]).train(), *trained[1:]
        model.out.eval()
        model.out.bias.requires_grad_(False)
        weights, before = copy.deepcopy(model.state_dict()), self.state(model)
        swapped(arena([model], texts, classes, EditSpace(Tokens(SIZE), 1)))
        moved([model], texts[:10], classes[:10], Tokens(SIZE), "L2", 0.1, steps=2)
        assert self.state(model) == before
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())

    def test_the_model_is_as_it_was_when_it_raises(self) -> None:
        class Breaks(Bag):
            calls = 0

            def forward(self, text: torch.Tensor) -> torch.Tensor:
                vectors = self.embedding(text)
                self.calls += 1
                if self.calls > 1:
                    raise KeyboardInterrupt
                logits: torch.Tensor = self.out(vectors.sum(dim=1))
                return logits

        model = Breaks().train()
        texts = torch.randint(12, (20, 5), generator=torch.Generator().manual_seed(4))
        before = self.state(model)
        on = arena([model], texts, torch.zeros(20), EditSpace(Tokens(12), 1))
        with pytest.raises(KeyboardInterrupt):
            swapped(on)
        assert self.state(model) == before

    def test_an_embedding_that_shortens_its_vectors_keeps_its_weights(self) -> None:
        layer = nn.Embedding(6, 3, max_norm=0.5)
        before = layer.weight.detach().clone()
        vectors = embeddings.table(layer, 6)
        assert torch.equal(layer.weight, before)
        assert float(vectors.norm(dim=1).max()) <= 0.5 + 1e-6


class TestBadInput:
    TEXTS = torch.zeros(3, 6, dtype=torch.int64)

    @pytest.mark.parametrize("edits", [0, -1, 1.5, float("nan"), float("inf"), True, "2"])
    def test_a_budget_that_is_no_number_of_edits(self, edits: Any) -> None:
        with pytest.raises(SubjectError, match=r"give the number of tokens that may be replaced"):
            EditSpace(Tokens(12), edits)

    def test_a_budget_longer_than_the_texts(self) -> None:
        with pytest.raises(SubjectError, match="7 edits on sequences of 6 tokens"):
            swapped(arena([Bag()], self.TEXTS, torch.zeros(3), EditSpace(Tokens(12), 7)))

    @pytest.mark.parametrize("token", [-1, 12])
    def test_tokens_outside_the_vocabulary(self, token: int) -> None:
        texts = self.TEXTS.clone()
        texts[1, 4] = token
        with pytest.raises(SubjectError, match=f"token {token} at position 4 of example 1 is outside the vocabulary"):
            EditSpace(Tokens(12), 1).check(texts)

    def test_numbers_instead_of_tokens(self) -> None:
        with pytest.raises(SubjectError, match=r"inputs are torch\.float32 of shape \(3, 6\)"):
            EditSpace(Tokens(12), 1).check(self.TEXTS.float())

    def test_a_vocabulary_that_contradicts_itself(self) -> None:
        with pytest.raises(SubjectError, match="names token 12, outside"):
            EditSpace(Tokens(12, alternatives={1: [12]}), 1)
        with pytest.raises(SubjectError, match="vocabulary of 1 tokens"):
            EditSpace(Tokens(1), 1)
        with pytest.raises(SubjectError, match="no token may stand in the place of another"):
            EditSpace(Tokens(3, frozen=frozenset({0, 1})), 1)
        with pytest.raises(SubjectError, match="no token of these examples may be replaced"):
            EditSpace(Tokens(12, alternatives={5: [6]}), 1).check(self.TEXTS)

    def test_no_embedding_or_several(self) -> None:
        double = nn.ModuleDict({"a": nn.Embedding(12, 2), "b": nn.Embedding(12, 2)})
        about = Tokens(12)
        with pytest.raises(SubjectError, match="more than one embedding of 12 rows: a, b"):
            embeddings.embedding(Victim("v", double, torch.zeros(1)), about)
        with pytest.raises(SubjectError, match="no embedding of 12 rows"):
            embeddings.embedding(Victim("v", nn.Linear(2, 2), torch.zeros(1)), about)
        named = Tokens(12, embedding=lambda model: model["b"])
        assert embeddings.embedding(Victim("v", double, torch.zeros(1)), named) is double["b"]

    def test_an_embedding_smaller_than_the_vocabulary(self) -> None:
        about = Tokens(13, embedding=lambda model: model.embedding)
        with pytest.raises(SubjectError, match="the embedding has 12 rows, the vocabulary 13 tokens"):
            swapped(arena([Bag()], self.TEXTS, torch.zeros(3), EditSpace(about, 1)))

    def test_an_embedding_that_does_not_read_the_tokens_gives_no_gradients(self) -> None:
        class Shifted(Bag):
            def forward(self, text: torch.Tensor) -> torch.Tensor:
                return super().forward(text[:, 1:])

        model = Shifted()
        texts = torch.randint(12, (20, 5), generator=torch.Generator().manual_seed(4))
        classes = said(model, texts)
        found = swapped(arena([model], texts, classes, EditSpace(Tokens(12), 1)), candidates=60, polish=0)
        assert torch.equal(~found.standing[0], searched(model, texts, classes, 12))
        assert any("does not read its tokens" in stage.name for stage in found.stages)
        with pytest.raises(MeasurementError, match="does not read its tokens"):
            moved([model], texts, classes, Tokens(12), "L2", 1.0)

    @pytest.mark.parametrize("options", [{"norm": "L1"}, {"eps": 0.0}, {"eps": float("nan")}, {"positions": 7}])
    def test_an_embedding_budget_that_is_none(self, options: dict[str, Any]) -> None:
        given: dict[str, Any] = {"norm": "L2", "eps": 1.0, **options}
        with pytest.raises(SubjectError):
            moved([Bag()], self.TEXTS, torch.zeros(3), Tokens(12), **given)

    def test_inputs_that_are_no_sequences(self) -> None:
        assert token_swap.ATTACK.refuses((3, 8, 8), 10)
        assert embedding.ATTACK.refuses((3, 8, 8), 10)
        assert token_swap.ATTACK.refuses((8,), 2) is None


def test_a_tagger_with_a_criterion_of_its_own_is_attacked() -> None:
    """Synthetic: tags of tokens by a convolution; it must not happen that two tags of a text are wrong."""
    torch_state = torch.Generator().manual_seed(1)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding.from_pretrained(torch.randn(10, 4, generator=torch_state))
            self.kernel = nn.Parameter(torch.randn(3, 4, 3, generator=torch_state))

        def forward(self, text: torch.Tensor) -> torch.Tensor:
            tags: torch.Tensor = nn.functional.conv1d(self.embedding(text).transpose(1, 2), self.kernel, padding=1)
            return tags

    def errors(output: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        return (output.argmax(dim=1) != tags).sum(dim=1)

    criterion = Criterion(
        loss=lambda output, tags: nn.functional.cross_entropy(output, tags, reduction="none").sum(dim=1),
        fooled=lambda output, tags: errors(output, tags) >= 2,
    )
    model = Tagger()
    texts = torch.randint(10, (30, 6), generator=torch.Generator().manual_seed(6))
    tags = model(texts).argmax(dim=1).detach()
    victim = Victim("v", model, tags, criterion=criterion, batch=16)
    own = {"candidates": 60, "polish": 0, "tries": 0}
    found = swapped(Arena([victim], texts, EditSpace(Tokens(10), 1), seed=1), **own)
    truth = []
    for text, wanted in zip(texts, tags, strict=True):
        every = text.repeat(6, 10, 1)
        for position in range(6):
            every[position, :, position] = torch.arange(10)
        truth.append(bool((errors(model(every.reshape(-1, 6)), wanted) >= 2).any()))
    assert torch.equal(~found.standing[0], torch.tensor(truth))
    assert all(stage.fell == 0 for stage in found.stages if stage.name == CLEAN)
    assert any(truth)
