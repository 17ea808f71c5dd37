"""A recorded order of arrivals: who came when, on which base, and which windows a version took, from a real run's logs.

Of an update that a device made of its task stands there who sent it, on which version and when (LogAppendTime), and the
hash of its numbers: the numbers themselves are trained anew (``replaying``). Every other record stands there as it was:
barriers, ticks, an operator's records, and what was no update.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from aggregation.defences import defence_named
from aggregation.errors import EnvironmentProblem, FluvialError, UsageProblem
from aggregation.fold.events import Barrier, Skip, Update
from schemas.manifests import decode_genesis
from schemas.records import decode_record
from schemas.topics import updates_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from aggregation.server.aggregates import Slot
    from backends.log import LogRecord, RecordReader
    from backends.store.task_store import TaskStore
    from schemas.manifests import Genesis, Manifest

FORMAT: Final = "fluvial/arrivals/v1"
BYTES_MAX: Final = 1 << 30
"""Of a file of arrivals."""
VERSIONS_MAX: Final = 1_000_000
DEVICES_MAX: Final = 1 << 20
_Count = Annotated[int, msgspec.Meta(ge=0)]


class Arrival(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One record of a partition. ``at_ms``: its LogAppendTime.

    An update that is trained anew has ``device``, ``base`` (a version), ``codec`` and ``digest`` (``digest_of``); any
    other record has its bytes, ``value``.
    """

    at_ms: _Count
    device: str = ""
    base: _Count = 0
    codec: str = ""
    digest: str = ""
    value: bytes | None = None


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version: the windows (region, partition, sequence) that it took, in order, and what it came to."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    windows: tuple[tuple[str, _Count, _Count], ...]
    model_sha256: str
    optimizer_sha256: str


class Partition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The records of one partition from offset 0 on."""

    region: str
    partition: _Count
    records: tuple[Arrival, ...]


class Arrivals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of arrivals. ``genesis``: the canonical document.

    ``seed``, ``devices``, ``alpha`` and ``settings`` are how the run dealt out its data and trained.
    """

    genesis: str
    seed: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
    devices: Annotated[int, msgspec.Meta(ge=1, le=DEVICES_MAX)]
    alpha: Annotated[float, msgspec.Meta(gt=0)]
    settings: dict[str, Any]
    partitions: tuple[Partition, ...]
    versions: Annotated[tuple[Chosen, ...], msgspec.Meta(min_length=1, max_length=VERSIONS_MAX)]
    format: str = FORMAT

    @property
    def updates(self) -> int:
        """How many updates are trained anew."""
        return sum(bool(one.device) for partition in self.partitions for one in partition.records)

    def to_bytes(self) -> bytes:
        """The file: JSON."""
        return msgspec.json.encode(self)

    def genesis_document(self) -> Genesis:
        """The task's genesis. ValueError where it is none."""
        return decode_genesis(self.genesis.encode())


def digest_of(codec: str, num_examples: int, tensors: Iterable[tuple[str, float, bytes | memoryview]]) -> str:
    """SHA-256 (hex) over an update's numbers: codec, examples, and of each tensor name, scale (float64) and data."""
    digest = hashlib.sha256(f"{codec}/{num_examples}".encode())
    for name, scale, data in tensors:
        digest.update(f"/{name}/{float(scale).hex()}/{len(data)}/".encode())
        digest.update(data)
    return digest.hexdigest()


def record_digest(record: Mapping[str, Any]) -> str:
    """``digest_of`` a ClientUpdate as the Avro schema has it."""
    tensors = ((one["name"], one["scale"], one["data"]) for one in record["tensors"])
    return digest_of(record["codec"], record["num_examples"], tensors)


def recorded_arrivals(
    genesis: Genesis,
    store: TaskStore,
    reader: RecordReader,
    *,
    seed: int,
    devices: int,
    alpha: float,
    settings: Mapping[str, Any],
) -> Arrivals:
    """The arrivals of a task's logs up to its newest version. UsageProblem FLV-2270: they cannot be played anew."""
    if defence_named(genesis.first_policy.defence.kind).guided:
        raise refused(f"the policy of {genesis.task} is guided, and a guardian's guides are in no arrivals")
    head = store.head()
    if head is None:
        raise refused(f"{genesis.task} has no version beyond its first model")
    manifests = {number: store.manifest(number) for number in range(1, head.version + 1)}
    models = {0: genesis.model_sha256} | {number: one.model_sha256 for number, one in manifests.items()}
    return Arrivals(
        genesis=genesis.canonical().decode(),
        seed=seed,
        devices=devices,
        alpha=alpha,
        settings=dict(settings),
        partitions=tuple(
            Partition(slot[0], slot[1], tuple(_records(genesis, reader, slot, models)))
            for slot in genesis.slots
        ),
        versions=tuple(_chosen(one) for one in manifests.values()),
    )


def _chosen(manifest: Manifest) -> Chosen:
    windows = tuple((one.region, one.partition, one.sequence) for one in manifest.inputs)
    return Chosen(manifest.version, windows, manifest.model_sha256, manifest.optimizer_sha256)


def _records(
    genesis: Genesis, reader: RecordReader, slot: Slot, models: Mapping[int, str]
) -> Iterator[Arrival]:
    """To the Barrier of the newest version, or to the end where it does not stand there yet."""
    topic, trust, known = updates_topic(genesis.task, slot[0]), genesis.trust, 0
    start, end = reader.bounds(topic, slot[1])
    if start:
        raise refused(f"{topic}[{slot[1]}] begins at offset {start}: its beginning is gone")
    for record in reader.read(topic, slot[1], 0, end):
        event = decode_record(record.value, record.timestamp_ms, trust, genesis.first_policy)
        if isinstance(event, Skip):
            raise refused(
                f"an operator has parked a record of {topic}[{slot[1]}]: the fold was defective there"
            )
        if isinstance(event, Update) and models.get(event.base_version) == event.base_sha256:
            yield _trained(record, event) if event.base_version <= known else _kept(record)
            continue
        yield _kept(record)
        if isinstance(event, Barrier):
            known = max(known, event.version)
            if known >= max(models):
                return


def _trained(record: LogRecord, event: Update) -> Arrival:
    tensors = zip(event.names, event.scales, event.data, strict=True)
    digest = digest_of(event.codec, event.num_examples, tensors)
    return Arrival(record.timestamp_ms, event.device_id, event.base_version, event.codec, digest)


def _kept(record: LogRecord) -> Arrival:
    return Arrival(record.timestamp_ms, value=record.value or b"")


def read_arrivals(path: Path) -> Arrivals:
    """The arrivals in a file. UsageProblem FLV-2270 where they are none."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= BYTES_MAX else b""
    except OSError as error:
        raise refused(f"it cannot be read: {error.strerror}", str(path)) from error
    if size > BYTES_MAX:
        raise refused(f"it has {size} bytes, arrivals have at most {BYTES_MAX}", str(path))
    return parsed(data, str(path))


def parsed(data: bytes, where: str = "") -> Arrivals:
    """The arrivals in bytes. UsageProblem FLV-2270 where they are none, or do not hold together."""
    try:
        found = msgspec.json.decode(data, type=Arrivals)
        slots = set(found.genesis_document().slots)
    except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors
        raise refused(f"it is no file of arrivals: {error}", where) from error
    except FluvialError as error:
        raise refused(f"its genesis is none: {error.message}", where) from error
    if found.format != FORMAT:
        raise refused(f"its format is {found.format!r}, this Fluvial reads {FORMAT}", where)
    if [one.version for one in found.versions] != list(range(1, len(found.versions) + 1)):
        raise refused("its versions are not 1, 2, 3 and so on", where)
    if {(one.region, one.partition) for one in found.partitions} != slots or len(found.partitions) != len(
        slots
    ):
        raise refused("its partitions are not those of its genesis", where)
    for chosen in found.versions:
        if any((region, partition) not in slots for region, partition, _ in chosen.windows):
            raise refused(f"version {chosen.version} names a window of no partition of its genesis", where)
    return found


def write_arrivals(path: Path, arrivals: Arrivals) -> None:
    """Write the file. EnvironmentProblem FLV-6308 where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(arrivals.to_bytes())
    except OSError as error:
        raise EnvironmentProblem(
            "FLV-6308",
            f"the arrivals cannot be written: {error.strerror or error}",
            where=str(path),
            hint="choose another file with `--save-arrivals FILE`",
        ) from error


def refused(why: str, where: str = "") -> UsageProblem:
    """UsageProblem FLV-2270."""
    return UsageProblem(
        "FLV-2270",
        f"these arrivals cannot be played anew: {why}",
        where=where,
        hint="`fluvial audit` proves any log from its own records; docs/simulate.md says which can be trained anew",
    )
