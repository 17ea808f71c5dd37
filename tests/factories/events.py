"""Events of the fold as they are once their bytes are read, without the bytes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from aggregation.fold.events import Barrier, Tick, Update
from aggregation.server.aggregates import Aggregate
from tests.factories.deltas import delta, encoded
from tests.factories.task import LAYOUT, REGION, TASK, model_sha, sha

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aggregation.codecs import CodecName, Direction, EncodedTensor
    from aggregation.layout import Layout
    from aggregation.policy import Policy


def update(
    device_id: str,
    *,
    seed: int = 0,
    base: int = 0,
    codec: CodecName = "int8",
    tensors: Sequence[EncodedTensor] | None = None,
    layout: Layout = LAYOUT,
    **changed: Any,
) -> Update:
    """An authenticated update, without the bytes."""
    tensors = encoded(delta(seed, layout), codec, seed, layout) if tensors is None else tensors
    fields: dict[str, Any] = {
        "task": TASK,
        "region": REGION,
        "device_id": device_id,
        "certificate_serial": "ab12",
        "base_version": base,
        "base_sha256": model_sha(base),
        "update_id": f"u-{device_id}-{base}-{seed}",
        "num_examples": 10,
        "codec": codec,
        "names": tuple(tensor.name for tensor in tensors),
        "shapes": tuple(tensor.shape for tensor in tensors),
        "scales": tuple(tensor.scale for tensor in tensors),
        "data": tuple(tensor.data for tensor in tensors),
        "signature": hashlib.sha512(f"{device_id} {base} {seed}".encode()).digest(),
        "record_bytes": 500,
    }
    return Update(**(fields | changed))


def barrier(
    version: int, rules: Policy, reference: Direction | None = None, *, floor: int = 0, **changed: Any
) -> Barrier:
    """An authenticated barrier with its objects loaded."""
    fields: dict[str, Any] = {
        "task": TASK,
        "region": REGION,
        "version": version,
        "manifest_sha256": sha(f"manifest {version}"),
        "model_sha256": model_sha(version),
        "reference_sha256": "" if reference is None else sha(f"reference {version}"),
        "policy_sha256": rules.sha256,
        "floor": floor,
        "reason": "version",
        "policy": rules,
        "reference": reference,
    }
    return Barrier(**(fields | changed))


def tick(first_offset: int, **changed: Any) -> Tick:
    """An authenticated tick."""
    fields: dict[str, Any] = {
        "task": TASK,
        "region": REGION,
        "partition": 0,
        "window_first_offset": first_offset,
    }
    return Tick(**(fields | changed))


def aggregate(
    region: str,
    partition: int,
    sequence: int,
    *,
    accepted: int = 4,
    previous: str | None = None,
    salt: str = "",
) -> Aggregate:
    """An aggregate in a chain: its hash and its predecessor's follow from slot, sequence and ``salt``."""
    if previous is None:
        previous = sha(f"{region}{partition}/{sequence - 1}") if sequence else ""
    return Aggregate(
        task=TASK,
        region=region,
        partition=partition,
        sequence=sequence,
        first_offset=sequence * 10,
        next_offset=sequence * 10 + 10,
        version=0,
        policy_sha256=sha("policy"),
        counts={"accepted": accepted},
        accepted=accepted,
        weight_total=accepted << 16,
        staleness_total=0,
        staleness_max=0,
        update_bytes=500 * accepted,
        sum_sha256=sha("sum") if accepted else "",
        state_sha256=sha("state"),
        contributors_sha256=sha("contributors"),
        previous_sha256=previous,
        sha256=sha(f"{region}{partition}/{sequence}{salt}"),
    )
