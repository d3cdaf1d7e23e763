"""The attack classes of torchattacks, made fit for an audit."""

from __future__ import annotations

import copy
import gc
import inspect
import random
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruneproof.adversarial import published, shapes
from pruneproof.adversarial.arena import Arena
from pruneproof.adversarial.ball import Ball
from pruneproof.adversarial.victim import Victim
from pruneproof.domain import Criterion
from pruneproof.errors import MeasurementError

ABLE = published.able()
FAST: dict[str, dict[str, Any]] = {
    "EADL1": {"binary_search_steps": 3, "max_iterations": 30},
    "EADEN": {"binary_search_steps": 3, "max_iterations": 30},
    "Square": {"n_queries": 30},
    "SPSA": {"nb_sample": 16},
    "JSMA": {"gamma": 0.02},
    "DeepFool": {"steps": 5},
    "SparseFool": {"steps": 3},
    "Pixle": {"restarts": 2},
}
"""As quick as can be: these tests are not about strength."""


def network(shape: tuple[int, ...], classes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        elements = int(np.prod(shape))
        model = nn.Sequential(nn.Flatten(), nn.Linear(elements, 12), nn.Tanh(), nn.Dropout(0.5), nn.Linear(12, classes))
    return model.to(dtype).eval()


def examples(shape: tuple[int, ...], n: int = 6, low: float = 0.0, high: float = 1.0, seed: int = 1) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def answers(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What the model says itself, so that every example stands before an attack."""
    with torch.no_grad():
        scores = model(inputs)
    return (scores.flatten() >= 0).long() if scores.shape[1] == 1 else scores.argmax(dim=1)


def norm_of(name: str) -> Any:
    norms = published.attack(name).norms
    return "Linf" if "Linf" in norms else "L2"


def attacked(
    name: str,
    model: nn.Module,
    clean: torch.Tensor,
    targets: torch.Tensor,
    space: Any,
    own: dict[str, Any] | None = None,
    **more: Any,
) -> Arena:
    aim = more.pop("aim", None)
    arena = Arena([Victim("dense", model, targets, **more)], clean, space, seed=3, aim=aim)
    published.attack(name).run(arena, published.options(name, FAST.get(name, {}) | (own or {})))
    return arena


class TestNamesAndParameters:
    def test_every_class_of_torchattacks_is_known_by_name(self) -> None:
        import torchattacks

        assert published.names() == tuple(torchattacks.__all__)
        assert len(published.names()) == 39
        assert set(published.names()) - set(ABLE) == {"MultiAttack", "LGV"}

    @pytest.mark.parametrize("name", ABLE)
    def test_parameters_are_those_of_its_signature(self, name: str) -> None:
        import torchattacks

        taken = inspect.signature(getattr(torchattacks, name)).parameters
        assert dict(published.parameters(name)) == {key: one.default for key, one in taken.items() if key != "model"}

    def test_reading_a_policy_imports_neither_torch_nor_torchattacks(self) -> None:
        code = (
            "import sys; from pruneproof.adversarial import published as p;"
            "p.options('PGD', {'alpha': '2/255'}); p.attack('TIFGSM').refuses((1, 8, 8), 10); p.attack('FAB').norms;"
            "print(sorted({'torch', 'torchattacks', 'numpy'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_what_can_be_sent_after_one_class_is_what_torchattacks_says(self) -> None:
        import torchattacks

        model = network((3, 8, 8), 10)
        for name in ABLE:
            modes = getattr(torchattacks, name)(model).supported_mode
            assert published.attack(name).aims == ("targeted" in modes and name != "FAB")

    def test_a_fraction_is_a_number(self) -> None:
        assert published.options("PGD", {"alpha": "2/255", "steps": 40}).model_dump() == {
            "alpha": 2 / 255,
            "steps": 40,
            "random_start": True,
        }
        assert published.options("Pixle", {"x_dimensions": [2, 4]}).model_dump()["x_dimensions"] == (2, 4)
        assert published.options("CW", {"c": 10}).model_dump()["c"] == 10.0

    @pytest.mark.parametrize(
        ("name", "table", "told"),
        [
            ("PDG", {}, "did you mean 'PGD'"),
            ("PGD", {"stpes": 3}, "did you mean 'steps'"),
            ("PGD", {"steps": 3.5}, "steps"),
            ("PGD", {"steps": True}, "steps"),
            ("PGD", {"steps": 0}, "steps"),
            ("PGD", {"alpha": "2/0"}, "fraction"),
            ("PGD", {"alpha": -1.0}, "alpha"),
            ("PGD", {"random_start": 1}, "random_start"),
            ("PGD", {"eps": 0.1}, "beside the attack's name"),
            ("PIFGSM", {"max_epsilon": 0.1}, "threat model"),
            ("APGD", {"norm": "L2"}, "beside the attack's name"),
            ("APGD", {"seed": 1}, "audit's seed"),
            ("APGD", {"verbose": True}, "not shown"),
            ("APGD", {"loss": "cw"}, "'ce' or 'dlr'"),
            ("PGDRS", {"noise_type": "gaussian"}, "guassian"),
            ("EADEN", {"max_iterations": 5}, "max_iterations"),
            ("Pixle", {"x_dimensions": [2]}, "x_dimensions"),
            ("MultiAttack", {}, "several attacks in the policy"),
            ("LGV", {}, "data loader"),
        ],
    )
    def test_what_cannot_be_is_refused_when_the_policy_is_read(
        self, name: str, table: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ValueError, match=told):
            published.options(name, table)


class TestThreatModel:
    def test_on_images_in_the_unit_cube_points_are_those_of_torchattacks(self) -> None:
        import torchattacks

        model, clean = network((1, 6, 6), 10), examples((1, 6, 6), 20)
        targets = answers(model, clean)
        arena = attacked("PGD", model, clean, targets, Ball("Linf", 0.1, 0.0, 1.0), {"alpha": 0.02, "steps": 15})
        key = arena.generator("torchattacks", "PGD", 0)
        torch.manual_seed(int(torch.randint(2**31 - 1, (1,), generator=key)))
        points = torchattacks.PGD(model, eps=0.1, alpha=0.02, steps=15)(clean, targets)
        fell = answers(model, points) != targets
        assert 0 < fell.sum() < 20
        assert torch.equal(~arena.standing[0], fell)
        for number, row in enumerate(arena.pool.rows):
            assert arena.pool.points[number] == pytest.approx(points[row].numpy(), abs=1e-7)

    @pytest.mark.parametrize("name", ["BIM", "APGD", "FAB", "Square", "PGDL2", "CW", "JSMA"])
    def test_a_threat_model_in_other_units_is_the_same_threat(self, name: str) -> None:
        """Pixels of 0 to 16, and normalised ones, are attacked as those in [0, 1] are."""
        mean, std = torch.tensor([0.4, 0.6, 0.5]).reshape(3, 1, 1), torch.full((3, 1, 1), 0.25)
        model, clean = network((3, 6, 6), 10), examples((3, 6, 6), 24)
        targets = answers(model, clean)
        norm, eps = norm_of(name), 0.05 if norm_of(name) == "Linf" else 0.5
        if name in ("CW", "JSMA"):
            norm, eps = "L2", 1.0
        own = {"alpha": eps / 5} if "alpha" in published.parameters(name) else {}
        space = Ball(norm, eps, 0.0, 1.0)
        expected = attacked(name, model, clean, targets, space, own).standing

        wide = nn.Sequential(_Scaled(torch.zeros(1), torch.tensor(1 / 16)), model).eval()
        own = {"alpha": 16 * eps / 5} if own else {}
        pixels = attacked(name, wide, clean * 16, targets, Ball(norm, 16 * eps, 0.0, 16.0), own)
        assert (pixels.standing == expected).float().mean() >= 0.95
        reach = Ball(norm, 16 * eps, 0.0, 16.0)
        for row, point in zip(pixels.pool.rows, pixels.pool.points, strict=True):
            assert reach.contains(clean[row : row + 1] * 16, point[None])

        normal = nn.Sequential(_Scaled(mean, std), model).eval()
        own = {"alpha": eps / 5} if own else {}
        box = Ball(norm, eps, -mean / std, (1 - mean) / std, 1 / std)
        units = attacked(name, normal, (clean - mean) / std, targets, box, own)
        assert (units.standing == expected).float().mean() >= 0.95
        assert 0 < expected.sum() < 24

    def test_a_step_that_is_not_given_keeps_its_ratio_to_eps(self) -> None:
        """With the class's own 2/255, ten steps would not reach the edge of a ball of 0.3."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        with torch.no_grad():
            model[1].weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]))
            model[1].bias.zero_()
        clean = torch.full((1, 4), 0.29)  # above 0: class 0; falls only at the very edge of the ball
        arena = attacked("BIM", model, clean, torch.tensor([0]), Ball("Linf", 0.3, -1.0, 1.0))
        assert not arena.standing.any()
        arena = attacked("BIM", model, clean, torch.tensor([0]), Ball("Linf", 0.3, -1.0, 1.0), {"alpha": "1/255"})
        assert arena.standing.all()

    def test_a_point_outside_the_ball_does_not_count(self) -> None:
        model, clean = network((1, 6, 6), 10), examples((1, 6, 6), 8)
        targets = answers(model, clean)
        arena = attacked("DeepFool", model, clean, targets, Ball("L2", 1e-3, 0.0, 1.0), {"steps": 30})
        assert arena.standing.all()
        assert arena.stages[-1].refused > 0
        assert not attacked("DeepFool", model, clean, targets, Ball("L2", 6.0, 0.0, 1.0), {"steps": 30}).standing.all()

    def test_what_one_eps_cannot_express_is_refused(self) -> None:
        uneven = Ball("Linf", 0.1, torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 9.0]))
        assert "equally many units wide" in str(published.attack("PGD").unfit(uneven))
        assert published.attack("DeepFool").unfit(uneven) is None  # has no eps
        even = Ball("Linf", 0.1, torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, 9.0]), torch.tensor([1.0, 1.0, 1.0, 9.0]))
        assert published.attack("PGD").unfit(even) is None
        assert "not finite" in str(published.attack("PGD").unfit(Ball("Linf", 0.1, 0.0, torch.inf)))
        assert "L2" in str(published.attack("PGDL2").unfit(Ball("Linf", 0.1, 0.0, 1.0)))
        model, clean = network((4,), 3), examples((4,))
        with pytest.raises(MeasurementError, match="equally many units wide"):
            attacked("PGD", model, clean, answers(model, clean), uneven)
        with pytest.raises(MeasurementError, match="one length"):
            attacked("GN", model, clean, answers(model, clean), uneven, {"std": 0.1})

    def test_elements_that_an_attack_leaves_alone_come_back_as_they_were(self) -> None:
        low, high = torch.tensor([[[-1.7]], [[0.3]], [[-0.1]]]), torch.tensor([[[2.9]], [[0.9]], [[7.7]]])
        clean = low + examples((3, 6, 6), 8) * (high - low)
        model = network((3, 6, 6), 10)
        arena = attacked("OnePixel", model, clean, answers(model, clean), Ball("L2", 99.0, low, high))
        assert arena.pool.points
        for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
            assert (point != clean[row]).any(dim=0).sum() == 1

    def test_an_element_that_the_box_fixes_stays(self) -> None:
        high = torch.tensor([1.0, 1.0, 0.5, 1.0])
        low = torch.tensor([0.0, 0.0, 0.5, 0.0])
        clean = low + examples((4,), 12) * (high - low)
        model = network((4,), 3)
        arena = attacked("PGD", model, clean, answers(model, clean), Ball("Linf", 0.9, low, high))
        assert arena.pool.points
        assert all(float(point[2]) == 0.5 for point in arena.pool.points)

    def test_one_class_can_be_aimed_at(self) -> None:
        model, clean = network((1, 6, 6), 5), examples((1, 6, 6), 16)
        targets = answers(model, clean)
        for name in ("PGD", "CW", "JSMA", "Square", "Pixle"):
            norm = "L0" if name in ("JSMA", "Pixle") else norm_of(name)
            eps = {"Linf": 0.5, "L0": 36.0}[norm]
            arena = attacked(
                name, model, clean, targets, Ball(norm, eps, 0.0, 1.0), {"gamma": 1.0} if name == "JSMA" else {}, aim=2
            )
            assert all(int(answers(model, point[None])) == 2 for point in arena.pool.points)
            if name != "Pixle":
                assert arena.pool.points
        with pytest.raises(MeasurementError, match="cannot be sent after one class"):
            attacked("APGD", model, clean, targets, Ball("Linf", 0.5, 0.0, 1.0), aim=2)


class TestSilentTraps:
    """What torchattacks alone reports as robust, and is not."""

    @pytest.mark.parametrize(
        "name", [name for name in ABLE if name not in ("VANILA", "GN", "SPSA", "OnePixel", "Pixle", "Jitter", "TPGD")]
    )
    @pytest.mark.parametrize("labels", [torch.int64, torch.float32])
    def test_a_one_logit_model_falls_like_any_other(self, name: str, labels: torch.dtype) -> None:
        shape = (3, 6, 6) if name in shapes.COLOURED else (1, 6, 6)
        if published.attack(name).refuses(shape, 1):
            pytest.skip("needs more classes")
        clean = examples(shape, 10)
        model = nn.Sequential(nn.Flatten(), nn.Linear(clean[0].numel(), 1)).eval()
        with torch.no_grad():
            model[1].weight.copy_(torch.where(torch.arange(clean[0].numel()) < clean[0].numel() // 2, 1.0, -1.0))
            model[1].bias.zero_()
        targets = answers(model, clean)
        assert 0 < targets.sum() < 10  # both classes have to fall
        space = Ball(
            norm_of(name) if published.attack(name).bounded else "L2", 0.7 if norm_of(name) == "Linf" else 5.0, 0.0, 1.0
        )
        own = {"JSMA": {"gamma": 1.0}, "CW": {"c": 10.0, "steps": 100}, "Square": {"n_queries": 200}}.get(name, {})
        own |= {"steps": 30} if name in ("DeepFool", "SparseFool") else {}
        own |= {"binary_search_steps": 9, "max_iterations": 50} if name.startswith("EAD") else {}
        arena = attacked(name, model, clean, targets.to(labels), space, own)
        fell = ~arena.standing[0] if name not in ("SparseFool", "JSMA") else torch.ones(10, dtype=torch.bool)
        assert fell.all(), (name, arena.stages[-1])

    def test_it_works_where_gradients_are_switched_off_around_it(self) -> None:
        model = network((1, 6, 6), 10)
        clean = examples((1, 6, 6))
        targets, space = answers(model, clean), Ball("Linf", 0.5, 0.0, 1.0)
        expected = attacked("PGD", model, clean, targets, space)
        assert not expected.standing.all()
        with torch.no_grad():
            assert torch.equal(attacked("PGD", model, clean, targets, space).standing, expected.standing)
        with torch.inference_mode():
            inside = attacked("PGD", model, clean * 1, targets * 1, space)
        assert torch.equal(inside.standing, expected.standing)

    @pytest.mark.parametrize("name", ABLE)
    @pytest.mark.parametrize("n", [0, 1])
    def test_no_example_and_one_are_no_trouble(self, name: str, n: int) -> None:
        model, clean = network((3, 6, 6), 10), examples((3, 6, 6), n)
        arena = attacked(name, model, clean, answers(model, clean), Ball(norm_of(name), 0.3, 0.0, 1.0))
        assert arena.stages[-1].tried == n

    def test_labels_that_are_no_classes_are_an_error(self) -> None:
        model, clean = network((4,), 3), examples((4,), 4)
        standing = torch.ones(1, 4, dtype=torch.bool)
        for wrong in (torch.tensor([0, 1, 2, 3]), torch.tensor([0, -1, 2, 1]), torch.tensor([0.0, 0.5, 1.0, 2.0])):
            arena = Arena([Victim("dense", model, wrong)], clean, Ball("Linf", 0.1, 0.0, 1.0), 0, standing=standing)
            with pytest.raises(MeasurementError, match="class"):
                published.attack("PGD").run(arena, published.options("PGD", {}))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("name", [name for name in ABLE if name != "AutoAttack"])
    def test_other_precisions_are_attacked_and_confirmed_in_their_own(self, name: str, dtype: torch.dtype) -> None:
        shape = (3, 6, 6)
        model, clean = network(shape, 10, dtype), examples(shape, 6, -1.0, 3.0).to(dtype)
        norm, targets = norm_of(name), answers(network(shape, 10, dtype), clean)
        space = Ball(norm, 1.0 if norm == "Linf" else 4.0, -1.0, 3.0)
        arena = attacked(name, model, clean, targets, space)
        for row, point in zip(arena.pool.rows, arena.pool.points, strict=True):
            assert point.dtype == dtype
            assert space.contains(clean[row : row + 1], point[None])
            assert int(answers(model, point[None])) != int(targets[row])
        if published.attack(name).bounded and name != "SPSA":
            assert arena.pool.points, arena.stages[-1]

    def test_inputs_that_go_with_an_example_stay_with_it(self) -> None:
        """Square drops examples that have fallen out of its batches: what else the model gets has to follow."""
        bias = torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])  # at 0, a tie: the second class
        clean = torch.full((9, 1, 6, 6), 0.5)
        model = _Shifted()
        targets = (bias >= 0).long()
        space = Ball("Linf", 0.05, 0.0, 1.0)  # moves the sum of 36 by at most 1.8
        for name in ("PGD", "Square", "APGD"):
            own = {"n_queries": 500} if name == "Square" else {}
            together = {"inputs": lambda points, rows: {"image": points, "bias": bias[rows]}}
            arena = attacked(name, model, clean, targets, space, own, **together)
            assert arena.standing[0].tolist() == (bias.abs() > 1.8).tolist()

    def test_a_class_that_shows_the_model_other_shapes_is_an_error(self) -> None:
        model, clean = network((1, 8, 8), 3), examples((1, 8, 8))
        with pytest.raises(MeasurementError, match="resize_rate"):
            attacked(
                "DIFGSM", model, clean, answers(model, clean), Ball("Linf", 0.1, 0.0, 1.0),
                {"resize_rate": 1.5, "diversity_prob": 1.0},
            )  # fmt: skip

    def test_a_model_that_is_no_classifier_is_refused(self) -> None:
        model, clean = network((4,), 3), examples((4,))
        everything = Criterion(lambda output, targets: output.sum(dim=1), lambda output, targets: output[:, 0] > 1e9)
        with pytest.raises(MeasurementError, match="audit attack"):
            attacked("PGD", model, clean, torch.zeros(6), Ball("Linf", 0.1, 0.0, 1.0), criterion=everything)

    def test_a_backward_that_raises_is_named(self) -> None:
        model, clean = nn.Sequential(nn.Flatten(), _Backless(), nn.Linear(4, 3)), examples((4,))
        with pytest.raises(MeasurementError, match="PGD raised RuntimeError on dense: no way back"):
            attacked("PGD", model, clean, answers(model, clean), Ball("Linf", 0.1, 0.0, 1.0))


class TestWhatIsLeftBehind:
    @pytest.fixture
    def state(self) -> Callable[[nn.Module], Any]:
        def of(model: nn.Module) -> Any:
            return (
                [module.training for module in model.modules()],
                [None if one.grad is None else one.grad.clone() for one in model.parameters()],
                [one.requires_grad for one in model.parameters()],
                [one.clone() for one in model.state_dict().values()],
                [len(module._forward_hooks) for module in model.modules()],
                torch.get_rng_state(),
                np.random.get_state()[1].tolist(),
                random.getstate(),
                (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()),
                (sys.stdout, sys.stderr),
            )

        return of

    @staticmethod
    def _model(classes: int = 10) -> nn.Module:
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, classes)
        )
        model.train()
        model[1].eval()  # a frozen batch norm, and dropout that is on: neither is what train() or eval() would make
        model[4].bias.requires_grad_(False)
        model[4].weight.grad = torch.ones_like(model[4].weight)
        return model

    @pytest.mark.parametrize("name", ABLE)
    def test_model_and_process_are_as_before(
        self, name: str, state: Callable[[nn.Module], Any], capfd: pytest.CaptureFixture[str]
    ) -> None:
        model, clean = self._model(), examples((3, 6, 6))
        torch.manual_seed(5), np.random.seed(6), random.seed(7)
        with torch.random.fork_rng():
            before = state(model)
            attacked(name, model, clean, answers(self._model(), clean), Ball(norm_of(name), 0.3, 0.0, 1.0))
            assert repr(state(model)) == repr(before)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("name", ["PGD", "FAB", "Square", "CW", "OnePixel"])
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_they_are_also_when_it_is_cut_short(
        self, name: str, error: type[BaseException], state: Callable[[nn.Module], Any]
    ) -> None:
        class Interrupted(nn.Module):
            calls = 0

            def forward(self, logits: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                if self.calls > 4:
                    raise error("stop")
                return logits

        torch.set_default_dtype(torch.float64)
        try:
            model = nn.Sequential(self._model(), Interrupted()).float()
            clean = examples((3, 6, 6)).float()
            standing = torch.ones(1, 6, dtype=torch.bool)
            targets = answers(copy.deepcopy(model[0]).eval(), clean)
            before = state(model)
            victim = Victim("dense", model, targets)
            arena = Arena([victim], clean, Ball("Linf", 0.01, 0.0, 1.0), 0, standing=standing)
            with pytest.raises(MeasurementError if error is RuntimeError else error):
                published.attack(name).run(arena, published.options(name, {}))
            assert repr(state(model)) == repr(before)
        finally:
            torch.set_default_dtype(torch.float32)

    def test_what_an_attack_prints_and_warns_of_is_not_seen(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
    ) -> None:
        import torchattacks

        def forward(attack: Any, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            sys.stdout.write("to stdout")
            sys.stderr.write("to stderr")
            warnings.warn("a warning", stacklevel=1)
            return images

        monkeypatch.setattr(torchattacks.FGSM, "forward", forward)
        model, clean = network((4,), 3), examples((4,))
        attacked("FGSM", model, clean, answers(model, clean), Ball("Linf", 0.1, 0.0, 1.0))
        assert capsys.readouterr() == ("", "")
        assert not recwarn.list

    @pytest.mark.parametrize("name", ["PGD", "CW", "AutoAttack", "SparseFool"])
    def test_the_model_is_free_at_once(self, name: str) -> None:
        """torchattacks' objects are cycles, and would hold every variant until a garbage collection."""
        model, clean = network((1, 6, 6), 10), examples((1, 6, 6))
        own = {"version": "rand"} if name == "AutoAttack" else {}
        gc.collect()
        gc.disable()
        try:
            attacked(name, model, clean, answers(model, clean), Ball(norm_of(name), 0.1, 0.0, 1.0), own)
            gone = weakref.ref(model)
            del model
            assert gone() is None
        finally:
            gc.enable()

    def test_passes_are_counted(self) -> None:
        model, clean = network((1, 6, 6), 10), examples((1, 6, 6), 10)
        targets = answers(model, clean)
        arena = attacked("PGD", model, clean, targets, Ball("Linf", 1e-9, 0.0, 1.0), {"steps": 7})
        assert (arena.stages[-1].tried, arena.stages[-1].gradients) == (10, 70)
        assert arena.stages[-1].forwards == 11  # one to count the classes, ten to confirm
        arena = attacked("Square", model, clean, targets, Ball("Linf", 1e-9, 0.0, 1.0), {"n_queries": 9})
        assert arena.stages[-1].gradients == 0
        assert arena.stages[-1].forwards == 11 + 10 * (1 + 1 + 9 + 1)  # clean, first, queries, last
        arena = attacked("FAB", model, clean, targets, Ball("Linf", 1e-9, 0.0, 1.0), {"steps": 2})
        assert arena.stages[-1].gradients == 10 * 2 * 10  # one for each class


class TestSeveralVariants:
    def test_successes_do_not_depend_on_the_order_of_variants_and_nothing_is_shared(self) -> None:
        clean = examples((1, 6, 6), 30)
        models = {f"m{seed}": network((1, 6, 6), 10, seed=seed) for seed in range(3)}
        targets = answers(models["m0"], clean)
        space, own = Ball("Linf", 0.03, 0.0, 1.0), published.options("PGD", {})

        def stood(order: list[str]) -> dict[str, list[bool]]:
            arena = Arena([Victim(name, models[name], targets) for name in order], clean, space, 11)
            published.attack("PGD").run(arena, own)
            assert [stage.victim for stage in arena.stages if stage.name == "PGD"] == order
            return {name: arena.standing[place].tolist() for place, name in enumerate(order)}

        together = stood(["m0", "m1", "m2"])
        assert stood(["m2", "m0", "m1"]) == together
        assert stood(["m1"])["m1"] == together["m1"]
        assert 0 < sum(together["m0"]) < 30


class TestShapes:
    def test_what_cannot_run_names_those_that_can(self) -> None:
        told = published.attack("TIFGSM").refuses((1, 8, 8), 10)
        assert told is not None
        assert told.startswith("TIFGSM needs images of 3 channels, and these have 1 × 8 × 8; these can: ")
        can = told.split("these can: ")[1].split(", ")
        assert "PGD" in can
        assert "DIFGSM" in can
        assert not {"TIFGSM", "PIFGSM", "LGV", "MultiAttack"} & set(can)
        assert published.attack("TIFGSM").refuses((3, 8, 8), 10) is None
        few = published.attack("AutoAttack").refuses((3, 8, 8), 3, "L2")
        assert few is not None
        assert "needs 4 classes" in few
        assert "PGDL2" in few
        assert "FGSM" not in few.split(": ")[1].split(", ")

    def test_a_row_of_numbers_is_one_line_of_pixels(self) -> None:
        assert shapes.as_image((7,)) == (1, 1, 7)
        assert shapes.as_image(()) == (1, 1, 1)
        assert shapes.as_image((2, 9)) == (2, 1, 9)
        assert shapes.as_image((3, 4, 5)) == (3, 4, 5)
        assert shapes.as_image((3, 2, 4, 5)) == (3, 8, 5)

    @pytest.mark.parametrize("shape", [(), (9,), (2, 5), (1, 3, 6, 6)])
    @pytest.mark.parametrize("name", ["PGD", "PGDL2", "APGD", "FAB", "JSMA", "OnePixel"])
    def test_examples_of_any_number_of_dimensions_are_attacked(self, shape: tuple[int, ...], name: str) -> None:
        model, clean = network(shape or (1,), 3), examples(shape)
        model = nn.Sequential(nn.Unflatten(0, (-1, 1)), model) if not shape else model
        targets = answers(model, clean)
        arena = attacked(name, model, clean, targets, Ball(norm_of(name), 0.5, 0.0, 1.0))
        assert arena.stages[-1].tried == 6
        assert all(point.shape == clean.shape[1:] for point in arena.pool.points)

    @pytest.mark.parametrize("name", ["APGDT", "AutoAttack", "FAB"])
    def test_fewer_classes_than_the_default_assumes_are_no_trouble(self, name: str) -> None:
        model, clean = network((1, 6, 6), 4), examples((1, 6, 6))
        own = {"multi_targeted": True} if name == "FAB" else {}
        arena = attacked(name, model, clean, answers(model, clean), Ball("Linf", 0.5, 0.0, 1.0), own)
        assert not arena.standing.any()
        still = attacked(name, model, clean, answers(model, clean), Ball("Linf", 1e-6, 0.0, 1.0), own)
        assert still.standing.all()

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ABLE)
    def test_each_class_runs_where_it_is_said_to_and_breaks_where_it_is_refused(self, name: str) -> None:
        import torchattacks

        for shape in ((1, 8, 8), (3, 32, 32), (12,), (1, 5, 7), (2, 8, 8), (3, 4, 4)):
            for classes in (2, 3, 4, 10):
                for norm in sorted(published.attack(name).norms & {"Linf", "L2"}):
                    works = _runs(torchattacks, name, shape, classes, norm)
                    refused = published.attack(name).refuses(shape, classes, norm)
                    assert works == (refused is None), (shape, classes, norm, refused)

    def test_the_tiles_of_square_in_l2_fit_where_they_are_said_to(self) -> None:
        import torchattacks

        for height, width in [(4, 4), (5, 5), (5, 7), (7, 9), (8, 8), (10, 10), (12, 12), (14, 14), (28, 28), (28, 20)]:
            model = nn.Sequential(nn.Flatten(), nn.Linear(height * width, 3))
            with torch.no_grad():
                model[1].weight.mul_(1e-6)
                model[1].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))  # never falls: every query is made
            attack = torchattacks.Square(model, norm="L2", eps=0.5, n_queries=25)
            try:
                attack(torch.rand(2, 1, height, width), torch.zeros(2, dtype=torch.int64))
                works = True
            except (ZeroDivisionError, RuntimeError):
                works = False
            assert works == (published.attack("Square").refuses((1, height, width), 3, "L2") is None), (height, width)


def _runs(package: Any, name: str, shape: tuple[int, ...], classes: int, norm: str) -> bool:
    """Whether torchattacks' own class runs on a robust model (so that it has to go all of its way)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))
    with torch.no_grad():
        model[1].weight.mul_(1e-3)
        model[1].bias.copy_(3 * (torch.arange(classes) == 0))
    clean = examples(shapes.as_image(shape), 2)
    own = dict(FAST.get(name, {}))
    known = published.parameters(name)
    own |= {"norm": norm} if "norm" in known else {}
    own |= {"n_classes": min(10, classes)} if "n_classes" in known else {}
    own |= {"gamma": 0.002} if name == "JSMA" else {}
    attack = getattr(package, name)(model, **own)
    if name == "AutoAttack":
        attack._autoattack.attacks[-1].n_queries = 5
    if name == "JSMA":  # as it is run here: its own way needs ten classes
        attack.set_mode_targeted_by_function(lambda images, labels: (labels + 1) % classes, quiet=True)
    try:
        found = attack(clean, torch.zeros(2, dtype=torch.int64))
    except (RuntimeError, IndexError, ZeroDivisionError, ValueError):
        return False
    # Pixle runs on lines of one pixel, and can only put each in its own place
    return bool(found.shape == clean.shape)


class _Scaled(nn.Module):
    """``mean + std · x``: undoes a normalisation."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.mean + self.std * inputs


class _Shifted(nn.Module):
    """Above 0: 36 pixels around one half sum to more than the other input takes away."""

    def forward(self, image: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return (image - 0.5).flatten(1).sum(dim=1, keepdim=True) + bias[:, None]


class _Backless(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _NoWayBack.apply(inputs)
        return found


class _NoWayBack(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * 1

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no way back")
