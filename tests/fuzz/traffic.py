"""Who sends in a campaign: honest devices, and the cast that mutations are made with; and how batches are appended."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Producer

from backends import keys
from backends.log import Position
from schemas.certificates import Role
from tests import factories
from tests.fuzz.mutator import Cast, Device
from tests.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from backends.settings import Settings
    from producers.sdk.announcements import Announcements
    from schemas.records import Announcement
    from tests.integration.pipeline import Federation

REGION: Final = "eu"
PARTITIONS: Final = {"eu": 2, "us": 1}
HONEST_DEVICES: Final = 150
IDLE_DEVICES, LOOSE_DEVICES, WARMING_DEVICES = 8, 8, 32
BATCH_BYTES_MAX: Final = 200 << 20
EXPIRED_AFTER_DAYS: Final = 1 / 86_400
NEWS_WITHIN_S: Final = 120.0


class HonestTraffic:
    """Devices that train on the newest version and contribute once to each."""

    def __init__(self, federation: Federation, announcements: Announcements) -> None:
        self._federation = federation
        self._announcements = announcements
        self._devices = {
            partition: factories.devices(
                HONEST_DEVICES, partition=partition, partitions=PARTITIONS[REGION], start=10_000
            )
            for partition in range(PARTITIONS[REGION])
        }
        self._turn: dict[tuple[int, int], int] = {}

    def newest(self) -> tuple[int, str]:
        """The newest announced version and its model's hash."""
        latest: Announcement | None = self._announcements.latest(REGION)
        return (latest.version, latest.model_sha256) if latest else (0, self._federation.model_sha256(0))

    def update(self, partition: int) -> bytes:
        """The next update. AssertionError where no version comes although all devices have contributed."""

        def next_device() -> tuple[int, str, str] | None:
            version, sha256 = self.newest()
            turn = self._turn.get((partition, version), 0)
            if turn >= HONEST_DEVICES:
                return None
            self._turn[partition, version] = turn + 1
            return version, sha256, self._devices[partition][turn]

        version, sha256, device = until(next_device, "a new version", NEWS_WITHIN_S)
        record = self._federation.record(device, base=version, base_sha256=sha256, seed=version % 50)
        return self._federation.device(device).sign("ClientUpdate", record)


def cast_of(federation: Federation, folder: Path) -> Cast:
    """Whose keys the mutations are made with; ``folder`` takes the keys of a CA that nobody knows."""

    def certified(count: int, start: int) -> list[Device]:
        return [
            Device(name, partition, federation.device(name))
            for partition in range(PARTITIONS[REGION])
            for name in factories.devices(
                count, partition=partition, partitions=PARTITIONS[REGION], start=start
            )
        ]

    strange = folder / "strange"
    keys.create_authority(strange, REGION)
    foreign = federation.signer(keys.issue(strange, REGION, Role.DEVICE, "d-foreign"))
    expired = keys.issue(federation.keys, REGION, Role.DEVICE, "d-expired", days=EXPIRED_AFTER_DAYS)
    return Cast(
        idle=certified(IDLE_DEVICES, 1000),
        loose=certified(LOOSE_DEVICES, 2000),
        foreign=Device("d-foreign", 0, foreign),
        expired=Device("d-expired", 0, federation.signer(expired)),
        revoked=Device("d-revoked", 0, federation.device("d-revoked")),
        elsewhere=Device("d-us", 0, federation.device("d-us", "us")),
        worker=federation.worker_signer(REGION),
        merger=federation.merger_signer,
        operator=federation.operator_signer,
    )


def compressing_producer(settings: Settings, compression: str) -> Producer:
    """A producer that compresses, and takes values far larger than the broker would without that."""
    return Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "compression.type": compression,
            "message.max.bytes": BATCH_BYTES_MAX,
            "queue.buffering.max.kbytes": 2 * BATCH_BYTES_MAX // 1024,
            "linger.ms": 5,
            "enable.idempotence": True,
            "acks": "all",
            "log_level": 2,
        }
    )


def append_through(
    producer: Producer, topic: str, partition: int, key: bytes | None, value: bytes | None
) -> Future[Position]:
    """Append through a producer; the position comes once the broker has taken the record, or RuntimeError."""
    future: Future[Position] = Future()

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            future.set_exception(RuntimeError(f"{len(value or b'')} bytes: {error}"))
        else:
            future.set_result(Position(topic, partition, message.offset()))

    producer.produce(topic, value, key, partition, on_delivery=delivered)
    return future
