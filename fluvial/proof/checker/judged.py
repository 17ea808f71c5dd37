"""Which offsets the verdicts of a partition stand for (invariant 8): those that the log has and that were folded.

None lies beyond the log's end, none that a published window covers is missing, and for each of these one of the
verdicts that stand is what the log gives. A verdict of a transaction's marker is one like any other. What a worker
vouches for is so: no head speaks of offsets that the log does not have, or of other verdicts than those.

Two different verdicts of one offset break invariant 1, whether the right one is among them or not. But where workers of
the partition vouch for their verdicts and strangers may write beside them, what is more than the right one proves
nothing about a worker: it is ignored, and counted.
"""

from __future__ import annotations

from fluvial.proof.checker import encoding
from fluvial.proof.checker.derived import Derived
from fluvial.proof.checker.report import Findings
from fluvial.proof.checker.vouched import digest_of
from fluvial.proof.checker.window import Verdict


class JudgedOffsets:
    """Goes through one partition's log beside its check. ``name`` is ``region[partition]``.

    ``verdicts`` is the version of Verdict that the task writes.
    """

    def __init__(self, name: str, derived: Derived, findings: Findings, *, verdicts: int) -> None:
        self._name = name
        self._derived = derived
        self._findings = findings
        self._verdicts = verdicts
        self._marks: list[bytes | None] = []

    def take(self, offset: int, expected: Verdict | None) -> None:
        """Look at the next offset of the log; ``expected`` is None where it could not be folded."""
        standing = self._derived.standing(offset)
        right = [] if expected is None else [value for value in standing if _says(value, expected)]
        self._marks.append(self._mark(right[0]) if len(right) == 1 else None)
        if offset >= self._derived.judged_before:
            return
        if not standing:
            self._findings.violate(8, f"{self._name}@{offset} is in a published window and has no verdict")
        elif expected is not None and not right:
            self._findings.violate(8, f"{self._name}@{offset}: no verdict that stands is what the log gives")

    def right_one(self, offset: int, expected: Verdict) -> bytes | None:
        """The verdict to compare: one that says what is expected, or else the first that stands."""
        standing = self._derived.standing(offset)
        right = (value for value in standing if _says(value, expected))
        return next(right, standing[0] if standing else None)

    def _mark(self, value: bytes) -> bytes:
        if self._verdicts == 1:
            value = encoding.encode("Verdict", encoding.decode(value, "Verdict") | {"detail": ""}, version=1)
        return digest_of([value])[:16]

    def after_the_log(self, end: int) -> None:
        """What is judged, vouched for, or covered by a published window, beyond the log's ``end``."""
        beyond = sorted(offset for offset in self._derived.verdicts if not 0 <= offset < end)
        if beyond and self._derived.has_strangers:
            self._findings.ignored += len(beyond)
        elif beyond:
            what = f"{len(beyond)} offsets that the log does not have, {beyond[0]} to {beyond[-1]}"
            self._findings.violate(8, f"{self._name}: verdicts stand for {what}; it ends at {end}")
        if self._derived.judged_before > end:
            covered = self._derived.judged_before
            self._findings.violate(
                8, f"{self._name}: a published window covers offsets up to {covered}, the log ends at {end}"
            )
        self._compare_heads(end)

    def _compare_heads(self, end: int) -> None:
        for head in sorted(self._derived.heads, key=lambda one: (one.after, one.first)):
            where = f"{self._name}@{head.first} to {head.after - 1}"
            if head.after > end:
                self._findings.violate(
                    8, f"{where}: worker {head.worker} vouches for it, the log ends at {end}"
                )
                continue
            marks = [mark for mark in self._marks[head.first : head.after] if mark is not None]
            if len(marks) == head.after - head.first and digest_of(marks) != head.sha256:
                self._findings.violate(
                    8, f"{where}: worker {head.worker} vouches for other verdicts than the log gives"
                )


def _says(value: bytes, expected: Verdict) -> bool:
    """Whether a verdict says what is expected, in all that is not for people."""
    came = encoding.decode(value, "Verdict")
    return all(_same(wanted, came.get(name)) for name, wanted in expected.items())


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)  # noqa: PLR0124 (NaN is what differs from itself)
