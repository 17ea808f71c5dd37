"""Whether a task that began from a version of another has that version's model as its first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.errors import IntegrityProblem
from backends.object_store import ObjectNotFound, StoreRefused
from backends.store.task_store import TaskStore
from schemas.manifest_seals import require_sealed
from schemas.manifests import decode_genesis, decode_manifest
from schemas.objects import manifest_key, sha256_hex

if TYPE_CHECKING:
    from fluvial.proof.audit.findings import Findings
    from schemas.manifests import Genesis

PARENT: Final = "FLV-6329"


def check_parent(objects: TaskStore, genesis: Genesis, findings: Findings) -> str:
    """What was found, in a line; "" for a task without a parent.

    The parent's own origin is what an audit of the parent is about. Where the store does not have it, nothing was
    checked, which the line says.
    """
    parent = genesis.parent
    if parent is None:
        return ""
    store = TaskStore(objects.store, parent.task)
    name = f"{parent.task}@{parent.version}"
    try:
        first, data = store.manifest_bytes(0), store.manifest_bytes(parent.version)
    except ObjectNotFound:
        return f"not checked: the first model is said to be that of {name}, which this store does not have"
    except StoreRefused:  # a task has no part in another one's permissions
        return f"not checked: the first model is said to be that of {name}, which our keys may not read"
    if sha256_hex(first) != parent.genesis_sha256:
        return (
            f"not checked: the first model is said to be that of {name}, and another task has that name here"
        )
    key = manifest_key(parent.task, parent.version)
    pinned = [("sha256", parent.manifest_sha256, sha256_hex(data))]
    if not findings.compare(PARENT, "manifest of the parent", key, pinned):
        return f"the manifest of {name} is another than the one that this task began from"
    genesis_of_parent = decode_genesis(first)
    model = genesis_of_parent.model_sha256
    if parent.version:
        manifest = decode_manifest(data)
        try:
            require_sealed(manifest, genesis_of_parent.trust)
        except IntegrityProblem as problem:
            findings.unreadable(PARENT, "manifest of the parent", key, problem)
            return f"the manifest of {name} is signed by no merger of that task"
        model = manifest.model_sha256
    same = findings.compare(
        PARENT, "first model", manifest_key(genesis.task, 0), [("model_sha256", model, genesis.model_sha256)]
    )
    return f"the first model is {'' if same else 'not '}the model of {name}"
