"""OpenTelemetry traces: publish → verdict; a window links to its verdicts, a merge to its windows; then the commit.

What connects them is the W3C ``traceparent`` header of Kafka records, which no signature covers and anybody may write:
one that is not exactly of the form is as good as none, and a true one decides nothing but which trace a span stands in.

A span has region, partition, offset, version and sequence, and never a key, a device's id or a payload. Which traces
are kept is decided at their heads, by their ids; windows and merges are few, and all kept. Everything is bounded:
links, spans in flight, the queue to the collector. A collector that does not answer is said once, and costs only spans.

Import this only where tracing is on: OpenTelemetry takes a while to load.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from aggregation.fold.events import Event, Verdict, WindowClosed
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.state import PartitionState
from aggregation.server.aggregates import Aggregate, Slot
from backends.log import Headers, LogRecord, Position
from backends.observer import Observer
from schemas.manifests import Manifest

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

LINKS_MAX: Final = 128
IN_FLIGHT_MAX: Final = 4096
"""Spans of one kind that have begun and not ended, and windows remembered until they are merged."""
QUEUE_SPANS: Final = 2048
EXPORT_EVERY_MS: Final = 1000
EXPORT_TIMEOUT_S: Final = 5.0
CLOSE_S_MAX: Final = 2.0
HEADER: Final = "traceparent"

_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_Value = TypeVar("_Value")

log = logging.getLogger("fluvial.tracing")


def context_in(headers: Headers) -> SpanContext | None:
    """The trace context in a record's headers, if there is exactly one and it is well-formed."""
    found = [value for name, value in headers if name == HEADER]
    match = _TRACEPARENT.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        return None
    flags = TraceFlags(int(match[3], 16) & TraceFlags.SAMPLED)
    context = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=flags)
    return context if context.is_valid else None


def headers_of(span: Span) -> Headers:
    """The header that makes ``span`` the parent of what the record's reader does."""
    context = span.get_span_context()
    text = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return ((HEADER, text.encode()),)


class Tracing(Observer):
    """Spans of one process. ``few`` makes those that are always kept, ``many`` those that are sampled."""

    def __init__(self, many: Tracer, few: Tracer) -> None:
        self._many = many
        self._few = few
        self._began_ns: dict[Slot, int] = {}
        self._accepted: dict[Slot, list[Link]] = {}
        self._publishing = _Recent[str, Span]()
        self._windows = _Recent[tuple[Slot, int], Span]()
        self._taken = _Recent[tuple[Slot, int], SpanContext]()
        self._merge: Span | None = None
        self._commit: Span | None = None

    # -- devices

    def publishing(self, region: str, codec: str, value_bytes: int) -> Headers:
        """Begin the trace of an update."""
        attributes: dict[str, str | int] = {"region": region, "codec": codec, "bytes": value_bytes}
        span = self._many.start_span("publish", kind=SpanKind.PRODUCER, attributes=attributes)
        headers = headers_of(span)
        if span.is_recording():
            self._publishing.put(headers[0][1].decode(), span)
        return headers

    def placed(self, headers: Headers, position: Position | None) -> None:
        """The update stands in the log, or nobody knows."""
        for name, value in headers:
            span = self._publishing.pop(value.decode("latin-1")) if name == HEADER else None
            if span is None:
                continue
            if position is None:
                span.set_status(Status(StatusCode.ERROR, "not acknowledged"))
            else:
                span.set_attributes({"partition": position.partition, "offset": position.offset})
            span.end()

    # -- regional worker

    def resumed(self, slot: Slot, state: PartitionState) -> None:
        """What was collected for the open window is folded again."""
        del state
        self._accepted.pop(slot, None)

    def folding(self, slot: Slot, record: LogRecord) -> None:
        """A verdict's span begins here."""
        del record
        self._began_ns[slot] = time.time_ns()

    def judged(self, slot: Slot, record: LogRecord, event: Event, verdict: Verdict) -> Headers:
        """The verdict is a child of the publishing, wherever that was."""
        del event
        parent = context_in(record.headers)
        context = trace.set_span_in_context(NonRecordingSpan(parent)) if parent else None
        span = self._many.start_span(
            "verdict",
            context=context,
            kind=SpanKind.CONSUMER,
            start_time=self._began_ns.get(slot),
            attributes={
                "region": slot[0],
                "partition": slot[1],
                "offset": record.offset,
                "version": verdict.base_version,
                "outcome": verdict.outcome,
            },
        )
        span.end()
        links = self._accepted.setdefault(slot, [])
        if (
            verdict.outcome == ACCEPTED
            and span.get_span_context().trace_flags.sampled
            and len(links) < LINKS_MAX
        ):
            links.append(Link(span.get_span_context()))
        return headers_of(span)

    def window_closed(self, slot: Slot, closed: WindowClosed, state: PartitionState) -> Headers:
        """Updates of many traces meet: links, no parent."""
        del state
        attributes = _places(slot, closed.sequence) | {
            "version": closed.version,
            "first_offset": closed.first_offset,
            "next_offset": closed.next_offset,
        }
        span = self._few.start_span(
            "window", context=Context(), links=self._accepted.pop(slot, []), attributes=attributes
        )
        self._windows.put((slot, closed.sequence), span)
        return headers_of(span)

    def window_published(self, slot: Slot, closed: WindowClosed, aggregate: Aggregate) -> None:
        """A window's span ends when its aggregate is acknowledged."""
        span = self._windows.pop((slot, closed.sequence))
        if span is not None:
            span.set_attribute("accepted", aggregate.accepted)
            span.end()

    # -- merger

    def window_taken(self, record: LogRecord, aggregate: Aggregate) -> None:
        """Remember whose window this was until it is merged."""
        context = context_in(record.headers)
        if context is not None:
            self._taken.put((aggregate.slot, aggregate.sequence), context)

    def merging(self, version: int, chosen: Collection[Aggregate]) -> None:
        """Windows of many partitions meet: links, no parent."""
        contexts = [self._taken.pop((one.slot, one.sequence)) for one in chosen]
        links = [Link(one) for one in contexts if one is not None and one.trace_flags.sampled]
        self._merge = self._few.start_span(
            "merge",
            context=Context(),
            links=links[:LINKS_MAX],
            attributes={"version": version, "windows": len(chosen)},
        )

    def committing(self, version: int) -> None:
        """The merge is calculated: what comes now is the conditional PUT and the checkpoint's files."""
        if self._merge is not None:
            self._merge.end()
            self._commit = self._few.start_span(
                "commit", context=trace.set_span_in_context(self._merge), attributes={"version": version}
            )

    def committed(self, manifest: Manifest, chosen: Collection[Aggregate], stored_bytes: int) -> Headers:
        """Barriers and announcements carry the commit on."""
        del chosen
        span, self._merge, self._commit = self._commit, None, None
        if span is None:
            return ()
        span.set_attributes({"accepted": manifest.accepted, "stored_bytes": stored_bytes})
        span.end()
        return headers_of(span)

    def race_lost(self, version: int) -> None:
        """Another merger's version: ours ends as a failed commit."""
        span, self._merge, self._commit = self._commit, None, None
        if span is not None:
            span.set_status(Status(StatusCode.ERROR, f"version {version} was committed by another merger"))
            span.end()


def _places(slot: Slot, sequence: int) -> dict[str, str | int]:
    return {"region": slot[0], "partition": slot[1], "sequence": sequence}


_Key = TypeVar("_Key")


class _Recent(Generic[_Key, _Value]):
    """What has begun and not ended, the oldest forgotten where there are too many."""

    def __init__(self) -> None:
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: _Key, value: _Value) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > IN_FLIGHT_MAX:
                self._values.popitem(last=False)

    def pop(self, key: _Key) -> _Value | None:
        with self._lock:
            return self._values.pop(key, None)


class _Ids(IdGenerator):
    """Ids from the system: the library's come from ``random``, whose state users' training code seeds."""

    def generate_span_id(self) -> int:
        return secrets.randbits(64) or 1

    def generate_trace_id(self) -> int:
        return secrets.randbits(128) or 1


class _OnceSpoken(SpanExporter):
    """An exporter that says once that nothing arrives, and once that it does again."""

    def __init__(self, exporter: SpanExporter, address: str) -> None:
        self._exporter = exporter
        self._address = address
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            log.warning(
                "traces do not reach %s: spans are lost until it answers, nothing else", self._address
            )
        elif self._failing and not failed:
            log.info("traces reach %s again", self._address)
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


@contextlib.contextmanager
def tracing(endpoint: str, ratio: float, resource: dict[str, str]) -> Iterator[Tracing]:
    """Tracing to the OTLP/HTTP collector at ``endpoint`` (without ``/v1/traces``), keeping ``ratio`` of all traces.

    At the end what is under way is delivered, within ``CLOSE_S_MAX``.
    """
    # It warns for every span that does not fit; we say it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    address = f"{endpoint.rstrip('/')}/v1/traces"
    exporter = _OnceSpoken(OTLPSpanExporter(endpoint=address, timeout=EXPORT_TIMEOUT_S), endpoint)
    processor = BatchSpanProcessor(
        exporter, max_queue_size=QUEUE_SPANS, schedule_delay_millis=EXPORT_EVERY_MS, max_export_batch_size=512
    )
    heads = TraceIdRatioBased(ratio)
    providers = []
    # A stranger's flag does not get a trace kept: the id decides here, too, as it did at the head.
    for sampler in (ParentBased(heads, remote_parent_sampled=heads), ALWAYS_ON):
        provider = TracerProvider(
            sampler=sampler,
            resource=Resource.create(resource),
            id_generator=_Ids(),
            span_limits=SpanLimits(max_links=LINKS_MAX),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(processor)
        providers.append(provider)
    try:
        yield Tracing(*(provider.get_tracer("fluvial") for provider in providers))
    finally:
        closing = threading.Thread(target=processor.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(CLOSE_S_MAX)
