"""Audits with the adversarial suite, from the policy to the report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import conftest
import numpy as np
import pytest
import torch

import pruneproof
from pruneproof import digests, evidence, observed, policy_file, verifying
from pruneproof.adversarial import replaying
from pruneproof.adversarial.results import results
from pruneproof.errors import EvidenceError, PolicyError
from pruneproof.evidence import Evidence, GateRow
from pruneproof.observed import Observed

Tiny = Callable[..., Path]

EPS = 0.2
SUITE = """
[suites.adversarial]
attacks = [{ name = "audit", norm = "Linf", eps = 0.2, curve = [0.05, 0.1] }]
bounds = [-6, 6]
by = ["region"]

[suites.adversarial.gates]
robust_accuracy = { min = 0.6, max_drop = 0.1 }
segment_robust_accuracy = { min = 0.5 }
class_robust_accuracy = { min = 0.5 }
robust_accuracy_at = { min = 0.3 }
median_perturbation = { min = 0.1 }
transfer_success_rate = { max = 0.999 }
"""
POLICY = conftest.POLICY + SUITE


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny audit with the suite, run once."""
    folder = tmp_path_factory.mktemp("adversarial")
    (folder / "tiny_subject.py").write_text(conftest.SUBJECT.format(n=400), "utf-8")
    (folder / "audit.toml").write_text(POLICY, "utf-8")
    pruneproof.audit(folder / "audit.toml", out=folder / "out")
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def gate(found: Evidence, variant: str, name: str) -> GateRow:
    (row,) = (row for row in found.gates if row.variant == variant and row.id == f"adversarial/{name}")
    return row


def value(found: Evidence, variant: str, metric: str, segment: dict[str, str]) -> float:
    (row,) = (
        row
        for row in found.measurements
        if (row.variant, row.suite, row.metric, row.segment) == (variant, "adversarial", metric, segment)
    )
    assert row.value is not None
    return row.value


def boundary(n: int = 400) -> np.ndarray:
    """Distance of each of the tiny test examples to x₀ = 0, where the tiny model changes its mind, but for its small
    random weights."""
    return np.abs(torch.randn(n, 6, generator=torch.Generator().manual_seed(7))[:, 0].numpy())


def test_robust_accuracy_is_the_share_of_examples_farther_from_the_boundary_than_the_budget(written: Path) -> None:
    found = evidence.read(written / "out")
    for budget in (0.05, 0.1, EPS):
        expected = float((boundary() > budget).mean())
        name = "robust_accuracy_at"
        assert value(found, "dense", name, {"audit": f"{budget:g}"}) == pytest.approx(expected, abs=0.03)
    assert value(found, "dense", "robust_accuracy", {"attack": "audit"}) == value(
        found, "dense", "robust_accuracy_at", {"audit": "0.2"}
    )


def test_the_median_perturbation_is_the_median_distance_to_the_boundary_cut_at_the_budget(written: Path) -> None:
    found = evidence.read(written / "out")
    expected = float(np.median(np.minimum(boundary(), EPS)))
    measured = value(found, "dense", "median_perturbation", {"attack": "audit"})
    assert measured == pytest.approx(expected, abs=0.02)


def test_a_variant_that_is_wrong_without_an_attack_is_not_robust(written: Path) -> None:
    found = evidence.read(written / "out")
    assert gate(found, "mag@0.3", "robust_accuracy:min[attack=audit]").verdict == "PASS"
    assert gate(found, "mag@0.97", "robust_accuracy:min[attack=audit]").verdict == "FAIL"
    assert gate(found, "mag@0.97", "robust_accuracy:max_drop[attack=audit]").verdict == "FAIL"


def test_robust_accuracy_never_rises_with_the_budget(written: Path) -> None:
    for result in results(observed.read(written / "out" / "observed" / "adversarial" / "mag@0.3.npz")):
        levels = [int(result.stood(budget).sum()) for budget in result.record["budgets"]]
        assert levels == sorted(levels, reverse=True)


def test_evidence_of_attacks_verifies(written: Path) -> None:
    assert verifying.verify(written / "out") == []


def test_every_point_that_was_kept_lies_in_the_budget_and_fools_its_variant_again(written: Path) -> None:
    for name in ("dense", "mag@0.3", "mag@0.97"):
        (found,) = replaying.replay(written / "out", name)
        assert found.points == found.inside == found.fooled
    assert found.attack == "audit"


def test_points_that_were_changed_after_the_audit_are_noticed(copied: Path) -> None:
    file = copied / "out" / "observed" / "adversarial" / "mag@0.3.npz"
    seen = observed.read(file)
    arrays = dict(seen.arrays)
    arrays["attack0/budget"] = np.full_like(arrays["attack0/budget"], -1)
    observed.write(file, Observed(seen.record, arrays))
    problems = verifying.verify(copied / "out")
    assert any("observed/adversarial/mag@0.3.npz was changed" in problem for problem in problems)
    assert any("robust_accuracy" in problem for problem in problems)
    with pytest.raises(EvidenceError, match="contradicts itself"):
        replaying.replay(copied / "out", "mag@0.3")


def test_observations_that_are_gone_are_noticed(copied: Path) -> None:
    (copied / "out" / "observed" / "adversarial" / "mag@0.3.npz").unlink()
    assert verifying.verify(copied / "out") != []


def test_a_second_run_observes_the_same_to_the_byte(copied: Path) -> None:
    files = sorted((copied / "out" / "observed").rglob("*.npz"))
    before = [file.read_bytes() for file in files]
    pruneproof.audit(copied / "audit.toml", out=copied / "out")
    assert [file.read_bytes() for file in files] == before


def test_the_order_in_which_the_policy_lists_ratios_changes_nothing(copied: Path) -> None:
    files = sorted((copied / "out" / "observed").rglob("*.npz"))
    before = [file.read_bytes() for file in files]
    (copied / "audit.toml").write_text(POLICY.replace("[0.3, 0.97]", "[0.97, 0.3]"), "utf-8")
    pruneproof.audit(copied / "audit.toml", out=copied / "out")
    assert [file.read_bytes() for file in files] == before


@pytest.mark.slow
def test_two_workers_observe_the_same_to_the_byte_as_one(copied: Path) -> None:
    files = sorted((copied / "out" / "observed").rglob("*.npz"))
    before = {file.name: file.read_bytes() for file in files}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "audit.toml", "--pruneproof-out", "later"]
    subprocess.run(command, cwd=copied, check=False, capture_output=True, timeout=280)
    assert {file.name: file.read_bytes() for file in (copied / "later" / "observed").rglob("*.npz")} == before
    assert verifying.verify(copied / "later") == []


def test_earlier_points_are_tried_before_anything_else_and_fool_at_once(copied: Path) -> None:
    (copied / "audit.toml").write_text(POLICY.replace("bounds =", 'replay = "out"\nbounds ='), "utf-8")
    pruneproof.audit(copied / "audit.toml", out=copied / "later")
    (result,) = results(observed.read(copied / "later" / "observed" / "adversarial" / "dense.npz"))
    (first,) = results(observed.read(copied / "out" / "observed" / "adversarial" / "dense.npz"))
    stages = result.record["stages"]
    assert stages["earlier points"]["fell"] >= 0.5 * (~first.stood(0.05) & first.clean).sum()
    assert stages["earlier points"]["gradients"] == 0
    assert int(result.stood().sum()) <= int(first.stood().sum())


def test_earlier_points_of_another_test_set_are_refused(copied: Path) -> None:
    (copied / "tiny_subject.py").write_text(conftest.SUBJECT.format(n=300), "utf-8")
    (copied / "audit.toml").write_text(POLICY.replace("bounds =", 'replay = "out"\nbounds ='), "utf-8")
    found = pruneproof.audit(copied / "audit.toml", out=copied / "later")
    row = gate(found, "mag@0.3", "robust_accuracy:min[attack=audit]")
    assert (row.verdict, "of another test set" in row.reason) == ("ERROR", True)


def test_a_growing_sample_stops_when_the_gate_is_decided(tiny: Tiny, tmp_path: Path) -> None:
    sequential = conftest.POLICY + SUITE[: SUITE.index("segment_robust")].replace(
        "bounds", "sequential = true\nbounds"
    ).replace("min = 0.6, max_drop = 0.1", "min = 0.6")
    found = pruneproof.audit(tiny(tmp_path, n=2000, policy=sequential))
    row = gate(found, "mag@0.97", "robust_accuracy:min[attack=audit]")
    assert (row.verdict, row.method.split(" (")[0]) == ("FAIL", "betting confidence sequence")
    assert row.n < 200
    (note,) = {
        entry.note for entry in found.measurements if entry.metric == "robust_accuracy" and entry.variant == "mag@0.97"
    }
    assert note == f"{row.n} of 2000 examples attacked"


def test_a_model_that_cannot_be_attacked_is_an_error_of_its_gates_and_nothing_else_is_lost(
    tiny: Tiny, tmp_path: Path
) -> None:
    breaking = conftest.SUBJECT.replace(
        "return self.body(x)",
        "sparse = (self.body[0].weight != 0).float().mean() < 0.1\n"
        "        return self.body(x.detach() if sparse else x)",
    )
    found = pruneproof.audit(tiny(tmp_path, policy=POLICY, subject=breaking), out=tmp_path / "out")
    row = gate(found, "mag@0.97", "robust_accuracy:min[attack=audit]")
    assert row.verdict == "ERROR"
    assert "backward pass raised" in row.reason
    assert gate(found, "mag@0.3", "robust_accuracy:min[attack=audit]").verdict == "PASS"
    others = [row.verdict for row in found.gates if row.variant == "mag@0.97" and row.suite == "accuracy"]
    assert "ERROR" not in others
    assert verifying.verify(tmp_path / "out") == []


def test_an_attack_that_was_interrupted_keeps_what_the_other_suites_measured(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pruneproof.attacks import audit

    def interrupted(arena: object, options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(audit.ATTACK, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pruneproof.audit(tiny(tmp_path, policy=POLICY), out=tmp_path / "out")
    found = evidence.read(tmp_path / "out")
    assert {row.verdict for row in found.gates if row.suite == "adversarial"} == {"ERROR"}
    assert "interrupted" in gate(found, "mag@0.3", "robust_accuracy:min[attack=audit]").reason
    assert {row.verdict for row in found.gates if row.suite == "accuracy" and row.variant == "mag@0.3"} == {"PASS"}
    assert verifying.verify(tmp_path / "out") == []


def test_an_attack_that_does_nothing_is_never_a_pass(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pruneproof.attacks import audit

    monkeypatch.setattr(audit.ATTACK, "run", lambda arena, options: None)
    found = pruneproof.audit(tiny(tmp_path, policy=POLICY))
    row = gate(found, "mag@0.3", "robust_accuracy:min[attack=audit]")
    assert row.verdict == "INCONCLUSIVE"
    assert "strength check" in row.reason
    # What falls without an attack fails all the same.
    assert gate(found, "mag@0.97", "robust_accuracy:min[attack=audit]").verdict == "FAIL"


def test_the_model_and_the_process_are_as_before(tiny: Tiny, tmp_path: Path) -> None:
    kept = conftest.SUBJECT.replace("model=model()", "model=KEPT").replace(
        "def data():", "KEPT = model()\nKEPT.body[1].eval()\n\n\ndef data():"
    )
    path = tiny(tmp_path, policy=POLICY, subject=kept)
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads())
    pruneproof.audit(path)
    after = (torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    model = sys.modules["tiny_subject"].KEPT
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_the_report_shows_attacks_checks_curves_and_transfer(written: Path) -> None:
    found = evidence.read(written / "out")
    (chapter,) = found.chapters
    titles = [exhibit.title for exhibit in chapter.exhibits]
    assert titles == [
        "What was attempted",
        "Accuracy under attack",
        "Robust accuracy against ratio: audit",
        "Robust accuracy against ε: audit",
        "Strength checks",
        "Stages: cost and yield",
        "Transfer: audit",
        "What fooled them: audit",
    ]
    html = (written / "out" / "report.html").read_text("utf-8")
    assert all(title in html for title in titles)


MISTAKES = [
    ('name = "audit"', 'name = "pdg"', "did you mean 'PGD'"),
    ('name = "audit"', 'name = "PGD", stepz = 3', "did you mean 'steps'"),
    ('name = "audit"', 'name = "audit", strenght = "quick"', "did you mean 'strength'"),
    ("eps = 0.2", "eps = 0", "greater than 0"),
    ("eps = 0.2", "eps = -0.1", "greater than 0"),
    ("eps = 0.2", 'eps = "8/0"', "a fraction such as '8/255'"),
    ("eps = 0.2, ", "", "'eps' is missing"),
    ('norm = "Linf"', 'norm = "L3"', "L2"),
    ("curve", "label = 'worst', curve", "another label"),
    ("bounds = [-6, 6]", "bounds = [6, -6]", "low < high"),
    ("}]", '}, { name = "audit", eps = 0.1 }]', "distinct labels"),
    ('["region"]', '["region", "region"]', "distinct columns"),
    ("bounds =", "shard = 20\nbounds =", "strength_examples"),
    ("bounds =", 'goals = [{ from = "no", to = "no" }]\nbounds =', "one class to another"),
    ("eps = 0.2", f'eps = "1{"0" * 400}/1"', "a fraction such as"),
    ("max_drop = 0.1", "max_rise = 0.1", "no limit for robust_accuracy"),
]


@pytest.mark.parametrize(("right", "wrong", "said"), MISTAKES, ids=[wrong[:40] for _, wrong, _ in MISTAKES])
def test_a_mistake_in_the_policy_is_one_line_that_says_what_is_right(right: str, wrong: str, said: str) -> None:
    assert SUITE.count(right) == 1
    with pytest.raises(PolicyError) as caught:
        policy_file.parse(conftest.POLICY + SUITE.replace(right, wrong))
    assert said in str(caught.value)


UNFIT = [
    ("eps = 0.2,", "eps = 13,", "larger than the range of the data"),
    ("curve = [0.05, 0.1]", "curve = [0.05, 13]", "larger than the range of the data"),
    ('norm = "Linf"', 'norm = "Linf", restarts = 0', "greater than or equal to 1"),
    ("bounds = [-6, 6]\n", "", "does not say what inputs it can meet"),
    ("bounds = [-6, 6]", "bounds = [0, 1]", "lies outside the stated bounds"),
    ("bounds = [-6, 6]", 'bounds = [-6, 6]\ngoals = [{ from = "no", to = "maybe" }]', "no class 'maybe'"),
    ("bounds = [-6, 6]", 'bounds = [-6, 6]\nattacked = "image"', "no input 'image'"),
    ('name = "audit", norm = "Linf"', 'name = "TIFGSM"', "cannot run on inputs of shape (6,)"),
    ('name = "audit", norm = "Linf"', 'name = "token_swap"', "does not know inputs of a box domain"),
]


@pytest.mark.parametrize(("right", "wrong", "said"), UNFIT, ids=[wrong or "no bounds" for _, wrong, _ in UNFIT])
def test_what_the_subject_does_not_allow_is_refused_before_anything_is_measured(
    right: str, wrong: str, said: str, tiny: Tiny, tmp_path: Path
) -> None:
    assert SUITE.count(right) == 1
    path = tiny(tmp_path, policy=conftest.POLICY + SUITE.replace(right, wrong))
    found = pruneproof.audit(path)
    assert found.subject.error is not None
    assert said in found.subject.error
    assert not found.measurements


def test_a_narrow_margin_with_one_random_start_is_said_to_mean_nothing(tiny: Tiny, tmp_path: Path) -> None:
    found = pruneproof.audit(tiny(tmp_path, policy=POLICY.replace("max_drop = 0.1", "max_drop = 0.005")))
    assert any("with one random start" in line for line in found.limitations)


def test_evidence_holds_the_full_configuration_of_the_attack(written: Path) -> None:
    record = observed.read(written / "out" / "observed" / "adversarial" / "dense.npz").record["attacks"][0]
    assert record["own"]["strength"] == "standard"
    assert (record["norm"], record["eps"], record["batch"]) == ("Linf", EPS, 250)
    assert json.dumps(record["space"])
    assert {"tried", "fell", "refused", "forwards", "gradients"} <= set(record["stages"]["clean"])


SEGMENTATION = """
import torch
from sklearn.datasets import load_digits

import pruneproof


class Strokes(torch.nn.Module):
    '''Finds the pixels of the stroke; answers with each image's Dice score against its mask.'''

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3, padding=1)
        )

    def forward(self, image, mask):
        found = torch.sigmoid(self.net(image)).flatten(1)
        mask = mask.flatten(1)
        return (2 * (found * mask).sum(1) / (found.sum(1) + mask.sum(1)))[:, None]


def subject():
    images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    masks = (images > 0.5).float()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Strokes()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            (1 - model(images[:800], masks[:800])).mean().backward()
            optimizer.step()
    return pruneproof.Subject(
        model=model,
        task="regression",
        test=pruneproof.Data((images[800:1000], masks[800:1000]), torch.ones(200)),
        domain=pruneproof.Box(0, 1),
        criterion=pruneproof.Criterion(
            loss=lambda dice, targets: -dice[:, 0], fooled=lambda dice, targets: dice[:, 0] < 0.7
        ),
    )
"""


def test_a_segmentation_model_is_attacked_by_a_criterion_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "strokes.py").write_text(SEGMENTATION, "utf-8")
    (tmp_path / "audit.toml").write_text(
        '[audit]\nname = "strokes"\n[subject]\nload = "strokes:subject"\n'
        '[[prune]]\nname = "mag"\nratios = [0.3, 0.9]\n'
        '[suites.adversarial]\nattacked = "0"\n'
        'attacks = [{ name = "audit", norm = "Linf", eps = 0.1, curve = [0.4] }]\n'
        "[suites.adversarial.gates]\nrobust_accuracy = { min = 0.3 }\n",
        "utf-8",
    )
    found = pruneproof.audit(tmp_path / "audit.toml", out=tmp_path / "out")
    near, far = (value(found, "dense", "robust_accuracy_at", {"audit": eps}) for eps in ("0.1", "0.4"))
    # A pixel counts from 0.5 on: a change of 0.4 turns nearly every image, one of 0.1 nearly none.
    assert near > 0.5 > far
    assert gate(found, "mag@0.3", "robust_accuracy:min[attack=audit]").verdict == "PASS"
    assert verifying.verify(tmp_path / "out") == []
    for one in replaying.replay(tmp_path / "out", "mag@0.9"):
        assert one.points == one.inside == one.fooled


def spoiled(folder: Path, change: Callable[[dict, dict], None]) -> list[str]:
    """Contradictions in evidence of which one variant's observations were changed, and the digest with them."""
    file = folder / "out" / "observed" / "adversarial" / "mag@0.3.npz"
    seen = observed.read(file)
    record, arrays = json.loads(json.dumps(seen.record)), {name: array.copy() for name, array in seen.arrays.items()}
    change(record, arrays)
    observed.write(file, Observed(record, arrays))
    path = folder / "out" / evidence.FILE
    table = json.loads(path.read_text("utf-8"))
    table["digests"]["observed/adversarial/mag@0.3.npz"] = digests.of_file(file)
    path.write_text(json.dumps(table), "utf-8")
    return verifying.verify(folder / "out")


def kept(record: dict, arrays: dict, rows: np.ndarray) -> None:
    for name in ("rows", "clean", "budget", "stage", "distance", "queries", "answers"):
        arrays[f"attack0/{name}"] = arrays[f"attack0/{name}"][rows]


def without_fallen(record: dict, arrays: dict) -> None:
    kept(record, arrays, np.flatnonzero(arrays["attack0/budget"] < 0))


def row_twice(record: dict, arrays: dict) -> None:
    arrays["attack0/rows"][1] = arrays["attack0/rows"][0]


def outside(record: dict, arrays: dict) -> None:
    arrays["attack0/rows"][0] = 10**6


def without_points(record: dict, arrays: dict) -> None:
    arrays["attack0/points"], arrays["attack0/point_rows"] = arrays["attack0/points"][:0], np.zeros(0, dtype=np.int64)


def stands_with_points(record: dict, arrays: dict) -> None:
    arrays["attack0/budget"][:] = -1


def far(record: dict, arrays: dict) -> None:
    fell = arrays["attack0/clean"] & (arrays["attack0/budget"] >= 0)
    arrays["attack0/distance"][np.flatnonzero(fell)[0]] = 1e9


def in_record(key: str, value: object) -> Callable[[dict, dict], None]:
    def change(record: dict, arrays: dict) -> None:
        record["attacks"][0][key] = value

    return change


def no_attack(record: dict, arrays: dict) -> None:
    record["attacks"] = []


def grown(record: dict, arrays: dict) -> None:
    record["sequential"] = True


SPOILED = {
    "without the examples that fell": without_fallen,
    "an example twice": row_twice,
    "an example outside the test set": outside,
    "without points": without_points,
    "standing, with the points that fooled": stands_with_points,
    "a distance beyond the budget": far,
    "without strength checks": in_record("checks", []),
    "of another norm": in_record("norm", "L2"),
    "of other parameters": in_record("own", {"strength": "quick"}),
    "of another budget": in_record("eps", 0.05),
    "of fewer budgets": in_record("budgets", [0.2]),
    "of impossible transfer": in_record("transfer", {"dense": [7, 3]}),
    "without the attack": no_attack,
    "as if the sample had grown": grown,
    "without a key": in_record("kind", None),
}


@pytest.mark.parametrize("change", SPOILED.values(), ids=SPOILED)
def test_observations_that_contradict_themselves_or_the_policy_do_not_verify(
    change: Callable[[dict, dict], None], copied: Path
) -> None:
    problems = spoiled(copied, change)
    assert any(problem.startswith("mag@0.3: adversarial: ") for problem in problems)


def test_observations_written_again_unchanged_verify(copied: Path) -> None:
    assert spoiled(copied, lambda record, arrays: None) == []


def test_evidence_of_a_weaker_attack_does_not_verify_under_the_policy_of_a_stronger_one(copied: Path) -> None:
    stronger = policy_file.parse(POLICY.replace('norm = "Linf"', 'norm = "Linf", restarts = 5'), "audit.toml")
    path = copied / "out" / evidence.FILE
    table = json.loads(path.read_text("utf-8"))
    table["policy"] |= {"text": stronger.text, "sha256": stronger.sha256}
    path.write_text(json.dumps(table), "utf-8")
    problems = verifying.verify(copied / "out")
    assert any("its parameters are not those of the policy" in problem for problem in problems)


SORTED = conftest.SUBJECT.replace(
    "inputs = torch.randn(N, 6, generator=generator)",
    "inputs = torch.randn(N, 6, generator=generator)\n    inputs = inputs[inputs[:, 0].abs().argsort(descending=True)]",
)
"""The tiny test set with the examples first that are farthest from where the model changes its mind."""


def test_goals_are_tried_on_a_random_sample_however_the_test_set_is_sorted(tiny: Tiny, tmp_path: Path) -> None:
    aimed = POLICY.replace("bounds", 'goals = [{ from = "yes", to = "no" }]\nmost = 150\nbounds').replace(
        "transfer_success_rate = { max = 0.999 }", "targeted_success_rate = { max = 0.5 }"
    )
    found = pruneproof.audit(tiny(tmp_path, n=1000, policy=aimed, subject=SORTED))
    # Of all examples of the class, those within 0.2 of the boundary can be turned; none of the first 150 could.
    expected = float((boundary(1000) <= EPS).mean())
    assert value(found, "dense", "targeted_success_rate", {"goal": "yes->no"}) == pytest.approx(expected, abs=0.08)


def test_robust_accuracy_of_a_sample_and_transfer_do_not_depend_on_how_the_test_set_is_sorted(
    tiny: Tiny, tmp_path: Path
) -> None:
    some = POLICY.replace("bounds", "most = 200\nbounds")
    found = pruneproof.audit(tiny(tmp_path, n=1000, policy=some, subject=SORTED))
    expected = float((boundary(1000) > EPS).mean())
    assert value(found, "dense", "robust_accuracy", {"attack": "audit"}) == pytest.approx(expected, abs=0.08)
    row = gate(found, "mag@0.3", "transfer_success_rate:max[source=dense]")
    assert row.n > 10


def test_a_larger_budget_of_the_curve_changes_nothing_of_what_is_about_the_attacks_own(
    tiny: Tiny, tmp_path: Path
) -> None:
    narrow = pruneproof.audit(tiny(tmp_path / "a", policy=POLICY))
    wide = pruneproof.audit(
        tiny(tmp_path / "b", policy=POLICY.replace("curve = [0.05, 0.1]", "curve = [0.05, 0.1, 2]"))
    )
    for metric, segment in (("transfer_success_rate", {"source": "dense"}), ("robust_accuracy", {"attack": "audit"})):
        assert value(narrow, "mag@0.3", metric, segment) == value(wide, "mag@0.3", metric, segment)


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.25), ("L2", 2.0), ("L1", 5.0)])
def test_the_median_perturbation_of_a_linear_model_is_the_closed_form_one(
    norm: str, eps: float, tmp_path: Path
) -> None:
    (tmp_path / "linear.py").write_text(LINEAR, "utf-8")
    (tmp_path / "audit.toml").write_text(
        '[audit]\nname = "linear"\n[subject]\nload = "linear:subject"\n'
        '[[variant]]\nname = "same"\nload = "linear:model"\n'
        f'[suites.adversarial]\nattacks = [{{ name = "audit", norm = "{norm}", eps = {eps} }}]\nbounds = [-100, 100]\n'
        "[suites.adversarial.gates]\nmedian_perturbation = { min = 0.001 }\n",
        "utf-8",
    )
    found = pruneproof.audit(tmp_path / "audit.toml")
    sys.path.insert(0, str(tmp_path))
    try:
        import linear
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("linear", None)
    weight, inputs = linear.WEIGHT.double(), linear.INPUTS.double()
    scores = inputs @ weight.T
    targets = scores.argmax(dim=1)
    slopes = weight[targets][:, None] - weight[None]
    gaps = scores.gather(1, targets[:, None]) - scores
    dual = {"Linf": 1, "L2": 2, "L1": float("inf")}[norm]
    far = gaps / torch.linalg.vector_norm(slopes, ord=dual, dim=2).clamp(min=1e-12)
    far[torch.arange(len(far)), targets] = torch.inf
    expected = float(np.median(np.minimum(far.amin(dim=1).numpy(), eps)))
    assert value(found, "same", "median_perturbation", {"attack": "audit"}) == pytest.approx(expected, rel=0.02)


LINEAR = """
import torch

import pruneproof

generator = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(5, 30, generator=generator) / 30**0.5
INPUTS = torch.randn(300, 30, generator=generator)


def model():
    net = torch.nn.Linear(30, 5, bias=False)
    with torch.no_grad():
        net.weight.copy_(WEIGHT)
    return net


def subject():
    return pruneproof.Subject(
        model=model(), task="classification", test=pruneproof.Data(INPUTS, (INPUTS @ WEIGHT.T).argmax(dim=1))
    )
"""


@pytest.mark.parametrize("name", ["APGD", "APGDT"])
def test_a_class_that_returns_the_clean_example_where_nothing_fooled_raises_no_false_alarm(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "linear.py").write_text(LINEAR, "utf-8")
    (tmp_path / "audit.toml").write_text(
        '[audit]\nname = "linear"\n[subject]\nload = "linear:subject"\n'
        '[[variant]]\nname = "same"\nload = "linear:model"\n'
        f'[suites.adversarial]\nattacks = [{{ name = "{name}", eps = 0.02, norm = "Linf" }}]\nbounds = [-100, 100]\n'
        "[suites.adversarial.gates]\nrobust_accuracy = { min = 0.5 }\n",
        "utf-8",
    )
    found = pruneproof.audit(tmp_path / "audit.toml")
    assert gate(found, "same", f"robust_accuracy:min[attack={name}]").verdict == "PASS"


def test_audit_searches_a_table_whose_model_has_no_gradients(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(
        """
import torch

import pruneproof


class Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(2, 1)
        with torch.no_grad():
            self.body.weight.fill_(1.0)
            self.body.bias.fill_(-4.5)

    def forward(self, x):
        with torch.no_grad():
            return self.body(x)


def subject():
    inputs = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    columns = [pruneproof.Column(name, "integer", low=0, high=9) for name in ("a", "b")]
    return pruneproof.Subject(
        model=Sum(),
        task="classification",
        test=pruneproof.Data(inputs, (inputs.sum(dim=1) > 4.5).long()),
        domain=pruneproof.Table(columns),
    )


def same():
    return Sum()
""",
        "utf-8",
    )
    (tmp_path / "audit.toml").write_text(
        '[audit]\nname = "counted"\n[subject]\nload = "counted:subject"\n'
        '[[variant]]\nname = "same"\nload = "counted:same"\n'
        '[suites.adversarial]\nattacks = [{ name = "audit", eps = 2 }]\n'
        "[suites.adversarial.gates]\nrobust_accuracy = { min = 0.5 }\n",
        "utf-8",
    )
    found = pruneproof.audit(tmp_path / "audit.toml")
    # Two units change the sum by two: of 100 pairs those whose sum is 3, 4, 5 or 6 can cross from 4 to 5 or back.
    sums = np.add.outer(np.arange(10), np.arange(10))
    expected = 1 - float(np.isin(sums, [3, 4, 5, 6]).mean())
    assert value(found, "same", "robust_accuracy", {"attack": "audit"}) == pytest.approx(expected)
