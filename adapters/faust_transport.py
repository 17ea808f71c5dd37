"""A Faust transport that resumes where *we* say: at the offset that our own output names, not at a committed one.

Faust asks ``seek_to_committed`` where every assigned partition goes on, after each rebalance and whenever the flow was
paused, so the answer has to be idempotent. Committed offsets are still written, as advice for lag tools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from adapters.settings import Settings

SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.5
STREAM_BUFFER_BYTES_MAX = 32 << 20
STREAM_BUFFER_RECORDS_MAX = 64

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


def create_app(
    app_id: str, settings: Settings, resume: Resume, *, data_folder: str, record_bytes: int, **options: Any
) -> faust.App:
    """A Faust app as all of ours are: resuming, raw bytes, no web server, no declared topics, no leader.

    ``app_id`` is also the consumer group. ``record_bytes`` is about how large a record is: it bounds what is buffered.
    """
    buffered = max(4, min(STREAM_BUFFER_RECORDS_MAX, STREAM_BUFFER_BYTES_MAX // max(1, record_bytes)))
    app = faust.App(
        app_id,
        broker=[f"kafka://{server}" for server in settings.bootstrap_servers.split(",")],
        datadir=data_folder,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=buffered,
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=settings.message_bytes_max,
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
    return app


def raw_topic(app: faust.App, *names: str) -> Any:
    """Topics of raw bytes: decoding is ours, so that bad bytes become verdicts instead of errors."""
    return app.topic(*names, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
