"""V6: a fresh process makes the same plans.

One process for all plans of an audit, with another hash seed: it loads the subject anew, makes every plan, and
tells their digests. Run as ``python -m pruneproof.replanning`` with a request on its standard input.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pruneproof.errors import PruneProofError
from pruneproof.evidence import SelfCheck
from pruneproof.policy import Policy

FOLDERS = tuple(f"pruneproof.{folder}" for folder in ("criteria", "families", "formats", "suites"))
"""Packages whose members are found by listing them."""
CLAIM = "a fresh process makes the same plan"


class FreshProcess:
    """The process that makes every plan of an audit again; it looks for modules where this one does.

    Args:
        asked: the policy.
    """

    def __init__(self, asked: Policy) -> None:
        self.asked = asked
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def digests(self) -> dict[str, str]:
        """Variant → digest of its plan, or why it could not be made; under ``""`` why there are none.

        The process is ended when it takes longer than all tasks together may.
        """
        with tempfile.TemporaryDirectory(prefix="pruneproof-") as folder:
            answer = Path(folder) / "digests.json"
            problem = self._ran(answer)
            if problem:
                return {"": problem}
            found: dict[str, str] = json.loads(answer.read_text("utf-8"))
            return found

    def stop(self) -> None:
        """Ends the process, where nobody needs its answer any more."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()

    def _ran(self, answer: Path) -> str:
        """Runs it; why there is no answer."""
        seed = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
        limit = self.asked.audit.timeout_s * (1 + sum(len(recipe.ratios) for recipe in self.asked.prune))
        if self._stopped:
            return "the audit ended first"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pruneproof.replanning"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        try:
            _, said = self._process.communicate(json.dumps(self._request(answer)), timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return f"the fresh process took longer than {limit:g} s"
        except OSError as error:  # it ended before it read its request
            said = str(error)
        if answer.exists():
            return ""
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return f"the fresh process ended with exit code {self._process.wait()}: {last}"

    def _request(self, answer: Path) -> dict[str, Any]:
        return {
            "text": self.asked.text,
            "path": str(self.asked.path.resolve()),
            "sys_path": sys.path,
            "folders": {name: list(importlib.import_module(name).__path__) for name in FOLDERS},
            "answer": str(answer),
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
    request: dict[str, Any] = json.load(sys.stdin)
    sys.path[:] = request["sys_path"]
    for name, places in request["folders"].items():
        importlib.import_module(name).__path__ = places
    from pruneproof import policy_file

    asked = policy_file.parse(request["text"], request["path"])
    Path(request["answer"]).write_text(json.dumps(_made(asked)), "utf-8")


def _made(asked: Policy) -> dict[str, str]:
    from pruneproof import loading, policy
    from pruneproof.isolation import importing_from, untouched_globals
    from pruneproof.planners import Planners

    found: dict[str, str] = {}
    with importing_from(str(asked.folder)):
        with untouched_globals(asked.audit.threads, asked.audit.seed):
            loaded = loading.load(asked)
        planners = Planners(loaded, asked)
        for spec in policy.variants(asked):
            if spec.recipe is not None:
                with untouched_globals(asked.audit.threads, asked.audit.seed):
                    found[spec.name] = _digest(planners, spec)
    return found


def _digest(planners: Any, spec: Any) -> str:
    from pruneproof import plan

    try:
        return plan.digest(planners.made(spec.recipe, spec.ratio).plan)
    except PruneProofError as error:
        return error.cause
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
