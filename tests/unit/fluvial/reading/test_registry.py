"""All devices that were heard: by verdicts and by heartbeats, bounded, and with nobody's word for another."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import msgspec
from rich.console import Console

from aggregation.fold.events import Verdict
from backends.log import LogRecord
from backends.memory.log import MemoryWriter
from backends.tasks import TaskFile
from fluvial.commands.suspects import show_registry
from fluvial.reading.registry import Gathering, Registry, read_registry
from fluvial.terminal.output import Output
from schemas.certificates import Role
from schemas.heartbeats import Heartbeat, seal_heartbeat
from schemas.topics import Topic, heartbeats_topic, topics_of, updates_topic, verdicts_topic
from tests import factories
from tests.factories import names_of
from tests.small_federation import SmallFederation
from tests.unit.fluvial.reading.test_devices import view_of

POLICY = factories.policy(format="fluvial/policy/v6", window={"updates_max": 50})


class Beating(SmallFederation):
    """A task that was created with a topic of heartbeats."""

    @property
    def topics(self) -> tuple[Topic, ...]:
        return topics_of(self.task, self.partitions, heartbeats=True)

    @property
    def task_file(self) -> TaskFile:
        return msgspec.structs.replace(super().task_file, heartbeats=True)


def federation_of(*, heartbeats: bool = False) -> SmallFederation:
    return Beating(policy=POLICY) if heartbeats else SmallFederation(policy=POLICY)


def devices_of(federation: SmallFederation, number: int) -> list[str]:
    return factories.devices(number, partition=0, partitions=federation.genesis.partitions["eu"])


def go_on(federation: SmallFederation, devices: list[str], versions: int) -> None:
    for _ in range(versions):
        for number, device in enumerate(devices):
            seed = federation.version * 100 + number
            federation.append("eu", 0, federation.update("eu", device, seed=seed))
        federation.close_windows()
        federation.fold()
        federation.merge()


def read(federation: SmallFederation, limit: int = 20) -> Registry:
    view = view_of(federation)
    return read_registry(view, list(view.genesis.slots), limit=limit)


def beat(federation: SmallFederation, device: str, sent_ms: int, **said: Any) -> bytes:
    cohort = said.pop("cohort", "")
    uris = names_of("eu", Role.DEVICE, device, cohort)
    signer = federation.signer(factories.device_signer(device, uris=uris))
    fields: dict[str, Any] = {"base_version": 0, "state": "waiting"} | said
    return seal_heartbeat(Heartbeat(federation.task, "eu", device, sent_ms, **fields), signer)


def shown(found: Registry, now_s: float = 2e9) -> str:
    output = Output(json=False)
    output.out, output.err = (Console(file=io.StringIO(), width=1000) for _ in range(2))
    show_registry(output, found, now_s=now_s)
    assert isinstance(output.out.file, io.StringIO) and isinstance(output.err.file, io.StringIO)
    return output.out.file.getvalue() + output.err.file.getvalue()


def test_who_took_part_in_how_many_versions_and_with_which_verdicts() -> None:
    federation = federation_of()
    often, once = devices_of(federation, 2)
    go_on(federation, [often, once], 1)
    go_on(federation, [often], 2)
    federation.append("eu", 0, federation.update("eu", often, base=0))
    federation.fold()
    found = read(federation)
    by_id = {one.device_id: one for one in found.shown}
    assert found.total == 2 and not found.heartbeats
    assert by_id[often].participation(found.head) == 3
    assert by_id[once].participation(found.head) == 1
    assert by_id[often].outcomes == {"accepted": 3, "duplicate": 1}
    assert (by_id[often].outcome, by_id[often].cohort) == ("duplicate", "")
    document = json.loads(json.dumps(found.document()))
    assert document["devices"][0]["verdicts"] == {"accepted": 3, "duplicate": 1}
    text = shown(found)
    assert often in text and "no heartbeats" in text


def test_a_device_that_only_waits_is_heard_by_its_heartbeats() -> None:
    federation = federation_of(heartbeats=True)
    one, other = devices_of(federation, 2)
    topic, now_ms = heartbeats_topic(federation.task), round(federation.clock.time() * 1000)
    reason = "the battery is at 9 %\x1b[31m"
    for value in (
        beat(federation, one, now_ms - 60_000, cohort="old"),
        beat(federation, one, now_ms - 30_000, cohort="old", state="declined", reason=reason),
        beat(federation, other, now_ms - 5_000),
        b"junk",
    ):
        federation.writer.append_now(topic, value, partition=0)
    found = read(federation)
    assert [heard.device_id for heard in found.shown] == [other, one]
    heard = found.shown[1]
    assert (heard.state, heard.cohort, heard.participation(found.head)) == ("declined", "old", 0)
    assert heard.last_ms == now_ms - 30_000
    assert found.heartbeats and found.strays == 1
    text = shown(found)
    assert "\x1b" not in text and "declined: the battery is at 9 %\\x1b[31m" in text
    assert [one.device_id for one in read(federation, limit=1).shown] == [other]


def test_a_copy_of_an_old_heartbeat_makes_nobody_alive_and_one_of_the_future_is_heard_now() -> None:
    federation = federation_of(heartbeats=True)
    one, other = devices_of(federation, 2)
    topic, now_ms = heartbeats_topic(federation.task), round(federation.clock.time() * 1000)
    old = beat(federation, one, now_ms - 86_400_000, state="waiting")
    for value in (old, beat(federation, one, now_ms - 86_000_000, state="training"), old, old):
        federation.writer.append_now(topic, value, partition=0)
    federation.writer.append_now(topic, beat(federation, other, now_ms + 10**9), partition=0)
    ahead, heard = read(federation).shown
    assert (heard.device_id, heard.last_ms, heard.state) == (one, now_ms - 86_000_000, "training")
    assert ahead.device_id == other and ahead.last_ms < now_ms + 10**8


def test_the_cohort_is_that_of_the_certificate_that_signed_the_newest_update() -> None:
    federation = federation_of()
    (one,) = devices_of(federation, 1)
    signer = federation.signer(
        factories.device_signer(one, uris=names_of("eu", Role.DEVICE, one, "hospitals"))
    )
    federation.append("eu", 0, federation.update("eu", one, by=signer))
    federation.fold()
    (heard,) = read(federation).shown
    assert (heard.outcome, heard.cohort) == ("accepted", "hospitals")


def test_what_others_write_beside_the_verdicts_is_counted_and_hides_nobody() -> None:
    federation = federation_of()
    (one,) = devices_of(federation, 1)
    go_on(federation, [one], 1)
    topic = verdicts_topic(federation.task, "eu")
    federation.writer.append_now(topic, b"junk", partition=0)
    for offset in (10**9, -1, -7):
        ghost = factories.verdict_bytes(Verdict(offset, "accepted", device_id="ghost"))
        federation.writer.append_now(topic, ghost, partition=0)
    found = read(federation)
    assert [heard.device_id for heard in found.shown] == [one] and found.strays == 4


def test_of_a_device_whose_updates_the_log_has_lost_the_cohort_is_not_known() -> None:
    federation = federation_of()
    (one,) = devices_of(federation, 1)
    go_on(federation, [one], 1)
    log = cast("MemoryWriter", federation.writer)._log
    log.forget_before(updates_topic(federation.task, "eu"), 0, 5)
    (heard,) = read(federation).shown
    assert (heard.device_id, heard.cohort) == (one, None)


def test_what_is_kept_is_bounded_and_who_was_heard_longest_ago_goes() -> None:
    federation, kept = federation_of(heartbeats=True), Gathering(kept_max=3)
    ones = devices_of(federation, 6)
    view, now_ms = view_of(federation), round(federation.clock.time() * 1000)
    for number, one in enumerate([*ones[:3], ones[0], *ones[3:]]):
        value = beat(federation, one, now_ms + number)
        kept.heartbeat(view, LogRecord("t", 0, number, now_ms + number, None, value))
    assert len(kept) == 3 and kept.forgotten == 3
    assert [one.device_id for one in kept.by_last()] == ones[5:2:-1]


def test_where_nobody_was_heard_it_says_so() -> None:
    assert "no device was heard" in shown(read(federation_of()))
    assert updates_topic("t", "eu") != heartbeats_topic("t")
