"""What a canary says of its updates: as expected, late, wrong, unpublished. The fold that judges is the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.errors import ConnectionProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.state import initial
from aggregation.fold.transition import fold_into
from aggregation.partitioning import partition_of
from backends.log import LogRecord, Position
from backends.observer import Observer
from producers.canary import EXPECTED, LATE, UNPUBLISHED, WRONG_VERDICT, Canary, Ping
from producers.sdk.updates import Author
from schemas.canaries import canary_name
from schemas.manifests import Genesis, Region, TensorEntry
from schemas.records import decode_record
from tests import factories
from tests.factories import verdict_bytes

REGION, PARTITIONS = "eu", 3
NAME = canary_name(REGION)
HOME = partition_of(NAME, PARTITIONS)


def genesis() -> Genesis:
    def pem(region: str) -> str:
        return factories.authority(region).public_bytes(Encoding.PEM).decode()

    return Genesis(
        task=factories.TASK,
        regions={REGION: Region(partitions=PARTITIONS, authority=pem(REGION))},
        control_authority=pem(factories.CONTROL),
        layout=tuple(TensorEntry(name=spec.name, shape=spec.shape) for spec in factories.LAYOUT.tensors),
        policy=msgspec.json.decode(factories.policy().canonical()),
        model_sha256=factories.model_sha(0),
        optimizer_sha256=factories.sha("optimizer"),
    )


class Clock:
    """Time goes on by a quarter of a second with every record that is waited for."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1_700_000_000.0 + self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Region1:
    """Log, worker and broker of a region in memory. ``delay`` polls pass before a verdict stands."""

    clock: Clock = field(default_factory=Clock)
    delay: int = 0
    refuse: bool = False
    mute_broker: bool = False
    spoil: Mapping[str, Any] = field(default_factory=dict)
    junk: bytes | None = None

    def __post_init__(self) -> None:
        policy = factories.policy()
        self.state = initial(
            task=factories.TASK,
            region=REGION,
            partition=HOME,
            partitions=PARTITIONS,
            layout=factories.LAYOUT,
            policy=policy,
            model_sha256=factories.model_sha(0),
        )
        self.before = factories.snapshot(self.state)
        self.values: list[bytes] = []
        self.due: list[tuple[int, bytes]] = []
        self.polls = 0

    # the writer's part

    def append(self, topic: str, value: bytes, *, key: bytes, partition: int) -> Future[Position]:
        future: Future[Position] = Future()
        assert (key, partition) == (NAME.encode(), HOME)
        if self.mute_broker:
            return future
        if self.refuse:
            future.set_exception(ConnectionProblem("FLV-3100", "the broker is away"))
            return future
        offset = len(self.values)
        self.values.append(value)
        event = decode_record(value, factories.NOW_MS, factories.trust(), factories.policy())
        (verdict, *_) = fold_into(self.state, offset, event)
        assert isinstance(verdict, Verdict)
        self.due.append((self.polls + self.delay, verdict_bytes(replace(verdict, **self.spoil))))
        future.set_result(Position(topic, partition, offset))
        return future

    def poll(self) -> None:
        """Deliveries are done at once here."""

    # the reader's part

    def bounds(self, _topic: str, _partition: int) -> tuple[int, int]:
        return (0, 7)

    def follow(self, starts: Mapping[tuple[str, int], int]) -> Iterator[LogRecord | None]:
        ((topic, partition),) = starts
        assert list(starts.values()) == [7]
        for _ in range(10_000):
            self.polls += 1
            self.clock.now_s += 0.25
            if self.junk is not None:
                yield LogRecord(topic, partition, 7, 0, None, self.junk)
            if self.due and self.due[0][0] < self.polls:
                yield LogRecord(topic, partition, 8, 0, None, self.due.pop(0)[1])
            else:
                yield None


class Seen(Observer):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def canary_published(self, region: str) -> None:
        self.calls.append(("published", region))

    def canary_judged(self, region: str, seconds: float) -> None:
        self.calls.append(("judged", region, seconds))

    def canary_failed(self, region: str, reason: str) -> None:
        self.calls.append(("failed", region, reason))


def canary(region: Region1, observer: Observer | None = None, **options: Any) -> Canary:
    author = Author(genesis(), REGION, NAME, factories.device_signer(NAME, REGION))
    observer = observer or Observer()
    return Canary(author, region, region, clock=region.clock, observer=observer, **options)  # type: ignore[arg-type]


def first(region: Region1, **options: Any) -> Ping:
    (ping,) = canary(region, **options).run(once=True)
    return ping


def test_the_fold_answers_future_base_and_its_state_stays_as_it_was() -> None:
    region, seen = Region1(), Seen()
    ping = first(region, observer=seen)
    assert (ping.outcome, ping.reason, ping.place) == (EXPECTED, "", f"eu[{HOME}]@0")
    assert seen.calls == [("published", "eu"), ("judged", "eu", ping.seconds)]
    after = factories.snapshot(region.state)
    changed = {name for name in after if after[name] != region.before[name]}
    assert changed == {"next_offset", "window.counts"}


@pytest.mark.parametrize(
    ("trouble", "reason", "offset"),
    [
        ({"delay": 100}, LATE, 0),
        ({"spoil": {"outcome": ACCEPTED}}, WRONG_VERDICT, 0),
        ({"spoil": {"outcome": "revoked"}}, WRONG_VERDICT, 0),
        ({"spoil": {"offset": 5}}, LATE, 0),
        ({"refuse": True}, UNPUBLISHED, None),
        ({"mute_broker": True}, UNPUBLISHED, None),
    ],
)
def test_what_is_wrong_is_named(trouble: dict[str, Any], reason: str, offset: int | None) -> None:
    seen = Seen()
    ping = first(Region1(**trouble), observer=seen)
    assert (ping.reason, ping.offset) == (reason, offset)
    assert ping.detail and ping.document()["ok"] is False
    assert seen.calls[-1] == ("failed", "eu", reason)


def test_a_verdict_that_comes_after_the_objective_does_not_count_for_the_next_update() -> None:
    region = Region1(delay=8)  # two seconds
    pings = []
    one = canary(region, every_s=3.0, objective_s=1.0)
    for ping in one.run():
        pings.append(ping)
        if len(pings) == 3:
            one.stop()
    assert [ping.reason for ping in pings] == [LATE] * 3
    assert [ping.offset for ping in pings] == [0, 1, 2]
    assert one.tally.document() == {
        "published": 3,
        "judged": 0,
        "failed": {"late": 3, "wrong_verdict": 0, "unpublished": 0},
    }


def test_every_update_has_an_id_of_its_own_and_comes_in_time() -> None:
    region = Region1()
    one, began_s = canary(region, every_s=2.0), region.clock.now_s
    for _ in one.run():
        if one.tally.judged == 4:
            one.stop()
    assert len(set(region.values)) == 4
    assert region.clock.now_s - began_s == pytest.approx(3 * 2.0, abs=1.0)


def test_what_is_no_verdict_is_no_answer() -> None:
    assert first(Region1(junk=b"\xc3\x01junk")).reason == ""


def test_one_that_was_stopped_before_it_began_publishes_nothing() -> None:
    region = Region1()
    one = canary(region)
    one.stop()
    assert list(one.run()) == [] and region.values == []
