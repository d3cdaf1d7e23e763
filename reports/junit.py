"""``junit.xml``: one test case for each gate of each variant, for CI systems that list tests."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from pruneproof import summary, wording
from pruneproof.evidence import Evidence, GateRow
from pruneproof.verdicts import Verdict, exit_code

FILE = "junit.xml"

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, escaped or not."""


def render(evidence: Evidence) -> str:
    """Variants are classes, gate ids are names. Explored variants never fail the file; what they do not pass is
    skipped, with the reason."""
    suite = ET.Element("testsuite", name=_legal(evidence.audit.name), timestamp=evidence.audit.started[:19])
    properties = ET.SubElement(suite, "properties")
    for name, value in _facts(evidence):
        ET.SubElement(properties, "property", name=name, value=_legal(value))
    for gate in evidence.gates:
        case = ET.SubElement(suite, "testcase", classname=_legal(gate.variant), name=_legal(gate.id), time="0")
        outcome = _outcome(gate, evidence.policy.inconclusive)
        if outcome is not None:
            message = f"{wording.mark(gate.verdict)}{'' if gate.candidate else ' (explored)'}: {gate.reason}"
            ET.SubElement(case, outcome, message=_legal(message), type=gate.verdict.value).text = _legal(_detail(gate))
    red = sum(1 for tag in ("failure", "error") for _ in suite.iter(tag))
    if not red and exit_code(evidence.verdict, evidence.policy.inconclusive):
        case = ET.SubElement(suite, "testcase", classname="audit", name="verdict", time="0")
        message = f"{summary.headline(evidence)}: {summary.subline(evidence)}"
        ET.SubElement(case, "error", message=_legal(message), type=evidence.verdict.value)
    root = ET.Element("testsuites", name="pruneproof")
    root.append(suite)
    for element in (root, suite):
        element.set("tests", str(_number(suite, "testcase")))
        element.set("failures", str(_number(suite, "failure")))
        element.set("errors", str(_number(suite, "error")))
        element.set("skipped", str(_number(suite, "skipped")))
        element.set("time", "0")
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _outcome(gate: GateRow, inconclusive: str) -> str | None:
    """``failure``, ``error``, ``skipped``, or nothing for a PASS."""
    if gate.verdict is Verdict.PASS:
        return None
    if not gate.candidate or gate.verdict is Verdict.WAIVED:
        return "skipped"
    if gate.verdict is Verdict.INCONCLUSIVE:
        return "skipped" if inconclusive == "warn" else "failure"
    return "failure" if gate.verdict is Verdict.FAIL else "error"


def _detail(gate: GateRow) -> str:
    lines = [f"limit: {gate.limit.key} {gate.limit.value:g}"]
    if gate.value is not None:
        lines.append(f"value: {wording.measured(gate)}, n = {gate.n}")
    if gate.rationale:
        lines.append(f"rationale: {gate.rationale}")
    return "\n".join(lines)


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    return [
        ("audit", evidence.audit.id),
        ("verdict", evidence.verdict.value),
        ("policy_sha256", evidence.policy.sha256),
        ("model_sha256", evidence.subject.model_sha256 or ""),
        *([("error", evidence.subject.error)] if evidence.subject.error else []),
    ]


def _number(suite: ET.Element, tag: str) -> int:
    return sum(1 for _ in suite.iter(tag))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
