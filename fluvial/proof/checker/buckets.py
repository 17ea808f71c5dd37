"""In which bucket of a window an update counts, by schemas/meaning.md; what a window's buckets are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

DOMAIN: Final = b"fluvial/bucket/v1"


def counts_buckets(policy: dict[str, Any]) -> bool:
    """Whether the policy's format has merges, and its windows say what each bucket counts."""
    return "merge" in policy


def buckets_in(policy: dict[str, Any]) -> int:
    """How many buckets a window has; one where the format knows none."""
    return int(policy["merge"]["buckets"]) if counts_buckets(policy) else 1


def bucket_of(model_sha256: str, device: str, buckets: int) -> int:
    """The bucket of a device's updates while the partition's newest version has the model of that hash (hex)."""
    seen = hashlib.sha256(b"\0".join([DOMAIN, model_sha256.encode(), device.encode()])).digest()
    return int.from_bytes(seen[:8], "big") % buckets


@dataclass(slots=True)
class Buckets:
    """What the open window's buckets count: (accepted updates, their weights in 1/65536) by bucket."""

    counted: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, bucket: int, weight: int, updates: int = 1) -> None:
        """So many accepted updates, which weigh so much together."""
        accepted, total = self.counted.get(bucket, (0, 0))
        self.counted[bucket] = (accepted + updates, total + weight)

    def record(self, policy: dict[str, Any]) -> dict[str, Any]:
        """The field of a RegionalAggregate since v3 that v2 has not; nothing under a policy that knows no buckets."""
        if not counts_buckets(policy):
            return {}
        rows = [self.counted.get(bucket, (0, 0)) for bucket in range(buckets_in(policy))]
        return {"buckets": [{"accepted": accepted, "weight": weight} for accepted, weight in rows]}


def weights_in(record: dict[str, Any]) -> list[int]:
    """What the updates of each bucket of a window weigh, by its RegionalAggregate; before v3 it is one bucket."""
    if "buckets" not in record:
        return [record["weight_total"]]
    return [one["weight"] for one in record["buckets"]]
