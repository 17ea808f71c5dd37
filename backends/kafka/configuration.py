"""The configuration of every Kafka client: one place, so that no client can lack a setting.

``connection`` is what all of them have in common: where the brokers are, how one gets in, and how quiet the client is.
The others add what a producer or an administrator of ours always has. Readers and Faust go through aiokafka: from the
same settings, by ``client_options`` and ``addresses``, and by ``faust_broker``.
"""

from __future__ import annotations

from typing import Any, Final

from aiokafka.conn import collect_hosts

from backends.settings import Settings

REQUEST_TIMEOUT_S: Final = 30.0
ATTEMPT_TIMEOUT_S: Final = 10.0
"""Of one attempt over one connection, which is closed then and made anew: nobody may answer on it any more."""
DELIVERY_TIMEOUT_S: Final = 120.0
PRODUCER_QUEUE_BYTES_MAX: Final = 64 << 20
PROBE_SOCKET_TIMEOUT_MS: Final = 2000
LINGER_MS: Final = 5

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


def client_options(settings: Settings, client_id: str) -> Configuration:
    """How one of aiokafka's connections is made, besides where it leads; ``settings`` will say how one gets in."""
    del settings  # says nothing of it yet
    return {"client_id": client_id, "request_timeout_ms": int(ATTEMPT_TIMEOUT_S * 1000)}


def addresses(settings: Settings) -> list[tuple[str, int]]:
    """The brokers to begin with: host and port of each."""
    return [(host, port) for host, port, _ in collect_hosts(settings.bootstrap_servers, randomize=False)]


def faust_broker(settings: Settings) -> list[str]:
    """The brokers as Faust takes them: one URL each."""
    return [f"kafka://{server}" for server in settings.bootstrap_servers.split(",")]
