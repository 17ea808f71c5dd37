"""Signed bytes of every record kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aggregation.fold.rules import CANONICAL_RULES, RecordRules
from schemas.verdicts import encode_verdict
from tests.factories.certificates import device_signer, merger_signer, operator_signer, worker_signer
from tests.factories.deltas import delta, encoded
from tests.factories.task import LAYOUT, NOW_MS, REGION, TASK, model_sha, sha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.codecs import CodecName, EncodedTensor
    from aggregation.fold.events import Verdict
    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from schemas.envelope import Signer


def update_record(
    device_id: str,
    *,
    seed: int = 0,
    base: int = 0,
    codec: CodecName = "int8",
    tensors: Sequence[EncodedTensor] | None = None,
    layout: Layout = LAYOUT,
    **changed: Any,
) -> dict[str, Any]:
    """A ClientUpdate's fields."""
    tensors = encoded(delta(seed, layout), codec, seed, layout) if tensors is None else tensors
    entries = [{"name": t.name, "shape": list(t.shape), "scale": t.scale, "data": t.data} for t in tensors]
    return {
        "task": TASK,
        "region": REGION,
        "device_id": device_id,
        "base_version": base,
        "base_sha256": model_sha(base),
        "update_id": f"u-{device_id}-{base}-{seed}",
        "num_examples": 10,
        "local_loss": 0.5,
        "codec": codec,
        "tensors": entries,
        "client_metrics": {"epochs": 1.0},
        "created_at": NOW_MS - 500,
    } | changed


def update_bytes(device_id: str, *, by: Signer | None = None, **fields: Any) -> bytes:
    """A signed ClientUpdate."""
    return (by or device_signer(device_id)).sign("ClientUpdate", update_record(device_id, **fields))


def barrier_bytes(version: int, rules: Policy, *, by: Signer | None = None, **changed: Any) -> bytes:
    """A signed Barrier."""
    fields = {
        "task": TASK,
        "region": REGION,
        "version": version,
        "manifest_sha256": sha(f"manifest {version}"),
        "model_sha256": model_sha(version),
        "reference_sha256": "",
        "policy_sha256": rules.sha256,
        "floor": 0,
        "reason": "version",
    }
    return (by or merger_signer()).sign("Barrier", fields | changed)


def tick_bytes(
    window_first_offset: int, *, partition: int = 0, by: Signer | None = None, **changed: Any
) -> bytes:
    """A signed Tick."""
    fields = {
        "task": TASK,
        "region": REGION,
        "partition": partition,
        "window_first_offset": window_first_offset,
    }
    return (by or worker_signer()).sign("Tick", fields | changed)


def revoke_bytes(
    device_id: str = "", serial: str = "", *, by: Signer | None = None, task: str = TASK
) -> bytes:
    """A signed Revoke."""
    fields = {"task": task, "device_id": device_id, "certificate_serial": serial, "reason": "stolen"}
    return (by or operator_signer()).sign("Revoke", fields)


def pardon_bytes(device_id: str, until: int, *, by: Signer | None = None, **changed: Any) -> bytes:
    """A signed Pardon."""
    reason = "its data is mended"
    fields = {"task": TASK, "region": REGION, "device_id": device_id, "until": until, "reason": reason}
    return (by or operator_signer()).sign("Pardon", fields | changed)


def verdict_bytes(verdict: Verdict, rules: RecordRules = CANONICAL_RULES) -> bytes:
    """A verdict as it stands in its topic, by default in a new task's."""
    return encode_verdict(verdict, rules)
