"""Reading the logs and the objects, by means of its own: a consumer that belongs to no group, and a plain S3 client."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import minio
import urllib3
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from minio.error import MinioException, S3Error

from fluvial.proof.checker.derived import Entry
from fluvial.proof.checker.task import Objects

SILENCE_S_MAX: Final = 30.0
"""How long a broker may send nothing before the reading is given up."""
REQUEST_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.25
MESSAGE_BYTES_MAX: Final = 80 << 20
"""More than any policy lets an update have."""
QUEUE_KBYTES_MAX: Final = 16 << 10
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
STORE_RETRIES_MAX: Final = 4


class ReadingFailed(Exception):
    """Broker or store cannot be read, so nothing can be said. ``error_id`` has a page in docs/errors.

    FLV-6421: the broker. FLV-6422: the beginning of a log is gone. FLV-6423: the store.
    """

    def __init__(self, error_id: str, message: str) -> None:
        super().__init__(f"error[{error_id}]: {message}")
        self.error_id = error_id
        self.message = message


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """An S3 server and bucket; ``endpoint`` is ``host:port`` with no scheme, ``secure`` chooses https.

    With ``path``, a folder on this machine that holds each object as a file under its key, and nothing else is needed.
    """

    endpoint: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    bucket: str = ""
    secure: bool = False
    region: str = "us-east-1"
    path: str = ""


def open_objects(address: StoreAddress) -> Objects:
    """The objects at an address; nothing is read yet."""
    return FolderObjects(Path(address.path)) if address.path else StoreObjects(address)


class FolderObjects:
    """The objects of a folder, read only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, /) -> bytes | None:
        """An object's bytes; None where there is none."""
        path = self._folder / key
        return path.read_bytes() if path.is_file() else None

    def keys(self, prefix: str, /) -> Iterable[str]:
        """All keys that begin with ``prefix``."""
        for path in (self._folder / prefix).rglob("*"):
            if path.is_file():
                yield path.relative_to(self._folder).as_posix()


class StoreObjects:
    """The objects of a bucket, read only."""

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        retries = urllib3.Retry(total=STORE_RETRIES_MAX, backoff_factor=0.2, status_forcelist=[502, 503, 504])
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        self._client = minio.Minio(
            address.endpoint,
            access_key=address.access_key,
            secret_key=address.secret_key,
            secure=address.secure,
            region=address.region,
            http_client=urllib3.PoolManager(timeout=timeout, retries=retries),
        )

    def get(self, key: str, /) -> bytes | None:
        """An object's bytes; None where there is none. ``ReadingFailed`` (FLV-6423) where the store cannot be read."""
        try:
            response = self._client.get_object(self._address.bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise self._failed(key, error) from error
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._failed(key, error) from error

    def keys(self, prefix: str, /) -> Iterable[str]:
        """All keys that begin with ``prefix``."""
        try:
            for item in self._client.list_objects(self._address.bucket, prefix=prefix, recursive=True):
                if item.object_name is not None:
                    yield item.object_name
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise self._failed(prefix, error) from error

    def _failed(self, key: str, error: Exception) -> ReadingFailed:
        where = f"{self._address.endpoint}/{self._address.bucket}"
        return ReadingFailed("FLV-6423", f"cannot read {key} from {where}: {error}")


class KafkaLogs(Mapping[tuple[str, int], Iterable[Entry]]):
    """A task's topics as they stand when this is made, each partition read anew whenever it is asked for.

    Offsets that hold no record (transactions' markers) come without key and value, up to the end of the log. Derived
    topics are measured before the updates topics: what they were derived from is then within bounds.
    """

    def __init__(self, kafka: Mapping[str, Any], task: str) -> None:
        """``kafka``: how a client reaches the broker, as librdkafka's settings."""
        self._bootstrap_servers = str(kafka["bootstrap.servers"])
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": f"fluvial-checker-{task}",  # librdkafka asks for one even where none is joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_uncommitted",  # what counts is what stands in the log
                "auto.offset.reset": "error",
                "allow.auto.create.topics": False,
                "fetch.message.max.bytes": MESSAGE_BYTES_MAX,
                "receive.message.max.bytes": MESSAGE_BYTES_MAX + (1 << 20),
                "queued.max.messages.kbytes": QUEUE_KBYTES_MAX,
                "log_level": 0,
            }
        )
        self._ends: dict[tuple[str, int], int] = {}
        try:
            topics = self._consumer.list_topics(timeout=REQUEST_TIMEOUT_S).topics
            ours = [
                name for name in topics if name.startswith(f"fl.{task}.") and not name.endswith(".metrics")
            ]
            for name in sorted(ours, key=lambda name: ".updates." in name):
                for partition in topics[name].partitions:
                    self._ends[name, partition] = self._end(name, partition)
        except KafkaException as error:
            self._consumer.close()
            raise self._failed("ask for the topics", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._ends)

    def __getitem__(self, place: tuple[str, int]) -> Iterable[Entry]:
        """The records of a partition, as they are fetched; one partition is read at a time."""
        return self._read(place, self._ends[place])

    def _end(self, topic: str, partition: int) -> int:
        place = TopicPartition(topic, partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=REQUEST_TIMEOUT_S, cached=False)
        if low > 0:
            raise ReadingFailed(
                "FLV-6422", f"{topic}[{partition}] begins at offset {low}; a check needs it from offset 0"
            )
        return int(high)

    def _read(self, place: tuple[str, int], end: int) -> Iterator[Entry]:
        if end == 0:
            return
        topic, partition = place
        self._consumer.assign([TopicPartition(topic, partition, 0)])
        try:
            at, heard = 0, time.monotonic()
            while at < end:
                message = self._consumer.poll(POLL_S)
                if message is None:
                    if time.monotonic() - heard > SILENCE_S_MAX:
                        raise ReadingFailed(
                            "FLV-6421",
                            f"{self._bootstrap_servers} sends nothing of {topic}[{partition}]@{at}",
                        )
                    continue
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001
                    if not error.retriable():
                        raise self._failed(f"read {topic}[{partition}]", KafkaException(error))
                    continue
                heard = time.monotonic()
                offset = int(message.offset() or 0)
                for missing in range(at, min(offset, end)):
                    yield missing, 0, None, None
                at = offset if error is not None else offset + 1
                if error is None and offset < end:
                    yield offset, int(message.timestamp()[1]), message.key(), message.value()
        finally:
            self._consumer.unassign()

    def _failed(self, action: str, error: KafkaException) -> ReadingFailed:
        return ReadingFailed("FLV-6421", f"cannot {action} at {self._bootstrap_servers}: {error}")
