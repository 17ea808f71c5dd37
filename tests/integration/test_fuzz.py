"""The fuzzer, bounded: `make fuzz` runs the same for 100,000 records."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer

from aggregation.fold.rejections import ACCEPTED
from backends.kafka.unpacking import BATCH_UNPACKED_BYTES_MAX
from fluvial.proof.audit import audit_task
from schemas.topics import updates_topic, verdicts_topic
from tests import factories
from tests.fuzz import mutator
from tests.fuzz.campaign import Campaign
from tests.integration.pipeline import Federation
from tests.waiting import WAIT_S, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backends.settings import Settings

RECORDS = 2000
PER_SECOND = 400.0


def test_bad_records_beside_honest_ones_get_their_verdicts_and_change_nothing(
    stack: Settings, tmp_path: Path
) -> None:
    report = Campaign(stack, tmp_path, records=RECORDS, seed=1, per_second=PER_SECOND).run()
    assert not report.findings, "\n".join(report.findings[:10])
    assert report.identical
    assert set(mutator.names()) <= set(report.by_mutation)
    assert report.by_mutation["honest"] == {"accepted": RECORDS // 10}


SLOT = ("eu", 0)
POLICY = factories.policy(window={"updates_max": 2, "seconds_max": 3600.0}, buffer={"updates": 2})


@pytest.fixture
def federation(stack: Settings, tmp_path: Path) -> Iterator[Federation]:
    federation = Federation(stack, tmp_path, {"eu": 1}, POLICY)
    yield federation
    federation.end()


def append_with_a_header_that_is_not_text(federation: Federation, value: bytes) -> None:
    """As a client in another language could: its name is no UTF-8, which the broker takes as it comes."""

    async def produce() -> None:
        topic = updates_topic(federation.task, "eu")
        async with AIOKafkaProducer(bootstrap_servers=federation.settings.bootstrap_servers) as producer:
            batch = producer.create_batch()
            batch.append(key=None, value=value, timestamp=None, headers=[("a-name", b"")])
            batch.close()
            built = bytearray(bytes(batch._build()).replace(b"a-name", b"\xff\xfe\xfd\xfc\xfb\xfa"))
            struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[21:])))
            batch._buffer = built
            await (await producer.send_batch(batch, topic, partition=0))

    asyncio.run(produce())


@pytest.mark.parametrize("compression", ["gzip", "lz4"])
def test_batches_that_would_end_a_consumer_get_verdicts(federation: Federation, compression: str) -> None:
    """A header name that is not text; a batch beyond all bounds once it is unpacked. The audit sees the same."""
    federation.keep_what_producers_write()
    worker = federation.start("worker")
    federation.append(SLOT, federation.update("d-1"))
    append_with_a_header_that_is_not_text(federation, b"not an update")
    bomber = Producer(
        {
            "bootstrap.servers": federation.settings.bootstrap_servers,
            "compression.type": compression,
            "message.max.bytes": 2 * BATCH_UNPACKED_BYTES_MAX,
            "log_level": 2,
        }
    )
    bomber.produce(updates_topic(federation.task, "eu"), bytes(BATCH_UNPACKED_BYTES_MAX + 7), partition=0)
    assert bomber.flush(WAIT_S) == 0
    verdicts = federation.await_verdicts(SLOT, federation.append(SLOT, federation.update("d-2")))
    assert [verdicts[offset].outcome for offset in range(4)] == [
        ACCEPTED,
        "undecodable",
        "too_large",
        ACCEPTED,
    ]
    federation.start("merger")  # only now: its first barriers would stand among these offsets
    federation.await_version(1)
    assert worker.process.poll() is None, worker.log
    report = audit_task(federation.settings, federation.task_file, jobs=1)
    assert report.identical, list(report.findings)


def test_what_strangers_write_to_the_verdicts_topic_is_counted_and_left_out(federation: Federation) -> None:
    topic = verdicts_topic(federation.task, "eu")
    for value in (b"garbage", b"", b"\xc3\x01" + b"\7" * 20):
        federation.writer.append_now(topic, value, partition=0)
    federation.start("worker")
    offset = federation.append(SLOT, federation.update("d-1"))
    assert federation.await_verdicts(SLOT, offset)[offset].outcome == ACCEPTED
    until(lambda: federation.verdicts(SLOT), "the verdict")
    assert federation.strays == 3
