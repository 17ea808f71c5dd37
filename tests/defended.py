"""A federation under policy v3 in which everything happens that came with it: shares, quarantine, time, lateness,
guides."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from tests import factories
from tests.factories import BUFFERED, barrier_bytes, device_signer, encoded
from tests.guardians import Guardian
from tests.small_federation import SmallFederation

VERSIONS: Final = 6
AWAY: Final = range(1, 4)
"""While these versions are the newest, the worker of ``us`` is away."""
MERGES: Final[dict[str, dict[str, Any]]] = {
    "geometric_median": {"buckets": 4, "iterations": 5},
    "krum": {"buckets": 5, "byzantine": 1},
    "mixing": {"buckets": 3},
    "mean": {},
}
"""Of policies of v4: what stands beside the kind."""
DEFENCES_OF_KIND: Final[dict[str, dict[str, Any]]] = {
    "peers": {"history_updates_min": 4, "norm_deviations_max": 2.0, "cosine_min": -0.9},
    "guide": {"guide_cosine_min": -0.1, "step_cosine_min": 0.5},
}


def policy_of(kind: str, **sections: Any) -> Any:
    """A policy of v3 in which everything happens soon."""
    small: dict[str, Any] = {
        "window": {"updates_max": 4, "records_max": 30},
        "staleness": {"versions_max": 2, "seconds_max": 30.0},
        "buffer": {"updates": 50},
        "server": {"momentum": 0.5},
        "updates": {"norm_clip": 0.4, "codecs": ["int8", "float32", "int4"]},
        "defence": {"kind": kind, "quarantine_refusals": 2, "quarantine_versions": 2}
        | DEFENCES_OF_KIND.get(kind, {}),
    }
    return factories.policy(**({"format": "fluvial/policy/v3"} | small | sections))


def bucketed(merge: str, kind: str = "median", **options: Any) -> SmallFederation:
    """The same life under a policy of v4 with that merge."""
    return lived(kind, format="fluvial/policy/v4", merge={"kind": merge} | MERGES[merge], **options)


def lived(kind: str, **options: Any) -> SmallFederation:
    """Its life under one defence: ``options`` are a SmallFederation's, or sections of the policy."""
    fields = {name: options.pop(name) for name in ("document_format",) if name in options}
    one = SmallFederation(policy=policy_of(kind, **options), layout=BUFFERED, **fields)
    guardian = Guardian(one) if kind == "guide" else None
    names = {
        region: factories.devices(9, partition=0, partitions=one.partitions[region])
        for region in ("eu", "us")
    }
    for version in range(VERSIONS):
        one.away.clear()
        if version in AWAY:
            one.away.add("us")
        for region, devices in names.items():
            _answer(one, region, devices)
        one.append("eu", 0, barrier_bytes(99, one.policy, by=device_signer(devices[0])))
        one.close_windows()
        one.fold()
        one.merge()
        if guardian is not None:
            guardian.guide(version)
    one.fold()
    return one


def _answer(one: SmallFederation, region: str, devices: list[str]) -> None:
    """Ordinary devices, one that answers three at once, one of zeros, two that are slow, and a loud one."""
    version = one.version

    def send(device: str, base: int, codec: str = "int8", factor: float = 1.0) -> None:
        values = (np.float32(factor) * factories.delta(version * 10 + base, BUFFERED)).astype(np.float32)
        values[-3:] = np.abs(values[-3:])
        tensors = encoded(values, codec, version, BUFFERED)
        one.append(
            region, 0, one.update(region, device, base=base, codec=codec, tensors=tensors, seed=version)
        )

    for n, device in enumerate(devices[:4]):
        send(device, max(0, version - n % 2), ("int8", "float32", "int4")[n % 3], 1.0 if n else -1.0)
    for base in range(version - 2, version + 1) if version % 3 == 2 else ():
        send(devices[4], base)
    send(devices[5], version, factor=0.0)
    send(devices[6], max(0, version - 3))
    send(devices[8], max(0, version - 4))
    send(devices[7], version, "float32", 20.0)
