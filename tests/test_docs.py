"""The documents hold: links lead somewhere, examples run, and the references name what the code has.

Most of this needs neither torch nor numpy; what does is skipped where torch is not installed.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import importlib
import importlib.resources
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import tomli_w
import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pruneproof import corruptions, criteria, domain, evidence, exhibits, policy, policy_file, registry
from pruneproof.adversarial import entries, published
from pruneproof.cli import app
from pruneproof.recipe import Prune, Recovery
from pruneproof.shift import entries as shifts
from pruneproof.subject import Data, Subject
from pruneproof.suite import Metric
from pruneproof.suites.adversarial import Goal
from pruneproof.suites.shift import Counterexamples
from pruneproof.verdicts import GLYPHS, RELEASING, Verdict

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("fixtures/*/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
needs_torchattacks = pytest.mark.skipif(
    importlib.util.find_spec("torchattacks") is None, reason="the names of its classes are read from torchattacks"
)
FRAGMENT_OF: dict[str, Any] = {
    "audit": {"name": "base"},
    "subject": {"load": "audited:subject"},
    "prune": [{"name": "magnitude", "ratios": [0.5, 0.7]}],
    "suites": {
        "accuracy": {"gates": {"accuracy": {"max_drop": 0.02}}},
        "segments": {"gates": {"excess_accuracy_gap": {"max": 0.05}}},
    },
}
"""What the documents' fragments of a policy are laid over."""


class Block(NamedTuple):
    """A fenced block of a document."""

    page: Path
    line: int
    language: str
    title: str
    text: str


def read(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = read(page)
        for match in FENCE.finditer(text):
            language, title, body = match.groups()
            found.append(Block(page, text.count("\n", 0, match.start()) + 1, language, title or "", body))
    return [block for block in found if block.language in languages]


def by_place(block: Block) -> str:
    return f"{block.page.relative_to(ROOT)}:{block.line}"


def by_path(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCE.sub("", read(page))


def section(page: Path, heading: str) -> str:
    """The text under ``heading``, to the next heading of its level or above."""
    text = prose(page)
    match = re.search(rf"^(#+) {re.escape(heading)}$", text, re.M)
    assert match, f"{page.name} has no heading '{heading}'"
    after = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", after, re.M)
    return after[: end.start()] if end else after


def own(page: Path, heading: str) -> str:
    """The text under ``heading``, to the next heading of any level."""
    return re.split(r"^#+ ", section(page, heading), maxsplit=1, flags=re.M)[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the table rows in ``text``, headers left out."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    headers = {position - 1 for position, row in enumerate(table) if set("".join(row)) <= set("-| ")}
    return [row for at, row in enumerate(table) if at not in headers and at - 1 not in headers]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def keyed(text: str) -> dict[str, list[str]]:
    """Table rows by each name in their first cell."""
    return {name: row for row in rows(text) for name in codes(row[0])}


# Links


def slugs(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in slugs(file)):
            broken.append(target)
    assert not broken


def test_every_document_is_reached_from_the_index() -> None:
    linked = {
        (DOCS / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", read(DOCS / "index.md"))
    }
    assert {page for page in DOCS.rglob("*.md") if page.name != "index.md"} <= linked


# Commands


def test_the_readme_has_the_two_commands_that_do_all_the_set_up() -> None:
    lines = {line for block in blocks("sh") if block.page.name == "README.md" for line in block.text.splitlines()}
    assert "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/pruneproof demo" in lines
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest -n 2" in lines


def test_ci_runs_the_readmes_test_command_and_the_demo() -> None:
    script = read(ROOT / ".ci" / "run") if (ROOT / ".ci" / "run").exists() else pytest.skip("not in an sdist")
    assert "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest -n 2" in script
    assert ".venv/bin/pruneproof demo" in script


def commands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_commands_in_the_documents_exist_with_their_options() -> None:
    calls = [line for block in blocks("sh") for line in block.text.splitlines() if line.startswith("pruneproof ")]
    assert len(calls) > 5
    for call in calls:
        name, *arguments = shlex.split(call, comments=True)[1:]
        known = {option for parameter in commands()[name].params for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= known, call


@pytest.mark.parametrize("name", commands())
def test_the_reference_names_every_argument_and_option_of_a_command_and_its_default(name: str) -> None:
    page = REFERENCE / "command-line.md"
    heading = re.search(rf"^## (`pruneproof {name}\b.*`)$", read(page), re.M)
    assert heading, f"no section on {name}"
    table = keyed(section(page, heading[1]))
    written = {entry.split()[0]: row for entry, row in table.items()}
    expected = {}
    for parameter in commands()[name].params:
        if parameter.param_type_name == "argument":
            expected[(parameter.metavar or parameter.name).upper().strip("{}[]<>")] = parameter
            assert (parameter.metavar or parameter.name).upper() in heading[1]
        else:
            expected[parameter.opts[0]] = parameter
    assert written.keys() == expected.keys() - {"--help"}
    for spelled, row in written.items():
        default = expected[spelled].default
        if default not in (None, False) and isinstance(default, str | Path):
            assert codes(row[1]) == [str(default)], f"{spelled}: the default is {default}"


# TOML


def whole(table: dict[str, Any]) -> bool:
    return {"audit", "subject", "suites"} <= table.keys()


def laid_over(base: Any, top: Any) -> Any:
    if isinstance(base, dict) and isinstance(top, dict):
        return {key: laid_over(base.get(key), value) for key, value in {**base, **top}.items()}
    return copy.deepcopy(top)


@pytest.fixture
def contributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """CONTRIBUTING's modules by path, each in its package as if its file lay there."""
    packages = {
        "suites": "pruneproof.suites",
        "harness/corruptions": "pruneproof.corruptions",
        "harness/criteria": "pruneproof.criteria",
        "harness/families": "pruneproof.families",
        "harness/formats": "pruneproof.formats",
        "reports": "pruneproof.reports",
    }
    found = {
        block.title: block.text for block in blocks("python") if block.page.name == "CONTRIBUTING.md" and block.title
    }
    for title, text in found.items():
        folder = tmp_path / "contributed" / Path(title).parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / Path(title).name).write_text(text, "utf-8")
        package = importlib.import_module(packages[str(Path(title).parent)])
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    importlib.invalidate_caches()
    yield found
    for title in found:
        sys.modules.pop(f"{packages[str(Path(title).parent)]}.{Path(title).stem}", None)


def test_every_policy_and_fragment_of_one_is_valid(contributed: dict[str, str]) -> None:
    seen = {True: 0, False: 0}
    for block in blocks("toml"):
        table = tomllib.loads(block.text)
        suites = table.get("suites", {})
        if "adversarial" in suites and importlib.util.find_spec("torchattacks") is None:
            continue
        if "windows" in suites.get("shift", {}) and importlib.util.find_spec("torch") is None:
            continue
        text = block.text if whole(table) else tomli_w.dumps(laid_over(FRAGMENT_OF, table))
        policy_file.parse(text, f"{by_place(block)}")
        seen[whole(table)] += 1
    assert min(seen.values()) >= 3


@pytest.mark.parametrize("block", blocks("python"), ids=by_place)
def test_python_examples_compile(block: Block) -> None:
    compile(block.text, by_place(block), "exec")


# The reference of audit.toml

TABLES: dict[str, type[BaseModel]] = {
    "`[audit]`": policy.Audit,
    "`[subject]`": policy.SubjectTable,
    "`[[prune]]`": Prune,
    "`recovery`": Recovery,
    "`[[variant]]`": policy.Imported,
    "`[comparators]`": policy.Comparators,
    "`[sensitivity]`": policy.Sensitivity,
    "`[suites.<name>.gates]`": policy.Limit,
    "`[[waivers]]`": policy.Waiver,
    "`[tests]`": policy.Tests,
}
for _suite in registry.names("pruneproof.suites"):
    TABLES[f"`[suites.{_suite}]`"] = policy.suite(_suite).options
TABLES |= {
    "Attacks": entries.Entry,
    "Goals": Goal,
    "Corruptions": shifts.Entry,
    "Breaking": shifts.Breaking,
    "Counterexamples": Counterexamples,
}


def spelled(field: FieldInfo) -> str:
    """A field's default as the reference writes it."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{json.dumps(value) if isinstance(value, tuple) else value}`"


def spelled_keys(record: type[BaseModel]) -> dict[str, FieldInfo]:
    """A record's fields by their names in a policy."""
    return {field.alias or name: field for name, field in record.model_fields.items()}


def check_table(written: Mapping[str, list[str]], record: type[BaseModel]) -> None:
    """A reference table ``key, type, default, meaning`` against the record that reads the keys."""
    fields = spelled_keys(record)
    assert written.keys() == fields.keys()
    for key, field in fields.items():
        _, kind, default, meaning = written[key]
        assert default == spelled(field), key
        assert meaning
        for choice in choices(field.annotation):
            assert str(choice) in kind, f"{key}: {choice}"


def choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in choices(part))


@pytest.mark.parametrize("heading", TABLES)
def test_the_reference_names_every_key_of_a_table_with_its_default_and_choices(heading: str) -> None:
    check_table(keyed(own(REFERENCE / "audit-toml.md", heading)), TABLES[heading])


def test_the_reference_names_every_criterion_with_its_granularities_and_what_it_is_shown() -> None:
    pytest.importorskip("torch")
    written = keyed(section(REFERENCE / "audit-toml.md", "Criteria"))
    assert written.keys() == set(registry.names("pruneproof.criteria"))
    for name, (_, formula, source, shown, granularities) in written.items():
        module = registry.member("pruneproof.criteria", name)
        able = [
            *(("element", "n_of_m") if hasattr(module, "elements") or hasattr(module, "compensate") else ()),
            *(("channel", "head", "block") if hasattr(module, "units") else ()),
        ]
        assert codes(granularities) == [g for g in able if g in getattr(module, "GRANULARITIES", able)], name
        needs = criteria.needs(module)
        assert ("training" in shown) == (criteria.MOVEMENT in needs), name
        assert ("calibration" in shown) == bool(needs - {criteria.MOVEMENT, criteria.SCALE}), name
        assert ("one by one" in shown) == (criteria.EXAMPLE_GRADIENTS in needs), name
        assert formula
        assert source


def test_the_sources_of_the_criteria_stand_in_their_code() -> None:
    folder = importlib.resources.files("pruneproof").joinpath("criteria")
    for name, row in keyed(section(REFERENCE / "audit-toml.md", "Criteria")).items():
        text = " ".join(folder.joinpath(f"{name}.py").read_text("utf-8").split())
        for author, year in re.findall(r"(\w+)(?: et al\.| & \w+)? (\d{4})", row[2]):
            assert author in text, f"{name}: {author}"
            assert year in text, f"{name}: {year}"


@pytest.mark.parametrize(
    ("heading", "key"),
    [("Units", "granularity"), ("Denominators", "denominator"), ("Schedules", "schedule")],
)
def test_the_reference_explains_every_choice_of_a_recipe(heading: str, key: str) -> None:
    written = keyed(section(REFERENCE / "audit-toml.md", heading))
    assert list(written) == list(choices(Prune.model_fields[key].annotation))


def test_the_reference_names_every_ending_of_a_checkpoint() -> None:
    row = keyed(own(REFERENCE / "audit-toml.md", "`[[variant]]`"))["checkpoint"]
    assert {code.removeprefix(".") for code in codes(row[3]) if code.startswith(".")} == set(
        registry.names("pruneproof.formats")
    )


def test_contributing_names_everything_that_a_criterion_can_be_shown() -> None:
    written = keyed(section(ROOT / "CONTRIBUTING.md", "Add a criterion"))
    known = {name: value for name, value in vars(criteria).items() if name.isupper() and isinstance(value, str)}
    assert written.keys() == known.keys()
    fields = {field.name for record in (criteria.Layer, criteria.Units) for field in dataclasses.fields(record)}
    for name, row in written.items():
        assert set(codes(row[2])) <= fields | {"compensate"}, name


@needs_torchattacks
def test_the_references_whole_policy_uses_every_table() -> None:
    (example,) = (
        table
        for block in blocks("toml")
        if block.page.name == "audit-toml.md" and whole(table := tomllib.loads(block.text))
    )
    assert example.keys() == policy.as_table(policy_file.parse(tomli_w.dumps(example))).keys()
    assert set(example["audit"]) == set(policy.Audit.model_fields)
    recipes = {key for recipe in example["prune"] for key in recipe}
    assert recipes >= set(Prune.model_fields) - {"rewind", "graph_timeout_s"}


# The other references


@pytest.mark.parametrize("suite", registry.names("pruneproof.suites"))
def test_the_reference_names_every_metric_with_its_direction_and_limits(suite: str) -> None:
    written = keyed(read(REFERENCE / "metrics.md"))
    for metric in policy.suite(suite).metrics:
        assert isinstance(metric, Metric)
        _, better, limits, definition, _ = written[metric.name]
        assert better == ("higher" if metric.higher_is_better else "lower"), metric.name
        assert tuple(codes(limits)) == metric.limits, metric.name
        assert definition


def test_the_reference_names_no_metric_that_no_suite_measures() -> None:
    measured = {metric.name for suite in registry.names("pruneproof.suites") for metric in policy.suite(suite).metrics}
    assert {
        name for name, row in keyed(read(REFERENCE / "metrics.md")).items() if row[1] in ("higher", "lower")
    } == measured


@pytest.mark.parametrize(("suite", "heading"), [("adversarial", "Adversarial"), ("shift", "Under shift")])
def test_the_reference_names_every_family_of_a_suites_metrics_with_a_gate_of_each(suite: str, heading: str) -> None:
    written = keyed(own(REFERENCE / "metrics.md", heading))
    families: dict[str, list[str]] = {}
    for metric in policy.suite(suite).metrics:
        if metric.family is not None:
            families.setdefault(metric.family, []).append(metric.name)
    assert {name for name, row in written.items() if row[1] not in ("higher", "lower")} == families.keys()
    for family, metrics in families.items():
        _, _, named, gate = written[family]
        assert codes(named) == metrics
        (example,) = codes(gate)
        assert re.fullmatch(rf"{suite}/({'|'.join(metrics)}):\w+\[[^\]=]+=[^\]]+\]", example)


def test_the_reference_names_every_detector() -> None:
    written = keyed(section(REFERENCE / "metrics.md", "Detectors"))
    options = policy.suite("shift").options
    assert written.keys() == set(choices(options.model_fields["detectors"].annotation))


@needs_torchattacks
def test_the_reference_names_every_gate_that_options_leave_with_nothing_to_measure() -> None:
    written = rows(section(REFERENCE / "audit-toml.md", "Gates with nothing to measure"))
    refused = set()
    for suite, least in (("adversarial", {"attacks": [{"name": "black_box", "eps": 0.1}]}), ("shift", {})):
        found: Any = policy.suite(suite)
        made = found.options.model_validate(least)
        refused |= {metric.name for metric in found.metrics if found.missing(metric, made) is not None}
    assert {name for row in written for name in codes(row[0])} == refused


def test_the_reference_names_every_verdict_worst_first() -> None:
    table = [row for row in rows(section(REFERENCE / "gates.md", "Verdicts")) if row[0] in set(Verdict)]
    assert [row[0] for row in table] == [verdict.value for verdict in Verdict]
    for word, glyph, _, releases in table:
        assert codes(glyph) == [GLYPHS[Verdict(word)]]
        assert releases == ("yes" if Verdict(word) in RELEASING else "no")


RECORDS: dict[str, tuple[type[BaseModel], ...]] = {
    "Top level": (evidence.Evidence,),
    "`audit`": (evidence.AuditRow,),
    "`policy`": (evidence.PolicyRow,),
    "`subject`": (evidence.SubjectRow,),
    "`environment`": (evidence.EnvironmentRow,),
    "`variants`": (evidence.VariantRow, evidence.SelfCheck),
    "`measurements`": (evidence.MeasurementRow,),
    "`sensitivity`": (evidence.SensitivityRow,),
    "`chapters`": (
        *(exhibits.Chapter, exhibits.Table, exhibits.Curves, exhibits.Line, exhibits.Band, exhibits.Matrix),
        *(exhibits.Multiples, exhibits.Panel, exhibits.Gallery, exhibits.Shot, exhibits.Picture),
    ),
    "`gates`": (evidence.GateRow, evidence.LimitRow, evidence.Hurt, evidence.Example),
    "`waivers`": (evidence.WaiverRow,),
    "`ledger`": (evidence.LedgerRow,),
}


@pytest.mark.parametrize("heading", RECORDS)
def test_the_reference_names_every_key_of_the_evidence(heading: str) -> None:
    named = set(codes(section(REFERENCE / "evidence.md", heading)))
    for record in RECORDS[heading]:
        assert {field.alias or name for name, field in record.model_fields.items()} <= named


def test_the_reference_names_every_kind_of_exhibit() -> None:
    every = (record for record in vars(exhibits).values() if isinstance(record, type) and issubclass(record, BaseModel))
    kinds = {record.model_fields["kind"].default for record in every if "kind" in record.model_fields}
    assert keyed(section(REFERENCE / "evidence.md", "`chapters`")).keys() == kinds


def sources() -> Iterator[tuple[str, str]]:
    """The package's modules, those of its folders included: path and text."""

    def inside(folder: Any, path: str) -> Iterator[tuple[str, str]]:
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from inside(entry, f"{path}{entry.name}/")
            elif entry.name.endswith(".py"):
                yield f"{path}{entry.name}", entry.read_text("utf-8")

    return inside(importlib.resources.files("pruneproof"), "")


@pytest.mark.parametrize("page", [REFERENCE / "evidence.md", DOCS / "explanation" / "self-checks.md"], ids=by_path)
def test_the_documents_name_every_self_check(page: Path) -> None:
    made = {found for _, text in sources() for found in re.findall(r"SelfCheck\(\s*id=\"(V\w+)\"", text)}
    assert len(made) >= 10
    written = [name for name in keyed(read(page)) if re.fullmatch(r"V\d+[a-z]?", name)]
    assert set(written) == made
    assert written == sorted(written, key=lambda name: (int(re.sub(r"\D", "", name)), name))


def test_the_reference_says_which_self_checks_decide() -> None:
    decides: dict[str, set[bool]] = {}
    for _, text in sources():
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "SelfCheck":
                given = {word.arg: word.value for word in call.keywords}
                if isinstance(given["id"], ast.Constant):
                    only_told = isinstance(flag := given.get("decides"), ast.Constant) and flag.value is False
                    decides.setdefault(str(given["id"].value), set()).add(not only_told)
    reported = {name for name, found in decides.items() if found == {False}}
    written = {
        name: row[3]
        for name, row in keyed(section(REFERENCE / "evidence.md", "`variants`")).items()
        if re.fullmatch(r"V\d+[a-z]?", name)
    }
    assert reported
    assert {name for name, decides in written.items() if decides == "no"} == reported
    assert set(written.values()) == {"yes", "no"}


def test_the_support_table_names_every_family() -> None:
    table = " ".join(row[0] for row in rows(section(DOCS / "how-to" / "recipes.md", "What each network allows")))
    for name in registry.names("pruneproof.families"):
        assert name.lower().replace("2", "-2").replace("--", "-") in table.lower().replace(" ", "-"), name


def test_the_reference_names_every_report_format() -> None:
    written = keyed(section(REFERENCE / "evidence.md", "Report formats"))
    assert written.keys() == set(registry.names("pruneproof.reports"))


@pytest.mark.parametrize("record", [Subject, Data])
def test_the_reference_names_every_field_of_subject_and_data(record: type[Subject] | type[Data]) -> None:
    written = keyed(own(REFERENCE / "python.md", f"`{record.__name__}`"))
    assert {field.name for field in dataclasses.fields(record)} == written.keys()


DOMAIN = [domain.Box, domain.Table, domain.Column, domain.OneHot, domain.Sum, domain.Tokens, domain.Criterion]


@pytest.mark.parametrize("record", DOMAIN, ids=[record.__name__ for record in DOMAIN])
def test_the_reference_names_every_field_of_what_inputs_there_can_be_with_its_default(record: Any) -> None:
    written = keyed(own(REFERENCE / "python.md", f"`{record.__name__}`"))
    fields = {field.name: field for field in dataclasses.fields(record)}
    assert written.keys() == fields.keys()
    for name, field in fields.items():
        _, kind, default, meaning = written[name]
        value = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        assert default == ("*required*" if field.default is dataclasses.MISSING else f"`{value}`"), name
        assert meaning
        if str(field.type).startswith("Literal"):
            words = re.findall(r"['\"](\w+)['\"]", str(field.type))
            assert codes(kind) == [f'"{word}"' for word in words], name


def test_the_domains_are_in_the_package_under_their_names() -> None:
    import pruneproof

    assert all(getattr(pruneproof, record.__name__) is record for record in DOMAIN)


# The reference of attacks

ATTACKS = REFERENCE / "attacks.md"


@pytest.mark.parametrize("name", registry.names("pruneproof.attacks"))
def test_the_reference_names_every_key_of_an_attack_with_its_default_and_choices(name: str) -> None:
    check_table(keyed(own(ATTACKS, f"`{name}`")), registry.member("pruneproof.attacks", name).ATTACK.options)


def test_the_reference_says_what_each_attack_knows() -> None:
    table = [row for row in rows(own(ATTACKS, "Attacks")) if codes(row[0])]
    assert {codes(row[0])[0] for row in table} == set(registry.names("pruneproof.attacks"))
    for name, inputs, norms, gradients, _ in table:
        attack = registry.member("pruneproof.attacks", codes(name)[0]).ATTACK
        assert set(codes(inputs)) == attack.domains
        assert set(codes(norms)) == attack.norms
        assert gradients == ("yes" if attack.gradients else "no")


def test_the_reference_says_what_audit_stands_for() -> None:
    assert entries.AUDITS == {"box": "audit", "table": "table_audit", "tokens": "token_swap"}
    line = next(line for line in read(ATTACKS).split("\n\n") if '`name = "audit"` stands for' in line)
    assert codes(line)[-3:] == list(entries.AUDITS.values())


@needs_torchattacks
def test_the_reference_names_every_class_of_torchattacks_with_its_parameters() -> None:
    written = keyed(own(ATTACKS, "Classes of torchattacks"))
    assert tuple(written) == published.able()
    for name, (_, norms, gradients, goals, own_parameters) in written.items():
        attack = published.attack(name)
        everything = {"Linf", "L2", "L1", "L0"}
        assert (everything if norms == "any" else set(codes(norms))) == attack.norms, name
        assert gradients == ("yes" if attack.gradients else "no"), name
        assert goals == ("yes" if attack.aims else "no"), name
        given = tomllib.loads("\n".join(codes(own_parameters)))
        defaults = {key: field.default for key, field in attack.options.model_fields.items()}
        assert given.keys() == defaults.keys(), name
        assert published.options(name, given).model_dump() == defaults, name


@needs_torchattacks
def test_the_reference_names_every_class_of_torchattacks_that_is_refused_somewhere() -> None:
    written = {name for row in rows(section(ATTACKS, "What is refused")) for name in codes(row[0])}
    shapes = [(3, 32, 32), (1, 8, 8), (3, 16, 24), (6,), (3, 64, 64)]
    able = {name: published.attack(name) for name in published.able()}
    refused = {
        name
        for name, attack in able.items()
        if any(attack.refuses(shape, classes) for shape in shapes for classes in (2, 10))
    }
    assert written == refused | set(published.UNAVAILABLE)


# The reference of corruptions

CORRUPTIONS = REFERENCE / "corruptions.md"
BY_KIND = {"Images": "image", "Tables": "table", "Tokens": "tokens", "Signals": "signal"}


def made(name: str) -> Any:
    """The corruption, or resampling, of a file."""
    return registry.member("pruneproof.corruptions", name).CORRUPTION


def of_heading(heading: str) -> list[str]:
    """Names of the corruptions that a heading of the reference is about."""
    kinds = {BY_KIND[heading]} if heading in BY_KIND else corruptions.EVERY
    return [name for name in registry.names("pruneproof.corruptions") if made(name).kinds == kinds]


def levels(name: str) -> list[tuple[str, ...]]:
    """Each parameter's values at severities 1 to 5, as the reference spells them."""
    found = made(name)
    module = registry.member("pruneproof.corruptions", name)
    if found.kinds == {"image"}:
        given = [one for knob in found.knobs for one in (knob.cifar, knob.imagenet)]
    elif found.kinds == {"tokens"}:
        given = [importlib.import_module("pruneproof.corruptions._tokens").SHARE]
    else:
        given = [
            value
            for key, value in vars(module).items()
            if key.isupper() and isinstance(value, tuple) and len(value) == len(corruptions.SEVERITIES)
        ]
    return [tuple(f"{value:g}" for value in one) for one in given]


@pytest.mark.parametrize("heading", [*BY_KIND, "Resamplings"])
def test_the_reference_names_every_corruption_with_its_values_at_each_severity(heading: str) -> None:
    written = {codes(row[0])[0]: row for row in rows(own(CORRUPTIONS, heading))}
    assert sorted(written) == of_heading(heading)
    for name, row in written.items():
        values = levels(name)
        assert values or name == "uniform_noise", name
        for one in values:
            assert re.search(rf"(?<![\d.]){re.escape(', '.join(one))}(?![\d.]|, \d)", " | ".join(row)), f"{name}: {one}"
        for knob in getattr(made(name), "knobs", ()):
            assert all(f"`{knob.name}`" in cell for cell in row[-2:]), f"{name}: {knob.name}"


def test_the_reference_says_which_images_a_corruption_knows() -> None:
    for name, _, _, channels, *_ in rows(own(CORRUPTIONS, "Images")):
        known = made(codes(name)[0]).channels
        assert channels == ("any" if known is None else " or ".join(map(str, sorted(known)))), name


@pytest.mark.parametrize("heading", [*BY_KIND, "Resamplings"])
def test_the_reference_names_every_key_of_a_corruption_with_its_default_and_choices(heading: str) -> None:
    table = rows(own(CORRUPTIONS, f"Keys of {heading.lower()}"))
    assert {name for row in table for name in codes(row[1])} <= set(of_heading(heading))
    for name in of_heading(heading):
        mine = [row for row in table if row[1] == "all" or name in codes(row[1])]
        check_table({codes(row[0])[0]: [row[0], *row[2:]] for row in mine}, made(name).options)


def test_the_reference_names_the_plugins_options_and_configuration() -> None:
    source = importlib.resources.files("pruneproof").joinpath("plugin.py").read_text("utf-8")
    added = set(re.findall(r"\"(--pruneproof-[\w-]+)\"", source)) | set(re.findall(r"addini\(\s*\"(\w+)\"", source))
    written = keyed(section(REFERENCE / "pytest.md", "Options and configuration"))
    assert {name.split()[0] for name in written} == added


def test_every_error_in_the_reference_is_one_that_the_code_raises() -> None:
    measuring = importlib.resources.files("pruneproof.suites").iterdir()
    source = "\n".join(
        [
            *(text for _, text in sources()),
            *(file.read_text("utf-8") for file in measuring if file.name.endswith(".py")),
        ]
    )
    unknown = []
    for row in rows(read(REFERENCE / "errors.md")):
        for part in codes(row[0])[0].split("…") if codes(row[0]) else ():
            if len(part.strip()) > 3 and part.strip() not in source:
                unknown.append(part)
    assert not unknown


# Examples that are run


def test_the_examples_of_contributing_work_as_they_stand(contributed: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import pruneproof
    from pruneproof import reporting

    assert sorted(contributed) == [
        *("harness/corruptions/stuck.py", "harness/criteria/l1.py", "harness/families/gated.py"),
        *("harness/formats/npz.py",),
        *("reports/table.py", "suites/churn.py"),
    ]
    (tmp_path / "tiny_subject.py").write_text(
        "import torch, pruneproof\n"
        "def subject():\n"
        "    draw = torch.Generator().manual_seed(0)\n"
        "    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))\n"
        "    for tensor in model.parameters():\n"
        "        tensor.data.normal_(generator=draw)\n"
        "    inputs = torch.randn(400, 4, generator=draw)\n"
        "    test = pruneproof.Data(inputs, model(inputs).argmax(1))\n"
        "    return pruneproof.Subject(model=model, task='classification', test=test)\n",
        "utf-8",
    )
    fragments = [tomllib.loads(block.text) for block in blocks("toml") if block.page.name == "CONTRIBUTING.md"]
    table = copy.deepcopy(FRAGMENT_OF)
    table["subject"]["load"] = "tiny_subject:subject"
    del table["suites"]["segments"]
    for fragment in fragments:
        table = laid_over(table, fragment)
    (tmp_path / "audit.toml").write_text(tomli_w.dumps(table), "utf-8")
    found = pruneproof.audit(tmp_path / "audit.toml")

    dense, pruned = found.variants
    assert (dense.name, pruned.name, pruned.recipe and pruned.recipe["criterion"]) == ("dense", "l1-channels@0.3", "l1")
    assert pruned.parameters is not None
    assert dense.parameters is not None
    assert pruned.parameters < dense.parameters  # channels went
    gates = {gate.id: gate for gate in found.gates}
    # The dense model's answers are the truth here, so what changed is what accuracy lost.
    assert gates["churn/changed:max"].value == pytest.approx(gates["accuracy/accuracy:max_drop"].value)
    decided = (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE)
    assert gates["churn/changed:max"].verdict in decided
    assert gates["shift/excess_error:max[shift=stuck]"].verdict in decided
    written = reporting.render(found, "table", tmp_path).read_text("utf-8").splitlines()
    assert written[0] == "variant,gate,verdict,value,n"
    assert len(written) == 1 + len(found.gates)


GATED = """
import torch

class Gated(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.gate, self.up = (torch.nn.Linear(6, width, bias=False) for _ in range(2))
        self.down = torch.nn.Linear(width, 6, bias=False)

    def forward(self, x):
        hidden = torch.sigmoid(self.gate(x)) * self.up(x)
        return self.down(hidden.reshape(-1, self.width))  # a trace does not see that this changes

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = Gated(10), torch.nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x))
"""


def test_the_family_of_contributing_is_pruned_by_its_rule(
    contributed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from pruneproof import pruning, surgery

    (tmp_path / "gated_networks.py").write_text(GATED, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with torch.random.fork_rng(devices=[]):
            model = importlib.import_module("gated_networks").Network().eval()
    finally:
        sys.modules.pop("gated_networks", None)
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    subject = Subject(model=model, task="classification", test=Data(inputs, [0, 1, 2, 0, 1, 2, 0, 1]))
    recipe = Prune(name="r", ratios=(0.4,), granularity="channel")

    plan = pruning.plan(recipe, 0.4, subject, 0)
    shrunk, masked = surgery.apply(plan, model), surgery.masked(plan, model)

    assert shrunk.layer.width == 6
    assert {name: tuple(tensor.shape) for name, tensor in shrunk.layer.named_parameters()} == {
        "gate.weight": (6, 6),
        "up.weight": (6, 6),
        "down.weight": (6, 6),
    }
    with torch.no_grad():
        assert torch.allclose(shrunk(inputs), masked(inputs), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(shrunk(inputs), model(inputs), rtol=1e-2)


def test_the_format_of_contributing_reads_a_checkpoint(contributed: dict[str, str], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import numpy as np

    from pruneproof.errors import SubjectError

    model = torch.nn.Linear(3, 2)
    subject = Subject(model=model, task="classification", test=Data(torch.zeros(2, 3), [0, 1]))
    half = {name: tensor.detach() * 0.5 for name, tensor in model.state_dict().items()}
    np.savez(tmp_path / "half.npz", **{name: tensor.numpy() for name, tensor in half.items()})
    (tmp_path / "damaged.npz").write_bytes(b"PK not an archive")
    load = registry.member("pruneproof.formats", "npz").load

    found = load(tmp_path / "half.npz", subject, unpickle=False).state_dict()

    assert found.keys() == half.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in half.items())
    for name in ("damaged.npz", "missing.npz"):
        with pytest.raises(SubjectError):
            load(tmp_path / name, subject, unpickle=False)
    assert (
        policy_file.parse(
            '[audit]\nname = "a"\n[subject]\nload = "m:f"\n[[variant]]\nname = "v"\ncheckpoint = "v.npz"\n'
            "[suites.accuracy.gates]\naccuracy.min = 0.5\n"
        )
        .imported[0]
        .checkpoint
        == "v.npz"
    )


def test_the_tutorials_files_make_an_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    import torch

    import pruneproof
    from pruneproof import starter

    files = {
        block.title: block.text
        for block in blocks("python", "toml")
        if block.page.name == "tutorial.md" and block.title
    }
    assert set(files) == {"network.py", starter.MODULE, starter.POLICY}
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with torch.random.fork_rng(devices=[]):
        importlib.import_module("network").train()
    try:
        found = pruneproof.audit(tmp_path / starter.POLICY)
    finally:
        for name in ("network", "audited"):
            sys.modules.pop(name, None)
    assert found.subject.error is None
    assert not [gate for gate in found.gates if gate.verdict is Verdict.ERROR]
    verdicts = {variant.name: variant.verdict for variant in found.variants}
    assert verdicts["magnitude@0.5"] is Verdict.PASS
    assert verdicts["magnitude@0.98"] is not Verdict.PASS


def attacked(name: str) -> tuple[str, dict[str, Any]]:
    """An example of the guide to attacks: its module, and the policy that its fragment makes."""
    files = {block.title: block.text for block in blocks("python", "toml") if block.page.name == "adversarial.md"}
    table = {key: FRAGMENT_OF[key] for key in ("audit", "prune")} | {"subject": {"load": f"{name}:subject"}}
    return files[f"{name}.py"], table | tomllib.loads(files[f"{name}.toml"])


GUIDED = sorted(
    block.title.removesuffix(".py")
    for block in blocks("python")
    if block.page.name == "adversarial.md" and block.title.endswith(".py")
)


@needs_torchattacks
@pytest.mark.parametrize("name", GUIDED)
def test_the_subjects_of_the_guide_to_attacks_can_be_attacked_as_it_says(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from pruneproof import loading
    from pruneproof.isolation import importing_from

    module, table = attacked(name)
    (tmp_path / f"{name}.py").write_text(module, "utf-8")
    asked = policy_file.parse(tomli_w.dumps(table), str(tmp_path / "audit.toml"))
    try:
        with importing_from(str(tmp_path)):
            loaded = loading.load(asked)
    finally:
        sys.modules.pop(name, None)
    assert loaded.subject.domain is not None


@pytest.mark.slow
@needs_torchattacks
def test_the_reference_names_everything_that_is_kept_of_an_attack(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import numpy as np

    import pruneproof

    module, table = attacked("signs")
    suite = table["suites"]["adversarial"]
    suite |= {"attacks": [{"name": "FGSM", "eps": 0.1}], "most": 30, "strength_examples": 20}
    suite["goals"] = [{"from": "0", "to": "1"}]
    table["prune"] = [{"name": "magnitude", "ratios": [0.5]}]
    (tmp_path / "signs.py").write_text(module, "utf-8")
    (tmp_path / "audit.toml").write_text(tomli_w.dumps(table), "utf-8")
    try:
        found = pruneproof.audit(tmp_path / "audit.toml", out=tmp_path / "out")
    finally:
        sys.modules.pop("signs", None)
    files = {f"observed/adversarial/{variant.name}.npz" for variant in found.variants}
    assert files | {"outcomes.parquet"} == found.digests.keys()
    assert all((tmp_path / "out" / name).is_file() for name in files)

    page = keyed(section(REFERENCE / "evidence.md", "Observations"))
    with np.load(tmp_path / "out" / "observed" / "adversarial" / "dense.npz") as file:
        record = json.loads(file["record"].tobytes())
        arrays = set(file.files) - {"record"}
    assert record.keys() == {"attacks", "sequential"}
    own_arrays = {name.removeprefix("attack0/") for name in arrays if name.startswith("attack0/")}
    assert record["attacks"][0].keys() | own_arrays == page.keys()
    assert arrays - {f"attack0/{name}" for name in own_arrays} == {"goal0/rows", "goal0/hits"}


def guided(page: str) -> dict[str, str]:
    """The files that a guide shows."""
    return {block.title: block.text for block in blocks("python", "toml") if block.page.name == page and block.title}


def carried_out(files: Mapping[str, str], name: str, folder: Path, **audit: Any) -> Any:
    """The evidence of a guide's policy ``<name>.toml`` and of its modules."""
    import pruneproof

    table = {key: FRAGMENT_OF[key] for key in ("audit", "prune")} | {"subject": {"load": f"{name}:subject"}}
    table |= tomllib.loads(files[f"{name}.toml"])
    table["audit"] = {**table["audit"], "resamples": 200, **audit}
    for title, text in files.items():
        if title.endswith(".py"):
            (folder / title).write_text(text, "utf-8")
    (folder / "audit.toml").write_text(tomli_w.dumps(table), "utf-8")
    try:
        return pruneproof.audit(folder / "audit.toml", out=folder / "out")
    finally:
        for title in files:
            sys.modules.pop(title.removesuffix(".py"), None)


@pytest.mark.slow
def test_the_volatile_month_of_the_guide_raises_alarms_and_pruning_raises_misses(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = carried_out(guided("later-data.md"), "weeks", tmp_path)
    verdicts = {(gate.variant, gate.id): gate.verdict for gate in found.gates}
    assert Verdict.ERROR not in verdicts.values()
    for gate in ("shift/fpr_rise:max[shift=volatile]", "shift/fpr_rise:max_rise[shift=volatile]"):
        assert verdicts["magnitude@0.5", gate] is Verdict.PASS
    assert verdicts["magnitude@0.7", "shift/fnr:max_rise[shift=volatile]"] is Verdict.FAIL
    dense = {
        (row.metric, (row.segment or {}).get("shift")): row for row in found.measurements if row.variant == "dense"
    }
    rise = dense["fpr_rise", "volatile"].interval
    assert rise is not None
    assert rise[0] > 0.03


@pytest.mark.slow
def test_the_guide_to_corruptions_works_as_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    found = carried_out(guided("corruptions.md"), "camera", tmp_path)
    assert not [gate for gate in found.gates if gate.verdict is Verdict.ERROR]
    measured = {row.segment["shift"] for row in found.measurements if row.metric == "excess_error" and row.segment}
    assert measured == {"gaussian_noise", "motion_blur", "dead_pixels", "label_shift@2", "corruptions"}


@pytest.mark.slow
def test_the_reference_names_everything_that_is_kept_of_shifts(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import numpy as np

    files = guided("later-data.md")
    table = tomllib.loads(files["weeks.toml"])
    table["suites"]["shift"] |= {
        "corruptions": ["snr_noise", {"name": "label_shift", "severities": [1]}],
        "breaking": [{"corruption": "snr_noise", "max_drop": 0.1}],
        "counterexamples": {"tries": 20},
        "noise": [0.1],
        "bounds": [-20, 20],
    }
    files["weeks.py"] = files["weeks.py"].replace("shifted={", "foreign={'far': payments(50, 3, VOLATILE)}, shifted={")
    files["weeks.toml"] = tomli_w.dumps(table)
    found = carried_out(files, "weeks", tmp_path)
    assert {f"observed/shift/{variant.name}.npz" for variant in found.variants} < found.digests.keys()

    records: dict[str, Any] = {}
    arrays: set[str] = set()
    for variant in found.variants:
        with np.load(tmp_path / "out" / "observed" / "shift" / f"{variant.name}.npz") as file:
            records |= json.loads(file["record"].tobytes())
            arrays |= set(file.files) - {"record"}
    spelled = {"snr_noise": "<label>", "label_shift@1": "<name>", "msp": "<detector>", "volatile": "<name>"}

    def general(name: str) -> str:
        first, _, rest = name.partition("/")
        parts = rest.split("/")
        if first in ("outputs", "targets", "groups"):
            return f"{first}/<i>"
        if first in ("part", "ood"):
            return f"{first}/<{'name' if first == 'part' else 'detector'}>"
        return "/".join(spelled.get(part, part) for part in (first, *parts) if part)

    page = REFERENCE / "evidence.md"
    assert keyed(own(page, "Observations of shifts")).keys() == {general(name) for name in records}
    assert keyed(own(page, "Arrays")).keys() == {general(name) for name in arrays}
    noted = {key for note in records["corruptions"] for key in note}
    assert keyed(own(page, "A corruption")).keys() == noted
    told = own(page, "Observations of shifts")
    assert set(codes(told)) >= records["search"].keys() | {key for one in records["search"]["found"] for key in one}


def test_the_starter_is_what_the_tutorial_says_it_is(tmp_path: Path) -> None:
    from pruneproof import starter

    written = {file.name: read(file) for file in starter.write(tmp_path, "network:load")}
    assert "return network.load()" in written[starter.MODULE]
    assert re.findall(r"^def (\w+)", written[starter.MODULE], re.M) == ["model", "subject", "test_set"]
    policy_file.parse(written[starter.POLICY], starter.POLICY)
