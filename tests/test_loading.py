"""From a policy to a checked subject: bad input is one line of cause and one of what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pruneproof import checking, digests, loading, policy, policy_file, profile, variants
from pruneproof.errors import PruneProofError, SubjectError
from pruneproof.planners import Planners
from pruneproof.subject import Data, Subject

N = 40
X = networks.batch(N, 6)
Y = torch.arange(N) % 3
NAN, INF = float("nan"), float("inf")


def data(**changes: Any) -> Data:
    return replace(Data(X, Y), **changes)


def subject(**changes: Any) -> Subject:
    base = Subject(model=networks.seeded(networks.mlp), task="classification", test=data())
    return replace(base, **changes)


def binary(**changes: Any) -> Subject:
    base = subject(model=networks.seeded(lambda: nn.Linear(6, 1)), test=data(targets=Y % 2))
    return replace(base, **changes)


def refused(bad: Subject, columns: tuple[str, ...] | None = None) -> SubjectError:
    with pytest.raises(SubjectError) as caught:
        checking.check(bad, columns)
    return said(caught.value)


def said(error: SubjectError) -> SubjectError:
    for line in (error.cause, error.remedy):
        assert line.strip()
        assert "\n" not in line
    return error


def spoilt(row: int, value: float) -> torch.Tensor:
    inputs = X.clone()
    inputs[row, 2] = value
    return inputs


class Raising(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("amount")


class Dataset(torch.utils.data.Dataset[Any]):
    def __init__(self, item: Callable[[int], Any], n: int = N) -> None:
        self.item, self.n = item, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])


BAD: dict[str, tuple[Callable[[], Subject], str]] = {
    "model is no module": (lambda: subject(model=len), "model is builtin_function_or_method"),
    "unknown task": (lambda: subject(task="ranking"), "task 'ranking'"),
    "batch size zero": (lambda: subject(batch_size=0), "batch_size 0"),
    "batch size a float": (lambda: subject(batch_size=2.5), "batch_size 2.5"),
    "test is a tensor": (lambda: subject(test=X), "test is Tensor"),
    "test is missing": (lambda: subject(test=None), "test is NoneType"),
    "calibration is a tensor": (lambda: subject(calibration=X), "calibration is Tensor"),
    "a shifted set is a tensor": (lambda: subject(shifted={"q1": X}), "q1 is Tensor"),
    "a shifted set is called test": (lambda: subject(shifted={"test": data()}), "called 'test'"),
    "empty test set": (lambda: subject(test=Data(X[:0], Y[:0])), "the test set is empty"),
    "empty dataset": (lambda: subject(test=Data(Dataset(lambda i: (X[i], 0), 0))), "the test set is empty"),
    "empty calibration set": (lambda: subject(calibration=Data(X[:0], Y[:0])), "the calibration set is empty"),
    "strings": (lambda: subject(test=data(inputs=["ab", "cd"])), "test inputs"),
    "strings of one length, one an example": (lambda: subject(test=Data(["a" * N] * 2, Y)), "hold no tensor"),
    "a number": (lambda: subject(test=data(inputs=3)), "test inputs: object of type 'int'"),
    "nothing": (lambda: subject(test=data(inputs=None)), "test inputs"),
    "a stream": (lambda: subject(test=data(inputs=Stream())), "test inputs"),
    "parts of different lengths": (lambda: subject(test=data(inputs=(X, X[:3]))), r"different lengths: \[3, 40\]"),
    "a scalar tensor": (lambda: subject(test=data(inputs=torch.tensor(1.0))), "test inputs"),
    "a dataset that raises": (
        lambda: subject(test=Data(Dataset(lambda i: 1 / 0))),
        "test set raised ZeroDivisionError",
    ),
    "a dataset of words": (lambda: subject(test=data(inputs=Dataset(lambda i: "x"))), "hold no tensor"),
    "NaN in inputs": (lambda: subject(test=data(inputs=spoilt(17, NAN))), "test inputs hold NaN, first in example 17"),
    "Inf in inputs": (lambda: subject(test=data(inputs=spoilt(3, -INF))), "hold infinity, first in example 3"),
    "NaN in calibration": (
        lambda: subject(calibration=data(inputs=spoilt(5, NAN))),
        "calibration inputs hold NaN, first in example 5",
    ),
    "NaN in a shifted set": (lambda: subject(shifted={"q1": data(inputs=spoilt(5, NAN))}), "q1 inputs hold NaN"),
    "Inf where NaN is allowed": (
        lambda: subject(test=data(inputs=spoilt(3, INF)), allow_missing=True),
        "hold infinity, first in example 3",
    ),
    "NaN in one of two inputs": (
        lambda: subject(test=data(inputs={"a": X, "b": spoilt(39, NAN)})),
        "hold NaN, first in example 39",
    ),
    "no targets": (lambda: subject(test=data(targets=None)), "the test set has no targets"),
    "too few targets": (lambda: subject(test=data(targets=Y[:-1])), r"40 examples and targets of shape \(39,\)"),
    "one-hot targets": (lambda: subject(test=data(targets=torch.eye(3)[Y])), r"targets of shape \(40, 3\)"),
    "NaN targets": (lambda: subject(test=data(targets=torch.full((N,), NAN))), "targets are not finite numbers"),
    "words as targets": (lambda: subject(test=data(targets=["yes"] * N)), "targets are not finite numbers"),
    "missing targets": (lambda: subject(test=data(targets=[None, *Y[1:].tolist()])), "targets are not finite"),
    "ragged targets": (lambda: subject(test=data(targets=[[0], [0, 1]] * 20)), "test targets are not numbers"),
    "words from a dataset": (lambda: subject(test=Data(Dataset(lambda i: (X[i], "no")))), "not finite numbers"),
    "mappings from a dataset": (lambda: subject(test=Data(Dataset(lambda i: (X[i], {"y": 0})))), "test targets"),
    "label too large": (
        lambda: subject(test=data(targets=Y + 1)),
        "test target 3 of example 2 is outside the classes 0 to 2",
    ),
    "label negative": (lambda: subject(test=data(targets=Y - 1)), "test target -1 of example 0 is outside"),
    "label between": (lambda: subject(test=data(targets=Y + 0.5)), "test target 0.5 of example 0 is outside"),
    "calibration label": (lambda: subject(calibration=data(targets=Y + 1)), "calibration target 3 of example 2"),
    "model raises": (
        lambda: subject(model=Raising()),
        "dense model does not fit its test set: the model raised KeyError",
    ),
    "model answers nothing": (lambda: subject(model=Answer(lambda x: None)), "returned NoneType"),
    "model answers labels": (lambda: subject(model=Answer(lambda x: x.argmax(1))), "torch.int64"),
    "regression with three numbers": (lambda: subject(task="regression"), "returns 3 numbers an example"),
    "too few class names": (lambda: subject(classes=["a", "b"]), "2 distinct class names for a model with 3 classes"),
    "a class name twice": (lambda: subject(classes=["a", "b", "a"]), "2 distinct class names"),
    "a number of classes": (lambda: subject(classes=3), "classes is int"),
    "class names in one word": (lambda: subject(classes="abc"), "classes is str"),
    "too few ids": (lambda: subject(test=data(ids=["a"])), "40 examples and 1 ids"),
    "threshold one": (lambda: binary(threshold=1.0), "threshold 1.0"),
    "threshold negative": (lambda: binary(threshold=-0.1), "threshold -0.1"),
    "threshold NaN": (lambda: binary(threshold=NAN), "threshold nan"),
    "threshold a list": (lambda: binary(threshold=[0.5]), r"threshold \[0.5\]"),
    "threshold unknown": (lambda: binary(threshold="f2"), "threshold 'f2'"),
    "threshold without calibration": (lambda: binary(threshold="f1"), "threshold 'f1' without calibration data"),
    "threshold for three classes": (lambda: subject(threshold=0.5), "a threshold for a multiclass task"),
    "threshold for regression": (
        lambda: binary(task="regression", threshold=0.5),
        "a threshold for a regression task",
    ),
}


class Answer(nn.Module):
    def __init__(self, answer: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_subject_is_refused_by_name(name: str) -> None:
    make, cause = BAD[name]
    assert re.search(cause, refused(make()).cause), name


def test_a_good_subject_is_summed_up() -> None:
    segments = pd.DataFrame({"region": ["n", "s"] * 20, "size": [1.0, 2.5, None, 1.0] * 10, "left": range(N)})
    found = checking.check(
        subject(
            test=data(segments=segments, ids=[f"t{i}" for i in range(N)]),
            calibration=Data(X[:7], Y[:7]),
            shifted={"q1": Data(X[:9], Y[:9])},
            classes=("a", "b", "c"),
        ),
        ("region", "size"),
    )
    assert found.data_sizes == {"test": 40, "calibration": 7, "q1": 9}
    assert set(found.data_digests) == set(found.data_sizes)
    assert found.examples.facts.task == "multiclass"
    assert found.examples.facts.classes == ("a", "b", "c")
    assert found.examples.facts.segments == {
        "region": {"n": 20, "s": 20},
        "size": {"(missing)": 10, "1": 20, "2.5": 10},
    }
    assert found.examples.targets.dtype == np.int64
    assert found.examples.targets.tolist() == Y.tolist()
    assert found.examples.ids.tolist()[:2] == ["t0", "t1"]


@pytest.mark.parametrize(
    "targets",
    [Y, Y[:, None], Y.numpy(), Y.tolist(), pd.Series(Y.numpy(), index=range(5, 45)), Y.to(torch.uint8), Y.double()],
    ids=["tensor", "column", "array", "list", "series", "bytes", "floats"],
)
def test_targets_come_in_many_forms(targets: Any) -> None:
    assert checking.check(subject(test=data(targets=targets))).examples.targets.tolist() == Y.tolist()


@pytest.mark.parametrize("target", [int, torch.tensor, float])
def test_a_dataset_brings_its_own_targets(target: Callable[[int], Any]) -> None:
    found = checking.check(subject(test=Data(Dataset(lambda i: (X[i], target(i % 3))))))
    assert found.examples.targets.tolist() == Y.tolist()


@pytest.mark.parametrize("width", [1, 2])
def test_one_logit_or_two_are_a_binary_task(width: int) -> None:
    found = checking.check(binary(model=nn.Linear(6, width)))
    assert found.examples.facts.task == "binary"
    assert found.examples.facts.classes == ("0", "1")


def test_regression_keeps_its_numbers() -> None:
    found = checking.check(binary(task="regression", test=data(targets=Y - 0.25)))
    assert found.examples.facts.classes == ()
    assert found.examples.targets.tolist() == (Y - 0.25).tolist()


def test_missing_values_are_allowed_where_the_subject_says_so() -> None:
    model = Answer(lambda x: torch.nan_to_num(x)[:, :3])
    checking.check(subject(model=model, test=data(inputs=spoilt(3, NAN)), allow_missing=True))


@pytest.mark.parametrize("threshold", [0.25, np.float64(0.25), np.float32(0.25)])
def test_a_threshold_is_kept_whatever_kind_of_number_it_is(threshold: Any) -> None:
    found = checking.check(binary(threshold=threshold)).examples.threshold
    assert type(found) is float
    assert found == 0.25


def test_an_imported_checkpoint_is_not_needed_to_check_and_the_model_is_left_alone() -> None:
    model = networks.seeded(networks.cnn).train()
    before = digests.of_model(model)
    checking.check(subject(model=model, test=data(inputs=networks.batch(N, 3, 8, 8))))
    assert digests.of_model(model) == before
    assert all(module.training for module in model.modules())


SEGMENTS: dict[str, tuple[Any, tuple[str, ...] | None, str]] = {
    "none given": (None, ("region",), "segments by region, but the data have no segments"),
    "column missing": (pd.DataFrame({"a": [1] * N}), ("region",), "no segment column 'region'"),
    "all null": (pd.DataFrame({"a": [None] * N}), ("a",), "segment column 'a' is empty: every value is null"),
    "all null, any column": (pd.DataFrame({"a": [NAN] * N}), None, "segment column 'a' is empty"),
    "wrong length": (pd.DataFrame({"a": [1] * 39}), ("a",), "segments of 39 rows for 40 examples"),
    "no frame": ({"a": [1] * N}, ("a",), "segments are dict"),
    "a number": (3, ("a",), "segments are int"),
    "one name twice": (
        pd.DataFrame([[1, 2]] * N, columns=["a", "a"]),
        ("a",),
        "several segment columns are called 'a'",
    ),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_bad_segments_are_refused_by_name(name: str) -> None:
    given, columns, cause = SEGMENTS[name]
    assert cause in refused(subject(test=data(segments=given)), columns).cause


def test_a_column_of_more_than_two_hundred_values_is_refused() -> None:
    x = networks.batch(201, 6)
    many = subject(test=Data(x, torch.zeros(201), segments=pd.DataFrame({"amount": range(201)})))
    assert "segment column 'amount' has 201 values" in refused(many, ("amount",)).cause
    checking.check(many, ())
    checking.check(subject(test=Data(x, torch.zeros(201), segments=pd.DataFrame({"amount": [0, *range(200)]}))))


def test_large_codes_that_differ_stay_apart_though_nulls_made_them_floats() -> None:
    codes = [1234567.0, 1234568.0, None, 0.1] * 10
    found = checking.check(subject(test=data(segments=pd.DataFrame({"branch": codes}))))
    assert set(found.examples.facts.segments["branch"]) == {"1234567", "1234568", "(missing)", "0.1"}


def test_segments_are_taken_by_row_whatever_their_index() -> None:
    frame = pd.DataFrame({"a": ["first", *["x"] * 39]}, index=range(100, 60, -1))
    assert checking.check(subject(test=data(segments=frame))).examples.segments["a"][0] == "first"


def test_data_digests_say_what_the_data_are_and_not_how_they_are_read() -> None:
    one = digests.of_data(data(), 7)
    assert one == digests.of_data(data(), 40)
    others = [
        data(inputs=spoilt(3, 1.0)),
        data(inputs=X.double()),
        data(inputs=X.reshape(N, 2, 3)),
        data(targets=Y.flip(0)),
        data(segments=pd.DataFrame({"a": [1] * N})),
        data(segments=pd.DataFrame({"b": [1] * N})),
        data(segments=pd.DataFrame({"a": [1, 2] * 20})),
        data(inputs={"a": X, "b": -X}),
        data(inputs={"b": X, "a": -X}),
    ]
    assert len({one, *(digests.of_data(other, 40) for other in others)}) == len(others) + 1
    assert digests.of_data(Data(X.clone().requires_grad_(), Y.float().requires_grad_()), 7)


def test_model_digests_say_what_the_model_is() -> None:
    base = digests.of_model(networks.seeded(networks.mlp))
    assert base == digests.of_model(networks.seeded(networks.mlp).eval().requires_grad_(False))
    other = networks.seeded(networks.mlp)
    with torch.no_grad():
        other.get_parameter("4.bias")[2] += 1e-7
    swapped = nn.Sequential(*networks.seeded(networks.mlp))
    swapped[1] = nn.GELU()
    assert len({base, *map(digests.of_model, (other, swapped, networks.seeded(networks.mlp).double()))}) == 4


# references


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A policy's folder; what is imported from it is forgotten afterwards."""
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in list(sys.modules):
        if name.partition(".")[0] in ("mine", "bank", "models", "helper", "shared_name"):
            del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "reference", "cause"),
    [
        ("", "nowhere_here:subject", "no module named 'nowhere_here'"),
        ("", "mine.nowhere:subject", "no module named 'mine.nowhere'"),
        ("import nowhere_there", "mine:subject", "no module named 'nowhere_there'"),
        ("x = 1", "mine:subject", "'mine' has no 'subject'"),
        ("class A: pass", "mine:A.subject", "'mine' has no 'A.subject'"),
        ("1 / 0", "mine:subject", "importing 'mine' raised ZeroDivisionError: division by zero"),
        ("def (", "mine:subject", "importing 'mine' raised SyntaxError"),
        ("from math import nothing", "mine:subject", "importing 'mine' raised ImportError"),
        ("import sys; sys.exit(2)", "mine:subject", "importing 'mine' raised SystemExit: 2"),
        ("subject = 3", "mine:subject", "is int, not a function"),
        ("def subject(): raise KeyError('a\\nb')", "mine:subject", "raised KeyError: 'a\\nb'"),
        ("def subject(): raise ValueError('a\\nb')", "mine:subject", "raised ValueError: a b"),
        ("def subject(path): pass", "mine:subject", "raised TypeError"),
        ("def subject(): exit()", "mine:subject", "raised SystemExit"),
        ("def subject(): return {}", "mine:subject", "returned dict, not a pruneproof.Subject"),
        ("from pruneproof import Subject as subject", "mine:subject", "raised TypeError"),
    ],
)
def test_a_reference_that_gives_no_subject_is_refused_by_name(
    source: str, reference: str, cause: str, folder: Path
) -> None:
    (folder / "mine.py").write_text(source)
    with pytest.raises(SubjectError) as caught:
        loading.load(asked(folder, reference))
    error = said(caught.value)
    assert cause in error.cause
    assert reference in error.cause


def asked(folder: Path, reference: str = "mine:subject", more: str = "") -> policy.Policy:
    text = (
        f'[audit]\nname = "a"\n[subject]\nload = "{reference}"\n[[prune]]\nname = "p"\nratios = [0.5]\n{more}\n'
        "[suites.accuracy.gates]\naccuracy = { min = 0.1 }\n"
    )
    return policy_file.parse(text, folder / "audit.toml")


def test_an_error_that_the_subject_raises_on_purpose_comes_through(folder: Path) -> None:
    (folder / "mine.py").write_text(
        "from pruneproof.errors import SubjectError\ndef subject(): raise SubjectError('no file x', 'fetch it')\n"
    )
    with pytest.raises(PruneProofError, match=r"^no file x"):
        loading.load(asked(folder))


SUBJECT = """
import torch
from pruneproof import Data, Subject
def subject():
    return Subject(torch.nn.Linear(2, 2), "classification", Data(torch.zeros(3, 2), torch.zeros(3)))
"""


def test_a_subject_is_loaded_from_beside_its_policy(folder: Path) -> None:
    (folder / "mine.py").write_text(SUBJECT)
    assert loading.load(asked(folder)).examples.facts.n == 3


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("form", ["module", "package", "namespace"])
def test_two_policies_load_their_own_modules_of_one_name(nested: bool, form: str, folder: Path) -> None:
    one = folder / "one"
    two = one / "two" if nested else folder / "two"
    for place in (one, two):
        inner = place if form == "module" else place / "bank"
        inner.mkdir(parents=True, exist_ok=True)
        if form == "package":
            (inner / "__init__.py").touch()
        helper = "helper" if form == "module" else "bank.helper"
        (inner / "models.py").write_text(f"import {helper} as helper\ndef place(): return helper.PLACE\n")
        (inner / "helper.py").write_text(f"PLACE = {place.name!r}\n")
    reference = "models:place" if form == "module" else "bank.models:place"
    found = [loading.resolve(reference, place) for place in (two, one, two, one, one)]
    assert found == ["two", "one", "two", "one", "one"]


def test_a_local_module_comes_before_one_of_the_same_name_that_was_loaded_elsewhere(folder: Path) -> None:
    for place, value in ((folder / "a", 1), (folder / "b", 2)):
        place.mkdir()
        (place / "shared_name.py").write_text(f"def value(): return {value}\n")
    sys.path.insert(0, str(folder / "a"))
    try:
        import shared_name  # type: ignore[import-not-found]

        assert shared_name.value() == 1
        assert loading.resolve("shared_name:value", folder / "b") == 2
    finally:
        sys.path.remove(str(folder / "a"))


def test_other_modules_are_not_imported_again(folder: Path) -> None:
    (folder / "json.py").write_text("")
    (folder / "torch").mkdir()
    (folder / "mine.py").write_text("import torch\ndef same(): return torch\n")
    import json

    assert loading.resolve("mine:same", folder) is torch
    assert sys.modules["json"] is json


# models of other tools


def test_a_module_function_gives_an_imported_variant(folder: Path) -> None:
    (folder / "mine.py").write_text("import torch\ndef small(): return torch.nn.Linear(6, 3)\ndef text(): return 'x'\n")
    assert loading.model("mine:small", subject(), folder).out_features == 3
    with pytest.raises(SubjectError, match="returned str"):
        loading.model("mine:text", subject(), folder)


@pytest.mark.parametrize("make", [networks.mlp, networks.cnn, networks.Tied])
def test_a_checkpoint_that_fits_is_read_onto_a_copy(make: Callable[[], nn.Module], folder: Path) -> None:
    dense, other = networks.seeded(make), networks.seeded(make, seed=1)
    (folder / "pruned.safetensors").write_bytes(profile.serialised(other))
    before = digests.of_model(dense)
    found = loading.model("pruned.safetensors", subject(model=dense), folder)
    assert digests.of_model(found) == digests.of_model(other)
    assert digests.of_model(dense) == before


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ({"0.weight": torch.zeros(8, 6)}, "missing ['0.bias', '2.weight'"),
        ({**networks.mlp().state_dict(), "9.weight": torch.zeros(1)}, "unexpected ['9.weight']"),
        ({**networks.mlp().state_dict(), "0.weight": torch.zeros(4, 6)}, "size mismatch for 0.weight"),
        (networks.cnn().state_dict(), "does not fit the subject's architecture"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(state: dict[str, torch.Tensor], cause: str, folder: Path) -> None:
    save_file(state, folder / "pruned.safetensors")
    with pytest.raises(SubjectError) as caught:
        loading.model("pruned.safetensors", subject(), folder)
    assert cause in said(caught.value).cause
    assert len(caught.value.cause) < 600


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_checkpoint_that_cannot_be_read_is_refused(content: bytes | None, folder: Path) -> None:
    if content is not None:
        (folder / "pruned.safetensors").write_bytes(content)
    with pytest.raises(SubjectError, match=r"checkpoint pruned\.safetensors"):
        loading.model("pruned.safetensors", subject(), folder)


def test_an_imported_variant_has_a_row_of_its_own(folder: Path) -> None:
    loaded = checking.check(subject())
    other = networks.seeded(networks.mlp)
    with torch.no_grad():
        other.get_parameter("0.weight").zero_()
    (folder / "nni.safetensors").write_bytes(profile.serialised(other))
    wanted = asked(folder, more='[[variant]]\nname = "nni-70"\ncheckpoint = "nni.safetensors"')
    built = variants.build(policy.variants(wanted)[1], Planners(loaded, wanted), wanted)
    assert built.plan is None
    assert built.row.kind == "imported"
    assert built.row.sparsity == pytest.approx(
        {"pruned_tensors": 48 / 158, "layer_weights": 48 / 158, "all_parameters": 48 / 179}
    )
    assert (built.row.parameters, built.row.nonzero_parameters, built.row.macs) == (179, 131, 158)
    assert built.row.model_sha256 == digests.of_model(other)


def test_a_pruned_variant_has_a_plan_and_checks_that_passed(folder: Path) -> None:
    loaded, wanted = checking.check(subject()), asked(folder)
    built = variants.build(policy.variants(wanted)[0], Planners(loaded, wanted), wanted)
    variants.verified(built.row)
    assert built.plan is not None
    assert (built.row.name, built.row.units_removed, built.row.units) == ("p@0.5", 79, 158)
    assert built.row.sparsity == pytest.approx(
        {"pruned_tensors": 0.5, "layer_weights": 0.5, "all_parameters": 79 / 179}
    )
    assert [check.id for check in built.row.self_checks] == ["V1", "V1a", "V1b", "V3", "V4", "V7", "V8"]
    dense = variants.dense(loaded)
    assert dense.model is not loaded.subject.model
    assert set(dense.row.sparsity.values()) == {0.0}


# operating points


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy"])
def test_the_chosen_threshold_is_the_best_of_all(metric: str) -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score

    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 60)
    logits = generator.normal(targets * 1.5, 1.5)[:, None]
    calibration = Data(torch.zeros(60, 6), targets)
    loaded = checking.check(binary(threshold=metric, calibration=calibration))
    assert loaded.examples.threshold is None
    chosen = checking.chosen_threshold(loaded, logits)
    assert chosen is not None
    probabilities = 1 / (1 + np.exp(-logits[:, 0]))
    score = f1_score if metric == "f1" else balanced_accuracy_score
    best = max(score(targets, probabilities >= step) for step in probabilities)
    assert score(targets, probabilities >= chosen) == pytest.approx(best)


def test_a_calibration_set_that_cannot_choose_a_threshold_is_refused() -> None:
    one_class = checking.check(binary(threshold="f1", calibration=Data(X, torch.zeros(N))))
    with pytest.raises(SubjectError, match="one class only"):
        checking.chosen_threshold(one_class, np.arange(float(N))[:, None])
    both = checking.check(binary(threshold="f1", calibration=data(targets=Y % 2)))
    with pytest.raises(SubjectError, match="the same score"):
        checking.chosen_threshold(both, np.zeros((N, 1)))


def test_a_given_threshold_needs_no_calibration() -> None:
    assert checking.chosen_threshold(checking.check(binary(threshold=0.3)), np.zeros((N, 1))) == 0.3
    assert checking.chosen_threshold(checking.check(binary()), np.zeros((N, 1))) is None


def test_training_examples_need_no_targets_since_distillation_gives_them() -> None:
    found = checking.check(subject(train=Data(X)))
    assert found.data_sizes == {"test": N, "train": N}
    with pytest.raises(SubjectError, match="train target 7 of example 0 is outside the classes"):
        checking.check(subject(train=Data(X, torch.full((N,), 7))))
