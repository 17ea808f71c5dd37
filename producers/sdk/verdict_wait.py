"""Waiting for what a worker made of an update."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aggregation.errors import TimeoutProblem
from backends.kafka.reading import LogReader
from schemas.avro import CodecError
from schemas.topics import verdicts_topic
from schemas.verdicts import decode_verdict

if TYPE_CHECKING:
    from aggregation.fold.events import Verdict
    from backends.log import LogRecord
    from backends.settings import Settings
    from producers.sdk.updates import Author


def await_verdict(
    settings: Settings, author: Author, partition: int, offset: int, *, place: str, timeout_s: float
) -> Verdict:
    """The verdict on an update that stands in the log, at ``place`` in words; TimeoutProblem FLV-2503: none in time."""
    topic = verdicts_topic(author.genesis.task, author.region)
    deadline = time.monotonic() + timeout_s
    with LogReader(settings, f"fluvial-verdicts-{author.device_id}") as reader:
        # One verdict per offset and none out of turn: an update's verdict never stands before its own offset.
        start = min(offset, reader.bounds(topic, partition)[1])
        for record in reader.follow({(topic, partition): start}):
            if record is not None:
                verdict = _verdict_in(record)
                if verdict is not None and verdict.offset == offset:
                    return verdict
            if time.monotonic() > deadline:
                break
    raise TimeoutProblem(
        "FLV-2503",
        f"no verdict on {place} within {timeout_s:g} s",
        where=f"topic {topic}[{partition}]",
        hint=f"is a worker running? start one with `fluvial worker --task {author.genesis.task} "
        f"--region {author.region}`",
    )


def _verdict_in(record: LogRecord) -> Verdict | None:
    """The verdict in a record; None when somebody wrote something else there."""
    try:
        return decode_verdict(record.value or b"")
    except CodecError:
        return None
