"""The built-in fine-tuning: it regains what pruning cost, on examples it did not see too, and revives nothing."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import batch, mlp, seeded
from torch import nn
from torch.nn import functional

from pruneproof import adapters, recovery, surgery, training
from pruneproof.errors import PruneProofError, PruningError, SubjectError
from pruneproof.recipe import Recovery
from pruneproof.subject import Data, Subject

TEST = Data(batch(4, 6), torch.arange(4) % 3)


def subject(train: Data | None, task: str = "classification", **given: Any) -> Subject:
    return Subject(model=mlp(), task=task, test=TEST, train=train, **given)  # type: ignore[arg-type]


def rows(n: int = 40, seed: int = 2) -> Data:
    """Class 0, 1 or 2 by the sign of the first two inputs."""
    x = batch(n, 6, seed=seed)
    return Data(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def fine_tune(
    model: nn.Module, options: Recovery, subject: Subject, masks: Any = None, **given: Any
) -> training.Trained:
    dense = given.pop("dense", None) or seeded(mlp, 9)
    function = recovery.function(options, subject, dense)
    return training.train(model, masks or {}, function, **{"step": 1, "steps": 1, "seed": 0, **given})


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in surgery.named_tensors(model).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def digits() -> tuple[Data, Data]:
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn ships the digits")
    found = datasets.load_digits()
    x, y = torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)
    return Data(x[:1200], y[:1200]), Data(x[1200:], y[1200:])


def accuracy(model: nn.Module, data: Data) -> float:
    with torch.no_grad():
        return float((model.eval()(data.inputs).argmax(1) == data.targets).float().mean())


def digits_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.mark.parametrize("options", [{}, {"distill": 0.5}, {"distill": 1.0}], ids=["loss", "both", "distilled"])
def test_a_pruned_network_regains_accuracy_on_examples_that_recovery_did_not_see(options: dict[str, float]) -> None:
    train, test = digits()
    digit = Subject(model=digits_mlp(), task="classification", test=test, train=train)
    dense = seeded(digits_mlp)
    fine_tune(dense, Recovery(epochs=15, learning_rate=5e-3), digit)
    pruned = copy.deepcopy(dense)
    masks = {}
    for name in ("0.weight", "2.weight"):
        weight = pruned.get_parameter(name)
        masks[name] = weight.detach().abs() > weight.detach().abs().flatten().kthvalue(int(0.9 * weight.numel())).values
    surgery.zero(pruned, masks)
    before = accuracy(pruned, test)
    found = fine_tune(pruned, Recovery(epochs=8, learning_rate=5e-3, **options), digit, masks, dense=dense)
    assert accuracy(dense, test) > 0.85
    assert before < 0.6
    assert accuracy(pruned, test) > before + 0.2
    assert found.revived == 0
    assert all(bool((pruned.get_parameter(name)[~mask] == 0).all()) for name, mask in masks.items())


class Watched(nn.Module):
    """Notes which examples it is given, by their first number, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = seeded(mlp)
        self.trained: list[list[float]] = []
        self.judged: list[list[float]] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (self.trained if self.training else self.judged).append(x[:, 0].tolist())
        if not self.training:
            self.states.append(weights(self.inner))
        found: torch.Tensor = self.inner(x)
        return found


def first(data: Data) -> set[float]:
    return set(data.inputs[:, 0].tolist())


@pytest.mark.parametrize(("n", "held_out"), [(2, 1), (9, 1), (10, 1), (39, 3), (40, 4)])
def test_a_tenth_of_the_examples_is_held_out_and_never_trained_with(n: int, held_out: int) -> None:
    data, model = rows(n), Watched()
    fine_tune(model, Recovery(epochs=3, patience=3, batch_size=7), subject(data))
    trained, judged = set(chain(*model.trained)), set(chain(*model.judged))
    assert len(judged) == held_out
    assert trained.isdisjoint(judged)
    assert trained | judged == first(data)


def test_the_held_out_examples_are_the_same_at_every_step_of_a_schedule() -> None:
    data = rows()
    function = recovery.function(Recovery(epochs=1), subject(data), seeded(mlp))
    judged = []
    for step in (1, 2, 3):
        model = Watched()
        training.train(model, {}, function, step=step, steps=3, seed=0)
        judged.append(set(chain(*model.judged)))
    assert judged[0] == judged[1] == judged[2]


def test_every_epoch_sees_every_training_example_once_in_another_order() -> None:
    model = Watched()
    fine_tune(model, Recovery(epochs=2, patience=2, batch_size=5), subject(rows()))
    assert [len(part) for part in model.trained] == [5, 5, 5, 5, 5, 5, 6] * 2
    once, again = list(chain(*model.trained[:7])), list(chain(*model.trained[7:]))
    assert sorted(once) == sorted(again)
    assert len(set(once)) == 36
    assert once != again


def test_a_last_batch_of_one_example_does_not_stop_a_batch_norm() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    data = rows(10)  # 9 to train with: 4, 4 and 1
    fine_tune(model, Recovery(epochs=1, batch_size=4), subject(data))


def test_it_stops_after_patience_epochs_without_a_better_loss_and_restores_the_best() -> None:
    """The held-out loss is scripted: it is lowest in epoch 3."""
    script = [5.0, 4.0, 1.0, 2.0, 3.0, 0.5, 0.1]
    model = Watched()

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        task = functional.cross_entropy(output, targets)
        return task if model.training else torch.tensor(script[len(model.judged) - 1])

    fine_tune(model, Recovery(epochs=7, patience=2, learning_rate=1e-2), subject(rows(), loss=loss))
    assert len(model.judged) == 5
    assert same(weights(model.inner), model.states[2])
    assert not same(model.states[2], model.states[4])


def test_statistics_are_restored_with_the_best_weights() -> None:
    script = iter([1.0, 2.0, 3.0])
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    counted: list[int] = []

    def loss(output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if model.training:
            return functional.cross_entropy(output, targets)
        counted.append(int(model[1].num_batches_tracked))  # type: ignore[arg-type]
        return torch.tensor(next(script))

    fine_tune(model, Recovery(epochs=9, patience=2), subject(rows(), loss=loss))
    assert len(counted) == 3
    assert int(model[1].num_batches_tracked) == counted[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.5])
def test_distillation_is_the_soft_cross_entropy_less_the_teachers_entropy_times_t_squared(temperature: float) -> None:
    """KL(p ‖ q) = H(p, q) − H(p), with torch's cross-entropy for soft targets."""
    logits, taught = batch(5, 4), batch(5, 4, seed=3)
    p = functional.softmax(taught / temperature, dim=1)
    entropy = torch.distributions.Categorical(probs=p).entropy().mean()
    expected = temperature**2 * (functional.cross_entropy(logits / temperature, p) - entropy)
    torch.testing.assert_close(recovery.distillation(logits, taught, temperature), expected)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_distillation_of_one_logit_is_that_of_a_coin(shape: tuple[int, ...]) -> None:
    logits, taught, t = batch(*shape), batch(*shape, seed=3), 2.0
    coins = [torch.distributions.Bernoulli(logits=z / t) for z in (taught, logits)]
    expected = t**2 * torch.distributions.kl_divergence(*coins).mean()
    torch.testing.assert_close(recovery.distillation(logits, taught, t), expected)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 6), classes=st.integers(1, 5), t=st.floats(0.1, 50), seed=st.integers(0, 2**31))
def test_distillation_is_never_negative_and_zero_for_equal_logits(n: int, classes: int, t: float, seed: int) -> None:
    logits, taught = batch(n, classes, seed=seed), batch(n, classes, seed=seed + 1)
    assert recovery.distillation(logits, taught, t) >= -1e-4 * t**2
    assert recovery.distillation(taught, taught.clone(), t).item() == pytest.approx(0, abs=1e-4 * t**2)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_loss_mixes_task_and_teacher_by_the_share_that_the_policy_names(share: float, task: str) -> None:
    data = rows() if task == "classification" else Data(batch(40, 6), batch(40, seed=3))
    own = functional.cross_entropy if task == "classification" else lambda out, y: ((out[:, 0] - y) ** 2).mean()
    width = 3 if task == "classification" else 1
    student, dense = (seeded(lambda: nn.Linear(6, width), seed) for seed in (0, 1))
    given = subject(data, task, loss=own)
    objective = recovery.Objective(
        Recovery(distill=share, temperature=3.0), given, dense, recovery.Examples(data, task)
    )
    picked = torch.tensor([3, 1, 8])
    x, y = data.inputs[picked], data.targets[picked]
    if task == "classification":
        logs = [functional.log_softmax(net(x) / 3, 1) for net in (dense, student)]
        taught = 9 * (logs[0].exp() * (logs[0] - logs[1])).sum(1).mean()
    else:
        taught = ((student(x) - dense(x)) ** 2).mean()
    torch.testing.assert_close(objective(student, picked), (1 - share) * own(student(x), y) + share * taught)


def test_a_teacher_that_works_on_its_inputs_in_place_does_not_change_what_the_pruned_model_sees() -> None:
    data, student, dense = rows(), seeded(mlp), seeded(Keyword)
    objective = recovery.Objective(
        Recovery(distill=1.0), subject(data), dense, recovery.Examples(data, "classification")
    )
    x = data.inputs[:5]
    expected = recovery.distillation(student(x), dense.inner(x + 1), 2.0)  # type: ignore[operator]
    torch.testing.assert_close(objective(student, torch.arange(5)), expected)


def test_distillation_leaves_the_dense_model_as_it_was() -> None:
    dense = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)).train()
    dense[1].eval()
    before, modes = weights(dense), [module.training for module in dense.modules()]
    seen: list[bool] = []
    dense[3].register_forward_hook(lambda module, args, output: seen.append(module.training or output.requires_grad))
    fine_tune(seeded(mlp), Recovery(epochs=2, distill=0.5), subject(rows()), dense=dense)
    assert seen
    assert not any(seen)
    assert same(weights(dense), before)
    assert [module.training for module in dense.modules()] == modes
    assert all(parameter.grad is None and parameter.requires_grad for parameter in dense.parameters())


def test_distillation_alone_needs_no_targets_and_a_loss_does() -> None:
    unlabelled = subject(Data(rows().inputs))
    fine_tune(seeded(mlp), Recovery(epochs=1, distill=1.0), unlabelled)
    with pytest.raises(SubjectError, match="no targets"):
        fine_tune(seeded(mlp), Recovery(epochs=1, distill=0.5), unlabelled)


class Items(torch.utils.data.Dataset[Any]):
    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.inputs)

    def __getitem__(self, index: int) -> Any:
        return self.data.inputs[index], int(self.data.targets[index])


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: torch.Tensor, again: torch.Tensor | None = None) -> torch.Tensor:
        x.add_(1)  # in place, as a careless model works
        found: torch.Tensor = self.inner(x)
        return found


def test_tensors_mappings_tuples_and_datasets_of_the_same_examples_train_the_same_weights() -> None:
    data = rows()
    x, y = data.inputs, data.targets
    forms = [
        data,
        Data({"x": x}, y),
        Data((x, x), y.numpy()),
        Data(Items(data)),
        Data(Items(data), y.tolist()),
        Data(x, y.to(torch.int32)),
    ]
    found = []
    for form in forms:
        model = seeded(Keyword)
        fine_tune(model, Recovery(epochs=2, distill=0.5), subject(form), dense=seeded(Keyword, 1))
        found.append(weights(model))
    assert all(same(found[0], other) for other in found[1:])
    assert torch.equal(x, rows().inputs)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "no examples to train with"),
        (Data(batch(1, 6), torch.tensor([0])), "1 examples"),
        (Data(batch(4, 6), torch.tensor([0, 1])), "4 inputs and 2 targets"),
        (Data((batch(4, 6), batch(3, 6)), torch.arange(4)), "different lengths"),
    ],
)
def test_examples_that_cannot_be_trained_with_are_refused_before_training(data: Data | None, told: str) -> None:
    with pytest.raises(SubjectError, match=told):
        recovery.function(Recovery(), subject(data), mlp())


def test_a_loss_that_is_no_number_is_refused() -> None:
    given = subject(rows(), loss=lambda output, targets: output.sum() * float("nan"))
    with pytest.raises(PruningError, match="loss is nan"):
        fine_tune(seeded(mlp), Recovery(), given)


def test_a_loss_for_each_example_is_refused() -> None:
    given = subject(rows(), loss=lambda output, targets: output[:, 0])
    with pytest.raises(SubjectError, match=r"loss has shape \(32,\)"):
        fine_tune(seeded(mlp), Recovery(), given)


def test_a_model_that_does_not_take_the_examples_is_told_with_its_own_words() -> None:
    given = subject(Data(batch(20, 5), torch.arange(20) % 3))
    with pytest.raises(SubjectError, match="RuntimeError on 18 examples of train"):
        fine_tune(seeded(mlp), Recovery(), given)


def test_a_model_of_frozen_parameters_or_without_gradients_is_refused() -> None:
    frozen = seeded(mlp).requires_grad_(False)
    with pytest.raises(PruningError, match="every parameter is frozen"):
        fine_tune(frozen, Recovery(), subject(rows()))
    with pytest.raises(PruningError, match="no parameter that requires gradients"):
        fine_tune(seeded(networks.Ungraded), Recovery(), subject(rows()))


def test_frozen_parameters_stay_as_they_are() -> None:
    model = seeded(mlp)
    model[0].weight.requires_grad_(False)
    before = weights(model)
    fine_tune(model, Recovery(epochs=1, learning_rate=0.1), subject(rows()))
    after = weights(model)
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["2.weight"], after["2.weight"])
    assert not model[0].weight.requires_grad


ONCE = """
import hashlib, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads({threads})
import test_recovery as t
from pruneproof.recipe import Recovery
model = t.seeded(t.dropped)
t.fine_tune(model, Recovery(epochs=2, distill=0.4{lora}), t.subject(t.rows()), seed=5)
print(hashlib.sha256(b"".join(v.numpy().tobytes() for v in t.weights(model).values())).hexdigest())
"""


def dropped() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("lora", ["", ", lora_rank=2"])
def test_the_same_seed_gives_the_same_bits_again_and_in_a_fresh_process_with_another_hash_seed(lora: str) -> None:
    if lora:
        pytest.importorskip("peft", reason="peft is in the llm extra")
    once = ONCE.format(tests=str(Path(__file__).parent), threads=torch.get_num_threads(), lora=lora)
    run = subprocess.run(
        [sys.executable, "-c", once], capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "77"}
    )
    assert run.returncode == 0, run.stderr
    here = []
    for seed in (5, 5, 6):
        model = seeded(dropped)
        options = Recovery(epochs=2, distill=0.4, lora_rank=2 if lora else None)
        torch.rand(3)  # the global state is another one each time
        fine_tune(model, options, subject(rows()), seed=seed)
        here.append(weights(model))
    assert same(here[0], here[1])
    assert not same(here[0], here[2])
    fresh = run.stdout.split()[-1]
    assert fresh == hashlib.sha256(b"".join(v.numpy().tobytes() for v in here[0].values())).hexdigest()


@pytest.mark.parametrize("rank", [None, 2])
def test_every_draw_comes_from_the_generator_and_the_global_state_is_not_touched(rank: int | None) -> None:
    if rank is not None:
        pytest.importorskip("peft", reason="peft is in the llm extra")
    function = recovery.function(Recovery(epochs=2, lora_rank=rank), subject(rows()), seeded(mlp))
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state, model = torch.random.get_rng_state(), seeded(mlp)
            function(model, step=1, steps=1, generator=torch.Generator().manual_seed(0))
            assert torch.equal(state, torch.random.get_rng_state())
            found.append(weights(model))
    assert same(*found)


# low-rank adapters


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="peft is in the llm extra")


def test_merged_adapters_are_the_weight_plus_b_a_times_two(peft: Any) -> None:
    model = seeded(mlp)
    before, modules = weights(model), dict(model.named_modules())
    with adapters.adapted(model, 2, torch.Generator().manual_seed(0)) as parameters:
        for position, parameter in enumerate(parameters):
            with torch.no_grad():
                parameter.copy_(batch(*parameter.shape, seed=position))
        products = [2.0 * b.detach() @ a.detach() for a, b in zip(parameters[::2], parameters[1::2], strict=True)]
        x = batch(5, 6)
        adapted = model(x).detach()
    after = weights(model)
    assert list(after) == list(before)
    for name, product in zip(("0.weight", "2.weight", "4.weight"), products, strict=True):
        torch.testing.assert_close(after[name], before[name] + product)
    assert all(torch.equal(after[name], before[name]) for name in ("0.bias", "2.bias", "4.bias"))
    torch.testing.assert_close(model(x).detach(), adapted, rtol=1e-4, atol=1e-4)
    assert dict(model.named_modules()) == modules
    assert list(dict(model.named_modules())) == list(modules)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_recovery_by_adapters_trains_linear_weights_alone_and_leaves_names_hooks_and_flags(peft: Any) -> None:
    model = seeded(networks.LayerNormed)
    surgery.keep_aware(model.norm, torch.tensor([0, 1, 2, 5, 7]))  # type: ignore[arg-type]
    model.norm.bias.requires_grad_(False)  # type: ignore[union-attr]
    before, objects, attributes = weights(model), dict(model.named_modules()), set(vars(model))
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    hooks = {name: list(module._forward_hooks.values()) for name, module in model.named_modules()}
    calls: list[int] = []
    handle = model.down.register_forward_hook(lambda *_: calls.append(1))  # a layer with a hook is not adapted
    fine_tune(model, Recovery(epochs=2, learning_rate=1e-2, lora_rank=2), subject(rows()))
    handle.remove()
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"enter.weight", "up.weight", "head.weight"}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], tol=1e-4) <= 2
    assert calls
    assert list(before) == list(after)
    assert dict(model.named_modules()) == objects
    assert set(vars(model)) == attributes
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert {name: list(module._forward_hooks.values()) for name, module in model.named_modules()} == hooks


def test_merged_adapters_revive_no_weight_that_reads_a_pruned_unit(peft: Any) -> None:
    model = seeded(mlp)
    masks = {"2.weight": torch.ones(10, 8, dtype=torch.bool), "4.weight": torch.ones(3, 10, dtype=torch.bool)}
    masks["2.weight"][:, [1, 4, 5]] = False
    masks["4.weight"][:, [0, 9]] = False
    surgery.zero(model, masks)
    before = weights(model)
    found = fine_tune(model, Recovery(epochs=3, learning_rate=1e-2, lora_rank=3), subject(rows()), masks)
    assert found.revived == 0
    after = weights(model)
    assert all(bool((after[name][~mask] == 0).all()) for name, mask in masks.items())
    assert all(not torch.equal(after[name], before[name]) for name in masks)


def test_single_weights_that_merged_adapters_fill_in_are_counted_as_revived(peft: Any) -> None:
    model = seeded(mlp)
    masks = {"2.weight": torch.rand(10, 8, generator=torch.Generator().manual_seed(0)) > 0.5}
    surgery.zero(model, masks)
    found = fine_tune(model, Recovery(epochs=2, learning_rate=1e-2, lora_rank=3), subject(rows()), masks)
    assert found.revived > 0
    assert bool((model[2].weight[~masks["2.weight"]] == 0).all())


def test_a_model_is_as_it_was_when_recovery_by_adapters_fails(peft: Any) -> None:
    model = seeded(mlp)
    before, objects = weights(model), dict(model.named_modules())
    given = subject(rows(), loss=lambda output, targets: output.sum() * float("inf"))
    with pytest.raises(PruningError, match="the loss is"):
        fine_tune(model, Recovery(lora_rank=2), given)
    assert same(weights(model), before)
    assert dict(model.named_modules()) == objects
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 3), lambda: nn.Sequential(nn.Conv1d(1, 3, 6), nn.Flatten())])
def test_a_model_without_a_linear_layer_inside_is_refused_adapters(peft: Any, make: Callable[[], nn.Module]) -> None:
    data = Data(batch(20, 1, 6), torch.arange(20) % 3)
    with pytest.raises(PruningError, match="no linear layer"):
        fine_tune(seeded(make), Recovery(lora_rank=2), subject(data))


def test_a_weight_that_is_used_without_calling_its_layer_is_refused_adapters(peft: Any) -> None:
    """The adapter of ``encode`` would not act where the weight is used a second time."""
    model = seeded(networks.TiedDecoder)
    with pytest.raises(PruningError, match="with the adapters merged"):
        fine_tune(model, Recovery(epochs=5, learning_rate=0.1, lora_rank=4), subject(rows()))


def test_shared_layers_and_attentions_own_projection_get_no_adapter(peft: Any) -> None:
    tied = seeded(networks.Tied)
    with adapters.adapted(tied, 1, torch.Generator()) as parameters:
        assert {n.split(".")[0] for n, p in tied.named_parameters() if p.requires_grad} == {"enter", "head"}
        assert len(parameters) == 4
    attentive = seeded(networks.Attentive)
    with adapters.adapted(attentive, 1, torch.Generator()):
        names = {n.split(".")[0] for n, p in attentive.named_parameters() if p.requires_grad}
        assert names == {"enter", "hidden", "head"}


def test_adapters_act_in_a_transformer_encoder_also_when_the_held_out_examples_are_judged(peft: Any) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.layer(x).mean(1))
            return found

    model = seeded(Encoder)
    before = weights(model)
    data = Data(batch(40, 5, 8), torch.arange(40) % 3)
    fine_tune(model, Recovery(epochs=3, learning_rate=0.05, lora_rank=2), subject(data))
    assert not torch.equal(before["layer.linear1.weight"], weights(model)["layer.linear1.weight"])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_adapters_recover_a_tiny_transformer_and_leave_its_names_and_config(peft: Any, family: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is in the llm extra")
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=0
        )
        model = seeded(lambda: transformers.GPT2ForSequenceClassification(config))
        columns = ("transformer.h.0.mlp.c_proj.weight", 0)
    else:
        config = transformers.LlamaConfig(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_labels=3,
            pad_token_id=0,
        )
        model = seeded(lambda: transformers.LlamaForSequenceClassification(config))
        columns = ("model.layers.0.mlp.down_proj.weight", 1)
    mask = torch.ones(model.get_parameter(columns[0]).shape, dtype=torch.bool)
    mask.index_fill_(columns[1], torch.tensor([0, 3, 8]), False)
    surgery.zero(model, {columns[0]: mask})
    before, objects, said = weights(model), dict(model.named_modules()), config.to_dict()
    tokens = torch.randint(1, 20, (30, 6), generator=torch.Generator().manual_seed(0))
    data = Data({"input_ids": tokens}, tokens[:, -1] % 3)
    found = fine_tune(model, Recovery(epochs=2, learning_rate=1e-2, lora_rank=2), subject(data), {columns[0]: mask})
    after = weights(model)
    assert found.revived == 0
    assert not torch.equal(after[columns[0]], before[columns[0]])
    assert bool((after[columns[0]][~mask] == 0).all())
    assert list(after) == list(before)
    assert dict(model.named_modules()) == objects
    assert model.config.to_dict() == said
    assert not hasattr(model, "peft_config")


def test_without_peft_the_extra_is_named_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(PruneProofError, match="peft") as caught:
        recovery.function(Recovery(lora_rank=2), subject(rows()), mlp())
    assert caught.value.remedy == "pip install 'pruneproof[llm]'"
    assert np.isfinite(fine_tune(seeded(mlp), Recovery(epochs=1), subject(rows())).revived)
