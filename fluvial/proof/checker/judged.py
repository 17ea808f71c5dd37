"""Which offsets the verdicts of a partition stand for (invariant 8): those that the log has and that were folded.

None lies beyond the log's end, none that a published window covers is missing, and for each of these one of the
verdicts that stand is what the log gives. A verdict of a transaction's marker is one like any other. Two different
verdicts of one offset break invariant 1, whether the right one is among them or not.
"""

from __future__ import annotations

from fluvial.proof.checker import wire
from fluvial.proof.checker.derived import Derived
from fluvial.proof.checker.fold import Verdict
from fluvial.proof.checker.report import Findings


class JudgedOffsets:
    """Goes through one partition's log beside its check. ``name`` is ``region[partition]``."""

    def __init__(self, name: str, derived: Derived, findings: Findings) -> None:
        self._name = name
        self._derived = derived
        self._findings = findings

    def take(self, offset: int, expected: Verdict | None) -> None:
        """Look at the next offset of the log; ``expected`` is None where it could not be folded."""
        if offset >= self._derived.judged_before:
            return
        standing = self._derived.standing(offset)
        if not standing:
            self._findings.violate(8, f"{self._name}@{offset} is in a published window and has no verdict")
        elif expected is not None and not any(_says(value, expected) for value in standing):
            self._findings.violate(8, f"{self._name}@{offset}: no verdict that stands is what the log gives")

    def after_the_log(self, end: int) -> None:
        """What is judged, or covered by a published window, beyond the log's ``end``."""
        beyond = sorted(offset for offset in self._derived.verdicts if not 0 <= offset < end)
        if beyond:
            what = f"{len(beyond)} offsets that the log does not have, {beyond[0]} to {beyond[-1]}"
            self._findings.violate(8, f"{self._name}: verdicts stand for {what}; it ends at {end}")
        if self._derived.judged_before > end:
            covered = self._derived.judged_before
            self._findings.violate(
                8, f"{self._name}: a published window covers offsets up to {covered}, the log ends at {end}"
            )


def _says(value: bytes, expected: Verdict) -> bool:
    """Whether a verdict says what is expected, in all that is not for people."""
    came = wire.decode(value, "Verdict")
    return all(_same(wanted, came.get(name)) for name, wanted in expected.items())


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124 (NaN is what differs from itself)
