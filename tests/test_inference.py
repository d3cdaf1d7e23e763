"""Forward passes: every form of input and output, and a model that is left as it was."""

from __future__ import annotations

import collections
from typing import Any

import networks
import numpy as np
import pytest
import torch
from torch import nn

from pruneproof import inference
from pruneproof.errors import MeasurementError
from pruneproof.subject import Data

X = networks.batch(7, 6)


class Rows(torch.utils.data.Dataset[Any]):
    def __init__(self, with_targets: bool, mapping: bool = False) -> None:
        self.with_targets, self.mapping = with_targets, mapping

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Any:
        item: Any = {"input": X[i]} if self.mapping else X[i]
        return (item, i % 3) if self.with_targets else item


def outputs(data: Data, batch_size: int = 3, model: nn.Module | None = None) -> np.ndarray[Any, Any]:
    return inference.forward(model or layer(), data, batch_size)


def layer() -> nn.Module:
    return networks.seeded(lambda: nn.Linear(6, 3))


def expected() -> np.ndarray[Any, Any]:
    model = layer()
    return np.asarray(X.numpy() @ model.weight.detach().numpy().T + model.bias.detach().numpy())  # type: ignore[operator,union-attr]


@pytest.mark.parametrize(
    "inputs",
    [
        X,
        {"input": X},
        (X,),
        [X],
        Rows(False),
        Rows(True),
        Rows(True, mapping=True),
        X.numpy(),
        X.clone().requires_grad_(),
        collections.OrderedDict(input=X),
    ],
    ids=["tensor", "mapping", "tuple", "list", "rows", "pairs", "mapped rows", "array", "with gradient", "ordered"],
)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_every_form_of_input_gives_the_same_outputs_in_batches_of_any_size(inputs: Any, batch_size: int) -> None:
    data = Data(inputs)
    assert inference.size(data) == 7
    np.testing.assert_allclose(outputs(data, batch_size), expected(), atol=1e-6)
    sizes = [len(inference.tensors(batch)[0]) for batch, _ in inference.batches(data, batch_size)]
    assert sizes == [batch_size] * (7 // batch_size) + ([7 % batch_size] if 7 % batch_size else [])


def test_a_dataset_gives_its_targets_batch_by_batch() -> None:
    found = [targets.tolist() for _, targets in inference.batches(Data(Rows(True)), 3)]
    assert found == [[0, 1, 2], [0, 1, 2], [0]]
    assert all(targets is None for _, targets in inference.batches(Data(Rows(False)), 3))


@pytest.mark.parametrize("inputs", [(X, X[:3]), {"a": X[:1], "b": X}, (), {}, ["a", "bc"]])
def test_parts_of_different_lengths_have_no_size(inputs: Any) -> None:
    with pytest.raises(ValueError, match="different lengths"):
        inference.size(Data(inputs))


class Answering(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(x)


Named = collections.namedtuple("Named", ["hidden", "logits"])


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x[:, :2],
        lambda x: (x[:, :2], x),
        lambda x: [x[:, :2]],
        lambda x: {"hidden": x, "logits": x[:, :2]},
        lambda x: {"scores": x[:, :2], "other": x},
        lambda x: Named(x, x[:, :2]),
        lambda x: x[:, :2].clone().requires_grad_(),
        lambda x: x.T[:2].T,
    ],
)
def test_the_tensor_is_found_in_every_form_of_output(answer: Any) -> None:
    assert np.array_equal(outputs(Data(X), model=Answering(answer)), X[:, :2].numpy())


@pytest.mark.parametrize(
    ("answer", "width"), [(lambda x: x[:, 0], 1), (lambda x: x[:, :1], 1), (lambda x: x, 6), (lambda x: x[:, :2], 2)]
)
def test_outputs_are_rows_of_numbers(answer: Any, width: int) -> None:
    assert outputs(Data(X), model=Answering(answer)).shape == (7, width)


def test_one_example_with_one_number_is_one_row() -> None:
    assert outputs(Data(X[:1]), model=Answering(lambda x: x[:, 0])).shape == (1, 1)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (torch.float16, np.float32),
        (torch.bfloat16, np.float32),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
    ],
)
def test_outputs_keep_their_precision_and_half_floats_are_widened(given: torch.dtype, kept: type) -> None:
    found = outputs(Data(X), model=Answering(lambda x: x.to(given)))
    assert found.dtype == kept
    assert np.array_equal(found, X.to(given).to(torch.float64).numpy())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (lambda x: x.argmax(1), "int64, not logits"),
        (lambda x: x > 0, "bool, not logits"),
        (lambda x: x.sum(), r"shape \(\) for a batch of 3"),
        (lambda x: x[:1], r"shape \(1, 6\) for a batch of 3"),
        (lambda x: x[:2, 0], r"shape \(2,\) for a batch of 3"),
        (lambda x: x[:, :0], r"shape \(3, 0\)"),
        (lambda x: x[:, None], r"shape \(3, 1, 6\)"),
        (lambda x: None, "NoneType, in which there is no tensor"),
        (lambda x: {}, "dict, in which there is no tensor"),
        (lambda x: (), "tuple, in which there is no tensor"),
        (lambda x: x.numpy(), "ndarray, in which there is no tensor"),
    ],
)
def test_an_output_that_is_no_row_of_numbers_an_example_is_refused(answer: Any, cause: str) -> None:
    with pytest.raises(MeasurementError, match=cause):
        outputs(Data(X), model=Answering(answer))


def fail_on_the_second_batch(x: torch.Tensor) -> torch.Tensor:
    if torch.equal(x[0], X[3]):
        raise ValueError("too\nlong")
    return x


def test_a_model_that_raises_is_an_error_that_names_the_examples() -> None:
    with pytest.raises(MeasurementError, match=r"raised ValueError on examples 3 to 5: too long"):
        outputs(Data(X), model=Answering(fail_on_the_second_batch))


@pytest.mark.parametrize("answer", [lambda x: x, fail_on_the_second_batch])
def test_every_submodule_is_back_in_its_own_mode(answer: Any) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6), Answering(answer), nn.Sequential(nn.Dropout(0.9)))
    model.train()
    model[1].eval()
    statistics = model[1].running_mean.clone()  # type: ignore[operator,union-attr]
    modes = [module.training for module in model.modules()]
    seen: list[list[bool]] = []
    model.register_forward_hook(lambda *_: seen.append([module.training for module in model.modules()]))
    try:
        outputs(Data(X), model=model)
    except MeasurementError:
        assert answer is fail_on_the_second_batch
    assert [module.training for module in model.modules()] == modes
    assert seen
    assert not any(any(found) for found in seen)
    assert torch.equal(model[1].running_mean, statistics)  # type: ignore[arg-type]


def test_no_gradients_are_kept_and_grad_mode_is_back() -> None:
    model = layer()
    assert torch.is_grad_enabled()
    outputs(Data(X), model=model)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x,), lambda x: {"x": x}])
def test_a_model_that_works_in_place_does_not_change_the_data(form: Any) -> None:
    mine = X.clone()
    for _ in range(2):
        outputs(Data(form(mine)), model=Answering(lambda x: x.mul_(2)))
    assert torch.equal(mine, X)


def test_an_empty_set_gives_no_rows() -> None:
    assert outputs(Data(X[:0])).shape == (0, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_refused_with_the_first_example(value: float) -> None:
    rows = np.ones((5, 2))
    inference.finite(rows, "dense")
    rows[3, 1] = value
    with pytest.raises(
        MeasurementError, match="dense returned NaN or infinity for 1 of 5 examples, first at example 3"
    ):
        inference.finite(rows, "dense")


def test_a_model_without_tensors_is_on_the_cpu() -> None:
    assert inference.device_of(nn.ReLU()) == torch.device("cpu")
    assert inference.device_of(layer()) == torch.device("cpu")


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ([[0.01], [0.99], [0.5]], True),
        ([[0.1, 0.9], [0.7, 0.3]], True),
        ([[0.2], [0.7], [0.5]], False),
        ([[-0.1], [0.99], [0.01]], False),
        ([[0.1, 0.8], [0.7, 0.3]], False),
    ],
)
def test_probabilities_are_not_taken_for_logits(rows: list[list[float]], refused: bool) -> None:
    outputs = np.array(rows, dtype=np.float32)
    if refused:
        with pytest.raises(MeasurementError, match="probabilities"):
            inference.logits(outputs)
    else:
        assert inference.logits(outputs) is outputs
