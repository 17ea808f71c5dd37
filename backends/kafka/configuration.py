"""The configuration of every Kafka client: one place, so that no client can lack a setting.

``connection`` is what all of them have in common: where the brokers are, how one gets in, and how quiet the client is.
The others add what a producer, a reader or an administrator of ours always has. Faust's own connection is made from
the same settings, by ``faust_broker``.
"""

from __future__ import annotations

from typing import Any, Final

from backends.settings import Settings

REQUEST_TIMEOUT_S: Final = 30.0
DELIVERY_TIMEOUT_S: Final = 120.0
PRODUCER_QUEUE_BYTES_MAX: Final = 64 << 20
FETCH_QUEUE_BYTES_MAX: Final = 32 << 20
FETCH_BYTES_MAX_MIN: Final = 100_000_000
PROBE_SOCKET_TIMEOUT_MS: Final = 2000
LINGER_MS: Final = 5
FETCH_WAIT_MS: Final = 100
FETCH_BACKOFF_MS: Final = 10
"""The default of 1 s starves a reader whose queue was full once."""

Configuration = dict[str, Any]


def connection_to(bootstrap_servers: str) -> Configuration:
    """How any client reaches these brokers. librdkafka's own log lines are left out: errors come back to the caller."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "log_level": 2,
        "log.connection.close": False,
        "error_cb": lambda _error: None,
    }


def connection(settings: Settings) -> Configuration:
    """How any client reaches the brokers of ``settings``."""
    return connection_to(settings.bootstrap_servers)


def probe_configuration(bootstrap_servers: str) -> Configuration:
    """A client that only looks whether somebody answers, and gives up soon."""
    return connection_to(bootstrap_servers) | {"socket.timeout.ms": PROBE_SOCKET_TIMEOUT_MS}


def producer_configuration(settings: Settings, client_id: str, *, give_up: bool) -> Configuration:
    """An idempotent producer with ``acks=all``; with ``give_up`` false a record waits as long as it takes."""
    return connection(settings) | {
        "client.id": client_id,
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",  # librdkafka's own default would be CRC32
        "linger.ms": LINGER_MS,
        "message.max.bytes": settings.message_bytes_max,
        "queue.buffering.max.kbytes": PRODUCER_QUEUE_BYTES_MAX // 1024,
        "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000) if give_up else 0,
    }


def reader_configuration(settings: Settings, client_id: str) -> Configuration:
    """A consumer that reads where it is told to, belongs to no group and commits nothing."""
    return connection(settings) | {
        "client.id": client_id,
        "group.id": client_id,  # librdkafka asks for one even where none is joined
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        # What counts is what stands in the log, and the workers read so: a stranger's transaction, aborted
        # or left open, must not make an audit see another log than they have folded.
        "isolation.level": "read_uncommitted",
        "auto.offset.reset": "error",
        "fetch.message.max.bytes": settings.message_bytes_max,
        "receive.message.max.bytes": max(FETCH_BYTES_MAX_MIN, settings.message_bytes_max + 1024),
        "queued.max.messages.kbytes": FETCH_QUEUE_BYTES_MAX // 1024,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
    }


def faust_broker(settings: Settings) -> list[str]:
    """The brokers as Faust takes them: one URL each."""
    return [f"kafka://{server}" for server in settings.bootstrap_servers.split(",")]
