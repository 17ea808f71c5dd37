"""The audit: everything recomputed from the signed logs and compared bit for bit, by a reader that no worker shares."""

from __future__ import annotations

from ops.audit.findings import Difference, Findings
from ops.audit.report import AuditReport
from ops.audit.run import audit_task

__all__ = ["AuditReport", "Difference", "Findings", "audit_task"]
