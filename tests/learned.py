"""Federations under policy v5 or v6, with updates and windows that come late, and what stands in their logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from aggregation.policy import Policy
from schemas.envelope import open_envelope
from schemas.topics import updates_topic
from tests import factories
from tests.factories import encoded
from tests.small_federation import SmallFederation

FORMAT: Final = "fluvial/policy/v5"
V6: Final = "fluvial/policy/v6"
VERSIONS: Final = 6
AWAY: Final = range(2, 4)
"""While these versions are the newest, the worker of ``us`` is away: its window comes late."""
LAGS: Final = (0, 1, 0, 3, 2)
"""How many versions behind the newest a device answers, one after another."""
EXAMPLES: Final = (64, 16, 3, 40, 10**12, 1, 0)
"""Said by devices, one after another."""
EXAMPLES_MAX: Final = 64
CHANGE: Final = 0.03
"""About how large a delta's elements are."""


def policy_of(form: str = FORMAT, **sections: Any) -> Policy:
    """A policy whose arithmetic is the algorithm's alone: nothing is clipped, judged, shared out or coarse.

    Of v5 where nobody says another format.
    """
    plain: dict[str, Any] = {
        "window": {"updates_max": 60, "records_max": 500},
        "staleness": {"kind": "constant", "versions_max": 10, "seconds_max": 600.0},
        "buffer": {"updates": 60},
        "updates": {"norm_clip": 100.0, "norm_max": 1000.0, "codecs": ["float32"]},
        "defence": {"kind": "none", "quarantine_refusals": 0},
        "shares": {"per_version": 0, "saved_max": 0},
        "fixed_point": {"exponent": 40},
    }
    mixed = {name: plain.get(name, {}) | sections.get(name, {}) for name in {**plain, **sections}}
    return factories.policy(format=form, **mixed)


def lived(policy: Policy, *, lag: bool = True, away: bool = True, **options: Any) -> SmallFederation:
    """Its life of ``VERSIONS`` versions, of other devices each; they do not ask for their lot.

    ``lag``: whether some devices answer older versions. ``away``: whether a worker is away for a while. ``options`` are
    a SmallFederation's.
    """
    one, sent = SmallFederation(policy=policy, **options), 0
    for version in range(VERSIONS):
        one.away.clear()
        if away and version in AWAY:
            one.away.add("us")
        for region, partition in one.genesis.slots:
            count = one.partitions[region]
            for device in factories.devices(4, partition=partition, partitions=count, start=100 * version):
                behind = LAGS[sent % len(LAGS)] if lag else 0
                send(one, region, partition, device, max(0, version - behind), sent)
                sent += 1
        one.close_windows()
        one.fold()
        one.merge()
    one.fold()
    return one


def lived_alone(policy: Policy) -> SmallFederation:
    """A life in which every version is of one update."""
    one = SmallFederation(policy=policy)
    for version in range(VERSIONS):
        region, partition = one.genesis.slots[version % 3]
        (device,) = factories.devices(
            1, partition=partition, partitions=one.partitions[region], start=100 * version
        )
        send(one, region, partition, device, max(0, version - LAGS[version % len(LAGS)]), version)
        one.fold()
        one.merge()
    one.fold()
    return one


def send(one: SmallFederation, region: str, partition: int, device: str, base: int, number: int) -> None:
    """One update, exact in binary32."""
    values = factories.delta(number, one.layout, size=CHANGE)
    tensors = encoded(values, "float32", 0, one.layout)
    examples = EXAMPLES[number % len(EXAMPLES)]
    said = one.update(
        region, device, base=base, codec="float32", tensors=tensors, seed=number, num_examples=examples
    )
    one.append(region, partition, said)


# -- what stands in its log


@dataclass(frozen=True)
class Sent:
    """An update in the log: ``change`` float64[P]; ``newest`` is the version that its partition was at."""

    device: str
    base: int
    newest: int
    examples: int
    change: npt.NDArray[np.float64]

    @property
    def staleness(self) -> int:
        """Versions."""
        return self.newest - self.base


@dataclass(frozen=True)
class Window:
    """The updates between two offsets, and the version that the window was folded under."""

    version: int
    updates: tuple[Sent, ...]


def recorded(one: SmallFederation) -> list[list[Window]]:
    """By version, from 1 on: what the log has of the windows that its manifest names. No verdict is looked at."""
    by_offset = {slot: _read(one, *slot) for slot in one.genesis.slots}
    return [
        [
            Window(
                said.version,
                tuple(
                    sent
                    for offset in range(said.first_offset, said.next_offset)
                    if (sent := by_offset[said.region, said.partition].get(offset)) is not None
                ),
            )
            for said in manifest.inputs
        ]
        for manifest in one.manifests
    ]


def _read(one: SmallFederation, region: str, partition: int) -> dict[int, Sent]:
    found, newest = {}, 0
    for record in one.records(updates_topic(one.task, region), partition):
        kind, said = _payload(record.value)
        if kind == "Barrier":
            newest = max(newest, said["version"])
        elif kind == "ClientUpdate":
            change = np.concatenate([np.frombuffer(part["data"], dtype="<f4") for part in said["tensors"]])
            place = (said["device_id"], said["base_version"], newest, said["num_examples"])
            found[record.offset] = Sent(*place, change.astype(np.float64))
    return found


def _payload(value: bytes | None) -> tuple[str, dict[str, Any]]:
    envelope = open_envelope(value or b"")
    return envelope.kind, envelope.record
