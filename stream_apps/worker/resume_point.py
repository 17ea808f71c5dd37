"""What a partition's logs say about where to go on: the newest window, the standing verdicts, a cut log."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aggregation.errors import IntegrityProblem
from aggregation.fold.state import PartitionState
from backends.log import RecordReader
from backends.reading_back import backwards
from schemas.avro import CodecError
from schemas.certificates import Identity, Trust
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from schemas.vouching import ClaimedHead, HeadPlace, head_in
from stream_apps.published import Claim, read_claim

WINDOWS_FOLDED_AGAIN: Final = 4
"""So many windows that others signed are folded again before their state is gone on from."""
CONTENTS_MAX: Final = 8
"""Contents of one window that are told apart: two are enough to go by none of them."""
PUBLISHED_MAX: Final = 65_536
VERDICT_BYTES_MAX: Final = 4096

log = logging.getLogger("fluvial.worker")


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The windows that were read from the end of a partition's output: by sequence, each different content once.

    ``end`` is where the log ends. A window is a claim: a worker's key can sign what the log does not give.
    """

    windows: Mapping[int, tuple[Claim, ...]]
    end: int

    @property
    def base(self) -> Claim | None:
        """The newest window whose state one may go on from, which nobody disputes; None: from the log's beginning.

        ``WINDOWS_FOLDED_AGAIN`` windows of other sequences lie behind it, and all of a sequence with two contents: they
        are folded again, and so a lie among them is found.
        """
        disputed = [at for at, claims in self.windows.items() if len(claims) > 1]
        for behind, sequence in enumerate(sorted(self.windows, reverse=True)):
            if behind >= WINDOWS_FOLDED_AGAIN and sequence < min(disputed, default=sequence + 1):
                return self.windows[sequence][0]
        return None

    @property
    def furthest(self) -> Claim | None:
        """The window that reaches furthest into the log."""
        claims = [one for claims in self.windows.values() for one in claims]
        return max(claims, key=lambda one: one.aggregate.next_offset, default=None)

    def without_beyond(self, serials: Collection[str]) -> ResumePoint:
        """The same without what these certificates signed of records beyond the log's end."""
        left = {
            at: tuple(
                one for one in claims if one.aggregate.next_offset <= self.end or one.serial not in serials
            )
            for at, claims in self.windows.items()
        }
        return replace(self, windows={at: claims for at, claims in left.items() if claims})

    def contradicts(self, state: PartitionState) -> bool:
        """Whether somebody signed another window than the one that ``state`` has closed last."""
        claims = self.windows.get(state.sequence - 1, ())
        return any(one.aggregate.sha256 != state.previous_sha256 for one in claims)

    def standing(self, state: PartitionState) -> dict[int, frozenset[str]]:
        """The hashes of what stands already of the windows that ``state`` has yet to close, by sequence."""
        return {
            at: frozenset(one.aggregate.sha256 for one in claims)
            for at, claims in self.windows.items()
            if at >= state.sequence
        }


@dataclass(frozen=True, slots=True)
class PublishedVerdicts:
    """Verdicts that stand already, by offset, as bytes, and where the log ends.

    ``longer`` says who vouches that the log was longer than it is, and how far it reached, each voucher's highest.
    ``unvouched`` is how many verdicts of offsets behind the log's end stand there.
    """

    verdicts: dict[int, bytes]
    end: int
    longer: tuple[tuple[int, Identity], ...] = ()
    unvouched: int = 0

    def without(self, serials: Collection[str]) -> PublishedVerdicts:
        """The same where nothing that these certificates vouch for counts."""
        return replace(self, longer=tuple(one for one in self.longer if one[1].serial not in serials))


class WindowsReadBack:
    """The windows at the end of a partition's output, read from its end back, a piece at a time.

    ``known`` has each different content of a sequence once, ``CONTENTS_MAX`` of one at most; ``read`` says how many
    records were looked at, ``start`` from which offset on.
    """

    def __init__(self, reader: RecordReader, trust: Trust, task: str, region: str, partition: int) -> None:
        self.known: dict[int, tuple[Claim, ...]] = {}
        self.read = 0
        topic = aggregates_topic(task, region)
        _, self.start = reader.bounds(topic, partition)
        self._pieces = backwards(reader, topic, partition)
        self._of = (trust, task, region)

    def more(self) -> bool:
        """Read the next piece; False where there is none."""
        records = next(self._pieces, None)
        if records is None:
            self.start = 0
            return False
        for record in records:
            claim = read_claim(record, *self._of, log)
            if claim is None:
                continue
            others = self.known.get(claim.aggregate.sequence, ())
            if len(others) < CONTENTS_MAX and all(
                one.aggregate.sha256 != claim.aggregate.sha256 for one in others
            ):
                self.known[claim.aggregate.sequence] = (*others, claim)
        self.read += len(records)
        self.start = min([self.start, *(record.offset for record in records)])
        return True


def read_resume_point(
    reader: RecordReader, trust: Trust, task: str, region: str, partition: int
) -> ResumePoint:
    """The windows near the end of the partition's output that a worker of its region signed, as many as it takes."""
    windows = WindowsReadBack(reader, trust, task, region, partition)
    while windows.more() and ResumePoint(windows.known, 0).base is None:
        pass
    # The end after the windows: meanwhile others may append and fold.
    _, end = reader.bounds(updates_topic(task, region), partition)
    return ResumePoint(windows.known, end)


def read_published_verdicts(
    reader: RecordReader, trust: Trust, task: str, place: HeadPlace, start: int
) -> PublishedVerdicts:
    """The verdicts that stand already on the offsets from ``start`` on: they need not be written again.

    Verdicts stand in the order of their offsets, but for copies that a worker wrote which had lost its partition.
    At most ``PUBLISHED_MAX`` are looked at: the rest is written again, and readers drop the copies. Anybody can have
    written what claims to judge an offset beyond the log's end: it is left out, and counted. That the log was longer
    is said by whom a CA of the task vouches for as a worker of the region: by the heads among the verdicts.
    """
    region, partition = place.slot
    topic, updates = verdicts_topic(task, region), updates_topic(task, region)
    standing: dict[int, bytes] = {}
    longer: dict[str, tuple[int, Identity]] = {}
    beyond: Counter[int] = Counter()
    _, ended = reader.bounds(updates, partition)
    looked_at = 0
    for records in backwards(reader, topic, partition):
        oldest = None
        for record in records:
            value = record.value or b""
            if (claimed := head_in(record.headers)) is not None and claimed.stretch.next_offset > ended:
                _take_head(claimed, record.timestamp_ms, trust, place, longer)
            try:
                # No worker writes a longer one, and whoever does may write many.
                offset = decode_verdict(value if len(value) <= VERDICT_BYTES_MAX else b"").offset
            except CodecError:
                log.warning(
                    "%s[%d]@%d is not a verdict",
                    topic,
                    partition,
                    record.offset,
                    extra={"partition": partition, "offset": record.offset},
                )
                continue
            if offset >= ended and len(beyond) < PUBLISHED_MAX:
                beyond[offset] += 1
            oldest = offset if oldest is None else min(oldest, offset)
            if start <= offset < start + PUBLISHED_MAX:
                standing[offset] = value
        looked_at += len(records)
        # A copy of an old one may stand behind those that are wanted: then they go on further back.
        if oldest is not None and oldest < start and (not standing or start in standing):
            break
        if looked_at >= PUBLISHED_MAX:
            break
    # The end after the verdicts: meanwhile others may append and judge.
    _, end = reader.bounds(updates, partition)
    return PublishedVerdicts(
        {at: value for at, value in standing.items() if at < end},
        end,
        tuple(one for one in longer.values() if one[0] > end),
        sum(count for offset, count in beyond.items() if offset >= end),
    )


def _take_head(
    claimed: ClaimedHead,
    timestamp_ms: int,
    trust: Trust,
    place: HeadPlace,
    longer: dict[str, tuple[int, Identity]],
) -> None:
    """Keep how far a worker says that the log reached, if it is further than it said before."""
    voucher = claimed.voucher(timestamp_ms, trust, place)
    reached = claimed.stretch.next_offset
    if voucher is not None and (voucher.serial not in longer or longer[voucher.serial][0] < reached):
        longer[voucher.serial] = (reached, voucher)


def log_was_cut(where: str, end: int, folded: int, voucher: Identity | None = None) -> IntegrityProblem:
    """FLV-3204. Kafka would read such a log from its beginning, and what is new in it would pass for folded before.

    ``voucher`` is the worker on whose word it was longer; None where a window that was published says so.
    """
    said = "" if voucher is None else f": worker {voucher.name} vouches for it (certificate {voucher.serial})"
    return IntegrityProblem(
        "FLV-3204",
        f"the log ends at offset {end}, it was folded up to {folded} already{said}",
        where=where,
        hint="the log was cut, made anew or restored from an older copy: bring the missing records back, "
        "see docs/runbooks/truncated-log.md",
    )
