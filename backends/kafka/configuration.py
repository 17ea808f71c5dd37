"""The configuration of every Kafka client: one place, so that no client can lack a setting.

``connection`` is what all of them have in common: where the brokers are, how one gets in, and how quiet the client is.
The others add what a producer or an administrator of ours always has. Readers and Faust go through aiokafka: from the
same settings, by ``client_options`` and ``addresses``, and by ``faust_broker`` and ``broker_credentials``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka.conn import collect_hosts

from backends.kafka.security import aiokafka_security, faust_credentials, librdkafka_security
from backends.settings import KAFKA_UNSECURED, KafkaSecurity, Settings

if TYPE_CHECKING:
    from faust.auth import Credentials

REQUEST_TIMEOUT_S: Final = 30.0
ATTEMPT_TIMEOUT_S: Final = 10.0
"""Of one attempt over one connection, which is closed then and made anew: nobody may answer on it any more."""
DELIVERY_TIMEOUT_S: Final = 120.0
PRODUCER_QUEUE_BYTES_MAX: Final = 64 << 20
PROBE_SOCKET_TIMEOUT_MS: Final = 2000
LINGER_MS: Final = 5

Configuration = dict[str, Any]


def connection_to(bootstrap_servers: str, kafka: KafkaSecurity = KAFKA_UNSECURED) -> Configuration:
    """How any client reaches these brokers. librdkafka's own log lines are left out: errors come back to the caller."""
    return librdkafka_security(kafka) | {
        "bootstrap.servers": bootstrap_servers,
        "log_level": 2,
        "log.connection.close": False,
        "error_cb": lambda _error: None,
    }


def connection(settings: Settings) -> Configuration:
    """How any client reaches the brokers of ``settings``."""
    return connection_to(settings.bootstrap_servers, settings.kafka)


def checker_connection(settings: Settings) -> Configuration:
    """How the checker of ``fluvial.proof``, which makes its connections itself, reaches the brokers."""
    return {"bootstrap.servers": settings.bootstrap_servers, "aiokafka": aiokafka_security(settings.kafka)}


def probe_configuration(bootstrap_servers: str, kafka: KafkaSecurity = KAFKA_UNSECURED) -> Configuration:
    """A client that only looks whether somebody answers, and gives up soon."""
    return connection_to(bootstrap_servers, kafka) | {"socket.timeout.ms": PROBE_SOCKET_TIMEOUT_MS}


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
    """How one of aiokafka's connections is made, besides where it leads."""
    options = {"client_id": client_id, "request_timeout_ms": int(ATTEMPT_TIMEOUT_S * 1000)}
    return options | aiokafka_security(settings.kafka)


def addresses(settings: Settings) -> list[tuple[str, int]]:
    """The brokers to begin with: host and port of each."""
    return [(host, port) for host, port, _ in collect_hosts(settings.bootstrap_servers, randomize=False)]


def broker_credentials(settings: Settings) -> Credentials | None:
    """How Faust's consumers get in; None where nothing is secured."""
    return faust_credentials(settings.kafka)


def faust_broker(settings: Settings) -> list[str]:
    """The brokers as Faust takes them: one URL each."""
    return [f"kafka://{server}" for server in settings.bootstrap_servers.split(",")]
