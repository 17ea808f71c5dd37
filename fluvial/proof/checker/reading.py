"""Reading the logs and the objects, by means of its own: raw batches from a broker, and a plain S3 client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import minio
import urllib3
from minio.error import MinioException, S3Error

from fluvial.proof.checker.batches import DamagedLogError, entries_in
from fluvial.proof.checker.broker import Broker, SilentBrokerError
from fluvial.proof.checker.derived import Entry
from fluvial.proof.checker.task import Objects
from fluvial.proof.checker.vouched import HeadEntry, Heads

SILENCE_S_MAX: Final = 30.0
"""How long a broker may send nothing before the reading is given up."""
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

    ``ca_file`` has the CAs that may vouch for it, PEM; without one, those of the system may.
    With ``path``, a folder on this machine that holds each object as a file under its key, and nothing else is needed.
    """

    endpoint: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    bucket: str = ""
    secure: bool = False
    region: str = "us-east-1"
    path: str = ""
    ca_file: str = ""


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
        trusted: dict[str, Any] = {"ca_certs": address.ca_file or None, "cert_reqs": "CERT_REQUIRED"}
        self._client = minio.Minio(
            address.endpoint,
            access_key=address.access_key,
            secret_key=address.secret_key,
            secure=address.secure,
            region=address.region,
            http_client=urllib3.PoolManager(timeout=timeout, retries=retries, **trusted),
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

    Every offset has an entry; see ``fluvial.proof.checker.batches``. Derived topics are measured before the updates
    topics: what they were derived from is then within bounds.
    """

    def __init__(self, kafka: Mapping[str, Any], task: str) -> None:
        """``kafka``: how a client reaches the broker; see ``CheckRequest``."""
        self._bootstrap_servers = str(kafka["bootstrap.servers"])
        self._broker = Broker(kafka, SILENCE_S_MAX)
        self._ends: dict[tuple[str, int], int] = {}
        try:
            topics = self._broker.topics()
            ours = [
                name for name in topics if name.startswith(f"fl.{task}.") and not name.endswith(".metrics")
            ]
            for name in sorted(ours, key=lambda name: ".updates." in name):
                for partition in topics[name]:
                    self._ends[name, partition] = self._end(name, partition)
        except SilentBrokerError as error:
            self._broker.close()
            raise self._failed("ask for the topics", error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._broker.close()

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._ends)

    def __getitem__(self, place: tuple[str, int]) -> Iterable[Entry]:
        """The records of a partition, as they are fetched; one partition is read at a time."""
        return self._read(place, self._ends[place])

    @property
    def heads(self) -> Heads:
        """The heads among the verdicts, read when they are asked for."""
        return _KafkaHeads(self)

    def heads_in(self, place: tuple[str, int]) -> list[HeadEntry]:
        """Those of one partition."""
        found: list[HeadEntry] = []
        for _ in self._read(place, self._ends[place], found):
            pass
        return found

    def _end(self, topic: str, partition: int) -> int:
        low, high = self._broker.bounds(topic, partition)
        if low > 0:
            raise ReadingFailed(
                "FLV-6422", f"{topic}[{partition}] begins at offset {low}; a check needs it from offset 0"
            )
        return high

    def _read(
        self, place: tuple[str, int], end: int, heads: list[HeadEntry] | None = None
    ) -> Iterator[Entry]:
        topic, partition = place
        at = 0
        try:
            while at < end:
                for entry in entries_in(self._broker.fetch(topic, partition, at), at, end, heads):
                    yield entry
                    at = entry[0] + 1
        except SilentBrokerError as error:
            raise self._failed(f"read {topic}[{partition}]@{at}", error) from error
        except DamagedLogError as error:
            raise self._failed(f"read {topic}[{partition}]", error) from error

    def _failed(self, action: str, error: Exception) -> ReadingFailed:
        return ReadingFailed("FLV-6421", f"cannot {action} at {self._bootstrap_servers}: {error}")


class _KafkaHeads(Mapping[tuple[str, int], Iterable[HeadEntry]]):
    """The heads of each partition of some logs."""

    def __init__(self, logs: KafkaLogs) -> None:
        self._logs = logs

    def __len__(self) -> int:
        return len(self._logs)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._logs)

    def __getitem__(self, place: tuple[str, int]) -> Iterable[HeadEntry]:
        if place not in set(self._logs):
            raise KeyError(place)
        return self._logs.heads_in(place)
