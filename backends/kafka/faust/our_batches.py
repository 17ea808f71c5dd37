"""aiokafka's consumers, and so the workers, read by ``backends.kafka.batches`` as audits do.

aiokafka unpacks a compressed batch as a whole, however large it gets (8 MB of zstd hold up to 268 GB), raises where a
header's name is not UTF-8, goes by the offsets that records claim, and leaves transactions' markers out.
``read_by_our_batches`` puts our own reading into its fetcher, for the whole process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Self

from aiokafka.consumer import fetcher
from aiokafka.structs import ConsumerRecord

from aggregation.errors import IntegrityProblem
from backends.kafka.batches import DamagedBatchError, batches_in, content_of, has_whole
from backends.kafka.cursor import barren, damaged
from backends.kafka.frames import receive_in_place
from backends.kafka.stretches import Stretch, stretches_of

FRUITLESS_FETCHES_MAX: Final = 3
"""What comes damaged, or holds nothing, is fetched so often: it may have been damaged on the way here."""
FETCH_UNPACKED_BYTES_MAX: Final = 32 << 20
"""A fetch is left after the batch that goes over this: 4 MB may hold hundreds of bombs, all unpacked at once."""


_fruitless: dict[tuple[str, int], tuple[int, int]] = {}
"""By partition, the offset from which nothing could be read, and how often it was fetched."""


def read_by_our_batches() -> None:
    """Let aiokafka's consumers in this process read by our rules. Calling it again changes nothing."""
    receive_in_place()
    fetcher.MemoryRecords = RawBatches
    fetcher.PartitionRecords = OurRecords
    fetcher.FetchResult = BoundedResult


class RawBatches:
    """The bytes of one fetch, in the place of aiokafka's ``MemoryRecords``: ``OurRecords`` reads them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def size_in_bytes(self) -> int:
        """Bytes of the whole fetch."""
        return len(self.data)

    def has_next(self) -> bool:
        """Whether there is anything to read; a damaged batch is, for reading it says so."""
        try:
            return has_whole(self.data)
        except DamagedBatchError:
            return True


class OurRecords:
    """The records of one fetch, in the place of aiokafka's ``PartitionRecords``: one for every offset.

    ``next_fetch_offset`` is where to fetch once they were taken. Where one lies behind a gap the fold notices. A later
    batch that is damaged is fetched again, and is the first then. Where the first is, or where nothing can be read,
    it is fetched again, and after ``FRUITLESS_FETCHES_MAX`` the one record is the problem, as its value (FLV-3107):
    an error would end the fetching of all partitions.
    """

    high: int | None = None
    """The high watermark, once ``BoundedResult`` has said it."""

    def __init__(self, tp: Any, records: RawBatches, _aborted: Any, fetch_offset: int, *_unused: Any) -> None:
        self.next_fetch_offset = fetch_offset
        self._place = tp
        self._data = records.data
        self._records = self._read()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ConsumerRecord:
        return next(self._records)

    def _read(self) -> Iterator[ConsumerRecord]:
        assert self.high is not None, "nothing is read before the watermark is known"
        unpacked_bytes, start = 0, self.next_fetch_offset
        error: DamagedBatchError | None = None
        try:
            for batch in batches_in(self._data, start, self.high):
                content = content_of(batch)
                unpacked_bytes += content.unpacked_bytes
                for stretch in stretches_of(batch, content):
                    yield from self._of(stretch)
                if unpacked_bytes > FETCH_UNPACKED_BYTES_MAX:
                    break  # what is left is fetched again
        except DamagedBatchError as damage:
            error = damage
        place = (self._place.topic, self._place.partition)
        if self.next_fetch_offset != start:
            _fruitless.pop(place, None)
            return
        before, times = _fruitless.get(place, (start, 0))
        times = times + 1 if before == start else 1
        _fruitless[place] = (start, times)
        if times >= FRUITLESS_FETCHES_MAX:
            yield self._unreadable(barren(place, start, times) if error is None else damaged(place, error))

    def _unreadable(self, problem: IntegrityProblem) -> ConsumerRecord:
        topic, partition = self._place
        return ConsumerRecord(topic, partition, self.next_fetch_offset, 0, 1, None, problem, None, -1, -1, ())

    def _of(self, stretch: Stretch) -> Iterator[ConsumerRecord]:
        topic, partition = self._place
        columns = zip(stretch.times_ms, stretch.keys, stretch.values, stretch.headers, strict=True)
        for offset, (timestamp_ms, key, value, headers) in enumerate(columns, stretch.first):
            self.next_fetch_offset = offset + 1
            yield ConsumerRecord(
                topic,
                partition,
                offset,
                timestamp_ms,
                int(stretch.by_append),
                key,
                value,
                None,
                -1 if key is None else len(key),
                -1 if value is None else len(value),
                headers,
            )


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]
    """A fetch's records, which know the high watermark that came with them."""

    def __init__(self, tp: Any, *, assignment: Any, partition_records: OurRecords, backoff: float) -> None:
        partition_records.high = assignment.state_value(tp).highwater
        super().__init__(tp, assignment=assignment, partition_records=partition_records, backoff=backoff)

    def getall(self, max_records: int | None = None) -> list[ConsumerRecord]:
        """As aiokafka's; a partition that cannot be read is fetched no more until it is assigned anew."""
        records: list[ConsumerRecord] = super().getall(max_records)
        if records and isinstance(records[-1].value, IntegrityProblem):
            self._assignment.state_value(self._topic_partition).pause()
        return records
