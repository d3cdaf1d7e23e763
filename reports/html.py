"""``report.html``: one file to read, print, sign and keep; no script, nothing loaded from anywhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pruneproof import evidence as records
from pruneproof import summary, wording
from pruneproof.evidence import Evidence
from pruneproof.reports import (
    _charts,
    _curves,
    _exhibits,
    _heat,
    _matrix,
    _multiples,
    _pictures,
    _plots,
    _reasons,
    _sensitivity,
    _sheets,
    _variants,
)
from pruneproof.reports._curves import Chart
from pruneproof.reports._exhibits import View
from pruneproof.reports._multiples import Charts
from pruneproof.verdicts import GLYPHS, Verdict

FILE = "report.html"
TEMPLATE = "report.html.jinja"


def render(evidence: Evidence) -> str:
    """The report as one HTML document; the same bytes for the same evidence."""
    figures = _drawn(_curves.charts(evidence), "c")
    sensitivity = list(_sensitivity.tables(evidence))
    chapters = list(_exhibits.parts(evidence.chapters))
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            evidence=evidence,
            audit=evidence.audit,
            policy=evidence.policy,
            subject=evidence.subject,
            environment=evidence.environment,
            gates=evidence.gates,
            headline=summary.headline(evidence),
            subline=summary.subline(evidence),
            sentences=summary.sentences(evidence),
            breaks=summary.first_breaks(evidence),
            has_segments=any(gate.suite == "segments" and gate.value is not None for gate in evidence.gates),
            recipes=_variants.recipes(evidence),
            claims=_variants.claims(evidence),
            left_whole=_variants.left_whole(evidence),
            candidate_counts=summary.counts([gate for gate in evidence.gates if gate.candidate]),
            explored_counts=summary.counts([gate for gate in evidence.gates if not gate.candidate]),
            matrices=list(_matrix.matrices(evidence)),
            reasons=_reasons.reasons(evidence),
            figures=figures,
            chart_key=_charts.KEY,
            sensitivity=sensitivity,
            sensitivity_figures=_drawn((table.chart for table in sensitivity if table.chart), "s"),
            chapters=chapters,
            has_pictures=any(view.pictures for chapter in chapters for view in chapter.views),
            heat_maps=list(_heat.heat_maps(evidence)),
            levels=sorted({wording.level(gate.confidence) for gate in evidence.gates if gate.interval}),
            confidences=sorted({f"{100 * gate.confidence:g} %" for gate in evidence.gates}),
            evidence_sha256=records.sha256(evidence),
            audit_command=f"pruneproof audit {shlex.quote(evidence.policy.path)}",
        )
    )


def _drawn(charts: Iterable[Chart], slug: str) -> list[tuple[Chart, Markup]]:
    return [(chart, Markup(_charts.svg(chart, f"{slug}{place}"))) for place, chart in enumerate(charts, start=1)]


def _drawing(view: View) -> Markup | None:
    """The curves of an exhibit, where there is one point at least."""
    if view.curves is None or not _plots.drawn(view.curves.lines):
        return None
    return Markup(_plots.svg(view.curves, f"e{view.number}"))


def _small(view: View) -> Charts | None:
    """The small charts of an exhibit, where there is one point at least."""
    return _multiples.charts(view.multiples, f"e{view.number}") if view.multiples else None


def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("pruneproof.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    found.filters.update(
        mark=wording.mark,
        number=wording.number,
        signed=wording.signed,
        interval=wording.interval,
        measured=wording.measured,
        level=wording.level,
        percent=wording.percent,
        count=wording.count,
        limit=wording.limit,
        quantity=wording.quantity,
        member=wording.member,
        plural=wording.plural,
        against=summary.against,
        achieved=_variants.achieved,
        claim=wording.claim,
        verdict=_verdict,
        drawing=_drawing,
        multiples=_small,
        shaded=_plots.many,
        data_uri=_pictures.data_uri,
        coarse=_pictures.coarse,
        glyph=_sheets.glyph,
        states=_sheets.states,
        id=_id,
        when=_when,
    )
    found.globals.update(
        glyphs=GLYPHS,
        words=wording.WORDS,
        verdicts=list(reversed(Verdict)),
        marks=list(_sheets.STATES),
        shots_at_once=_exhibits.SHOTS,
        steps=_heat.STEPS,
    )
    return found


def _finalize(value: Any) -> Any:
    """Text of users cannot carry control characters or reorder the page."""
    return wording.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _verdict(verdict: Verdict) -> Markup:
    """Glyph and word; the colour comes on top."""
    style = verdict.value.lower().replace("_", "-")
    return Markup('<span class="v v-{}"><span aria-hidden="true">{}</span> {}</span>').format(
        style, GLYPHS[verdict], wording.WORDS[verdict]
    )


def _id(text: str) -> Markup:
    """A gate's id in a text node, where ``>`` and quotes may stand as they are."""
    shown = str(escape(wording.clean(text))).replace("&gt;", ">").replace("&#39;", "'").replace("&#34;", '"')
    return Markup("<code>{}</code>").format(Markup(shown))


def _when(moment: str) -> str:
    """``2026-11-23T06:47:31+00:00`` as ``2026-11-23 06:47:31 UTC``."""
    return moment.replace("T", " ").replace("+00:00", " UTC")
