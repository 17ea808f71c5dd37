"""What a chaos run came to: the document for programs, the lines for people, and whether it is well."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import EnvironmentProblem, Finding
from fluvial.proof.chaos.recovery import summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fluvial.proof.audit import AuditReport
    from fluvial.proof.chaos.corruption import Corruption
    from fluvial.proof.chaos.history import FaultRecord, Publishes
    from fluvial.proof.chaos.plan import Security
    from fluvial.proof.chaos.recovery import Recovery
    from fluvial.proof.checker import CheckReport
    from fluvial.terminal.output import Output

STDOUT: Final = "-"
_SHOWN: Final = 5


@dataclass(kw_only=True)
class ChaosResult:
    """One run. ``skipped`` maps each kind of fault that this machine does not allow, or only in part, to the reason.

    ``outcomes`` counts the verdicts by outcome, ``guided_versions`` the versions that name a guide.
    """

    seed: int
    seconds: float
    counts: Mapping[str, int]
    faults: Sequence[FaultRecord]
    dropped: int
    publishes: Publishes
    security: Security
    outcomes: Mapping[str, int]
    guided_versions: int
    check: CheckReport
    audit: AuditReport
    recoveries: Sequence[Recovery]
    corruptions: Sequence[Corruption]
    skipped: Mapping[str, str]
    history: Path
    undrained: int
    total_seconds: float = 0.0
    restarts: Mapping[str, int] = field(default_factory=dict)
    home: Path | None = None

    @property
    def identical(self) -> bool:
        """Whether the offline check and the audit agree that every version recomputes bit for bit."""
        return self.check.identical and self.audit.identical

    def document(self) -> dict[str, Any]:
        """The run as one JSON document. Times in seconds."""
        check, audit = self.check, self.audit
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "security": self.security,
            "faults": {**self.counts},
            "published": self.publishes.invoked,
            "acknowledged": self.publishes.ok,
            "unknown": self.publishes.unknown,
            "verdicts": check.verdicts,
            "lost": check.lost,
            "double": check.double,
            "forks": check.forks,
            "versions": check.versions,
            "guided_versions": self.guided_versions,
            "outcomes": dict(self.outcomes),
            "identical": self.identical,
            "recovery_seconds": summary(self.recoveries),
            "corruptions": [one.document() for one in self.corruptions],
            "violations": [{"invariant": one.invariant, "message": one.message} for one in check.violations],
            "violations_total": check.violations_total,
            "undrained": self.undrained,
            "history": str(self.history),
            "audit": {
                "versions": audit.versions,
                "identical": audit.identical,
                "digest": audit.digest,
                "findings": [difference.document() for difference in audit.findings],
            },
            "skipped": dict(self.skipped),
            "faults_total": sum(self.counts.values()),
            "faults_failed": sum(not record.ok for record in self.faults),
            "faults_dropped": self.dropped,
            "restarts": dict(self.restarts),
            "total_seconds": round(self.total_seconds, 3),
            "home": None if self.home is None else str(self.home),
        }

    def problem(self) -> Finding | None:
        """FLV-6401 unless nothing was lost, nothing is there twice, and every corruption was named."""
        check = self.check
        wrong = [f"{count} {word}" for word, count in _counted(self) if count]
        if not self.identical:
            wrong.append("a version does not recompute bit for bit")
        if not wrong:
            return None
        lines = [f"invariant {one.invariant}: {one.message}" for one in check.violations[:_SHOWN]]
        lines += [f"audit: {difference}" for difference in self.audit.findings.shown[:_SHOWN]]
        lines += [f"unnoticed: {one.kind} {one.target}" for one in self.corruptions if not one.detected_by]
        return Finding(
            "FLV-6401",
            f"the run broke a promise: {', '.join(wrong)}",
            where="\n  ".join([*lines, f"history: {self.history}"]),
            hint=f"its logs and data are kept until the next run; `fluvial chaos --seed {self.seed} "
            f"--seconds {self.seconds:g}` repeats the faults",
        )


def _counted(result: ChaosResult) -> list[tuple[str, int]]:
    check = result.check
    return [
        ("lost", check.lost),
        ("double", check.double),
        ("forks", check.forks),
        ("violations", check.violations_total),
        ("updates without a verdict", result.undrained),
        ("corruptions that nothing named", sum(not one.detected_by for one in result.corruptions)),
    ]


def write_json(target: str, result: ChaosResult, output: Output) -> None:
    """Write the document to a file, or as the one document on stdout.

    Raises EnvironmentProblem: FLV-6307.
    """
    if target == STDOUT:
        output.document(result.document())
        return
    try:
        Path(target).write_text(
            json.dumps(result.document(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6307",
            f"--json: cannot write {target}: {error.strerror}",
            hint="or `--json -` for stdout",
        ) from error


def summarize(result: ChaosResult, output: Output) -> None:
    """The result for people."""
    check, document = result.check, result.document()
    faults = ", ".join(f"{count} {kind}" for kind, count in result.counts.items()) or "none"
    rows: list[tuple[str, str]] = [
        ("faults", faults),
        (
            "published",
            _publishes_line(result.publishes),
        ),
        ("verdicts", _outcomes_line(check.verdicts, result.outcomes)),
        ("lost, double, forks", f"{check.lost}, {check.double}, {check.forks}"),
        ("versions", _versions_line(result)),
    ]
    for role in ("worker", "merger"):
        figures = document["recovery_seconds"][role]
        if figures["n"]:
            rows.append((f"{role} recovery", _recovery_line(figures)))
    rows += [
        (f"corruption: {one.kind}", f"{one.target}: {one.detected_by or 'UNNOTICED'}")
        for one in result.corruptions
    ]
    rows += [(f"not done: {kind}", reason) for kind, reason in result.skipped.items()]
    rows.append(("history", str(result.history)))
    if result.home is not None:
        rows.append(("kept", str(result.home)))
    output.table(["chaos", f"seed {result.seed}, {result.seconds:g} s"], rows)


def _recovery_line(figures: Mapping[str, Any]) -> str:
    alone = figures["alone"]
    line = f"{figures['n']} kills, p50 {figures['p50']} s, max {figures['max']} s"
    return f"{line}; {alone['n']} of them alone: p50 {alone['p50']} s, max {alone['max']} s"


def _outcomes_line(verdicts: int, outcomes: Mapping[str, int]) -> str:
    by_outcome = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return f"{verdicts}: {by_outcome}" if by_outcome else str(verdicts)


def _versions_line(result: ChaosResult) -> str:
    guided = f", {result.guided_versions} guided" if result.guided_versions else ""
    return f"{result.check.versions}{guided}, {'identical' if result.identical else 'NOT identical'}"


def _publishes_line(publishes: Publishes) -> str:
    answered = f"{publishes.ok} acknowledged, {publishes.unknown} unknown, {publishes.fail} refused"
    return f"{publishes.invoked}: {answered}"
