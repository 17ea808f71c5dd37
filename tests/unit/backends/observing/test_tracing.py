"""Traces: what connects spans, what a stranger's header can do (nothing), and that everything is bounded."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict, WindowClosed
from aggregation.reasons import said
from backends.environment import load_settings
from backends.log import Headers, LogRecord, Position
from backends.observing import tracing as module
from backends.observing.tracing import Tracing, context_in, tracing
from tests import factories
from tests.collector import Collector, collecting
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = ("eu", 1)
RESOURCE = {"service.name": "fluvial-test"}
GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "device-with-a-name"
LOG_KEY, PAYLOAD = b"key-of-the-record", b"payload-of-the-record"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def record(offset: int, headers: Headers = ()) -> LogRecord:
    return LogRecord("fl.digits.updates.eu", 1, offset, factories.NOW_MS, LOG_KEY, PAYLOAD, headers)


def judge(tracer: Tracing, offset: int, headers: Headers = (), outcome: str = "accepted") -> Headers:
    verdict = Verdict(offset=offset, outcome=outcome, because=said(SECRET), device_id=SECRET, base_version=3)
    one = record(offset, headers)
    tracer.folding(SLOT, one)
    return tracer.judged(SLOT, one, factories.tick(0), verdict)


def closed(offsets: int) -> WindowClosed:
    """A real closed window of so many accepted updates."""
    site = factories.Site(factories.state_of(factories.policy(window={"updates_max": offsets})))
    for seed, name in enumerate(factories.devices(offsets)):
        site.append(factories.update_bytes(name, seed=seed))
    (found,) = [effect for effect in site.effects if isinstance(effect, WindowClosed)]
    return found


def test_the_chain_from_publish_to_commit(collector: Collector) -> None:
    with tracing(collector.url, 1.0, RESOURCE) as tracer:
        published = [tracer.publishing("eu", "int8", 9) for _ in range(3)]
        for n, headers in enumerate(published):
            tracer.placed(headers, Position("fl.digits.updates.eu", 1, n) if n else None)
        for n, headers in enumerate(published):
            judge(tracer, n, headers, "accepted" if n < 2 else "duplicate")
        window, aggregate = closed(2), factories.aggregate(region="eu", partition=1, sequence=0)
        carried = tracer.window_closed(SLOT, window, factories.state_of(factories.policy()))
        tracer.window_published(SLOT, window, aggregate)
        tracer.window_taken(record(0, carried), aggregate)
        tracer.merging(7, [aggregate])
        tracer.committing(7)
        tracer.race_lost(7)
    spans = {name: collector.named(name) for name in ("publish", "verdict", "window", "merge", "commit")}
    assert {name: len(found) for name, found in spans.items()} == {
        "publish": 3, "verdict": 3, "window": 1, "merge": 1, "commit": 1,
    }  # fmt: skip
    heads = {span.span_id: span for span in spans["publish"]}
    for verdict in spans["verdict"]:
        assert heads[verdict.parent_id].trace_id == verdict.trace_id
    accepted = {span.span_id for span in spans["verdict"] if span.attributes["outcome"] == "accepted"}
    (window_span,), (merge,), (commit,) = spans["window"], spans["merge"], spans["commit"]
    assert set(window_span.links) == accepted and len(accepted) == 2
    assert window_span.parent_id == "" and merge.parent_id == ""
    assert merge.links == (window_span.span_id,)
    assert (commit.parent_id, commit.trace_id, commit.error) == (merge.span_id, merge.trace_id, True)
    assert window_span.attributes["sequence"] == 0 and merge.attributes["version"] == 7
    assert sorted(span.error for span in spans["publish"]) == [False, False, True]
    assert {"region", "partition", "offset"} <= spans["publish"][-1].attributes.keys()
    sent = b"".join(collector.raw)
    assert b"outcome" in sent
    assert not [one for one in (LOG_KEY, PAYLOAD, SECRET.encode()) if one in sent]


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("traceparent", b""),),
        (("traceparent", GOOD[:-1]),),
        (("traceparent", GOOD + b"-00"),),
        (("traceparent", GOOD + b"\n"),),
        (("traceparent", GOOD.upper()),),
        (("traceparent", b"ff" + GOOD[2:]),),
        (("traceparent", b"00-" + b"0" * 32 + GOOD[35:]),),
        (("traceparent", GOOD[:36] + b"0" * 16 + b"-01"),),
        (("traceparent", b"\xff\x00" * 40),),
        (("traceparent", b"0" * 10_000_000),),
        (("traceparent", GOOD), ("traceparent", GOOD)),
        (("Traceparent", GOOD),),
    ],
)
def test_a_malformed_or_doubled_header_is_as_good_as_none(headers: Headers, collector: Collector) -> None:
    assert context_in(headers) is None
    with tracing(collector.url, 1.0, RESOURCE) as tracer:
        judge(tracer, 0, headers)
    (span,) = collector.spans
    assert span.parent_id == ""


def test_a_good_header_is_a_parent_whatever_its_other_flags() -> None:
    context = context_in((("other", b"x"), ("traceparent", GOOD[:-2] + b"ff")))
    assert context is not None and context.is_remote
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}") == (
        GOOD[3:35].decode(),
        GOOD[36:52].decode(),
    )
    assert context.trace_flags == 1


def test_what_is_kept_is_decided_at_the_head(collector: Collector) -> None:
    with tracing(collector.url, 0.0, RESOURCE) as tracer:
        headers = tracer.publishing("eu", "int8", 9)
        assert headers[0][1].endswith(b"-00")
        tracer.placed(headers, None)
        judge(tracer, 0, headers)
        judge(tracer, 1, (("traceparent", GOOD),))  # a stranger's wish to be kept
        tracer.window_closed(SLOT, one := closed(2), factories.state_of(factories.policy()))
        tracer.window_published(SLOT, one, factories.aggregate("eu", 1, 0))
    (window,) = collector.spans
    assert (window.name, window.links) == ("window", ())


def test_links_and_spans_in_flight_are_bounded(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_FLIGHT_MAX", 10)
    with tracing(collector.url, 1.0, RESOURCE) as tracer:
        for n in range(module.LINKS_MAX + 50):
            judge(tracer, n)
            tracer.publishing("eu", "int8", 1)
            tracer.window_taken(record(n, (("traceparent", GOOD),)), factories.aggregate("eu", 1, n))
        assert len(tracer._publishing) == len(tracer._taken) == 10
        assert len(tracer._accepted[SLOT]) == module.LINKS_MAX
        tracer.window_closed(SLOT, one := closed(2), factories.state_of(factories.policy()))
        tracer.window_published(SLOT, one, factories.aggregate("eu", 1, 0))
    (window,) = collector.named("window")
    assert len(window.links) == module.LINKS_MAX


def test_a_window_that_is_folded_again_links_to_each_verdict_once(collector: Collector) -> None:
    with tracing(collector.url, 1.0, RESOURCE) as tracer:
        judge(tracer, 0)
        tracer.resumed(SLOT, factories.state_of(factories.policy()))
        judge(tracer, 0)
        assert len(tracer._accepted[SLOT]) == 1


def test_a_collector_that_is_not_there_is_said_once_and_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPORT_EVERY_MS", 50)
    monkeypatch.setattr(module, "EXPORT_TIMEOUT_S", 0.2)
    with socket.socket() as held:  # bound and not listening: refused at once
        held.bind(("127.0.0.1", 0))
        with (
            caplog.at_level(logging.INFO),
            tracing(f"http://127.0.0.1:{held.getsockname()[1]}", 1.0, RESOURCE) as tracer,
        ):
            for n in range(3 * module.QUEUE_SPANS):
                judge(tracer, n)
            until(lambda: len(caplog.records) > 0, "it is said")
    said = [one.getMessage() for one in caplog.records]
    assert len(said) == 1 and "do not reach http://127.0.0.1" in said[0], said


def test_opentelemetry_is_not_loaded_when_it_is_off() -> None:
    code = (
        "import sys; from pathlib import Path; from backends.settings import Settings, StoreSettings; "
        "from fluvial.processes.observing import ProcessIdentity, observing\n"
        "s = Settings(home=Path('.'), bootstrap_servers='a:1', store=StoreSettings(kind='file', path=Path('.')))\n"
        "with observing(s, ProcessIdentity('t', 'fleet', 'f')): pass\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


BASE = {"FLUVIAL_BOOTSTRAP_SERVERS": "a:1", "FLUVIAL_STORE_PATH": "/nowhere"}


def test_it_is_off_by_default_and_one_variable_turns_it_on(home: Path) -> None:
    assert load_settings(home, BASE).otlp_endpoint == ""
    on = load_settings(home, BASE | {"FLUVIAL_OTLP_ENDPOINT": "https://collector:4318/base"})
    assert (on.otlp_endpoint, on.trace_ratio) == ("https://collector:4318/base", 0.1)
    assert load_settings(home, BASE | {"FLUVIAL_TRACE_RATIO": "1"}).trace_ratio == 1.0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLUVIAL_OTLP_ENDPOINT", "collector:4318"),
        ("FLUVIAL_OTLP_ENDPOINT", "http://"),
        ("FLUVIAL_OTLP_ENDPOINT", "http://user:password@collector:4318"),
        ("FLUVIAL_OTLP_ENDPOINT", "http://collector:99999"),
        ("FLUVIAL_OTLP_ENDPOINT", "http://collector/?token=1"),
        ("FLUVIAL_TRACE_RATIO", "1.5"),
        ("FLUVIAL_TRACE_RATIO", "nan"),
        ("FLUVIAL_TRACE_RATIO", "most"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_without_its_password(
    home: Path, variable: str, value: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        load_settings(home, BASE | {variable: value})
    assert caught.value.error_id == "FLV-1002"
    assert variable.removeprefix("FLUVIAL_").lower() in str(caught.value)
    assert "password" not in str(caught.value)
