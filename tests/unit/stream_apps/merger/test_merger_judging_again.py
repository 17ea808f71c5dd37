"""What the merger asks of a log while it judges: no more folds than needed, and no answer for an error."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import AccessProblem
from schemas.topics import updates_topic
from stream_apps.merger.merger import Merger
from stream_apps.merger.windows import DROPPED_S, Windows
from tests.unit.stream_apps.merger.test_merger_judging import SLOT, Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from backends.log import LogRecord, RecordReader, TopicReader


@dataclass
class Log:
    """Readers of a log: ``refused``, or as if it ended at ``end``; ``begun`` counts reads by their first offset."""

    site: Site
    refused: bool = False
    end: int = 10**6
    begun: Counter[int] = field(default_factory=Counter)

    def open(self, purpose: str) -> RecordReader:
        return Reader(self, self.site.federation.open_reader(purpose))


class Reader:
    def __init__(self, log: Log, reader: TopicReader) -> None:
        self._log, self._reader = log, reader
        self._updates = updates_topic(log.site.federation.task, "eu")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        low, end = self._reader.bounds(topic, partition)
        return low, min(end, self._log.end) if topic == self._updates else end

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        if topic == self._updates:
            self._log.begun[start] += 1
            if self._log.refused:
                raise AccessProblem("FLV-3115", "not authorized")
        return self._reader.read(topic, partition, start, end)

    def last(self, topic: str, partition: int) -> LogRecord | None:
        return self._reader.last(topic, partition)


@pytest.fixture
def log() -> Log:
    """The log of a site whose merger has taken nothing yet."""
    log = Log(Site())
    log.site.context = replace(log.site.context, open_reader=log.open)
    log.site.windows = Windows(log.site.context, {SLOT: 0})
    return log


def test_a_merger_that_may_not_read_the_log_ends_and_takes_no_lie_instead(log: Log) -> None:
    log.refused = True
    log.site.offer(log.site.lie(0))
    with pytest.raises(AccessProblem, match="FLV-3115"):
        log.site.offer(log.site.honest[0])


def test_claims_of_what_the_log_has_not_closed_fold_it_from_its_beginning_once(log: Log) -> None:
    log.site.offer(log.site.lie(0), *log.site.honest)
    assert log.site.windows.judging.barred
    log.begun.clear()
    for _ in range(10):
        log.site.offer(log.site.lie(2, sequence=3, first_offset=8, next_offset=12))
        log.site.federation.append("eu", 0, b"junk")  # the log grows meanwhile
    assert log.begun == {12: 10, 4: 1, 0: 1}, "folds from what is proven, and one search for Skips"
    assert len(log.site.told.disproved) == 11
    log.site.expect_honest(3)


def test_a_window_beyond_a_log_that_was_cut_counts_once_the_log_is_whole(log: Log) -> None:
    log.end = 10
    log.site.offer(*log.site.honest)
    log.site.expect_honest(2)
    merger = Merger(log.site.context)
    merger._windows = log.site.windows
    log.end = 10**6
    log.site.windows.take_dropped()
    log.site.expect_honest(2)
    log.site.context.clock.sleep(DROPPED_S)
    merger.merge_if_due()
    assert merger.head.number == 1
    assert merger.head.cursors[SLOT] + len(log.site.waiting()) == 3
