"""V6: a fresh process makes the same plans.

One process for all plans of an audit, with another hash seed: it loads the subject anew, makes every plan, and
tells their digests. Run as ``python -m pruneproof.replanning FOLDER``, with a request in that folder.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruneproof.errors import PruneProofError
from pruneproof.evidence import SelfCheck
from pruneproof.policy import Policy, VariantSpec

if TYPE_CHECKING:
    from pruneproof.planners import Planners

LISTED = ("attacks", "corruptions", "criteria", "families", "formats", "suites")
FOLDERS = tuple(f"pruneproof.{folder}" for folder in LISTED)
"""Packages whose members are found by listing them."""
REQUEST, ANSWER = "request.json", "digests.json"
CLAIM = "a fresh process makes the same plan"


class FreshProcess:
    """The process that makes every plan of an audit again; it looks for modules where this one does.

    Args:
        asked: the policy.
    """

    def __init__(self, asked: Policy) -> None:
        self.asked = asked
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def digests(self) -> dict[str, str]:
        """Variant → digest of its plan, or why it could not be made; under ``""`` why others are missing.

        The process is ended when it takes longer than all tasks together may; what it had made until then counts.
        """
        with tempfile.TemporaryDirectory(prefix="pruneproof-") as folder:
            place = Path(folder)
            problem = self._ran(place)
            answer = place / ANSWER
            found: dict[str, str] = json.loads(answer.read_text("utf-8")) if answer.exists() else {}
            return {"": problem, **found} if problem else found

    def stop(self) -> None:
        """Ends the process, where nobody needs its answer any more."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def _ran(self, folder: Path) -> str:
        """Runs it; what went wrong. It talks through files alone: what a subject starts may hold on to its pipes."""
        seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
        limit = self.asked.audit.timeout_s * (1 + sum(len(recipe.ratios) for recipe in self.asked.prune))
        (folder / REQUEST).write_text(json.dumps(self._request()), "utf-8")
        if self._stopped:
            return "the audit ended first"
        with (folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pruneproof.replanning", str(folder)],
                env={**os.environ, "PYTHONHASHSEED": seed},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
        try:
            code = self._process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"the fresh process took longer than {limit:g} s"
        if code == 0:
            return ""
        lines = (folder / "said").read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
        return f"the fresh process ended with exit code {code}: {lines[-1]}"

    def _request(self) -> dict[str, Any]:
        return {
            "text": self.asked.text,
            "path": str(self.asked.path.resolve()),
            "sys_path": sys.path,
            "folders": {name: list(importlib.import_module(name).__path__) for name in FOLDERS},
            "parent": os.getpid(),
        }


def check(name: str, digest: str, found: dict[str, str]) -> SelfCheck:
    """V6 of variant ``name``, whose plan has ``digest`` here."""
    there = found.get(name, found.get("", "the fresh process did not make it"))
    same = there == digest
    detail = f"plan {digest[:12]}…" if same else f"here {digest[:12]}…, there {_short(there)}"
    return SelfCheck(id="V6", claim=CLAIM, passed=same, detail=detail)


def _short(said: str) -> str:
    return f"{said[:12]}…" if len(said) == 64 and set(said) <= set("0123456789abcdef") else said


def main() -> None:
    """The fresh process."""
    folder = Path(sys.argv[1])
    request: dict[str, Any] = json.loads((folder / REQUEST).read_text("utf-8"))
    threading.Thread(target=_follow, args=(request["parent"],), daemon=True).start()
    sys.path[:] = request["sys_path"]
    for name, places in request["folders"].items():
        importlib.import_module(name).__path__ = places
    from pruneproof import policy_file

    _made(policy_file.parse(request["text"], request["path"]), folder / ANSWER)
    sys.stderr.flush()
    os._exit(0)  # threads and processes that a subject started are not waited for


def _follow(parent: int) -> None:
    """Ends this process when the audit that it is for is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _made(asked: Policy, answer: Path) -> None:
    """Writes each digest as soon as it is there."""
    from pruneproof import loading, policy
    from pruneproof.isolation import deadline, importing_from, untouched_globals
    from pruneproof.planners import Planners

    found: dict[str, str] = {}

    def done(name: str, said: str) -> None:
        found[name] = said
        part = answer.with_suffix(".part")
        part.write_text(json.dumps(found), "utf-8")
        part.replace(answer)

    with importing_from(str(asked.folder)):
        try:
            with untouched_globals(asked.audit.threads, asked.audit.seed):
                planners = Planners(loading.load(asked), asked)
        except BaseException as error:  # a subject may exit
            done("", f"there the subject could not be loaded: {_told(error)}")
            return
        for spec in policy.variants(asked):
            if spec.recipe is None:
                continue
            try:
                with (
                    untouched_globals(asked.audit.threads, asked.audit.seed),
                    deadline(asked.audit.timeout_s, f"making the plan of {spec.name}"),
                ):
                    said = plan_digest(planners, spec)
            except BaseException as error:
                said = _told(error)
            done(spec.name, said)


def plan_digest(planners: Planners, spec: VariantSpec) -> str:
    """Digest of the plan of ``spec``."""
    from pruneproof import plan

    assert spec.recipe is not None
    assert spec.ratio is not None
    return plan.digest(planners.made(spec.recipe, spec.ratio).plan)


def _told(error: BaseException) -> str:
    return error.cause if isinstance(error, PruneProofError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
