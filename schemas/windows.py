"""From a closed window to what is published of it: objects under their hashes, and the aggregate's payload.

Pure, and used by the worker and by the audit alike: whoever folds the same log gets the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aggregation.defences import Histograms, NormHistory, Usual
from aggregation.errors import IntegrityProblem
from aggregation.fold.bases import Base
from aggregation.fold.contributions import Contributions
from aggregation.fold.events import Guide, WindowClosed
from aggregation.fold.shares import Share, Shares
from aggregation.fold.state import EdgePlace, OpenWindow, PartitionState
from aggregation.merges import Bucket
from aggregation.server.aggregates import Aggregate
from schemas import avro as codec
from schemas.checkpoints import encode_sums
from schemas.objects import sha256_hex
from schemas.snapshots import encode_state as encode_state  # noqa: PLC0414 (who seals looks for it here)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aggregation.codecs import Direction
    from aggregation.defences.usual import Histogram
    from aggregation.layout import Layout
    from aggregation.policy import Policy


HISTOGRAMS: Final = ("norms", "cosines", "shares")
"""The fields of ``Histograms``, and of a RegionalAggregate since v2."""


@dataclass(frozen=True, slots=True)
class EncodedWindow:
    """What to store (``objects`` by SHA-256, before the record) and what to publish (``payload``, signed by
    whoever).
    """

    aggregate: Aggregate
    payload: bytes
    objects: Mapping[str, bytes]


def encode_window(state: PartitionState, closed: WindowClosed) -> EncodedWindow:
    """Seal the window that the fold just closed.

    ``state`` is as the fold left it, and gets the new chain link.
    """
    return seal_window(state, closed, encode_state(state))


def seal_window(state: PartitionState, closed: WindowClosed, snapshot: bytes) -> EncodedWindow:
    """``encode_window`` with the snapshot at hand that ``encode_state`` made when the window closed.

    What takes long is in here, and of ``state`` it reads nothing that the fold changes: it may run beside that, one
    window of a partition after another.
    """
    objects = {sha256_hex(snapshot): snapshot}
    sum_sha256 = ""
    if closed.sums is not None:
        sums = encode_sums(closed.sums)
        sum_sha256 = sha256_hex(sums)
        objects[sum_sha256] = sums
    record: dict[str, Any] = {
        "task": state.task,
        "region": state.region,
        "partition": state.partition,
        "sequence": closed.sequence,
        "first_offset": closed.first_offset,
        "next_offset": closed.next_offset,
        "version": closed.version,
        "policy_sha256": closed.policy_sha256,
        "counts": dict(closed.counts),
        "accepted": closed.accepted,
        "weight_total": closed.weight_total,
        "staleness_total": closed.staleness_total,
        "staleness_max": closed.staleness_max,
        "update_bytes": closed.update_bytes,
        "sum_sha256": sum_sha256,
        "state_sha256": sha256_hex(snapshot),
        "contributors_sha256": closed.contributors_sha256,
        "previous_sha256": state.previous_sha256,
    }
    if closed.histograms is not None:
        record |= {name: _buckets(getattr(closed.histograms, name)) for name in HISTOGRAMS}
    if closed.buckets is not None:
        record["buckets"] = [one._asdict() for one in closed.buckets]
    if closed.bases is not None:
        record["bases"] = [one._asdict() for one in closed.bases]
    payload = codec.encode("RegionalAggregate", record)
    aggregate = aggregate_of(record, payload)
    state.previous_sha256 = aggregate.sha256
    return EncodedWindow(aggregate, payload, objects)


def aggregate_of(record: Mapping[str, Any], payload: bytes) -> Aggregate:
    """The typed form of a decoded RegionalAggregate; its identity is the SHA-256 of the payload."""
    fields = dict(record)
    if HISTOGRAMS[0] in fields:
        said = {name: tuple((one["bucket"], one["count"]) for one in fields.pop(name)) for name in HISTOGRAMS}
        fields["histograms"] = Histograms(**said)
    fields["buckets"] = tuple(Bucket(**one) for one in fields.get("buckets", ()))
    fields["bases"] = tuple(Base(**one) for one in fields.get("bases", ()))
    return Aggregate(sha256=sha256_hex(payload), **fields)


def _buckets(histogram: Histogram) -> list[dict[str, int]]:
    return [{"bucket": bucket, "count": count} for bucket, count in histogram]


def state_names(data: bytes) -> tuple[str, str, str]:
    """The objects that a snapshot needs to be restored: (policy_sha256, reference_sha256 or "", guide_sha256 or "")."""
    record = _decode_state(data)
    return record["policy_sha256"], record["reference_sha256"], record.get("guide_sha256", "")


@dataclass(frozen=True, slots=True)
class Standings:
    """What a snapshot holds of a partition's devices, at its last version. ``revoked``: devices and certificates."""

    version: int
    policy_sha256: str
    shares: Shares
    revoked: frozenset[str]


def standings_in(data: bytes, aggregate: Aggregate) -> Standings | None:
    """How the devices stand in the state that ``aggregate`` names, from its snapshot ``data``.

    None where it is of a policy before v3, which keeps nothing of devices. Raises IntegrityProblem FLV-3005 where
    ``data`` is no snapshot, or another window's.
    """
    record = _state_of(data, aggregate)
    if "shares" not in record:
        return None
    return Standings(
        record["version"], record["policy_sha256"], _shares_of(record), frozenset(record["revoked"])
    )


def restore_state(
    data: bytes,
    aggregate: Aggregate,
    *,
    partitions: int,
    layout: Layout,
    policy: Policy,
    reference: Direction | None,
    guide: Direction | None = None,
) -> PartitionState:
    """The state that ``aggregate`` names, from its snapshot ``data`` and the objects of ``state_names``."""
    record = _state_of(data, aggregate)
    if any(entry["version"] > record["version"] for entry in record.get("shares", ())):
        raise IntegrityProblem("FLV-3005", "the snapshot says of a share that it is of a version to come")
    return PartitionState(
        task=record["task"],
        region=record["region"],
        partition=record["partition"],
        partitions=partitions,
        layout=layout,
        next_offset=record["next_offset"],
        version=record["version"],
        floor=record["floor"],
        policy=policy,
        policy_sha256=record["policy_sha256"],
        reference=reference,
        reference_sha256=record["reference_sha256"],
        models={entry["version"]: entry["sha256"] for entry in record["models"]},
        counted=Contributions({entry["version"]: entry["devices"] for entry in record["counted"]}),
        revoked=set(record["revoked"]),
        history=NormHistory(record["norms"]),
        sequence=record["sequence"],
        previous_sha256=aggregate.sha256,
        window=OpenWindow(first_offset=record["next_offset"]),
        superseded={entry["version"]: entry["since_ms"] for entry in record.get("superseded", ())},
        shares=_shares_of(record),
        usual=Usual(*(record.get(f"usual_{name}", 0) for name in ("norm", "cosine", "share"))),
        guide=guide,
        guide_sha256=record.get("guide_sha256", ""),
        edges={one["edge"]: _edge(one) for one in record.get("edges", ())},
    )


def direction_of_guide(guide: Guide | None) -> Direction | None:
    """What a state holds of a guide."""
    return None if guide is None else guide.direction


def _shares_of(record: Mapping[str, Any]) -> Shares:
    return Shares(map(_share, record.get("shares", ())), map(_quarantined, record.get("quarantined", ())))


def _edge(entry: Mapping[str, Any]) -> EdgePlace:
    return EdgePlace(*(entry[name] for name in EdgePlace._fields))


def _share(entry: Mapping[str, Any]) -> tuple[str, Share]:
    counts = (entry[name] for name in ("version", "tokens", "accepted", "refused", "scored"))
    return entry["device_id"], Share(*counts)


def _quarantined(entry: Mapping[str, Any]) -> tuple[str, int]:
    return entry["device_id"], entry["until"]


def _state_of(data: bytes, aggregate: Aggregate) -> dict[str, Any]:
    record = _decode_state(data)
    if (record["region"], record["partition"], record["next_offset"]) != (
        *aggregate.slot,
        aggregate.next_offset,
    ):
        raise IntegrityProblem(
            "FLV-3005", f"the snapshot of {record['region']}[{record['partition']}] is not its aggregate's"
        )
    return record


def _decode_state(data: bytes) -> dict[str, Any]:
    try:
        schema, record = codec.decode(data)
    except codec.CodecError as error:
        raise IntegrityProblem("FLV-3005", f"not a partition's snapshot: {error}") from error
    if schema.name != "PartitionState":
        raise IntegrityProblem("FLV-3005", f"expected a PartitionState, got a {schema.name}")
    return record
