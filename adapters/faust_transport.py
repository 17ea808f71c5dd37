"""A Faust transport that resumes where *we* say: at the offset that our own output names, not at a committed one.

Faust asks ``seek_to_committed`` where every assigned partition goes on, after each rebalance and whenever the flow was
paused, so the answer has to be idempotent. Committed offsets are still written, as advice for lag tools.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import faust
from faust.sensors import Monitor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from adapters.kafka import BrokerProbe, require_broker
from adapters.patience import patiently
from adapters.settings import Settings

SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.5
FETCH_BYTES = 4 << 20
"""Bytes a partition and fetch: it bounds memory. A larger record still comes, alone (KIP-74)."""
PROBE_EVERY_S = 3.0
STREAM_BUFFER_BYTES_MAX = 32 << 20
STREAM_BUFFER_RECORDS_MAX = 64

log = logging.getLogger("fluvial")

Resume = Callable[[Iterable[TP]], Awaitable[Mapping[TP, int]]]


class ResumingConsumer(driver.Consumer):
    """The aiokafka consumer, with our own idea of where to go on."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every assigned partition to the offset that the application names."""
        transport: ResumingTransport = self.transport  # type: ignore[assignment]
        offsets = await transport.resume(self.assignment())
        for partition, offset in offsets.items():
            await self._seek(partition, offset)
        return offsets


class ResumingTransport(driver.Transport):
    """The aiokafka transport with ``ResumingConsumer``; ``resume`` maps assigned partitions to offsets."""

    Consumer = ResumingConsumer
    resume: Resume


class QuietMonitor(Monitor):
    """Faust's monitor without its own account of every message: 7 % of a worker's time, and nobody reads it."""

    def on_message_in(self, *_: Any) -> None:
        """Nothing."""

    def on_message_out(self, *_: Any) -> None:
        """Nothing."""

    def on_stream_event_in(self, *_: Any) -> None:
        """Nothing."""

    def on_stream_event_out(self, *_: Any) -> None:
        """Nothing."""


def create_app(
    app_id: str, settings: Settings, resume: Resume, *, data_folder: str, record_bytes: int, **options: Any
) -> faust.App:
    """A Faust app as all of ours are: resuming, raw bytes, no web server, no declared topics, no leader.

    ``app_id`` is also the consumer group. ``record_bytes`` is about how large a record is: it bounds what is buffered.
    """
    where = settings.bootstrap_servers
    patiently(f"reach Kafka at {where}", lambda: require_broker(settings))  # aiokafka gives up at its start
    buffered = max(4, min(STREAM_BUFFER_RECORDS_MAX, STREAM_BUFFER_BYTES_MAX // max(1, record_bytes)))
    app = faust.App(
        app_id,
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
        datadir=data_folder,
        Monitor=QuietMonitor,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=buffered,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_rebalance_timeout=SESSION_TIMEOUT_S * 2,
        broker_commit_interval=2.0,
        key_serializer="raw",
        value_serializer="raw",
        **options,
    )
    transport = ResumingTransport(app.conf.broker_consumer, app)
    transport.resume = resume
    app.transport = transport

    @app.task  # type: ignore[untyped-decorator]
    async def watch_broker() -> None:
        await _say_while_away(app, settings)

    return app


async def _say_while_away(app: faust.App, settings: Settings) -> None:
    """Say every few seconds that the broker is away: aiokafka reconnects by itself, but in silence."""
    probe = BrokerProbe(settings)
    away_since_s: float | None = None
    while not app.should_stop:
        asked_s = time.monotonic()
        if not await asyncio.to_thread(probe.answers):
            away_since_s = away_since_s or asked_s
            waited_s = time.monotonic() - away_since_s
            log.warning("waiting for Kafka at %s to answer, %.0f s", settings.bootstrap_servers, waited_s)
        elif away_since_s is not None:
            log.info("Kafka answers again after %.0f s", time.monotonic() - away_since_s)
            away_since_s = None
        await app.sleep(PROBE_EVERY_S)


def raw_topic(app: faust.App, *names: str) -> Any:
    """Topics of raw bytes: decoding is ours, so that bad bytes become verdicts instead of errors."""
    return app.topic(*names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
