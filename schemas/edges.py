"""An edge's window on its way up: what is published of it, and what a record of it says. Pure.

The sums travel in as few bytes each as hold all of them, for an edge's way up is its narrow one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from aggregation.defences import Histograms
from aggregation.fold.events import EdgeAggregate, EdgeWindow
from aggregation.reasons import Because, Reason, because
from aggregation.regions import EDGE_PARTITIONS, is_edge, parent_of
from schemas import avro as codec
from schemas import canonical
from schemas.objects import sha256_hex
from schemas.windows import aggregate_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from aggregation.fold.rules import RecordRules
    from aggregation.server.aggregates import Aggregate
    from schemas.certificates import Trust
    from schemas.manifests import Genesis

    Sums = npt.NDArray[np.int64]

KIND: Final = "EdgeAggregate"
WINDOW: Final = "RegionalAggregate"
WINDOW_VERSION: Final = 4
"""Of the RegionalAggregate that it holds."""
WIDTH_MAX: Final = 8
"""Bytes of an int64."""
NAME_SHOWN_MAX: Final = 64
"""Characters of a region's name in a verdict."""
AGGREGATE, WIDTH, SUMS, SHA256 = "aggregate", "width", "sums", "sha256"
"""What can be wrong with one, in verdicts."""


def partitions_of(genesis: Genesis, region: str) -> int:
    """How many partitions the log of a region has, or of an edge below one; KeyError for a name that is neither."""
    return EDGE_PARTITIONS if is_edge(region, genesis.regions) else genesis.regions[region].partitions


def trust_of(genesis: Genesis, region: str) -> Trust:
    """Whom to trust in the topics of windows and verdicts of a region, or of an edge below one."""
    return genesis.trust.of_edges() if is_edge(region, genesis.regions) else genesis.trust


def edge_record(one: Aggregate, payload: bytes, model_sha256: str, sums: Sums | None) -> dict[str, Any]:
    """An EdgeAggregate's fields for a window of an edge's log; ``payload`` is its RegionalAggregate, v4.

    ``sums`` is int64[n], those that it names; None where it accepted nothing.
    """
    width = 1 if sums is None else width_of(sums)
    return {
        "task": one.task,
        "region": parent_of(one.region),
        "edge": one.region,
        "model_sha256": model_sha256,
        "aggregate": payload,
        "width": width,
        "sums": b"" if sums is None else packed(sums, width),
    }


def width_of(sums: Sums) -> int:
    """The fewest bytes, 1 to 8, that hold each of int64[n], n above 0, in two's complement."""
    ends = (int(sums.min()), int(sums.max()))
    bits = max((one if one >= 0 else ~one).bit_length() for one in ends) + 1
    return -(-bits // 8)


def packed(sums: Sums, width: int) -> bytes:
    """Each of int64[n] in ``width`` bytes, little-endian, two's complement."""
    whole = np.ascontiguousarray(sums.astype("<i8", copy=False)).view(np.uint8).reshape(-1, WIDTH_MAX)
    return whole[:, :width].tobytes()


def unpacked(data: bytes, width: int) -> Sums:
    """The inverse of ``packed``: int64[n] of n · ``width`` bytes."""
    narrow = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    whole = np.empty((narrow.shape[0], WIDTH_MAX), dtype=np.uint8)
    whole[:, :width] = narrow
    whole[:, width:] = (narrow[:, -1:].view(np.int8) >> 7).view(np.uint8)  # 0 or 255: the sign
    return whole.view("<i8").reshape(-1).astype(np.int64, copy=False)


def edge_event(
    record: dict[str, Any], region: str, serial: str, signature: bytes, rules: RecordRules
) -> EdgeAggregate | Because:
    """What a decoded EdgeAggregate says that an edge of ``region`` signed, or what is wrong with it."""
    edge = record["edge"]
    if edge != region:
        return because(Reason.DEVICE_OF_ANOTHER_REGION, edge[:NAME_SHOWN_MAX], region)
    if record["region"] != parent_of(region):
        return because(Reason.DEVICE_OF_ANOTHER_REGION, record["region"][:NAME_SHOWN_MAX], region)
    window = _window_in(record["aggregate"], rules)
    if window is None:
        return because(Reason.EDGE_UNREADABLE, edge, AGGREGATE)
    one, names_sums = window
    sums = _sums_in(record["width"], record["sums"], one.accepted)
    if isinstance(sums, str):
        return because(Reason.EDGE_UNREADABLE, edge, sums)
    if names_sums != ("" if sums is None else sha256_hex(sums.astype("<i8", copy=False).data)):
        return because(Reason.EDGE_UNREADABLE, edge, SHA256)
    return EdgeAggregate(
        task=record["task"],
        region=record["region"],
        edge=edge,
        certificate_serial=serial,
        model_sha256=record["model_sha256"],
        window=one,
        sums=sums,
        signature=signature,
    )


def _window_in(payload: bytes, rules: RecordRules) -> tuple[EdgeWindow, str] | None:
    """The window in a payload, and the SHA-256 of its sums; None for anything but a RegionalAggregate v4."""
    try:
        schema = codec.schema_of(payload)
        if (schema.name, schema.version) != (WINDOW, WINDOW_VERSION):
            return None
        record = canonical.decode(payload, schema) if rules.canonical else codec.decode(payload)[1]
    except codec.CodecError:
        return None
    return edge_window(aggregate_of(record, payload)), record["sum_sha256"]


def edge_window(one: Aggregate) -> EdgeWindow:
    """What of a window the log above it reads."""
    return EdgeWindow(
        task=one.task,
        region=one.region,
        partition=one.partition,
        sequence=one.sequence,
        version=one.version,
        policy_sha256=one.policy_sha256,
        counts=one.counts,
        accepted=one.accepted,
        weight_total=one.weight_total,
        staleness_total=one.staleness_total,
        staleness_max=one.staleness_max,
        update_bytes=one.update_bytes,
        previous_sha256=one.previous_sha256,
        sha256=one.sha256,
        histograms=one.histograms or Histograms(),
        buckets=one.buckets,
        bases=one.bases,
    )


def _sums_in(width: int, data: bytes, accepted: int) -> Sums | str | None:
    """The sums, None where the window accepted nothing, or what is wrong with them."""
    if not 1 <= width <= WIDTH_MAX:
        return WIDTH
    if len(data) % width or bool(data) != (accepted != 0):
        return SUMS
    if not data:
        return None if width == 1 else WIDTH
    sums = unpacked(data, width)
    return sums if width_of(sums) == width else WIDTH
