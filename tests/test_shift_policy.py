"""What the shift suite refuses, in the policy and in the subject: a line of cause and a line of what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import shifted_models

import pruneproof
from pruneproof import policy_file
from pruneproof.errors import PolicyError

HEAD = '[audit]\nname = "a"\n[subject]\nload = "m:f"\n[[variant]]\nname = "v"\nload = "m:v"\n'
GATES = "[suites.shift.gates]\naccuracy = { min = 0.1 }\n"


def refused(options: str, gates: str = GATES) -> str:
    """Cause and remedy of what the policy's reader says, each one line."""
    with pytest.raises(PolicyError) as caught:
        policy_file.parse(f"{HEAD}[suites.shift]\n{options}\n{gates}", "audit.toml")
    error = caught.value
    assert error.cause
    assert error.remedy
    assert str(error).count("\n") == 1
    return f"{error.cause} | {error.remedy}"


NOISE = 'corruptions = ["gaussian_noise"]'
BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "an unknown corruption": ('corruptions = ["gausian_noise"]', ("gaussian_noise",)),
    "an unknown parameter": ('corruptions = [{ name = "uniform_noise", epsilo = 0.2 }]', ("epsilo", "epsilon")),
    "an impossible parameter": ('corruptions = [{ name = "uniform_noise", epsilon = 3.0 }]', ("epsilon",)),
    "severity 0": (f"{NOISE}\nseverities = [0, 1]", ("severities", "1")),
    "severity 6": (f"{NOISE}\nseverities = [6]", ("severities", "5")),
    "severity 6 of one": ('corruptions = [{ name = "fog", severities = [6] }]', ("severities", "5")),
    "half a severity": (f"{NOISE}\nseverities = [1.5]", ("severities",)),
    "no severity": (f"{NOISE}\nseverities = []", ("severities",)),
    "severities twice": (f"{NOISE}\nseverities = [1, 1]", ("distinct severities",)),
    "severities upside down": (f"{NOISE}\nseverities = [3, 1]", ("ascending",)),
    "a label twice": ('corruptions = ["fog", "fog"]', ("'fog'", "label")),
    "one label for two": ('corruptions = [{ name = "fog", label = "x" }, { name = "snow", label = "x" }]', ("'x'",)),
    "a label that is taken": ('corruptions = [{ name = "fog", label = "nominal" }]', ("'nominal' is taken",)),
    "a label that is the sum's": ('corruptions = [{ name = "fog", label = "corruptions" }]', ("is taken",)),
    "an unknown key": ("corruption = []", ("corruption", "corruptions")),
    "an unknown detector": ('detectors = ["msb"]', ("detectors", "msp")),
    "a detector twice": ('detectors = ["msp", "msp"]', ("distinct", "detectors")),
    "noise of nothing": ("noise = [0.0]", ("noise",)),
    "noise upside down": ("noise = [0.2, 0.1]", ("ascending",)),
    "windows without times": ('windows = { w = ["2026-01-01", "2026-02-01"] }', ("by_time",)),
    "times without windows": ('by_time = "when"', ("windows", "period")),
    "a window that ends before it starts": (
        'by_time = "when"\nwindows = { w = ["2026-02-01", "2026-01-01"] }',
        ("'w'", "end after it starts"),
    ),
    "a window without length": ('by_time = "when"\nwindows = { w = ["2026-02-01", "2026-02-01"] }', ("'w'",)),
    "a window of no time": ('by_time = "when"\nwindows = { w = ["soon", "2026-02-01"] }', ("'soon'",)),
    "a window of a day that may be two": (
        'by_time = "when"\nwindows = { w = ["03/02/2026", "2026-06-01"] }',
        ("'03/02/2026'", "a date or a time"),
    ),
    "a window of a day that is none": (
        'by_time = "when"\nwindows = { w = ["2026-02-30", "2026-06-01"] }',
        ("2026-02-30",),
    ),
    "a window called as a corruption": (
        f'{NOISE}\nby_time = "when"\nwindows = {{ gaussian_noise = ["2026-01-01", "2026-02-01"] }}',
        ("names of windows",),
    ),
    "an unknown period": ('by_time = "when"\nperiod = "fortnight"', ("period", "week")),
    "a break of a corruption that is not there": (
        f'{NOISE}\nbreaking = [{{ corruption = "fog", max_drop = 0.1 }}]',
        ("'breaking'",),
    ),
    "a break of a resampling": (
        'corruptions = ["label_shift"]\nbreaking = [{ corruption = "label_shift", max_drop = 0.1 }]',
        ("'breaking'", "change inputs"),
    ),
    "a break without a limit": (f'{NOISE}\nbreaking = [{{ corruption = "gaussian_noise" }}]', ("exactly one",)),
    "a break with two limits": (
        f'{NOISE}\nbreaking = [{{ corruption = "gaussian_noise", max_drop = 0.1, min_accuracy = 0.9 }}]',
        ("exactly one",),
    ),
    "bounds the wrong way round": (f"{NOISE}\nbounds = [1, 0]", ("bounds", "low < high")),
    "no tries": ("counterexamples = { tries = 0 }", ("tries",)),
    "an error beyond all": (f"{NOISE}\ndelta = 1.0", ("delta",)),
}


@pytest.mark.parametrize(("options", "says"), BAD.values(), ids=BAD)
def test_a_policy_that_cannot_be_meant_is_refused_with_cause_and_remedy(options: str, says: tuple[str, ...]) -> None:
    told = refused(options)
    for part in says:
        assert part in told


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("mce = { max = 1.2 }", "corruptions = […]"),
        ("relative_mce = { max = 1.2 }", "corruptions = […]"),
        ("ce = { max = 1.2 }", "corruptions = […]"),
        ("corruption_accuracy = { min = 0.5 }", "corruptions = […]"),
        ("accuracy_at = { min = 0.5 }", "corruptions = […]"),
        ("label_match = { min = 0.5 }", "noise = […]"),
        ("softmax_distance = { max = 0.5 }", "noise = […]"),
        ("breaking_severity = { min = 2 }", "breaking = [{"),
        ("worst_period_accuracy = { min = 0.5 }", "period"),
        ("worst_group_accuracy = { min = 0.5 }", "by = […]"),
        ("counterexamples = { max = 0 }", "counterexamples = {"),
    ],
)
def test_a_gate_without_what_it_is_measured_on_is_refused_with_what_to_add(gate: str, says: str) -> None:
    told = refused("", f"[suites.shift.gates]\n{gate}\n")
    assert gate.split()[0] in told
    assert says in told


@pytest.mark.parametrize(
    "gate",
    ["mce = { min = 0.5 }", "accuracy = { max = 0.5 }", "excess_error = { max_rise = 0.1 }", "mce = { max_ratio = 2 }",
     "prune_potential = { max_drop = 0.1 }", "accuracy = { min = 1.5 }", "mcee = { max = 2 }"],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_refused(gate: str) -> None:
    assert gate.split()[0] in refused(NOISE, f"[suites.shift.gates]\n{gate}\n")


FURTHER = """

def no_domain():
    return subject(domain=None)


def other_columns():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs[:, :3], LATER.targets)})


def other_shape():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs[:, :, None], LATER.targets)})


def other_dtype():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs.long(), LATER.targets)})


def other_classes():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs, LATER.targets + 1)})


def no_targets():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs)})


def empty():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs[:0], LATER.targets[:0])})


def with_nan():
    inputs = LATER.inputs.clone()
    inputs[3, 0] = float("nan")
    return subject(shifted={"later": pruneproof.Data(inputs, LATER.targets)})


def no_segments():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs, LATER.targets)})


def other_segments():
    return subject(shifted={"later": pruneproof.Data(LATER.inputs, LATER.targets, segments=LATER.segments[["size"]])})


def called_test():
    return subject(shifted={"test": LATER})


def called_nominal():
    return subject(shifted={"nominal": LATER})


def called_noise():
    return subject(shifted={"noise": LATER})


def foreign_shape():
    return subject(foreign={"far": pruneproof.Data(torch.zeros(5, 7))})


def foreign():
    return subject(foreign={"far": pruneproof.Data(torch.zeros(50, 4))})


def nothing():
    return subject(shifted={})


def narrow():
    return subject(domain=pruneproof.Box(-1.0, 1.0))


def reversed_box():
    return subject(domain=pruneproof.Box(4.0, -4.0))


def table(*columns, **further):
    from pruneproof import Column

    names = [Column(name, "real") for name in "abcd"]
    for column in columns:
        names["abcd".index(column.name)] = column
    return subject(domain=pruneproof.Table(names, **further))


def integers_that_are_none():
    return table(pruneproof.Column("b", "integer"))


def bounds_that_exclude():
    return table(pruneproof.Column("c", "real", low=2.0, high=1.0))


def bounds_that_data_break():
    return table(pruneproof.Column("c", "real", low=0.0))


def one_hot_of_none():
    return table(one_hot=[pruneproof.OneHot("kind", ("a", "nowhere"))])


def too_few_columns():
    return subject(domain=pruneproof.Table([pruneproof.Column("a", "real")]))


def a_regression():
    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return self.slope * x[:, 0]

    return subject(
        model=Line(), task="regression", classes=None,
        shifted={"later": pruneproof.Data(LATER.inputs, LATER.inputs[:, 0])},
        test=pruneproof.Data(data(N, 1).inputs, data(N, 1).inputs[:, 0]),
    )


def two_inputs():
    given = data(N, 1)
    return subject(
        model=Both(), shifted={}, test=pruneproof.Data((given.inputs, given.inputs.clone()), given.targets)
    )


class Both(Net):
    def __init__(self):
        super().__init__(2.0, 1.0, 0.2, 0.0)

    def forward(self, x, y):
        return super().forward(x + 0 * y)
"""
OWN = 'corruptions = [{ name = "noise", load = "shifting:noise" }]'
SUBJECTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no domain": ("no_domain", OWN, ("does not say what inputs", "Subject(domain=")),
    "other columns": ("other_columns", "", ("later", "(3,)", "(4,)", "columns")),
    "other shape": ("other_shape", "", ("later", "(4, 1)", "(4,)")),
    "other dtype": ("other_dtype", "", ("later", "torch.int64", "torch.float32")),
    "other classes": ("other_classes", "", ("later target 2", "outside the classes 0 to 1")),
    "no targets": ("no_targets", "", ("later", "no targets")),
    "an empty shifted set": ("empty", "", ("later set is empty",)),
    "NaN in a shifted set": ("with_nan", "", ("later inputs hold NaN, first in example 3",)),
    "no segments in a shifted set": ("no_segments", 'by = ["region"]', ("'later'", "no segments")),
    "another column in a shifted set": ("other_segments", 'by = ["region"]', ("'later'", "column 'region'", "size")),
    "an unknown column": ("subject", 'by = ["regoin"]', ("regoin", "region")),
    "a shifted set called test": ("called_test", "", ("'test'", "another name")),
    "a shifted set called nominal": ("called_nominal", "", ("'nominal'", "another name")),
    "a shifted set called as a corruption": ("called_noise", OWN, ("'noise'", "another name")),
    "foreign inputs of another shape": ("foreign_shape", "", ("far", "(7,)", "(4,)")),
    "a detector without calibration": ("foreign", 'detectors = ["knn"]', ("calibration", "knn")),
    "nothing to measure": ("nothing", "", ("nothing to measure", "corruptions = […]")),
    "examples outside the domain": ("narrow", OWN, ("test example 0", "outside the bounds")),
    "a box the wrong way round": ("reversed_box", OWN, ("wrong way round",)),
    "two domains": ("subject", f"{OWN}\nbounds = [0, 1]", ("both the subject and", "leave 'bounds' out")),
    "integers that are none": ("integers_that_are_none", 'corruptions = ["feature_noise"]', ("multiple of 1",)),
    "bounds that contradict each other": ("bounds_that_exclude", 'corruptions = ["feature_noise"]', ("c",)),
    "bounds that the data break": ("bounds_that_data_break", 'corruptions = ["feature_noise"]', ("c", "0")),
    "a one-hot group of no column": ("one_hot_of_none", 'corruptions = ["feature_noise"]', ("nowhere",)),
    "a table of too few columns": ("too_few_columns", 'corruptions = ["feature_noise"]', ("1", "4")),
    "a window without examples": (
        "subject", 'by_time = "when"\nwindows = { w = ["2030-01-01", "2030-02-01"] }',
        ("window 'w' holds no test example", "2026-01-01"),
    ),
    "an unknown time column": ("subject", 'by_time = "wehn"\nperiod = "month"', ("'wehn'", "when")),
    "a time column of no times": ("subject", 'by_time = "region"\nperiod = "month"', ("region", "is no time")),
    "noise of a regression": ("a_regression", "noise = [0.1]", ("regression", "leave them out")),
    "an unknown input": ("subject", f'{OWN}\ncorrupted = "pixels"', ("'pixels'", "one input")),
    "one of several inputs": ("two_inputs", OWN, ("2 of the subject's inputs", "corrupted = …")),
    "counterexamples to several inputs": (
        "two_inputs", 'corrupted = "0"\ncounterexamples = { tries = 3 }', ("several", "leave them out"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("load", "options", "says"), SUBJECTS.values(), ids=SUBJECTS)
def test_a_subject_that_does_not_fit_is_refused_before_anything_is_measured(
    load: str, options: str, says: tuple[str, ...], tmp_path: Path
) -> None:
    metric = "mae = { max = 9 }" if load == "a_regression" else "accuracy = { min = 0.1 }"
    suite = f"[suites.shift]\n{options}\n[suites.shift.gates]\n{metric}\n"
    path = shifted_models.write(tmp_path, suite, load=load, further=FURTHER)
    found = pruneproof.audit(path)
    assert found.subject.error is not None
    for part in says:
        assert part in found.subject.error
    assert "\n" not in found.subject.error
    assert {one.verdict for one in found.gates} == {"ERROR"}
    assert not found.measurements


@pytest.mark.parametrize(
    ("corruption", "says"),
    [
        ('{ name = "fog" }', ("'fog'", "'signal'", "snr_noise")),
        ('{ name = "feature_noise" }', ("'feature_noise'", "'signal'")),
        ('{ name = "typos" }', ("'typos'", "'signal'")),
        ('{ name = "own", load = "shifting:none" }', ("returned object", "no corruption", "apply")),
        ('{ name = "own", load = "shifting:nowhere" }', ("nowhere",)),
        ('{ name = "own", load = "no_such_module:noise" }', ("no_such_module",)),
        ('{ name = "own", load = "shifting:noise", wide = 3 }', ("wide",)),
        ('{ name = "covariate_tilt", column = "age" }', ("only a table has columns",)),
        ('{ name = "covariate_tilt", segment = "regoin", value = "north" }', ("regoin", "region")),
        ('{ name = "covariate_tilt", segment = "region", value = "nroth" }', ("nroth", "north")),
        ('{ name = "label_shift", target = 5 }', ("class 5",)),
    ],
)
def test_a_corruption_that_does_not_fit_the_inputs_says_why_and_what_does(
    corruption: str, says: tuple[str, ...], tmp_path: Path
) -> None:
    suite = f"""
    [suites.shift]
    corruptions = [{corruption}]
    severities = [1]
    [suites.shift.gates]
    excess_error = {{ max = 0.9 }}
    """
    found = shifted_models.audited(tmp_path, suite)
    told = [one for one in found.gates if one.verdict == "ERROR"]
    assert told
    for part in says:
        assert all(part in one.reason for one in told), told[0].reason
    assert found.verdict == "ERROR"


def test_a_gate_on_a_family_without_members_is_an_error_that_says_what_there_is_not(tmp_path: Path) -> None:
    suite = """
    [suites.shift]
    [suites.shift.gates]
    accuracy = { min = 0.1 }
    ood_auroc = { min = 0.6 }
    """
    found = shifted_models.audited(tmp_path, suite)
    (row,) = (one for one in found.gates if one.metric == "ood_auroc")
    assert row.verdict == "ERROR"
    assert "no detector" in row.reason or "foreign" in row.reason


def test_a_policy_of_every_key_is_read(tmp_path: Path) -> None:
    found = policy_file.parse(
        f"""{HEAD}[suites.shift]
        corruptions = ["gaussian_noise", {{ name = "fog", label = "mist", severities = [2, 4] }}]
        severities = [1, 5]
        by = ["region"]
        min_n = 10
        by_time = "when"
        windows = {{ w = ["2026-01-01", "2026-02-01T12:00:00Z"] }}
        period = "quarter"
        delta = 0.01
        noise = [0.1, 0.2]
        noise_samples = 3
        detectors = ["msp", "energy", "max_logit", "mahalanobis", "knn"]
        layer = "body.0"
        neighbours = 10
        breaking = [{{ corruption = "mist", max_drop = 0.1 }}]
        counterexamples = {{ tries = 10, most = 1, within = 0.5 }}
        bounds = [0, 1]
        corrupted = "pixels"
        most = 100
        {GATES}"""
    )
    options = found.suites["shift"].options
    assert [entry.called for entry in options.corruptions] == ["gaussian_noise", "mist"]  # type: ignore[attr-defined]
