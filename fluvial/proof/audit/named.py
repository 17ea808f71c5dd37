"""The objects that a genesis document names beside the policy: there, and what their hashes and sizes say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.object_store import ObjectNotFound
from fluvial.proof.audit.findings import OBJECT, Findings
from schemas.objects import object_key, sha256_hex

if TYPE_CHECKING:
    from backends.store.task_store import TaskStore
    from schemas.manifests import Genesis


def check_named_objects(objects: TaskStore, genesis: Genesis, findings: Findings) -> None:
    """Hold the frozen tensors and the archived code of a task against its genesis document."""
    named = {"frozen tensors": genesis.model.frozen, "archive of the task's code": genesis.code}
    for what, entry in named.items():
        if entry is None:
            continue
        key = object_key(objects.task, entry.sha256)
        try:
            data = objects.store.get(key)
        except ObjectNotFound:
            findings.add(OBJECT, what, key, "bytes", expected=entry.sha256, got="no object")
            continue
        found = [("sha256", entry.sha256, sha256_hex(data)), ("size", entry.size, len(data))]
        findings.compare(OBJECT, what, key, found)
