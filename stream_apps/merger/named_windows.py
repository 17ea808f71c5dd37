"""The records of windows that a version names, from their topics: what a manifest does not repeat of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aggregation.errors import IntegrityProblem
from aggregation.server.aggregates import Aggregate, Slot
from aggregation.server.totals import WindowSums
from backends.log import RecordReader
from schemas.checkpoints import decode_sums, sums_bytes
from schemas.manifests import Input, Manifest
from schemas.records import Unverified, aggregate_in
from schemas.topics import aggregates_topic
from stream_apps.process_context import ProcessContext


def sums_of(context: ProcessContext, manifest: Manifest) -> Iterator[WindowSums]:
    """The windows that a version holds which is vouched for, one at a time.

    A manifest says all of windows of one bucket; what stands in several, their records say.
    """
    layout, records = context.layout, dict[str, Aggregate]()
    counting = [one for one in manifest.inputs if one.sum_sha256 and not one.is_dropped]
    for one in counting:
        data = context.store.get_object(one.sum_sha256)
        if len(data) != sums_bytes(layout):
            records = records or named_windows(context, counting)
        buckets = records[one.sha256].buckets if records else ()
        sums = decode_sums(data, layout, max(1, len(buckets)))
        yield WindowSums(sums, one.weight_total, one.weight, buckets)


def named_windows(context: ProcessContext, inputs: Iterable[Input]) -> dict[str, Aggregate]:
    """The windows that a version which is vouched for names, by their SHA-256.

    Raises IntegrityProblem FLV-3003 where one stands in no topic under a worker's signature.
    """
    wanted: dict[Slot, dict[str, Input]] = {}
    for one in inputs:
        wanted.setdefault((one.region, one.partition), {})[one.sha256] = one
    found: dict[str, Aggregate] = {}
    with context.open_reader("named windows") as reader:
        for slot, named in sorted(wanted.items()):
            for window in _windows_of(reader, context, slot, min(one.sequence for one in named.values())):
                if window.sha256 in named:
                    found[window.sha256] = window
                if named.keys() <= found.keys():
                    break
            _require_all(slot, named, found)
    return found


def _windows_of(
    reader: RecordReader, context: ProcessContext, slot: Slot, sequence: int
) -> Iterator[Aggregate]:
    """A partition's windows from that sequence on, which stands at its own offset or later, then those before."""
    task = context.genesis.task
    topic = aggregates_topic(task, slot[0])
    low, end = reader.bounds(topic, slot[1])
    start = min(max(low, sequence), end)
    for begin, stop in ((start, end), (low, start)):
        for record in reader.read(topic, slot[1], begin, stop) if begin < stop else ():
            window = aggregate_in(record.value, record.timestamp_ms, context.trust, task, slot)
            if not isinstance(window, Unverified):
                yield window


def _require_all(slot: Slot, named: dict[str, Input], found: dict[str, Aggregate]) -> None:
    for sha256, one in named.items():
        if sha256 not in found:
            raise IntegrityProblem(
                "FLV-3003",
                f"a version names window {one.sequence} of {slot[0]}[{slot[1]}], {sha256[:12]}, "
                "and no worker's record in its topic is that",
                hint="records of the aggregates topic are missing: run `fluvial audit`",
            )
