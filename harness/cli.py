"""The command line. Exit codes are pytest's: 0 released, 1 a gate failed, 3 internal error, 4 usage."""

from __future__ import annotations

import difflib
import sys
import traceback
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pruneproof.errors import EvidenceError, PruneProofError, UsageError

INTERRUPTED = 2
SIGNALLED = 130
"""What typer makes of Ctrl-C."""
INTERNAL_ERROR = 3
USAGE_ERROR = 4
SHOWN_PROBLEMS = 20

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

Out = Annotated[Path, typer.Option("--out", help="Folder for evidence and reports.", show_default=True)]
Source = Annotated[Path, typer.Argument(metavar="EVIDENCE", help="Folder that an audit wrote, or its evidence.json.")]
DEFAULT_OUT = Path("pruneproof-report")


def main() -> None:
    """Entry point: every error a person can cause is two lines, never a traceback."""
    sys.exit(_code())


def _code() -> int:
    try:
        code = app(standalone_mode=False)
        if code == SIGNALLED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except PruneProofError as error:
        _say(f"error: {error.cause}", error.remedy)
        return USAGE_ERROR if isinstance(error, UsageError | EvidenceError) else 1
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted: nothing is released")
        return INTERRUPTED
    except (Exception, SystemExit) as error:
        if hasattr(error, "format_message"):  # the command line's own complaint about its arguments
            _say(f"error: {error.format_message()}", "see: pruneproof --help")
            return USAGE_ERROR
        _say(
            f"internal error: {type(error).__name__}: {error}",
            "this is a bug in PruneProof; please report it with these lines:",
        )
        traceback.print_exc()
        return INTERNAL_ERROR


def _say(*lines: str) -> None:
    print("\n  ".join(lines), file=sys.stderr)  # noqa: T201


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    """Is this pruned network still safe to ship?"""
    if version:
        import pruneproof

        typer.echo(f"pruneproof {pruneproof.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE_ERROR)


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="fraud, credit or digits.")] = "fraud", out: Out = DEFAULT_OUT
) -> int:
    """Audits an embedded subject and writes the report. No network, no set-up."""
    from pruneproof import fixtures

    if name not in fixtures.names():
        nearest = difflib.get_close_matches(name, fixtures.names(), n=1)
        hint = f"did you mean '{nearest[0]}'? " if nearest else ""
        raise UsageError(f"no embedded subject '{name}'", f"{hint}there are: {', '.join(fixtures.names())}")
    _audit(fixtures.path(name) / "audit.toml", out)
    return 0


@app.command()
def audit(
    path: Annotated[Path, typer.Argument(help="audit.toml or pyproject.toml, or the folder that holds it.")],
    out: Out = DEFAULT_OUT,
) -> int:
    """Runs an audit; exits 0 when every candidate is released, 1 when not."""
    if path.is_dir():
        path = next((path / name for name in ("audit.toml", "pyproject.toml") if (path / name).exists()), path)
    return _audit(path, out)


def _audit(path: Path, out: Path) -> int:
    console = Console(highlight=False)
    with _progress(console) as progress:
        from pruneproof.auditing import audit as run

        found = run(path, out=out, progress=progress.say)
    from pruneproof.verdicts import exit_code

    _show(console, found, f"pruneproof audit {path}")
    console.print(Text(f"report: {out / 'report.html'}"))
    return exit_code(found.verdict, found.policy.inconclusive)


class _progress:
    """A live line on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.status = console.status("starting") if console.is_terminal else None

    def __enter__(self) -> _progress:
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.status:
            self.status.stop()

    def say(self, line: str) -> None:
        if self.status:
            self.status.update(Text(line))
        else:
            self.console.print(Text(line), soft_wrap=True)


def _show(console: Console, found: object, reproduce: str) -> None:
    from pruneproof import summary, terminal
    from pruneproof.evidence import Evidence
    from pruneproof.verdicts import Verdict

    assert isinstance(found, Evidence)
    header, rows = terminal.matrix(found)
    if console.is_terminal:
        table = Table(title=found.audit.name, title_justify="left")
        for cell in header:
            table.add_column(Text(cell), overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    else:
        for line in terminal.text_matrix(found):
            console.print(Text(line), soft_wrap=True)
    if found.subject.error:
        console.print(Text(f"error: {found.subject.error}"), soft_wrap=True)
    for variant in found.variants:
        if variant.error and not found.subject.error:
            console.print(Text(f"error: {variant.name}: {variant.error}"), soft_wrap=True)
    told = {variant.name for variant in found.variants if variant.error}
    unclear = (Verdict.FAIL, Verdict.ERROR)
    failed = [row for row in found.gates if row.candidate and row.verdict in unclear and row.variant not in told]
    for gate in summary.worst_first([row for row in failed if row.variant == failed[0].variant])[:1]:
        for line in terminal.explanation(gate, reproduce):
            console.print(Text(line), soft_wrap=True)
    if len(failed) > 1:
        console.print(Text(f"… and {len(failed) - 1} more failing gates, in the report"))
    for line in terminal.findings(found):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(terminal.headline(found), style=f"bold {terminal.colour(found.verdict)}"), soft_wrap=True)


@app.command()
def init(
    model: Annotated[Optional[str], typer.Option(help="Your dense model, as module:function.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path("."),
) -> int:
    """Writes a commented starter: audit.toml and the subject module audited.py."""
    from pruneproof import starter

    for file in starter.write(out, model):
        typer.echo(f"wrote {file}")
    typer.echo(f"next: fill in {out / starter.MODULE}, then: pruneproof audit {out / starter.POLICY}")
    return 0


@app.command()
def report(
    evidence: Source,
    form: Annotated[str, typer.Option("--format", help="html, markdown, junit.")] = "html",
    out: Annotated[Optional[Path], typer.Option("--out", help="Folder; default: the evidence's own.")] = None,  # noqa: UP045
) -> int:
    """Renders a report again, from the evidence alone."""
    from pruneproof import evidence as records
    from pruneproof import reporting
    from pruneproof.auditing import writable

    found = records.read(evidence)
    folder = writable(out) if out else evidence if evidence.is_dir() else evidence.parent
    typer.echo(f"report: {reporting.render(found, form, folder)}")
    return 0


@app.command()
def verify(
    evidence: Source,
    policy: Annotated[Optional[Path], typer.Option(help="The policy that it has to be of.")] = None,  # noqa: UP045
    require_release: Annotated[bool, typer.Option("--require-release", help="Exit 1 unless released, too.")] = False,
) -> int:
    """Derives every verdict again from the measurements, and checks digests."""
    from pruneproof import evidence as records
    from pruneproof import terminal, verifying
    from pruneproof.verdicts import releases

    problems = verifying.verify(evidence, policy)
    for problem in problems[:SHOWN_PROBLEMS]:
        typer.echo(f"✗ {problem}")
    if problems:
        typer.echo(f"NOT VERIFIED: {len(problems)} contradictions; do not rely on this evidence")
        return 1
    found = records.read(evidence)
    typer.echo(f"VERIFIED: {len(found.gates)} verdicts follow from the outcomes; digests match; no signature to check")
    typer.echo(terminal.headline(found))
    return 1 if require_release and not releases(found.verdict) else 0


@app.command()
def export(
    evidence: Source,
    variant: Annotated[str, typer.Argument(help="A released variant, e.g. magnitude@0.5.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write into.")] = Path("."),
    policy: Annotated[Optional[Path], typer.Option(help="Where the policy lies now.")] = None,  # noqa: UP045
    force: Annotated[bool, typer.Option("--force", help="Also one that is not released.")] = False,
) -> int:
    """Writes the released model (safetensors) and its plan; checks its digest."""
    from pruneproof import exporting

    done = exporting.export(evidence, variant, out, policy, force)
    for file in done.files:
        typer.echo(f"wrote {file}")
    typer.echo(f"model digest {done.model_sha256} is the audited one")
    return 0


@app.command()
def replay(
    evidence: Source,
    variant: Annotated[str, typer.Argument(help="A variant, or dense.")],
    policy: Annotated[Optional[Path], typer.Option(help="Where the policy lies now.")] = None,  # noqa: UP045
) -> int:
    """Tries the adversarial points that the audit kept on a variant again: one forward pass, no attack."""
    from pruneproof.adversarial import replaying

    found = replaying.replay(evidence, variant, policy)
    for one in found:
        typer.echo(
            f"{one.attack}: {one.points} points kept, {one.inside} within the budget, {one.fooled} fool {variant} again"
        )
    return 0 if all(one.points == one.inside == one.fooled for one in found) else 1


@app.command()
def doctor() -> int:
    """What this machine can and cannot certify."""
    from pruneproof import doctor as checks

    for what, finding in checks.findings():
        typer.echo(f"{what:<16} {finding}")
    return 0
