"""An audit again and again: what an auditor's machine runs beside a task."""

from __future__ import annotations

import time
from collections.abc import Callable

from aggregation.errors import ConnectionProblem, TimeoutProblem
from backends.observer import Observer
from fluvial.processes.signals import is_interruption
from fluvial.proof.audit.report import AuditReport
from fluvial.terminal.output import Output


def audit_again_and_again(
    audit: Callable[[], AuditReport], *, every_s: float, output: Output, observer: Observer
) -> int:
    """Call ``audit`` every ``every_s`` until interrupted; 1 if any of them found a difference, else 0.

    A difference does not end it, and neither does an outage: both are said, and the next audit comes at its time.
    """
    audits = different = unfinished = 0
    try:
        while True:
            began_s = time.monotonic()
            try:
                report = audit()
            except (ConnectionProblem, TimeoutProblem) as problem:
                unfinished += 1
                output.line({"error": {"id": problem.error_id, "message": problem.message}})
                output.say(str(problem), style="bold red")
            else:
                audits += 1
                different += not report.identical
                observer.audited(report.findings.total, report.versions, report.seconds)
                _show(output, report)
            time.sleep(max(0.0, began_s + every_s - time.monotonic()))
    except (KeyboardInterrupt, SystemError) as error:  # SIGTERM, too: the only ways to end it
        if not is_interruption(error):
            raise
        output.line({"audits": audits, "different": different, "unfinished": unfinished}, terminal=True)
        output.say(f"{audits} audits, {different} with differences, {unfinished} not finished")
    return 1 if different else 0


def _show(output: Output, report: AuditReport) -> None:
    output.line(report.json_document())
    what = f"versions {report.first} to {report.last}, {report.records} records, {report.seconds:.1f} s"
    if report.identical:
        output.print(f"identical: {what}, digest {report.digest[:16]}")
        return
    first = report.findings.shown[0]
    output.print(
        f"{report.findings.total} differences: {what}; the first [{first.error_id}]: {first}",
        style="bold red",
    )
    output.say(f"error[FLV-5001]: the audit found differences: {report.findings.total}")
