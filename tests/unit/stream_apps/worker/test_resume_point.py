"""What a worker concludes from the ends of its logs: where to go on, what stands, and what is not right."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Self

from aggregation.fold.events import Verdict
from backends.log import LogRecord
from schemas.avro import encode, encode_as
from schemas.certificates import Role
from schemas.topics import aggregates_topic, updates_topic, verdicts_topic
from stream_apps.worker.resume_point import (
    CONTENTS_MAX,
    VERDICT_BYTES_MAX,
    WINDOWS_FOLDED_AGAIN,
    read_published_verdicts,
    read_resume_point,
)
from tests import factories
from tests.factories import verdict_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK, REGION = factories.TASK, factories.REGION
UPDATES, VERDICTS = updates_topic(TASK, REGION), verdicts_topic(TASK, REGION)
AGGREGATES = aggregates_topic(TASK, REGION)


class Logs:
    """Partition 0 of some topics, in memory."""

    def __init__(self) -> None:
        self.topics: dict[str, list[LogRecord]] = {UPDATES: [], VERDICTS: [], AGGREGATES: []}

    def append(self, topic: str, *values: bytes) -> None:
        records = self.topics.setdefault(topic, [])
        for value in values:
            records.append(LogRecord(topic, 0, len(records), factories.NOW_MS, None, value))

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


def standing(logs: Logs, start: int = 0) -> tuple[list[int], int, int]:
    found = read_published_verdicts(logs, TASK, REGION, 0, start)
    return sorted(found.verdicts), found.judged, found.end


def test_only_verdicts_from_the_snapshot_on_are_looked_for() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 40)
    logs.append(VERDICTS, *[verdict(offset) for offset in range(35)])
    assert standing(logs, start=30) == ([30, 31, 32, 33, 34], 35, 40)


def test_a_copy_and_junk_in_the_verdicts_topic_change_nothing() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 9)
    logs.append(VERDICTS, verdict(0), b"junk", verdict(1), verdict(0), b"", verdict(2), b"x" * 10_000)
    assert standing(logs) == ([0, 1, 2], 3, 9)


def test_a_verdict_whose_beginning_is_one_is_none_as_a_whole() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 9)
    fields = {one.name: getattr(Verdict(1, "accepted"), one.name) for one in dataclasses.fields(Verdict)}
    del fields["because"]
    empty = encode_as("Verdict", 1, fields | {"detail": ""})
    planted = encode_as("Verdict", 1, fields | {"detail": "x" * (VERDICT_BYTES_MAX - len(empty) - 1)})
    assert len(planted) == VERDICT_BYTES_MAX
    logs.append(VERDICTS, verdict(0), planted + b"x")
    assert standing(logs) == ([0], 1, 9)


def test_a_planted_verdict_far_ahead_hides_nothing_and_stops_nothing() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 5)
    logs.append(VERDICTS, verdict(0), verdict(1), verdict(4_000_000_000), verdict(70))
    assert standing(logs) == ([0, 1], 2, 5)


def test_verdicts_without_a_gap_beyond_the_end_of_the_log_say_that_it_was_cut() -> None:
    logs = Logs()
    logs.append(UPDATES, *[b"u"] * 3)
    logs.append(VERDICTS, *[verdict(offset) for offset in range(5)])
    _, judged, end = standing(logs)
    assert (judged, end) == (5, 3)


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
