"""Logs that the contract is run against: in memory, on librdkafka's own mock cluster, on the real broker."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from backends.kafka.admin import declare_topics
from backends.kafka.reading import LogReader
from backends.kafka.writing import LogWriter
from backends.settings import Settings, StoreSettings
from schemas.topics import Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backends.log import RecordReader, RecordWriter

PARTITIONS = 4  # as many as the mock cluster makes
WAIT_S = 180.0


@contextmanager
def mock_cluster(folder: Path) -> Iterator[Settings]:
    """Settings of a mock broker that lives in this process."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(cluster.list_topics(timeout=60).brokers.values()))
    store = StoreSettings(kind="file", path=folder / "objects")
    yield Settings(home=folder, bootstrap_servers=f"{broker.host}:{broker.port}", store=store)
    cluster.flush(1)


@dataclass(frozen=True)
class Log:
    """One log, with ways in and out of it."""

    writer: Callable[[], RecordWriter]
    reader: Callable[[], RecordReader]


def on_broker(settings: Settings, topic: str) -> Log:
    make_topic(settings, topic)
    return Log(lambda: LogWriter(settings, "writer"), lambda: reader_of(settings))


def make_topic(settings: Settings, name: str) -> None:
    """The mock cluster knows no declaring, it makes what it is asked for."""
    if is_mock(settings):
        admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
        admin.list_topics(name, timeout=WAIT_S)
    else:
        declare_topics(settings, [table(name)])


def is_mock(settings: Settings) -> bool:
    return settings.store.kind == "file" and not (settings.home / "stack.json").exists()


def table(name: str, partitions: int = PARTITIONS) -> Topic:
    return Topic(name, ("ClientUpdate",), "device_id", partitions, -1)


def reader_of(settings: Settings) -> LogReader:
    return LogReader(settings, f"contract-{uuid.uuid4().hex}")
