"""Errors that a person can cause: each one line of cause and one line of what to do."""

from __future__ import annotations


class PruneProofError(Exception):
    """Base of every error PruneProof raises on purpose.

    Args:
        cause: one line that says what is wrong, naming the file, key, layer or column.
        remedy: one line that says what to do about it.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = " ".join(cause.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.cause}\n  {self.remedy}")

    def __reduce__(self) -> tuple[type[PruneProofError], tuple[str, str]]:
        return type(self), (self.cause, self.remedy)


class UsageError(PruneProofError):
    """The command cannot be carried out as asked: exit code 4."""


class PolicyError(UsageError):
    """``audit.toml`` is not a policy: unreadable, malformed, or contradicting itself."""


class SubjectError(PruneProofError):
    """The subject's model, data or functions do not fit what the audit needs."""


class PruningError(PruneProofError):
    """A recipe cannot be carried out on this model as asked."""


class MeasurementError(PruneProofError):
    """A suite could not measure a variant."""


class EvidenceError(PruneProofError):
    """An evidence folder is missing, damaged, or contradicts itself."""


class TaskTimeout(PruneProofError):
    """A task ran longer than the policy's ``timeout_s``."""


class GraphTimeout(PruningError):
    """Which channels hang together was not found in time: self-check V9."""
