"""``audit.toml`` becomes typed records, or one clear error; never anything else."""

from __future__ import annotations

import dataclasses
import datetime
import re
import string
import tomllib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import odd_values, policy_tables, toml_values

from pruneproof import policy, policy_file, registry, toml_source
from pruneproof.errors import PolicyError
from pruneproof.policy import Policy
from pruneproof.recipe import Prune, words
from pruneproof.suite import Metric

unhurried = settings(deadline=None)

FULL = """\
# The example of the contract, as far as it is carried out today.
[audit]
name = "card-fraud"
seed = 20261122
confidence = 0.95
inconclusive = "fail"
release = ["l1-channels@0.5"]

[subject]
load = "bank.models:subject"

[[prune]]
name = "l1-channels"
ratios = [0.3, 0.5, 0.7, 0.9]
granularity = "channel"
criterion = "magnitude"
scope = "global"

[[variant]]
name = "nni-70"
load = "bank.models:nni_70"

[comparators]
previous = "bank.models:last_year"

[suites.accuracy.gates]
accuracy = { min = 0.90, max_drop = 0.01, rationale = "SLA 4.2" }
recall = { max_drop = 0.05, comparator = "previous" }

[suites.segments]
by = ["transaction_type", "amount_band"]
[suites.segments.gates]
excess_accuracy_gap = { max = 0.02 }
recall = { max_drop = 0.05, up_to = 0.7, confidence = 0.9 }

[[waivers]]
gate = "segments/recall:max_drop[transaction_type=refund]"
variant = "l1-channels@0.5"
observed_max = 0.08
reason = "few refunds"
approved_by = "risk board"
expires = 2027-01-31

[tests]
required = ["refund_churn"]
"""


def lines(old: str, new: str) -> str:
    """``FULL`` with one line exchanged."""
    assert FULL.count(old) == 1, old
    return FULL.replace(old, new)


def error_of(text: str, path: str = "audit.toml") -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        policy_file.parse(text, path)
    return caught.value


def same(one: Policy, other: Policy) -> bool:
    told = {"path", "text"}
    fields = [field.name for field in dataclasses.fields(Policy) if field.name not in told]
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def holds_or_says_why(text: str) -> Policy | None:
    """The property that every text has: a policy that round-trips, or a policy error of two lines."""
    told = None
    try:
        found = policy_file.parse(text)
    except PolicyError as error:
        told = error
    if told is not None:
        assert told.cause.startswith("audit.toml")
        assert told.remedy
        assert str(told).splitlines() == [told.cause, f"  {told.remedy}"]
        assert len(str(told)) < 10_000
        return None
    again = policy_file.parse(tomli_w.dumps(policy.as_table(found)))
    assert same(again, found)
    assert len(found.sha256) == 64
    assert policy.candidates(found)
    for name in policy.candidates(found):
        (variant,) = (variant for variant in policy.variants(found) if variant.name == name)
        assert any(policy.applies(spec, variant) for spec in policy.gate_specs(found))
    return found


# What a policy says


def test_the_policy_of_the_contract_is_read_into_typed_records() -> None:
    found = policy_file.parse(FULL)
    assert [variant.name for variant in policy.variants(found)] == [
        *("l1-channels@0.3", "l1-channels@0.5", "l1-channels@0.7", "l1-channels@0.9"),
        "nni-70",
    ]
    assert policy.candidates(found) == ("l1-channels@0.5",)
    assert found.audit.seed == 20261122
    assert found.prune[0].ratios == (0.3, 0.5, 0.7, 0.9)
    assert found.prune[0].granularity == "channel"
    assert found.imported[0].load == "bank.models:nni_70"
    assert found.waivers[0].expires == datetime.date(2027, 1, 31)
    assert found.tests.required == ("refund_churn",)
    assert found.text == FULL


def test_each_limit_key_makes_one_gate_with_its_comparator_and_confidence() -> None:
    specs = policy.gate_specs(policy_file.parse(FULL))
    assert [(spec.stem, spec.limit, spec.comparator, spec.confidence, spec.up_to) for spec in specs] == [
        ("accuracy/accuracy:min", 0.90, None, 0.95, None),
        ("accuracy/accuracy:max_drop", 0.01, "dense", 0.95, None),
        ("accuracy/recall:max_drop", 0.05, "previous", 0.95, None),
        ("segments/excess_accuracy_gap:max", 0.02, None, 0.95, None),
        ("segments/recall:max_drop", 0.05, "dense", 0.9, 0.7),
    ]
    assert specs[1].rationale == "SLA 4.2"


def test_up_to_leaves_out_higher_ratios_and_no_imported_variant() -> None:
    found = policy_file.parse(FULL)
    spec = policy.gate_specs(found)[-1]
    gated = [variant.name for variant in policy.variants(found) if policy.applies(spec, variant)]
    assert gated == ["l1-channels@0.3", "l1-channels@0.5", "l1-channels@0.7", "nni-70"]


def test_without_release_every_variant_is_up_for_release() -> None:
    found = policy_file.parse(lines('release = ["l1-channels@0.5"]\n', ""))
    assert len(policy.candidates(found)) == 5


@pytest.mark.parametrize(
    ("written", "name"), [("0.5", "p@0.5"), ("0.50", "p@0.5"), ("5e-1", "p@0.5"), ("0.00001", "p@1e-05")]
)
def test_a_variant_is_named_by_the_repr_of_its_ratio(written: str, name: str) -> None:
    assert policy.variants(policy_file.parse(small(ratios=f"[{written}]")))[0].name == name


def small(audit: str = "", ratios: str = "[0.5]", gates: str = "accuracy = { min = 0.5 }", rest: str = "") -> str:
    return (
        f'[audit]\nname = "a"\n{audit}\n[subject]\nload = "m:f"\n[[prune]]\nname = "p"\n'
        f"ratios = {ratios}\n[suites.accuracy.gates]\n{gates}\n{rest}\n"
    )


# Digest


def test_comments_key_order_and_file_name_do_not_change_the_digest() -> None:
    plain = policy_file.parse(FULL).sha256
    shuffled = "# another comment\n" + tomli_w.dumps(turned(tomllib.loads(FULL)))
    assert shuffled.index("[suites.segments") < shuffled.index("[suites.accuracy")
    assert policy_file.parse(shuffled, "other/name.toml").sha256 == plain
    respelled = lines("20261122", "20_261_122 # digits").replace("0.95", "9.5e-1")
    assert policy_file.parse(respelled).sha256 == plain


def turned(value: Any) -> Any:
    """``value`` with the keys of every table in reverse order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(entry) for entry in value] if isinstance(value, list) else value


def test_a_default_that_is_written_out_does_not_change_the_digest() -> None:
    with_defaults = lines('scope = "global"', 'scope = "global"\nsteps = 1\nfine_tune = false\nschedule = "one_shot"')
    assert policy_file.parse(with_defaults).sha256 == policy_file.parse(FULL).sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_drop = 0.01", "max_drop = 0.02"),
        ("SLA 4.2", "SLA 4.3"),
        ("seed = 20261122", "seed = 20261123"),
        ("[0.3, 0.5, 0.7, 0.9]", "[0.5, 0.3, 0.7, 0.9]"),
        ("observed_max = 0.08", "observed_max = 0.09"),
        ("2027-01-31", "2027-02-01"),
        ("up_to = 0.7, ", ""),
        ('required = ["refund_churn"]', "required = []"),
    ],
)
def test_anything_that_could_change_a_verdict_changes_the_digest(old: str, new: str) -> None:
    assert policy_file.parse(lines(old, new)).sha256 != policy_file.parse(FULL).sha256


# Errors, one by one


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        (
            "[tests]\n",
            "[tests]\nrequire = []\n",
            45,
            ["tests.require: unknown key 'require'", "did you mean 'required'?"],
        ),
        ("seed = 2", "sed = 2", 4, ["audit.sed: unknown key 'sed'", "did you mean 'seed'?"]),
        ("[subject]\n", "[subject]\nlod = 1\n", 10, ["subject.lod", "did you mean 'load'?"]),
        ('scope = "g', 'scopes = "g', 17, ["prune[0].scopes: unknown key", "did you mean 'scope'?"]),
        ('name = "nni-70"\n', 'name = "nni-70"\nurl = "x"\n', 21, ["variant[0].url: unknown key"]),
        ("previous = ", "previos = ", 24, ["comparators.previos", "did you mean 'previous'?"]),
        ("max_drop = 0.01", "max_dorp = 0.01", 27, ["gates.accuracy.max_dorp", "did you mean 'max_drop'?"]),
        ("by = [", "bye = [", 31, ["suites.segments.bye", "did you mean 'by'?"]),
        ("reason = ", "raeson = ", 40, ["waivers[0].raeson", "did you mean 'reason'?"]),
        ("[tests]\n", "[test]\n", 44, ["unknown key 'test'", "did you mean 'tests'?"]),
        (
            "[suites.segments]\n",
            "[suites.segment]\n",
            30,
            ["suites.segment: unknown suite 'segment'", "did you mean 'segments'?"],
        ),
        (
            "excess_accuracy_gap",
            "excess_gap",
            33,
            ["gates.excess_gap: unknown metric", "did you mean 'excess_accuracy_gap'?"],
        ),
        ("0.3, 0.5, 0.7", "0, 0.5, 0.7", 14, ["prune[0].ratios[0]: expected greater than 0, got integer 0"]),
        ("0.3, 0.5, 0.7", "0.3, 0.5, 1", 14, ["prune[0].ratios[2]: expected less than 1, got integer 1"]),
        ("0.3, 0.5, 0.7", "0.3, 0.5, 1.5", 14, ["prune[0].ratios[2]: expected less than 1, got float 1.5"]),
        ("0.3, 0.5, 0.7", "0.3, 0.5, -0.1", 14, ["prune[0].ratios[2]: expected greater than 0, got float -0.1"]),
        ("0.3, 0.5, 0.7", "0.3, 0.5, nan", 14, ["prune[0].ratios[2]: expected a finite number, got float nan"]),
        ("0.3, 0.5, 0.7", "0.3, 0.5, inf", 14, ["prune[0].ratios[2]: expected a finite number"]),
        ("0.3, 0.5, 0.7", '0.3, 0.5, "0.5"', 14, ["prune[0].ratios[2]: expected a number, got text '0.5'"]),
        ("0.3, 0.5, 0.7", "0.3, 0.5, true", 14, ["prune[0].ratios[2]: expected a number, got boolean True"]),
        ("[0.3, 0.5, 0.7, 0.9]", "0.5", 14, ["prune[0].ratios: expected an array, got float 0.5"]),
        ("[0.3, 0.5, 0.7, 0.9]", "[]", 14, ["prune[0].ratios: expected an array to have at least 1 item"]),
        ("0.3, 0.5, 0.7", "0.5, 0.5, 0.7", 14, ["prune[0].ratios: expected distinct ratios"]),
        (
            'name = "nni-70"',
            'name = "l1-channels"',
            20,
            ["variant[0].name: the name 'l1-channels' is taken by a [[prune]]"],
        ),
        (
            'release = ["l1-channels@0.5"]',
            'release = ["l1-channels@0.6"]',
            7,
            ["audit.release[0]: no variant", "did you mean 'l1-channels@0"],
        ),
        (
            'release = ["l1-channels@0.5"]',
            "release = []",
            7,
            ["audit.release: expected an array to have at least 1 item"],
        ),
        (
            "min = 0.90",
            "min = 90",
            27,
            ["gates.accuracy.min: expected a share in [0, 1], got 90", "write 90 % as 0.90"],
        ),
        ("max_drop = 0.01", "max_drop = 1.5", 27, ["expected a share in [-1, 1]"]),
        (
            "max_drop = 0.01",
            "max_rise = 0.01",
            27,
            ["'max_rise' is no limit for accuracy, which is better when higher", "use min or max_drop"],
        ),
        (
            "accuracy = { min = 0.90, max_drop = 0.01",
            "fpr = { max_drop = 0.01",
            27,
            ["gates.fpr.max_drop: 'max_drop' is no limit for fpr, which is better when lower"],
        ),
        (
            "accuracy = { min = 0.90, max_drop = 0.01",
            "agreement = { max_drop = 0.01",
            27,
            ["'max_drop' is no limit for agreement"],
        ),
        ("{ max = 0.02 }", "{ max = nan }", 33, ["excess_accuracy_gap.max: expected a finite number"]),
        ("{ max = 0.02 }", "0.02", 33, ["excess_accuracy_gap: expected a table, got float"]),
        ("{ max = 0.02 }", "{ rationale = 'x' }", 33, ["excess_accuracy_gap: expected at least one limit"]),
        ("up_to = 0.7", "up_to = 70", 34, ["recall.up_to: expected less than 1"]),
        ("confidence = 0.95", "confidence = 95", 5, ["audit.confidence: expected less than 1"]),
        ("confidence = 0.95", "confidence = 0.5", 5, ["audit.confidence: expected greater than 0.5"]),
        ("confidence = 0.95", "timeout_s = 1e300", 5, ["audit.timeout_s: expected less than or equal to 1"]),
        (
            'inconclusive = "fail"',
            'inconclusive = "pass"',
            6,
            ["audit.inconclusive: expected 'fail' or 'warn', got text 'pass'"],
        ),
        (
            '[comparators]\nprevious = "bank.models:last_year"',
            "",
            27,
            ["recall.comparator: no previous model is named"],
        ),
        (
            'previous = "bank.models:last_year"',
            'previous = "old model.pt"',
            24,
            ["comparators.previous: expected 'module:function' or a .safetensors file"],
        ),
        ('previous = "bank.models:last_year"', 'previous = "a b: c"', 24, ["comparators.previous: expected"]),
        ('previous = "bank', 'previous = "../x.pt:bank', 24, ["comparators.previous: expected"]),
        (
            "gate = ",
            'gate = "segments/recal:max_drop[a=b]" # ',
            37,
            ["waivers[0].gate: no gate 'segments/recal:max_drop'", "did you mean 'segments/recall:max_drop'?"],
        ),
        (
            "gate = ",
            'gate = "segments/recall:max_drop" # ',
            37,
            ["no gate 'segments/recall:max_drop'", "write segments/recall:max_drop[column=value]"],
        ),
        (
            "gate = ",
            'gate = "accuracy/accuracy:min[a=b]" # ',
            37,
            ["no gate 'accuracy/accuracy:min[a=b]'", "write accuracy/accuracy:min"],
        ),
        (
            'variant = "l1',
            'variant = "l2',
            38,
            ["waivers[0].variant: no variant 'l2-channels@0.5'", "did you mean 'l1-channels@0.5'?"],
        ),
        ("expires = 2027-01-31", 'expires = "2027-01-31"', 42, ["waivers[0].expires: expected a date, got text"]),
        (
            "expires = 2027-01-31",
            "expires = 2027-01-31T10:00:00",
            42,
            ["waivers[0].expires: expected a date, got datetime"],
        ),
        ("expires = 2027-01-31\n", "", 36, ["waivers[0]: 'expires' is missing", "add expires = "]),
        (
            'load = "bank.models:nni_70"',
            'load = "a:b"\ncheckpoint = "c.safetensors"',
            19,
            ["variant[0]: expected exactly one of 'load', 'prune' and 'checkpoint'"],
        ),
        (
            'load = "bank.models:nni_70"',
            "",
            19,
            ["variant[0]: expected exactly one of 'load', 'prune' and 'checkpoint'"],
        ),
        (
            'load = "bank.models:nni_70"',
            'checkpoint = "c.zip"',
            19,
            ["variant[0]: expected a known ending of a checkpoint"],
        ),
        ('load = "bank.models:subject"', 'load = "bank/models.py"', 10, ["subject.load: expected a text to match"]),
        ('name = "nni-70"', 'name = "dense"', 19, ["expected another name: 'dense' is taken"]),
        ('name = "nni-70"', 'name = "previous"', 19, ["expected another name: 'previous' is taken"]),
        ('name = "nni-70"', 'name = "segment"', 19, ["expected another name: 'segment' is taken"]),
        ('name = "nni-70"', 'name = "nni 70"', 20, ["variant[0].name: expected a text to match pattern"]),
        ('name = "nni-70"', 'name = "nni@70"', 20, ["variant[0].name: expected a text to match pattern"]),
        ('name = "card-fraud"', 'name = "card/fraud"', 3, ["audit.name: expected a text to match pattern"]),
        ('name = "card-fraud"', 'name = "fraud\\n"', 3, ["audit.name: expected a text to match pattern"]),
        (
            'criterion = "magnitude"',
            'criterion = "magnitud"',
            16,
            ["prune[0].criterion: expected a known criterion", "did you mean 'magnitude'?"],
        ),
        ('criterion = "magnitude"', 'criterion = "__init__"', 16, ["prune[0].criterion: expected a known criterion"]),
        ('granularity = "channel"', 'granularity = "chanel"', 15, ["prune[0].granularity: expected 'element'"]),
        ('scope = "global"', "steps = true", 17, ["prune[0].steps: expected an integer, got boolean True"]),
        ('scope = "global"', "steps = 1.0", 17, ["prune[0].steps: expected an integer, got float 1.0"]),
        ('scope = "global"', "fine_tune = 0", 17, ["prune[0].fine_tune: expected a boolean, got integer 0"]),
        ('scope = "global"', 'scope = "rows"', 17, ["prune[0].scope: expected 'global', 'layer' or 'row'"]),
        ('scope = "global"', 'denominator = "flops"', 17, ["prune[0].denominator: expected 'units'"]),
        ('scope = "global"', 'schedule = "agp"', 17, ["prune[0].schedule: expected 'one_shot'"]),
        ('scope = "global"', "steps = 0", 17, ["prune[0].steps: expected greater than or equal to 1"]),
        ('scope = "global"', "steps = 1001", 17, ["prune[0].steps: expected less than or equal to 1000"]),
        ('scope = "global"', "layer_floor = 1.0", 17, ["prune[0].layer_floor: expected less than 1"]),
        ('scope = "global"', "samples = 0", 17, ["prune[0].samples: expected greater than or equal to 1"]),
        ('scope = "global"', "exclude = [1]", 17, ["prune[0].exclude[0]: expected a text, got integer 1"]),
        ('scope = "global"', "of_m = 257", 17, ["prune[0].of_m: expected less than or equal to 256"]),
        ('scope = "global"', 'rewind = "start"', 17, ["prune[0].rewind: expected 'dense' or 'initial'"]),
        ('scope = "global"', "recovery = true", 17, ["prune[0].recovery: expected a "]),
        (
            'scope = "global"',
            "recovery = { epoch = 1 }",
            17,
            ["prune[0].recovery.epoch: unknown key 'epoch'", "did you mean 'epochs'?"],
        ),
        (
            'scope = "global"',
            "recovery = { distill = 1.5 }",
            17,
            ["prune[0].recovery.distill: expected less than or equal to 1, got float 1.5"],
        ),
        ("[[prune]]", "[prune]", 12, ["prune: expected an array of tables", "write [[prune]]"]),
        (
            'by = ["transaction_type", "amount_band"]',
            'by = ["by"]',
            31,
            ["segments.by: expected distinct columns, none of them called 'by'"],
        ),
        ('by = ["transaction_type", "amount_band"]', 'by = ["a", "a"]', 31, ["segments.by: expected distinct columns"]),
        (
            'by = ["transaction_type", "amount_band"]',
            "by = []",
            31,
            ["segments.by: expected an array to have at least 1 item"],
        ),
        (
            'by = ["transaction_type", "amount_band"]',
            "min_n = 0",
            31,
            ["segments.min_n: expected greater than or equal to 1"],
        ),
        (
            'by = ["transaction_type", "amount_band"]',
            "small = 'drop'",
            31,
            ["segments.small: expected 'inconclusive' or 'pool'"],
        ),
        (
            'required = ["refund_churn"]',
            'required = ["refund churn"]',
            45,
            ["tests.required[0]: expected a text to match"],
        ),
        ("seed = 20261122", "seed = -1", 4, ["audit.seed: expected greater than or equal to 0"]),
        ("seed = 20261122", "seed = 1.0", 4, ["audit.seed: expected an integer, got float 1.0"]),
        ("seed = 20261122", "seed = true", 4, ["audit.seed: expected an integer, got boolean True"]),
        (
            "seed = 20261122",
            f"seed = 0x{'f' * 5000}",
            4,
            ["audit.seed: expected less than 9223372036854775808, got integer"],
        ),
        (
            "{ max = 0.02 }",
            f"{{ max = 0x{'f' * 5000} }}",
            33,
            ["excess_accuracy_gap.max: expected a number, got integer"],
        ),
    ],
)
def test_a_mistake_is_named_with_its_file_its_line_its_key_and_what_was_expected(
    old: str, new: str, line: int, told: list[str]
) -> None:
    error = error_of(lines(old, new), "ci/audit.toml")
    assert error.cause.startswith(f"ci/audit.toml, line {line}: ")
    for part in told:
        assert part in f"{error.cause} {error.remedy}"


def recipe(keys: str, ratios: str = "[0.5]") -> str:
    """A policy whose one recipe, on line 6, has ``keys``."""
    return small(ratios=f"{ratios}\n{keys}")


PATTERN = 'granularity = "n_of_m"\nkeep_n = 2\nof_m = 4\n'


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('granularity = "n_of_m"', "expected keep_n and of_m with granularity 'n_of_m'"),
        ('granularity = "n_of_m"\nkeep_n = 2', "expected keep_n and of_m with granularity 'n_of_m'"),
        ('granularity = "n_of_m"\nof_m = 4', "expected keep_n and of_m with granularity 'n_of_m'"),
        ('granularity = "channel"\nkeep_n = 2', "expected granularity 'n_of_m' with keep_n and of_m"),
        ("of_m = 4", "expected granularity 'n_of_m' with keep_n and of_m"),
        ('granularity = "n_of_m"\nkeep_n = 4\nof_m = 4', "expected keep_n < of_m, got 4 of 4"),
        ('granularity = "n_of_m"\nkeep_n = 1\nof_m = 4', "expected ratios = [0.75]: 1 of 4 stay, whatever else"),
        (PATTERN + 'scope = "layer"', "expected no scope"),
        (PATTERN + 'denominator = "all_parameters"', "expected no denominator"),
        (PATTERN + "layer_floor = 0.1", "expected no layer_floor"),
        (PATTERN + 'schedule = "linear"\nsteps = 2', "expected steps = 1"),
        ('granularity = "channel"\nscope = "row"', "expected granularity 'element' with scope 'row'"),
        ('scope = "row"\ndenominator = "all_parameters"', "expected no denominator: scope 'row' takes the ratio"),
        ('granularity = "block"\nscope = "row"', "expected granularity 'element' with scope 'row'"),
        ('denominator = "macs"', "expected another denominator: zeroed weights save no MACs"),
        ('schedule = "cubic"', "expected steps above 1 with schedule 'cubic'"),
        ("steps = 2", "expected schedule 'linear' or 'cubic' with steps = 2"),
        ('rewind = "dense"', "expected fine_tune = true with rewind"),
        ("recovery = {}", "expected fine_tune = true with recovery"),
        ('criterion = "movement"', "expected fine_tune = true: movement is what weights do while they are trained"),
        ("fine_tune = true\nrecovery = { lora_rank = 4 }", "expected no lora_rank: merged adapters would fill in"),
        (PATTERN + "fine_tune = true\nrecovery = { lora_rank = 4 }", "expected no lora_rank: merged adapters"),
        (
            'granularity = "head"\ncriterion = "movement"\nfine_tune = true\nrecovery = { lora_rank = 4 }',
            "expected no lora_rank: adapters leave the weights themselves where they are",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused_with_the_line_it_starts_on(keys: str, told: str) -> None:
    assert f"audit.toml, line 6: prune[0]: {told}" in error_of(recipe(keys)).cause


@pytest.mark.parametrize(
    "keys",
    [
        PATTERN,
        PATTERN + 'criterion = "sparsegpt"',
        PATTERN + "fine_tune = true\nrecovery = { epochs = 1, distill = 0.5, temperature = 4.0 }",
        'scope = "row"\ncriterion = "wanda"',
        'denominator = "all_parameters"\nscope = "layer"\nlayer_floor = 0.1',
        'granularity = "channel"\ndenominator = "macs"\nexclude = ["layer4.*"]',
        'granularity = "head"\nscope = "layer"',
        'granularity = "block"',
        'schedule = "cubic"\nsteps = 5\nfine_tune = true\nrewind = "initial"',
        'schedule = "linear"\nsteps = 3',
        'criterion = "movement"\nfine_tune = true',
        'granularity = "channel"\nfine_tune = true\nrecovery = { lora_rank = 8 }',
    ],
)
def test_recipes_that_agree_with_themselves_are_read(keys: str) -> None:
    assert holds_or_says_why(recipe(keys)) is not None


@unhurried
@given(st.integers(2, 256), st.data())
def test_a_pattern_has_the_one_ratio_that_follows_from_it(of_m: int, data: st.DataObject) -> None:
    keep_n = data.draw(st.integers(1, of_m - 1))
    keys = f'granularity = "n_of_m"\nkeep_n = {keep_n}\nof_m = {of_m}'
    exact = (of_m - keep_n) / of_m
    assert policy_file.parse(recipe(keys, f"[{exact!r}]")).prune[0].ratios == (exact,)
    wrong = data.draw(st.sampled_from([n / of_m for n in range(1, of_m) if n != of_m - keep_n] or [0.25]))
    assert f"expected ratios = [{exact!r}]" in error_of(recipe(keys, f"[{wrong!r}]")).cause
    assert "expected ratios = [" in error_of(recipe(keys, f"[{exact!r}, {wrong!r}]")).cause


def test_the_words_of_a_recipe_are_every_setting_but_its_name_and_ratios() -> None:
    keys = 'granularity = "channel"\ncriterion = "l1_norm"\nexclude = ["a", "b"]\nfine_tune = true\nrecovery = {}'
    found = words(policy_file.parse(recipe(keys)).prune[0])
    assert found["criterion"] == "l1_norm"
    assert (found["exclude"], found["fine_tune"], found["layer_floor"]) == ('["a","b"]', "true", "0.0")
    assert found.keys() == set(Prune.model_fields) - {"name", "ratios", "keep_n", "of_m", "rewind"}


def imported(keys: str) -> str:
    """A policy without recipes whose one imported variant, on line 5, has ``keys``."""
    return (
        '[audit]\nname = "a"\n[subject]\nload = "m:f"\n[[variant]]\nname = "v"\n'
        f"{keys}\n[suites.accuracy.gates]\naccuracy.min = 0.5\n"
    )


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", "expected exactly one of 'load', 'prune' and 'checkpoint'"),
        ('load = "m:f"\ncheckpoint = "a.safetensors"', "expected exactly one of"),
        ('load = "m:f"\nprune = "m:g"\nratios = [0.5]', "expected exactly one of"),
        ('prune = "m:g"\nratios = [0.5]\ncheckpoint = "a.safetensors"', "expected exactly one of"),
        ('prune = "m:g"', "expected 'prune' and 'ratios' together"),
        ('load = "m:f"\nratios = [0.5]', "expected 'prune' and 'ratios' together"),
        ('prune = "m:g"\nratios = [0.5, 0.5]', "expected distinct ratios"),
        ('load = "m:f"\nunpickle = true', "expected 'checkpoint' with 'unpickle' and 'sha256'"),
        (f'load = "m:f"\nsha256 = "{"0" * 64}"', "expected 'checkpoint' with 'unpickle' and 'sha256'"),
        ('prune = "m:g"\nratios = [0.5]\nclaimed_ratio = 0.5', "expected no 'claimed_ratio' with 'prune'"),
        ('checkpoint = "a.zip"', "expected a known ending of a checkpoint"),
        ('checkpoint = "safetensors/a"', "expected a known ending of a checkpoint"),
    ],
)
def test_an_imported_variant_that_contradicts_itself_is_refused_with_the_line_it_starts_on(
    keys: str, told: str
) -> None:
    assert f"audit.toml, line 5: variant[0]: {told}" in error_of(imported(keys)).cause


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('load = "m:f"\nclaimed_ratio = 1.0', "line 8: variant[0].claimed_ratio: expected less than 1"),
        (
            'checkpoint = "a.safetensors"\nunpickle = true',
            "expected no 'unpickle': reading this checkpoint runs nothing",
        ),
        ('load = "m:f"\nclaimed_of = "macs"', "expected 'claimed_ratio' with 'claimed_of'"),
        ('load = "m:f"\nclaimed_of = "units"', "line 8: variant[0].claimed_of: expected 'layer_weights'"),
        ('checkpoint = "a.safetensors"\nsha256 = "ABC"', "line 8: variant[0].sha256: expected a text to match"),
        ('prune = "m.py"\nratios = [0.5]', "line 7: variant[0].prune: expected a text to match"),
        ('prune = "m:g"\nratios = [1.0]', "line 8: variant[0].ratios[0]: expected less than 1"),
        ('prune = "m:g"\nratios = []', "line 8: variant[0].ratios: expected an array to have at least 1 item"),
    ],
)
def test_a_wrong_value_of_an_imported_variant_is_named_with_its_line(keys: str, told: str) -> None:
    assert told in error_of(imported(keys)).cause


@pytest.mark.parametrize("file", ["a.safetensors", "b/c.pt", "d.PTH", "e.bin", "f.onnx", "g.pt2"])
def test_a_checkpoint_is_told_by_its_ending(file: str) -> None:
    keys = f'checkpoint = "{file}"\nsha256 = "{"0" * 64}"\nclaimed_ratio = 0.7\nclaimed_of = "all_parameters"'
    assert policy_file.parse(imported(keys)).imported[0].checkpoint == file


def test_another_tools_function_makes_one_variant_a_ratio_and_up_to_leaves_out_the_higher() -> None:
    text = imported('prune = "m:g"\nratios = [0.3, 0.50]').replace("min = 0.5", "up_to = 0.4\naccuracy.min = 0.5")
    found = policy_file.parse(text.replace('name = "a"\n', 'name = "a"\nrelease = ["v@0.3"]\n', 1))
    assert [(variant.name, variant.ratio) for variant in policy.variants(found)] == [("v@0.3", 0.3), ("v@0.5", 0.5)]
    (spec,) = policy.gate_specs(found)
    assert [policy.applies(spec, variant) for variant in policy.variants(found)] == [True, False]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('recipe = "q"', "line 12: sensitivity.recipe: no [[prune]] is called 'q'"),
        ('recipe = "p"\nratios = [0.5, 0.3]', "line 13: sensitivity.ratios: expected distinct ratios, ascending"),
        ('recipe = "p"\nratios = [0.3, 0.3]', "line 13: sensitivity.ratios: expected distinct ratios, ascending"),
        ('recipe = "p"\nratios = []', "line 13: sensitivity.ratios: expected an array to have at least 1 item"),
        ("ratios = [0.5]", "line 11: sensitivity: 'recipe' is missing"),
        ('recipe = "p"\nlayers = []', "line 13: sensitivity.layers: unknown key 'layers'"),
    ],
)
def test_a_sensitivity_that_cannot_be_measured_is_refused_with_its_line(keys: str, told: str) -> None:
    assert told in error_of(small(rest=f"[sensitivity]\n{keys}")).cause


def test_sensitivity_is_of_a_recipe_and_changes_the_digest() -> None:
    asked = policy_file.parse(small(rest='[sensitivity]\nrecipe = "p"'))
    assert asked.sensitivity is not None
    assert (asked.sensitivity.recipe, asked.sensitivity.ratios) == ("p", (0.3, 0.5, 0.7, 0.9))
    assert asked.sha256 != policy_file.parse(small()).sha256


def test_two_recipes_of_one_name_are_refused() -> None:
    error = error_of(small(rest='[[prune]]\nratios = [0.7]\nname = "p"'))
    assert "line 13: prune[1].name: the name 'p' is taken by a [[prune]]" in error.cause


def test_two_imported_variants_of_one_name_are_refused() -> None:
    entry = '[[variant]]\nname = "v"\nload = "m:f"\n'
    assert "variant[1].name: the name 'v' is taken by a [[variant]]" in error_of(small(rest=entry * 2)).cause


def test_one_gate_of_one_variant_is_waived_once() -> None:
    waiver = FULL[FULL.index("[[waivers]]") : FULL.index("[tests]")]
    error = error_of(FULL + waiver)
    assert "line 46: waivers[1]: this gate of this variant is waived twice" in error.cause


def test_a_required_gate_of_test_code_can_be_waived_and_another_cannot() -> None:
    found = policy_file.parse(lines("segments/recall:max_drop[transaction_type=refund]", "tests/refund_churn:max"))
    assert found.waivers[0].gate == "tests/refund_churn:max"
    error = error_of(lines("segments/recall:max_drop[transaction_type=refund]", "tests/refund_chrn:max"))
    assert "line 37: waivers[0].gate: no gate 'tests/refund_chrn:max'" in error.cause
    assert "did you mean 'tests/refund_churn:max'?" in error.remedy


@pytest.mark.parametrize("missing", ["audit", "subject", "suites"])
def test_a_policy_without_a_required_table_says_which(missing: str) -> None:
    table = tomllib.loads(FULL)
    del table[missing]
    error = error_of(tomli_w.dumps(table))
    assert error.cause == f"audit.toml: no [{missing}] table"


@pytest.mark.parametrize(
    "gates", ["", "[suites.accuracy]\n", "[suites.accuracy.gates]\n", "[suites.segments]\nmin_n = 3\n"]
)
def test_an_audit_without_gates_is_refused(gates: str) -> None:
    text = f'[audit]\nname = "a"\n[subject]\nload = "m:f"\n[[prune]]\nname = "p"\nratios = [0.5]\n[suites]\n{gates}'
    assert "suites: no gates" in error_of(text).cause


@pytest.mark.parametrize("prune", ["", "prune = []\n", "prune = []\nvariant = []\n"])
def test_an_audit_of_nothing_is_refused(prune: str) -> None:
    text = f'{prune}[audit]\nname = "a"\n[subject]\nload = "m:f"\n[suites.accuracy.gates]\naccuracy.min = 0.5\n'
    assert "nothing to audit" in error_of(text).cause


def test_a_variant_up_for_release_that_up_to_leaves_without_a_gate_is_refused() -> None:
    gates = "accuracy = { min = 0.5, up_to = 0.6 }"
    error = error_of(small(ratios="[0.5, 0.7]", gates=gates))
    assert "variant 'p@0.7' is up for release without any gate" in error.cause
    explored = policy_file.parse(small(audit='release = ["p@0.5"]', ratios="[0.5, 0.7]", gates=gates))
    assert policy.candidates(explored) == ("p@0.5",)


def test_a_limit_of_a_metric_without_a_range_is_not_held_to_be_a_share() -> None:
    found = policy_file.parse(small(gates="mae = { max = 90, max_ratio = 1.1 }\nr2 = { min = -3.5 }"))
    assert [spec.limit for spec in policy.gate_specs(found)] == [90.0, 1.1, -3.5]


def test_the_excess_gap_may_have_a_negative_limit() -> None:
    text = lines("{ max = 0.02 }", "{ max = -0.02 }")
    assert -0.02 in [spec.limit for spec in policy.gate_specs(policy_file.parse(text))]


def test_the_line_of_a_mistake_within_an_array_over_several_lines_is_its_own() -> None:
    text = lines("ratios = [0.3, 0.5, 0.7, 0.9]", "ratios = [\n    0.3, # comment\n    1.7,\n    0.9,\n]")
    assert "line 16: prune[0].ratios[1]" in error_of(text).cause


def test_keys_that_need_quotes_are_quoted_and_escaped() -> None:
    error = error_of(small(audit='"a.b" = 1'))
    assert "line 3: audit.'a.b': unknown key 'a.b'" in error.cause
    assert "\x1b" not in str(error_of(small(audit='"\\u001b[31m" = 1')))


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(error_of(small(audit=f"seed = '{'x' * 10_000}'")).cause) < 300


# Files


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[audit\n", "(at line 1, column 7)"),
        ("a = 1\nb = \n", "(at line 2, column 5)"),
        ("a = 1\na = 2\n", "(at line 2"),
        ("d = 2027-02-30\n", "(at line 1"),
        ("[audit]\nname = '''x\n", "(at end of document)"),
    ],
)
def test_a_syntax_error_names_file_and_place(text: str, told: str) -> None:
    error = error_of(text, "x/audit.toml")
    assert error.cause.startswith("x/audit.toml: TOML syntax: ")
    assert told in error.cause


def test_an_integer_too_long_for_python_is_a_policy_error() -> None:
    assert "integer of thousands of digits" in error_of(f"a = {'9' * 5000}").cause


@pytest.mark.parametrize("text", ["a = " + "[" * 5000 + "]" * 5000, "a = " + "{a=" * 5000 + "1" + "}" * 5000])
def test_a_file_nested_too_deeply_is_a_policy_error(text: str) -> None:
    assert "nested too deeply" in error_of(text).cause


@pytest.mark.parametrize("depth", range(300, 480, 20))
def test_nesting_that_python_can_just_read_is_a_policy_error_too(depth: int) -> None:
    assert holds_or_says_why(small(audit=f"seed = {'[' * depth}{']' * depth}")) is None


def test_a_missing_file_a_folder_and_a_file_of_bytes_are_told_apart(tmp_path: Path) -> None:
    damaged = tmp_path / "audit.toml"
    damaged.write_bytes(FULL.encode().replace(b"refunds", b"refunds \xff"))
    for path, told in [
        (tmp_path / "none.toml", "none.toml: no such file"),
        (tmp_path, "is a folder"),
        (damaged / "audit.toml", "Not a directory"),
        (damaged, "not UTF-8 text"),
    ]:
        with pytest.raises(PolicyError, match=told) as caught:
            policy_file.read(path)
        assert str(path) in caught.value.cause


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "audit.toml"
    path.write_bytes(b"\xef\xbb\xbf" + FULL.replace("\n", "\r\n").encode())
    assert policy_file.read(path).sha256 == policy_file.parse(FULL).sha256


def test_relative_paths_start_in_the_policys_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ci").mkdir()
    (tmp_path / "ci" / "audit.toml").write_text(FULL)
    monkeypatch.chdir(tmp_path)
    found = policy_file.read("ci/audit.toml")
    assert found.path == Path("ci/audit.toml")
    assert found.folder == (tmp_path / "ci").resolve()


def in_pyproject(text: str) -> str:
    return "[project]\nname = 'x'\n\n" + text.replace("[[", "[[tool.pruneproof.").replace(
        "\n[", "\n[tool.pruneproof."
    ).replace("[tool.pruneproof.[", "[[")


def test_a_policy_in_pyproject_is_the_same_policy() -> None:
    found = policy_file.parse(in_pyproject(FULL), "some/pyproject.toml")
    assert found.sha256 == policy_file.parse(FULL).sha256


def test_a_mistake_in_pyproject_is_named_with_the_whole_key_and_its_line_there() -> None:
    error = error_of(in_pyproject(lines("seed = 2", "sed = 2")), "pyproject.toml")
    assert error.cause.startswith("pyproject.toml, line 7: tool.pruneproof.audit.sed: unknown key 'sed'")


@pytest.mark.parametrize("text", ["", "tool = 5", "tool = 'pruneproof'", "[tool]\npruneproof = 3", "[tool.pytest]\n"])
def test_a_pyproject_without_the_table_is_told_so(text: str) -> None:
    assert error_of(text, "pyproject.toml").cause == "pyproject.toml: no [tool.pruneproof] table"


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (b"[tool.pruneproof.audit]\nname = 'a'\n", True),
        (b"\xef\xbb\xbf[tool.pruneproof.audit]\n", True),
        (b"[tool.pytest]\n", False),
        (b"tool = 5", False),
        (b"tool = 'pruneproof'", False),
        (b"[tool", False),
        (b"\xff", False),
        (b"a = " + b"9" * 5000, False),
        (b"a = " + b"[" * 5000, False),
        (None, False),
    ],
)
def test_looking_for_the_table_in_pyproject_never_fails(content: bytes | None, holds: bool, tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    if content is not None:
        path.write_bytes(content)
    assert toml_source.holds_policy(path) is holds


# Any text, any TOML


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(string.ascii_lowercase + "[]{}=.,'\"#\n \\019-:eE_", max_size=60))
@example("\ufeff")
@example("[audit]\r")
@example("\x00")
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    holds_or_says_why(text)


@unhurried
@given(
    st.dictionaries(
        st.sampled_from(policy_file._Reader.TABLES) | st.text(max_size=5),
        toml_values,
        max_size=8,
    )
)
def test_any_toml_is_a_policy_or_a_policy_error(table: dict[str, Any]) -> None:
    holds_or_says_why(tomli_w.dumps(table))


@unhurried
@given(policy_tables())
def test_a_valid_policy_survives_being_written_out_and_read_again(table: dict[str, Any]) -> None:
    assert holds_or_says_why(tomli_w.dumps(table)) is not None


Place = tuple[str | int, ...]


def places(value: Any, path: Place = ()) -> list[Place]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, entry in inner for place in places(entry, (*path, key)))]


def at(value: Any, path: Place) -> Any:
    for key in path:
        value = value[key]
    return value


def replaced(table: Any, path: Place, value: Any) -> None:
    at(table, path[:-1])[path[-1]] = value


def removed(table: Any, path: Place, value: Any) -> None:
    del at(table, path[:-1])[path[-1]]


def doubled(table: Any, path: Place, value: Any) -> None:
    parent = at(table, path[:-1])
    if isinstance(parent, list):
        parent.append(deepcopy(parent[int(path[-1])]))
    else:
        parent[f"{path[-1]}2"] = parent[path[-1]]


def renamed(table: Any, path: Place, value: Any) -> None:
    parent = at(table, path[:-1])
    if isinstance(parent, dict):
        key = str(path[-1])
        parent[key[1:] + key[:1]] = parent.pop(key)


@settings(deadline=None, max_examples=250)
@given(
    policy_tables(), st.data(), st.sampled_from([replaced, replaced, replaced, removed, doubled, renamed]), odd_values
)
def test_a_valid_policy_with_one_mistake_is_a_policy_or_a_policy_error(
    table: dict[str, Any], data: st.DataObject, change: Callable[[Any, Place, Any], None], value: Any
) -> None:
    change(table, data.draw(st.sampled_from(places(table)[1:])), value)
    holds_or_says_why(tomli_w.dumps(table))


@unhurried
@given(policy_tables(), st.data())
def test_an_unknown_key_in_any_table_is_refused_with_its_line(table: dict[str, Any], data: st.DataObject) -> None:
    tables = [place for place in places(table) if isinstance(at(table, place), dict)]
    place = data.draw(st.sampled_from(tables))
    at(table, place)["zz-top"] = 1
    text = tomli_w.dumps(table)
    error = error_of(text)
    assert "'zz-top'" in error.cause
    line = int(error.cause.split(", line ")[1].split(":")[0])
    assert "zz-top" in text.split("\n")[line - 1]


# What the policy is read with


def test_every_metric_can_be_gated_with_each_of_its_limits() -> None:
    for name in registry.names("pruneproof.suites"):
        for metric in policy.suite(name).metrics:
            keys = ", ".join(f"{key} = 0.5" for key in metric.limits)
            found = policy_file.parse(_gated(name, metric, keys))
            assert len(policy.gate_specs(found)) == len(metric.limits)


NEEDED = {
    "adversarial": '[suites.adversarial]\nattacks = [{ eps = 0.1 }]\nby = ["a"]\ngoals = [{ from = "x", to = "y" }]\n',
    "shift": '[suites.shift]\ncorruptions = ["fog"]\nbreaking = [{ corruption = "fog", max_drop = 0.1 }]\nby = ["a"]\n'
    'by_time = "t"\nperiod = "day"\nnoise = [0.1]\ncounterexamples = {}\n',
}
"""What a suite needs so that each of its metrics is measured."""


def _gated(suite: str, metric: Metric, keys: str) -> str:
    return (
        '[audit]\nname = "a"\n[subject]\nload = "m:f"\n[[prune]]\nname = "p"\nratios = [0.5]\n'
        + NEEDED.get(suite, "")
        + f"[suites.{suite}.gates]\n{metric.name} = {{ {keys} }}\n"
    )


def test_the_registry_lists_files_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugs"
    (package / "folder").mkdir(parents=True)
    for name in ("__init__.py", "b.py", "a.py", "_private.py", "notes.txt", "folder/__init__.py"):
        (package / name).write_text("raise ImportError" if name == "b.py" else "SUITE = 1")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.names("plugs") == ("a", "b")
    assert isinstance(registry.member("plugs", "a"), ModuleType)
    for name in ("c", "_private", "folder", "__init__", ""):
        with pytest.raises(KeyError):
            registry.member("plugs", name)
    with pytest.raises(ImportError):
        registry.member("plugs", "b")


def test_each_suite_is_called_what_its_file_is_called() -> None:
    assert {"accuracy", "segments"} <= set(registry.names("pruneproof.suites"))
    for name in registry.names("pruneproof.suites"):
        assert policy.suite(name).name == name


@pytest.mark.parametrize("name", [".", ".."])
def test_an_audit_whose_folder_would_be_another_is_refused(name: str) -> None:
    error = error_of(FULL.replace('name = "card-fraud"', f'name = "{name}"', 1))
    assert "audit.name" in error.cause


@pytest.mark.parametrize("limit", ["min = 0.0", "max_drop = 1.0"])
def test_a_limit_that_could_never_fail_is_refused(limit: str) -> None:
    key = limit.partition(" ")[0]
    text = re.sub(rf"{key} = [0-9.]+", limit, FULL, count=1)
    assert text != FULL
    assert "could never fail" in error_of(text).cause


@pytest.mark.parametrize("value", ["1.0", "1e9", "-1.0"])
def test_a_waiver_is_no_blank_cheque(value: str) -> None:
    text = FULL.replace("observed_max = 0.08", f"observed_max = {value}")
    assert "observed_max" in error_of(text).cause


def test_a_waiver_needs_a_reason_in_words() -> None:
    text = re.sub(r'approved_by = "[^"]*"', 'approved_by = " "', FULL)
    assert "approved_by" in error_of(text).cause
