"""The audit: everything recomputed from the signed logs and compared bit for bit, by a reader that no worker shares."""

from __future__ import annotations

from fluvial.proof.audit.findings import Difference, Findings
from fluvial.proof.audit.report import AuditReport
from fluvial.proof.audit.run import audit_task

__all__ = ["AuditReport", "Difference", "Findings", "audit_task"]
