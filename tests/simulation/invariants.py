"""What has to hold after every run, whatever struck it.

``fluvial.proof.checker``, which shares no code with the workers, checks all eight invariants over the logs and objects
as they stand at the end. What only the simulator can see is checked here beside it: every value that a manifest's key
ever had, the exact order of appends over all topics, and that the workers' own fold, from offset 0 and from every
snapshot, gives what was published, verdicts included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aggregation.fold.events import Barrier, Guide, Verdict, WindowClosed
from aggregation.fold.state import initial
from aggregation.fold.transition import fold_into
from backends.log import LogRecord
from fluvial.proof.checker import Acknowledged, check_logs
from schemas.avro import CodecError
from schemas.checkpoints import decode_direction
from schemas.envelope import open_envelope
from schemas.guides import guide_in
from schemas.objects import manifest_key, object_key
from schemas.records import Unverified, aggregate_in, decode_record
from schemas.topics import aggregates_topic, models_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict, encode_verdict
from schemas.vouching import HEADER
from schemas.windows import direction_of_guide, encode_window, restore_state, state_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aggregation.codecs import Direction
    from aggregation.fold.events import Effect
    from aggregation.fold.state import PartitionState
    from aggregation.server.aggregates import Aggregate, Slot
    from fluvial.proof.checker import Violation
    from tests.simulation.federation import Federation


def violations(federation: Federation) -> list[str]:
    """Every broken promise, in words; empty for a good run."""
    found = [f"{one.invariant}: {one.message}" for one in _independent(federation)]
    found += _overwritten(federation)
    found += _out_of_order(federation)
    for slot in federation.genesis.slots:
        found += _refolded(federation, slot)
        found += _judged(federation, slot)
    return found


def _independent(federation: Federation) -> Iterator[Violation]:
    logs = {
        place: [
            (r.offset, r.timestamp_ms, r.key, r.value)
            for r in records
            if (place, r.offset) not in federation.strikes.liar.told
        ]
        for place, records in federation.log.records.items()
    }
    acknowledged = tuple(
        Acknowledged(one.region, one.partition, one.offset, one.update_id, one.device)
        for one in federation.acknowledged
    )
    report = check_logs(
        logs,
        federation.objects.objects,
        federation.genesis.task,
        federation.genesis_sha256,
        acknowledged,
        drained=True,
        heads={
            place: [(r.timestamp_ms, value) for r in records for name, value in r.headers if name == HEADER]
            for place, records in federation.log.records.items()
        },
        strangers=False,
        clock_skew_ms=None,  # its clock jumps; the order of appends is checked instead
    )
    return iter(report.violations)


def _overwritten(federation: Federation) -> Iterator[str]:
    """2: a manifest's key never had two values, however late a request arrived."""
    for key, values in federation.objects.history.items():
        if key.endswith("/manifest.json") and len(values) > 1:
            yield f"2: {key} was written {len(values)} times with other content"


def _out_of_order(federation: Federation) -> Iterator[str]:
    """6: by the order of appends, an announcement stands behind the barriers of its whole region."""
    task, order = federation.genesis.task, federation.log.order
    barriers: dict[tuple[Slot, int], int] = {}
    for region, partition in federation.genesis.slots:
        place = (updates_topic(task, region), partition)
        for record, kind, content in _signed(federation, place):
            if kind == "Barrier" and content["region"] == region:
                key = ((region, partition), content["version"])
                barriers[key] = min(
                    barriers.get(key, order[place, record.offset]), order[place, record.offset]
                )
    place = (models_topic(task), 0)
    for record, kind, content in _signed(federation, place):
        version, region = content.get("version", 0), str(content.get("region"))
        if kind != "ModelAnnouncement" or not version:
            continue
        if manifest_key(task, version) not in federation.objects.objects:
            yield f"6: version {version} is announced and not committed"
        for partition in range(federation.genesis.partitions[region]):
            stands = barriers.get(((region, partition), version))
            if stands is None or stands > order[place, record.offset]:
                yield f"6: {region} was told of version {version} before {region}[{partition}] had its barrier"


def _signed(
    federation: Federation, place: tuple[str, int]
) -> Iterator[tuple[LogRecord, str, dict[str, Any]]]:
    for record in federation.log.records[place]:
        try:
            envelope = open_envelope(record.value or b"")
        except CodecError:
            continue
        yield record, envelope.kind, envelope.record


def _refolded(federation: Federation, slot: Slot) -> Iterator[str]:
    """5: the fold from offset 0, and from every snapshot to the next window, gives what was published."""
    published: dict[int, Aggregate] = {}
    for _, one in _published(federation, slot):
        if published.setdefault(one.sequence, one).sha256 != one.sha256:
            yield f"3: window {one.sequence} of {slot} was published with two contents"
    encoded = list(_windows(federation, slot, _first_state(federation, slot)))
    for sequence, sha256 in enumerate(encoded):
        if sequence in published and published[sequence].sha256 != sha256:
            yield f"5: window {sequence} of {slot}, folded from offset 0, is another than the published one"
    for sequence, one in sorted(published.items()):
        state = _restored(federation, slot, one)
        after = next(_windows(federation, slot, state), None)
        expected = encoded[sequence + 1] if sequence + 1 < len(encoded) else None
        if after != expected:
            yield f"5: the window after {sequence} of {slot}, folded from its snapshot, is another"


def _judged(federation: Federation, slot: Slot) -> Iterator[str]:
    """8: by the order of appends, a verdict stands behind the record that it judges, and before its window.

    And what stands for the offsets of the log, no more and no fewer, is what the fold says of them.
    """
    task, order, name = federation.genesis.task, federation.log.order, f"{slot[0]}[{slot[1]}]"
    updates, verdicts = (updates_topic(task, slot[0]), slot[1]), (verdicts_topic(task, slot[0]), slot[1])
    effects = _effects(federation, slot, _first_state(federation, slot))
    said = {
        one.offset: encode_verdict(one, federation.genesis.rules)
        for one, _ in effects
        if isinstance(one, Verdict)
    }
    stands: dict[int, int] = {}
    for record in federation.log.records[verdicts]:
        offset = decode_verdict(record.value or b"").offset
        at = order[verdicts, record.offset]
        stands.setdefault(offset, at)
        if order.get((updates, offset), at) >= at:
            yield f"8: {name}@{offset} was judged before the log had such an offset"
        if said.get(offset) != record.value:
            yield f"8: {name}@{offset} has a verdict that the log does not give"
    if missing := said.keys() - stands.keys():
        yield f"8: {name} has no verdicts of {sorted(missing)[:5]}"
    for at, one in _published(federation, slot):
        late = [o for o in range(one.first_offset, one.next_offset) if stands.get(o, at) >= at]
        if late:
            yield f"8: window {one.sequence} of {name} was published before the verdicts of {late[:3]}"


def _published(federation: Federation, slot: Slot) -> Iterator[tuple[int, Aggregate]]:
    """Every window that a worker signed, and where it stands in the order of all appends."""
    place = (aggregates_topic(federation.genesis.task, slot[0]), slot[1])
    for record in federation.log.records[place]:
        one = aggregate_in(record.value, record.timestamp_ms, federation.trust, federation.genesis.task, slot)
        if not isinstance(one, Unverified) and (place, record.offset) not in federation.strikes.liar.told:
            yield federation.log.order[place, record.offset], one


def _windows(federation: Federation, slot: Slot, state: PartitionState) -> Iterator[str]:
    """The hashes of the windows that close from ``state`` on."""
    for effect, sealed in _effects(federation, slot, state):
        if isinstance(effect, WindowClosed):
            yield encode_window(sealed, effect).aggregate.sha256


def _effects(
    federation: Federation, slot: Slot, state: PartitionState
) -> Iterator[tuple[Effect, PartitionState]]:
    """What folding the log from ``state`` on has for effects, each with the state that it left."""
    records = federation.log.records[updates_topic(federation.genesis.task, slot[0]), slot[1]]
    for record in records[state.next_offset :]:
        event = federation.defect.event(slot, record) or decode_record(
            record.value, record.timestamp_ms, federation.trust, state.policy
        )
        if isinstance(event, Barrier) and state.applies(event):
            reference = _reference(federation, event.reference_sha256)
            guide = _guide(federation, event.guide_sha256)
            event = replace(event, policy=federation.policy, reference=reference, guide=guide)
        for effect in fold_into(state, record.offset, event):
            state.validate()
            yield effect, state


def _first_state(federation: Federation, slot: Slot) -> PartitionState:
    genesis = federation.genesis
    return initial(
        task=genesis.task,
        region=slot[0],
        partition=slot[1],
        partitions=genesis.partitions[slot[0]],
        layout=federation.layout,
        policy=federation.policy,
        model_sha256=genesis.model_sha256,
    )


def _restored(federation: Federation, slot: Slot, one: Aggregate) -> PartitionState:
    data = federation.objects.objects[object_key(federation.genesis.task, one.state_sha256)]
    _, reference_sha256, guide_sha256 = state_names(data)
    return restore_state(
        data,
        one,
        partitions=federation.genesis.partitions[slot[0]],
        layout=federation.layout,
        policy=federation.policy,
        reference=_reference(federation, reference_sha256),
        guide=direction_of_guide(_guide(federation, guide_sha256)),
    )


def _guide(federation: Federation, sha256: str) -> Guide | None:
    if not sha256:
        return None
    data = federation.objects.objects[object_key(federation.genesis.task, sha256)]
    return guide_in(data, federation.trust, federation.genesis.task, federation.layout)


def _reference(federation: Federation, sha256: str) -> Direction | None:
    if not sha256:
        return None
    data = federation.objects.objects[object_key(federation.genesis.task, sha256)]
    return decode_direction(data, federation.layout)
