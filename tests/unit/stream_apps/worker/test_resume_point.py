"""What a worker concludes from the ends of its logs: where to go on, what stands, and what is not right."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

import pytest

from aggregation.fold.events import Verdict
from backends.log import Headers, LogRecord
from schemas.avro import encode, encode_as
from schemas.certificates import Role
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from schemas.vouching import HEADER, HeadPlace, Stretch, sign_head
from stream_apps.worker.resume_point import (
    CONTENTS_MAX,
    VERDICT_BYTES_MAX,
    WINDOWS_FOLDED_AGAIN,
    PublishedVerdicts,
    read_published_verdicts,
    read_resume_point,
)
from tests import factories
from tests.factories import verdict_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.envelope import Signer

TASK, REGION = factories.TASK, factories.REGION
UPDATES, VERDICTS = updates_topic(TASK, REGION), verdicts_topic(TASK, REGION)
AGGREGATES = aggregates_topic(TASK, REGION)
HERE = HeadPlace(bytes.fromhex(factories.sha("genesis")), (REGION, 0))


class Logs:
    """Partition 0 of some topics, in memory."""

    def __init__(self) -> None:
        self.topics: dict[str, list[LogRecord]] = {UPDATES: [], VERDICTS: [], AGGREGATES: []}

    def append(self, topic: str, *values: bytes) -> None:
        records = self.topics.setdefault(topic, [])
        for value in values:
            records.append(LogRecord(topic, 0, len(records), factories.NOW_MS, None, value))

    def put_head(self, headers: Headers, timestamp_ms: int = factories.NOW_MS) -> None:
        """A copy of the newest verdict, with these headers."""
        records = self.topics[VERDICTS]
        value = records[-1].value if records else verdict(0)
        records.append(LogRecord(VERDICTS, 0, len(records), timestamp_ms, None, value, headers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        assert partition == 0
        return 0, len(self.topics.get(topic, ()))

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        assert partition == 0
        yield from self.topics.get(topic, [])[start:end]

    def last(self, topic: str, partition: int) -> LogRecord | None:
        assert partition == 0
        found = self.topics.get(topic)
        return found[-1] if found else None


def verdict(offset: int, outcome: str = "accepted") -> bytes:
    return verdict_bytes(Verdict(offset, outcome))


def window(sequence: int, *, salt: str = "", by: str = "w-1", role: Role = Role.WORKER) -> bytes:
    record = {
        "task": TASK,
        "region": REGION,
        "partition": 0,
        "sequence": sequence,
        "first_offset": sequence,
        "next_offset": sequence + 1,
        "version": 0,
        "policy_sha256": factories.sha("policy"),
        "counts": {"accepted": 1},
        "accepted": 1,
        "weight_total": 1 << 16,
        "staleness_total": 0,
        "staleness_max": 0,
        "update_bytes": 500,
        "sum_sha256": factories.sha(f"sum {sequence}{salt}"),
        "state_sha256": factories.sha("state"),
        "contributors_sha256": factories.sha("contributors"),
        "previous_sha256": "",
    }
    signer = factories.signer(REGION, role, by)
    return signer.sign_payload("RegionalAggregate", encode("RegionalAggregate", record))


def published(logs: Logs, start: int = 0) -> PublishedVerdicts:
    return read_published_verdicts(logs, factories.trust(), TASK, HERE, start)


def standing(logs: Logs, start: int = 0) -> tuple[list[int], int, int]:
    found = published(logs, start)
    assert found.longer == ()
    return sorted(found.verdicts), found.unvouched, found.end


def test_only_verdicts_from_the_snapshot_on_are_looked_for() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 40)
    logs.append(VERDICTS, *[verdict(offset) for offset in range(35)])
    assert standing(logs, start=30) == ([30, 31, 32, 33, 34], 0, 40)


def test_a_copy_and_junk_in_the_verdicts_topic_change_nothing() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 9)
    logs.append(VERDICTS, verdict(0), b"junk", verdict(1), verdict(0), b"", verdict(2), b"x" * 10_000)
    assert standing(logs) == ([0, 1, 2], 0, 9)


def test_a_verdict_whose_beginning_is_one_is_none_as_a_whole() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 9)
    fields = {one.name: getattr(Verdict(1, "accepted"), one.name) for one in dataclasses.fields(Verdict)}
    del fields["because"]
    empty = encode_as("Verdict", 1, fields | {"detail": ""})
    planted = encode_as("Verdict", 1, fields | {"detail": "x" * (VERDICT_BYTES_MAX - len(empty) - 1)})
    assert len(planted) == VERDICT_BYTES_MAX
    logs.append(VERDICTS, verdict(0), planted + b"x")
    assert standing(logs) == ([0], 0, 9)


def test_a_planted_verdict_far_ahead_hides_nothing_and_stops_nothing() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 5)
    logs.append(VERDICTS, verdict(0), verdict(1), verdict(4_000_000_000), verdict(70))
    assert standing(logs) == ([0, 1], 2, 5)


def test_verdicts_beyond_the_end_of_the_log_that_nobody_vouches_for_are_counted_and_stop_nobody() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 3)
    logs.append(VERDICTS, *[verdict(offset) for offset in range(5)])
    assert standing(logs) == ([0, 1, 2], 2, 3)


def head(next_offset: int, *, by: Signer | None = None, place: HeadPlace | None = None) -> Headers:
    stretch = Stretch(0, next_offset, bytes(32))
    return ((HEADER, sign_head(stretch, by or factories.worker_signer(), place or HERE)),)


def test_a_head_that_a_worker_signed_says_how_far_the_log_reached() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 3)
    logs.append(VERDICTS, *[verdict(offset) for offset in range(5)])
    for reached in (5, 4, 3):
        logs.put_head(head(reached))
    ((reached, voucher),) = published(logs).longer
    assert (reached, voucher.name) == (5, "w-1")
    assert published(logs).without({voucher.serial}).longer == ()


def certificate(name: str) -> bytes:
    return factories.worker_signer(name).certificate


ELSEWHERE = HeadPlace(bytes(32), (REGION, 0))
FORGED_HEADS: dict[str, Headers] = {
    "by a device": head(9, by=factories.device_signer("d-1")),
    "by a merger": head(9, by=factories.merger_signer()),
    "by a worker of another region": head(9, by=factories.worker_signer("w-1", "us")),
    "by a worker of another CA of that name": head(
        9, by=factories.signer(REGION, Role.WORKER, "w-1", secret="x")
    ),
    "by one whose certificate had expired": head(
        9, by=factories.signer(REGION, Role.WORKER, "w-1", not_after=factories.NOT_BEFORE)
    ),
    "of a task of another genesis": head(9, place=ELSEWHERE),
    "of another partition": head(9, place=HeadPlace(HERE.genesis_sha256, (REGION, 1))),
    "of another region": head(9, place=HeadPlace(HERE.genesis_sha256, ("us", 0))),
    "two at once": head(9) + head(9),
    "with another's certificate": ((HEADER, head(9)[0][1].replace(certificate("w-1"), certificate("w-2"))),),
    "cut short": ((HEADER, head(9)[0][1][:-1]),),
    "with a byte more": ((HEADER, head(9)[0][1] + b"x"),),
    "with one bit of another offset": ((HEADER, head(9)[0][1].replace(b"\x09\0\0\0", b"\x0b\0\0\0")),),
    "of another format": ((HEADER, b"\x02" + head(9)[0][1][1:]),),
    "empty": ((HEADER, b""),),
    "of another name": (("fluvial-verdicts-heads", head(9)[0][1]),),
}


@pytest.mark.parametrize("name", FORGED_HEADS)
def test_a_head_that_no_worker_of_the_region_signed_for_this_task_says_nothing(name: str) -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 3)
    logs.append(VERDICTS, *[verdict(offset) for offset in range(3)])
    logs.put_head(FORGED_HEADS[name])
    assert standing(logs) == ([0, 1, 2], 0, 3)


def test_what_certificate_and_record_are_goes_by_the_time_at_which_it_was_appended() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 3)
    logs.put_head(head(9), timestamp_ms=factories.NOW_MS + 400 * 86_400_000 * 30)
    assert published(logs).longer == ()


def windows_in(*values: bytes) -> dict[int, int]:
    """How many contents were read of each sequence."""
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 10)
    logs.append(AGGREGATES, *values)
    found = read_resume_point(logs, factories.trust(), TASK, REGION, 0)
    assert found.end == 10
    return {sequence: len(claims) for sequence, claims in found.windows.items()}


def test_the_windows_are_those_that_a_worker_signed() -> None:
    assert windows_in(window(0), window(1), window(0), b"junk", window(7, role=Role.DEVICE)) == {0: 1, 1: 1}


def test_two_windows_of_one_sequence_with_other_content_are_two() -> None:
    assert windows_in(window(0), window(1, by="w-1"), window(1, by="w-2"), window(1, salt="other")) == {
        0: 1,
        1: 2,
    }


def test_of_a_flood_of_contents_of_one_window_a_few_are_kept() -> None:
    assert windows_in(*[window(1, salt=str(number)) for number in range(40)]) == {1: CONTENTS_MAX}


def test_windows_are_found_behind_more_junk_than_one_piece_holds() -> None:
    assert windows_in(window(0), *[b"junk"] * 300) == {0: 1}


def test_it_is_read_back_until_enough_windows_lie_behind_one() -> None:
    read = windows_in(*[window(sequence) for sequence in range(60)])
    assert set(range(60 - WINDOWS_FOLDED_AGAIN - 1, 60)) <= set(read)
    assert 0 not in read


def test_a_copy_of_an_old_verdict_at_the_end_hides_none_of_those_that_stand() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 60)
    logs.append(
        VERDICTS, *[verdict(offset) for offset in range(60)], *[verdict(offset) for offset in range(6)]
    )
    assert standing(logs, start=30)[0] == list(range(30, 60))
