"""The offline checker: silent about healthy federations of every kind, and not about any promise that is broken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import CODECS, DEFAULT_CODEC, accumulate_values_into, mean_of_values
from aggregation.defences import DEFENCES
from aggregation.fold.events import Parked, Verdict
from aggregation.layout import VALUE_DIGITS
from aggregation.optimizers import OPTIMIZERS
from aggregation.reasons import Reason, because
from aggregation.weights.divisors import DIVISORS
from aggregation.weights.staleness import STALENESS_KINDS
from backends.kafka.configuration import connection
from fluvial.proof.checker import (
    Acknowledged,
    CheckReport,
    CheckRequest,
    StoreAddress,
    buffers,
    check,
    check_logs,
)
from schemas import avro as codec
from schemas.certificates import Role
from schemas.checkpoints import decode_model, encode_model
from schemas.envelope import Signer, open_envelope
from schemas.manifest_seals import sealed
from schemas.manifests import Manifest
from schemas.objects import manifest_key, model_key, object_key, optimizer_key, sha256_hex
from schemas.signing import FIRST_DOMAIN, SignatureDomain
from schemas.topics import aggregates_topic, models_topic, updates_topic, verdicts_topic
from tests import defended, factories
from tests.factories import verdict_bytes
from tests.small_federation import PARTITIONS, SmallFederation, on_mock_cluster

Entry = tuple[int, int, bytes | None, bytes | None]


@dataclass
class Copy:
    """The logs and objects of a federation as plain data, to be damaged."""

    task: str
    genesis_sha256: str
    logs: dict[tuple[str, int], list[Entry]]
    objects: dict[str, bytes]
    acknowledged: list[Acknowledged] = field(default_factory=list)
    domain: SignatureDomain = FIRST_DOMAIN

    def check(self, *, drained: bool = True, **options: Any) -> CheckReport:
        return check_logs(
            self.logs,
            self.objects,
            self.task,
            self.genesis_sha256,
            self.acknowledged,
            drained=drained,
            **options,
        )

    def edit(self, topic: str, at: int, value: bytes | None, partition: int = 0) -> None:
        """Put another value in the place of a topic's record number ``at``."""
        log = self.logs[topic, partition]
        offset, timestamp_ms, key, _ = log[at]
        log[at] = (offset, timestamp_ms, key, value)

    def append(self, topic: str, value: bytes, partition: int = 0) -> int:
        """Append a record after all others, in time too; returns its offset."""
        log = self.logs[topic, partition]
        log.append((len(log), factories.NOW_MS * 2 if not log else log[-1][1], None, value))
        return len(log) - 1


def copy_of(federation: SmallFederation) -> Copy:
    """Read everything, by the project's own reader."""
    task = federation.task
    logs: dict[tuple[str, int], list[Entry]] = {
        (topic.name, p): [
            (r.offset, r.timestamp_ms, r.key, r.value) for r in federation.records(topic.name, p)
        ]
        for topic in federation.topics
        for p in range(topic.partitions)
    }
    store = federation.objects.store
    objects = {key: store.get(key) for key in store.list(f"{task}/")}
    return Copy(task, federation.task_file.genesis_sha256, logs, objects, domain=federation.genesis.domain)


@pytest.fixture(scope="module")
def original() -> Copy:
    """Four versions over three partitions, with garbage, a stranger's barrier and a stranger's announcement."""
    federation = SmallFederation()
    federation.append("eu", 0, b"garbage")
    der = factories.certificate("control", Role.MERGER, "x", secret="z")
    stranger = Signer(der, factories.key("x"), federation.genesis.domain)
    federation.append(
        "eu", 1, factories.barrier_bytes(9, federation.policy, by=stranger, task=federation.task)
    )
    federation.writer.append_now(models_topic(federation.task), b"junk", partition=0)
    federation.rounds(4)
    federation.fold()
    data = copy_of(federation)
    log = data.logs[updates_topic(federation.task, "us"), 0]
    for offset, _, _, value in log:
        envelope = open_envelope(value or b"")
        if envelope.kind == "ClientUpdate":
            said = envelope.record
            data.acknowledged.append(Acknowledged("us", 0, offset, said["update_id"], said["device_id"]))
    return data


@pytest.fixture
def data(original: Copy) -> Copy:
    return copy.deepcopy(original)


def broken(report: CheckReport) -> set[int]:
    return {one.invariant for one in report.violations}


def test_a_healthy_federation_breaks_no_promise(data: Copy) -> None:
    report = data.check()
    assert [one.message for one in report.violations] == []
    assert report.identical and (report.lost, report.double, report.forks) == (0, 0, 0)
    assert (report.published, report.acknowledged, report.versions) == (36, 12, 4)
    assert report.verdicts == 62 and report.ignored == 1
    assert report.to_document()["violations"] == []


def small(**sections: Any) -> dict[str, Any]:
    return {"policy": factories.policy(**({"window": {"updates_max": 4}} | sections))}


KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "plain steps, int8": (small(), "int8"),
    "momentum, float32": (small(server={"momentum": 0.9, "learning_rate": 0.7}), "float32"),
    "adam, by weights": (small(server={"optimizer": "adam", "divide_by": "weights"}), "int8"),
    "adam, float32, clipped": (small(server={"optimizer": "adam"}, updates={"norm_clip": 0.2}), "float32"),
    "strict anomaly": (
        small(
            anomaly={
                "history_updates_min": 2,
                "norm_deviations_max": 0.5,
                "history_updates": 5,
                "cosine_min": 0.0,
            }
        ),
        "int8",
    ),
    "strict anomaly, float32": (
        small(anomaly={"history_updates_min": 2, "norm_deviations_max": 0.5, "cosine_min": 0.0}),
        "float32",
    ),
    "no anomaly, narrow staleness": (
        small(anomaly={"enabled": False}, staleness={"versions_max": 1}),
        "int8",
    ),
    "few records a window": (small(window={"updates_max": 2, "records_max": 5}), "int8"),
    **{f"the optimizer {name}": (small(server={"optimizer": name}), DEFAULT_CODEC) for name in OPTIMIZERS},
    **{f"the codec {name}": (small(updates={"codecs": [name]}), name) for name in CODECS},
    **{
        f"the staleness kind {name}": (small(staleness={"kind": name}), DEFAULT_CODEC)
        for name in STALENESS_KINDS
    },
    **{f"divided by {name}": (small(server={"divide_by": name}), DEFAULT_CODEC) for name in DIVISORS},
    **{
        f"buffers, {optimizer}, {name}": (
            small(server={"optimizer": optimizer}, updates={"codecs": [name], "norm_clip": 0.2})
            | {"layout": factories.BUFFERED},
            name,
        )
        for optimizer, name in zip(OPTIMIZERS, CODECS, strict=True)
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_policy_recomputes(kind: str) -> None:
    options, codec_name = KINDS[kind]
    federation = SmallFederation(**options)
    for version in range(4):
        for region, count in PARTITIONS.items():
            for p in range(count):
                for number, device in enumerate(factories.devices(5, partition=p, partitions=count)):
                    base = max(0, version - number)
                    value = federation.update(
                        region, device, seed=version * 97 + number * 7 + p, base=base, codec=codec_name
                    )
                    federation.append(region, p, value)
        federation.close_windows()
        federation.fold()
        federation.merge()
    federation.fold()
    report = copy_of(federation).check()
    assert [one.message for one in report.violations] == []
    assert report.identical and report.versions == 4


@pytest.mark.parametrize("kind", DEFENCES)
def test_every_defence_of_policy_v3_recomputes(kind: str) -> None:
    report = copy_of(defended.lived(kind)).check()
    assert [one.message for one in report.violations] == []
    assert report.identical and report.versions == defended.VERSIONS


def test_every_refusal_is_the_same_one() -> None:
    federation = SmallFederation()
    federation.rounds(1)
    device, other = factories.devices(2, partition=0, partitions=2, start=500)
    (stray,) = factories.devices(1, partition=1, partitions=2, start=500)
    good, task, layout = federation.update("eu", device, seed=1), federation.task, federation.layout
    expired = factories.NOT_BEFORE.replace(month=2)
    worker, other_worker = (federation.signer(factories.worker_signer("w-1", one)) for one in ("eu", "us"))
    operator = federation.signer(factories.operator_signer())
    odd = [
        b"", good[:-3], good[:10] + b"\xff" * 40, b"\xc3\x01" + b"12345678" + good[10:],
        good[:-1] + bytes([good[-1] ^ 1]),
        factories.update_bytes(
            device, seed=2, base=7, base_sha256="x", region="eu", task=task, layout=layout,
            by=federation.signer(factories.device_signer(device, "eu")),
        ),
        federation.update("eu", device, seed=2, base_sha256="x"),
        federation.update("eu", stray, seed=3),
        federation.update("eu", device, seed=4, by=factories.device_signer(other, "eu")),
        federation.update("eu", device, seed=4, by=factories.device_signer(device, "us")),
        federation.update("eu", device, seed=4, by=factories.worker_signer("w-1", "eu")),
        federation.update("eu", device, seed=4, by=factories.device_signer(device, "eu", not_after=expired)),
        federation.update("eu", device, seed=4, by=factories.device_signer(device, "eu", secret="other")),
        federation.update("eu", device, seed=4, by=factories.device_signer(device, "eu", is_authority=True)),
        federation.update("eu", device, seed=4, update_id="u" * 65),
        federation.update("eu", device, seed=5, tensors=factories.encoded(factories.delta(1))),
        factories.tick_bytes(0, partition=0, by=other_worker, region="eu", task=task),
        factories.tick_bytes(0, partition=1, by=worker, region="eu", task=task),
        factories.tick_bytes(0, partition=0, by=worker, region="eu", task="x"),
        good, good,
        factories.revoke_bytes(device_id=other, task=task, by=operator),
        federation.update("eu", other, seed=6),
    ]  # fmt: skip
    for value in odd:
        federation.append("eu", 0, value)
    federation.rounds(2)
    federation.fold()
    report = copy_of(federation).check()
    outcomes = {
        codec.decode(value or b"")[1]["outcome"]
        for _, _, _, value in copy_of(federation).logs[verdicts_topic(federation.task, "eu"), 0]
    }
    assert [one.message for one in report.violations] == []
    assert len(outcomes) >= 12, outcomes


BAD_BUFFERS: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"data": np.array([1, np.nan, 1], dtype="<f4").tobytes()}, "not_finite"),
    "a scale that is infinite": ({"scale": float("inf")}, "not_finite"),
    "an element below 0": ({"data": np.array([1, -1, 1], dtype="<f4").tobytes()}, "out_of_range"),
    "a scale": ({"scale": 2.0}, "wrong_layout"),
    "a byte too few": ({"data": bytes(11)}, "wrong_layout"),
    "another name": ({"name": "mean"}, "wrong_layout"),
}


def test_every_refusal_of_buffers_is_the_same_one() -> None:
    federation = SmallFederation(layout=factories.BUFFERED)
    known = factories.devices(len(BAD_BUFFERS), partition=0, partitions=2, start=500)
    for device, (changed, _) in zip(known, BAD_BUFFERS.values(), strict=True):
        tensors = factories.encoded(factories.delta(5, federation.layout), layout=federation.layout)
        tensors[-1] = replace(tensors[-1], **changed)
        federation.append("eu", 0, federation.update("eu", device, tensors=tensors))
    federation.rounds(2)
    federation.fold()
    data = copy_of(federation)
    entries = data.logs[verdicts_topic(federation.task, "eu"), 0][: len(BAD_BUFFERS)]
    outcomes = [codec.decode(value or b"")[1]["outcome"] for _, _, _, value in entries]
    assert outcomes == [outcome for _, outcome in BAD_BUFFERS.values()]
    assert [one.message for one in data.check().violations] == []


def test_a_version_whose_buffers_are_not_the_mean_of_its_updates_is_found() -> None:
    federation = SmallFederation(layout=factories.BUFFERED)
    federation.rounds(2)
    federation.fold()
    data = copy_of(federation)
    key = model_key(data.task, 2)
    model = decode_model(data.objects[key], federation.layout).copy()
    model[-1] = np.nextafter(model[-1], np.float32(9))
    data.objects[key] = encode_model(model, federation.layout)
    edit_manifest(data, 2, model_sha256=sha256_hex(data.objects[key]))
    assert any("model_sha256" in one.message for one in data.check().violations if one.invariant == 4)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(1, 1 << 16)),
        min_size=1,
        max_size=6,
    )
)
def test_the_checkers_digits_and_means_are_the_folds(pairs: list[tuple[float, int]]) -> None:
    sums = [np.zeros(VALUE_DIGITS, dtype=np.int64) for _ in range(2)]
    for value, weight in pairs:
        one = np.array([value], dtype=np.float32)
        accumulate_values_into(sums[0], one, weight)
        sums[1] += buffers.digits_of(one, weight)
    assert sums[0].tolist() == sums[1].tolist()
    total = sum(weight for _, weight in pairs)
    assert mean_of_values(sums[0], total).tobytes() == buffers.means(sums[1], total).tobytes()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("fluvial/policy/v1", "unknown_schema"), ("fluvial/policy/v2", "wrong_layout")],
    ids=["v1", "v2"],
)
def test_a_later_update_gets_the_verdict_of_the_policys_format(policy: str, expected: str) -> None:
    federation = SmallFederation(policy=factories.policy(format=policy))
    (device,) = factories.devices(1, partition=0, partitions=2, start=500)
    tensors = factories.encoded(factories.delta(5, federation.layout), "int4", 5, federation.layout)
    federation.append("eu", 0, federation.update("eu", device, seed=5, codec="int4", tensors=tensors))
    federation.rounds(1)
    federation.fold()
    data = copy_of(federation)
    _, _, _, first = data.logs[verdicts_topic(federation.task, "eu"), 0][0]
    assert codec.decode(first or b"")[1]["outcome"] == expected
    assert [one.message for one in data.check().violations] == []


def test_bytes_that_int4_does_not_write_are_the_wrong_layout() -> None:
    federation = SmallFederation(policy=factories.policy(updates={"codecs": ["int4"]}))
    for number, device in enumerate(factories.devices(3, partition=0, partitions=2, start=500)):
        tensors = factories.encoded(factories.delta(5, federation.layout), "int4", 5, federation.layout)
        bad = bytes([(0x08, 0x80, 0x11)[number]]) + tensors[0].data[1:]
        tensors[0] = replace(tensors[0], data=bad)
        federation.append("eu", 0, federation.update("eu", device, seed=5, codec="int4", tensors=tensors))
    federation.rounds(1)
    federation.fold()
    data = copy_of(federation)
    entries = data.logs[verdicts_topic(federation.task, "eu"), 0][:3]
    outcomes = [codec.decode(value or b"")[1]["outcome"] for _, _, _, value in entries]
    assert outcomes == ["wrong_layout", "wrong_layout", "accepted"]
    assert [one.message for one in data.check().violations] == []


def test_it_reads_a_broker_and_a_store_by_itself(tmp_path: Path) -> None:
    with on_mock_cluster(tmp_path) as settings:
        federation = SmallFederation(settings)
        federation.rounds(2)
        federation.fold()
        request = CheckRequest(
            kafka=connection(federation.settings),
            store=StoreAddress(path=str(federation.settings.store.path)),
            task=federation.task,
            genesis_sha256=federation.task_file.genesis_sha256,
        )
        told: list[tuple[str, int, int]] = []

        def follow(*progress: Any) -> None:
            told.append(progress)

        report = check(request, on_progress=follow)
        assert report == copy_of(federation).check()
        assert report.identical and report.versions == 2 and told


# -- what has to be found: the damage, the invariants that it breaks, and what else the report has to say

EU, US = "eu", "us"


def verdicts(data: Copy) -> str:
    return verdicts_topic(data.task, US)


def verdict_at(data: Copy, number: int) -> dict[str, Any]:
    return codec.decode(data.logs[verdicts(data), 0][number][3] or b"")[1]


def drop_verdict(data: Copy) -> None:
    del data.logs[verdicts(data), 0][1]


def change_verdict(data: Copy, **changed: Any) -> None:
    data.edit(verdicts(data), 1, codec.encode("Verdict", verdict_at(data, 1) | changed))


def second_verdict(data: Copy) -> None:
    data.append(verdicts(data), codec.encode("Verdict", verdict_at(data, 1) | {"weight": 1}))


def accept_twice(data: Copy) -> None:
    data.edit(verdicts(data), 1, codec.encode("Verdict", verdict_at(data, 0) | {"offset": 1}))


def verdict_beyond(data: Copy, offset: int = 10_000) -> None:
    data.append(
        verdicts(data), codec.encode("Verdict", verdict_at(data, 1) | {"offset": offset, "device_id": "q"})
    )


def window_beyond(data: Copy) -> None:
    """What a worker signed that was made to fold what the log does not have."""
    edited_aggregate(data, -1, append=True, sequence=4, next_offset=10_000)


def lose_acknowledged(data: Copy) -> None:
    data.acknowledged.append(Acknowledged(US, 0, 10_000, "u", "d"))


def acknowledge_another(data: Copy) -> None:
    data.acknowledged[0] = replace(data.acknowledged[0], update_id="another")


def edit_manifest(data: Copy, version: int, **changed: Any) -> None:
    key = manifest_key(data.task, version)
    made = msgspec.convert(msgspec.json.decode(data.objects[key]) | changed, Manifest)
    # By a merger that lies: what nobody signed is no manifest at all.
    data.objects[key] = sealed(made, factories.merger_signer().of_task(data.domain)).canonical()


def lose_manifest(data: Copy) -> None:
    del data.objects[manifest_key(data.task, 2)]


def sign(data: Copy, kind: str, by: Signer, topic: str, **changed: Any) -> None:
    """Append a copy of a topic's newest record of a kind, changed and signed."""
    records = [open_envelope(value or b"") for _, _, _, value in data.logs[topic, 0] if value != b"junk"]
    last = [one.record for one in records if one.kind == kind][-1]
    data.append(topic, by.of_task(data.domain).sign(kind, last | changed))


def fork_in_barrier(data: Copy) -> None:
    sign(data, "Barrier", factories.merger_signer(), updates_topic(data.task, US), manifest_sha256="f" * 64)


def barrier_of_nothing(data: Copy) -> None:
    sign(data, "Barrier", factories.merger_signer(), updates_topic(data.task, US), version=9)


def fork_in_announcement(data: Copy) -> None:
    sign(
        data,
        "ModelAnnouncement",
        factories.merger_signer(),
        models_topic(data.task),
        manifest_sha256="f" * 64,
    )


def announce_nothing(data: Copy) -> None:
    sign(data, "ModelAnnouncement", factories.merger_signer(), models_topic(data.task), version=9)


def announce_early(data: Copy) -> None:
    log = data.logs[models_topic(data.task), 0]
    offset, timestamp_ms, key, value = log[-1]
    log[-1] = (offset, timestamp_ms - 3_600_000, key, value)


def gap_in_aggregates(data: Copy) -> None:
    del data.logs[aggregates_topic(data.task, US), 0][1]


def second_aggregate(data: Copy) -> None:
    edited_aggregate(data, -1, append=True, weight_total=1)


def edited_aggregate(data: Copy, at: int, *, append: bool = False, **changed: Any) -> None:
    topic = aggregates_topic(data.task, US)
    record = open_envelope(data.logs[topic, 0][at][3] or b"").record
    value = (
        factories.worker_signer("w-1", US).of_task(data.domain).sign("RegionalAggregate", record | changed)
    )
    if append:
        data.append(topic, value)
    else:
        data.edit(topic, at, value)


def named_by_aggregate(data: Copy, at: int, name: str) -> str:
    topic = aggregates_topic(data.task, US)
    return object_key(data.task, open_envelope(data.logs[topic, 0][at][3] or b"").record[name])


def flip(data: Copy, key: str) -> None:
    value = bytearray(data.objects[key])
    value[-1] ^= 1
    data.objects[key] = bytes(value)


def poor_snapshot(data: Copy) -> None:
    snapshot = codec.decode(data.objects[named_by_aggregate(data, -1, "state_sha256")])[1]
    value = codec.encode("PartitionState", snapshot | {"counted": []})
    data.objects[object_key(data.task, sha256_hex(value))] = value
    edited_aggregate(data, -1, state_sha256=sha256_hex(value))


def other_sums(data: Copy) -> None:
    value = bytearray(data.objects[named_by_aggregate(data, -1, "sum_sha256")])
    value[0] ^= 1
    data.objects[object_key(data.task, sha256_hex(bytes(value)))] = bytes(value)
    edited_aggregate(data, -1, sum_sha256=sha256_hex(bytes(value)))


def hold_twice(data: Copy) -> None:
    inputs = msgspec.json.decode(data.objects[manifest_key(data.task, 3)])["inputs"]
    edit_manifest(data, 4, inputs=inputs)


def undrained_update(data: Copy) -> None:
    data.append(updates_topic(data.task, US), b"too late")


def early_device(data: Copy) -> None:
    """An honest device's update on version 1, that stands before the barrier of version 1."""
    topic = updates_topic(data.task, US)
    (device,) = factories.devices(1, start=900)
    record = factories.update_record(device, base=1, region=US, task=data.task, update_id="early")
    data.edit(topic, 0, factories.device_signer(device, US).of_task(data.domain).sign("ClientUpdate", record))
    data.acknowledged = [Acknowledged(US, 0, 0, "early", device)]


DAMAGE: dict[str, tuple[Callable[[Copy], None], set[int], dict[str, int]]] = {
    "a verdict is missing": (drop_verdict, {1, 7, 8}, {"lost": 1}),
    "a verdict says another outcome": (lambda d: change_verdict(d, outcome="duplicate"), {4, 8}, {}),
    "a verdict says another weight": (lambda d: change_verdict(d, weight=65535), {4, 8}, {}),
    "a verdict says another norm": (lambda d: change_verdict(d, norm=0.25), {4, 8}, {}),
    "two verdicts on one offset": (second_verdict, {1}, {"double": 1}),
    "a device accepted twice on a version": (accept_twice, {1}, {"double": 1}),
    "a verdict beyond the log": (verdict_beyond, {1, 8}, {}),
    "a verdict before the log": (lambda d: verdict_beyond(d, -1), {1, 8}, {}),
    "a window beyond the log": (window_beyond, {3, 8}, {}),
    "an acknowledged offset beyond the log": (lose_acknowledged, {1}, {"lost": 1}),
    "an acknowledged offset holds another update": (acknowledge_another, {1}, {"lost": 1}),
    "a manifest with another parent": (
        lambda d: edit_manifest(d, 4, parent_sha256="e" * 64),
        {2},
        {"forks": 6},
    ),
    "a manifest in the middle is lost": (lose_manifest, {2}, {}),
    "a barrier of a forked version": (fork_in_barrier, {2}, {"forks": 1}),
    "a barrier of no version": (barrier_of_nothing, {2}, {"forks": 1}),
    "an announcement of a forked version": (fork_in_announcement, {2}, {"forks": 1}),
    "an announcement of no version": (announce_nothing, {6}, {}),
    "an announcement before its barriers": (announce_early, {6}, {}),
    "a device that was told too early": (early_device, {6}, {}),
    "a gap in the aggregates": (gap_in_aggregates, {3}, {}),
    "two aggregates of one sequence": (second_aggregate, {3}, {}),
    "an aggregate with another weight": (lambda d: edited_aggregate(d, -1, weight_total=1), {4}, {}),
    "an aggregate of other offsets": (lambda d: edited_aggregate(d, -1, first_offset=1), {3}, {}),
    "an aggregate after another one": (lambda d: edited_aggregate(d, -1, previous_sha256="a" * 64), {3}, {}),
    "a window that the log does not close": (
        lambda d: edited_aggregate(d, -1, append=True, sequence=4),
        {3},
        {},
    ),
    "a flipped byte in stored sums": (lambda d: flip(d, named_by_aggregate(d, 0, "sum_sha256")), {4}, {}),
    "other sums, well named": (other_sums, {4}, {}),
    "a flipped byte in a model": (lambda d: flip(d, model_key(d.task, 2)), {4}, {}),
    "a flipped byte in an optimizer state": (lambda d: flip(d, optimizer_key(d.task, 3)), {4}, {}),
    "a manifest with another model": (lambda d: edit_manifest(d, 4, model_sha256="a" * 64), {4}, {}),
    "a manifest with other counts": (lambda d: edit_manifest(d, 4, counts={"accepted": 1}), {4}, {}),
    "a manifest with other cursors": (
        lambda d: edit_manifest(d, 4, cursors={"eu": [9, 9], "us": [9]}),
        {3},
        {},
    ),
    "a window in two versions": (hold_twice, {1, 3}, {"double": 9}),
    "a snapshot without contributions": (poor_snapshot, {5}, {}),
    "a flipped byte in a snapshot": (lambda d: flip(d, named_by_aggregate(d, 0, "state_sha256")), {5}, {}),
    "a record that nobody has judged": (undrained_update, {7}, {}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage: str, data: Copy) -> None:
    spoil, invariants, counted = DAMAGE[damage]
    spoil(data)
    report = data.check()
    assert invariants <= broken(report), report.violations
    assert {name: getattr(report, name) for name in counted} == counted
    assert report.identical == (not broken(report) & {2, 3, 4, 5})


def test_of_two_verdicts_the_right_one_may_be_either(data: Copy) -> None:
    """Two different ones break the first invariant; that one of them is what the log gives is the eighth."""
    right = verdict_at(data, 1)
    change_verdict(data, weight=65535)
    assert broken(data.check()) == {4, 8}
    data.append(verdicts(data), codec.encode("Verdict", right))
    assert broken(data.check()) == {1, 4}


def test_above_published_windows_no_verdict_is_missing_yet(data: Copy) -> None:
    published = len(data.logs[aggregates_topic(data.task, US), 0])
    del data.logs[verdicts(data), 0][-1]  # of the last Barrier, whose window is open
    assert published == 4 and data.check(drained=False).violations == ()
    del data.logs[verdicts(data), 0][-1]
    assert 8 in broken(data.check(drained=False))


def test_the_same_verdict_twice_counts_once(data: Copy) -> None:
    data.append(verdicts(data), data.logs[verdicts(data), 0][1][3] or b"")
    assert data.check().violations == ()


def test_what_is_still_on_its_way_is_no_violation_before_the_end(data: Copy) -> None:
    undrained_update(data)
    del data.objects[model_key(data.task, 4)]
    assert data.check(drained=False).violations == ()
    assert broken(data.check()) == {4, 7}


def test_a_transactions_marker_is_an_undecodable_record(data: Copy) -> None:
    topic = updates_topic(data.task, US)
    log = data.logs[topic, 0]
    offset = len(log)
    log.append((offset + 1, log[-1][1], None, b"after the marker"))
    for judged in (offset, offset + 1):
        why = because(Reason.NO_VALUE if judged == offset else Reason.NOT_SINGLE_OBJECT)
        data.append(verdicts(data), verdict_bytes(Verdict(judged, "undecodable", why)))
    assert data.check().violations == ()


def test_times_are_not_compared_where_the_brokers_clock_jumps(data: Copy) -> None:
    announce_early(data)
    assert data.check(clock_skew_ms=None).violations == ()


def test_a_misbehaving_devices_word_is_not_taken(data: Copy) -> None:
    data.acknowledged = [replace(one, update_id="invented", honest=False) for one in data.acknowledged]
    assert data.check().violations == ()


def test_another_genesis_is_not_this_task(data: Copy) -> None:
    data.genesis_sha256 = "0" * 64
    report = data.check()
    assert broken(report) == {2} and not report.identical


def with_genesis(data: Copy, change: Callable[[dict[str, Any]], None]) -> None:
    """The federation as if it had begun with another genesis document, whose hash is trusted."""
    document = json.loads(data.objects[manifest_key(data.task, 0)])
    change(document)
    data.objects[manifest_key(data.task, 0)] = rfc8785.dumps(document)
    data.genesis_sha256 = sha256_hex(data.objects[manifest_key(data.task, 0)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.update(format="fluvial/genesis/v9"), "genesis document"),
        (lambda document: document.pop("format"), "genesis document"),
        (lambda document: document["policy"].update(format="fluvial/policy/v9"), "first policy"),
        (lambda document: document["policy"].update(format=["fluvial/policy/v2"]), "first policy"),
    ],
    ids=["an unknown genesis", "a genesis without a format", "an unknown first policy", "a list as a format"],
)
def test_nothing_is_checked_by_rules_that_a_later_format_may_have_changed(
    change: Callable[[dict[str, Any]], None], said: str, data: Copy
) -> None:
    with_genesis(data, change)
    report = data.check()
    assert broken(report) == {2} and not report.identical
    assert f"{said} is of the format" in report.violations[0].message


def test_a_manifest_of_an_unknown_format_ends_the_chain(data: Copy) -> None:
    manifest = json.loads(data.objects[manifest_key(data.task, 2)])
    data.objects[manifest_key(data.task, 2)] = rfc8785.dumps(manifest | {"format": "fluvial/manifest/v9"})
    report = data.check()
    assert report.versions == 1
    assert any("format 'fluvial/manifest/v9'" in violation.message for violation in report.violations)


def skipping(*, by: Signer) -> Copy:
    """A record of us[0] that workers parked, and the Skip behind it that stands for it."""
    federation = SmallFederation()
    (device,) = factories.devices(1, start=700)
    parked = federation.append(US, 0, federation.update(US, device, seed=3))
    fields = {"task": federation.task, "region": US, "partition": 0, "offset": parked, "reason": "it raises"}
    at = federation.append(US, 0, federation.signer(factories.operator_signer()).sign("Skip", fields))
    federation.parked[(US, 0), parked] = Parked(at, "it raises")
    federation.rounds(2)
    federation.fold()
    data = copy_of(federation)
    data.edit(updates_topic(data.task, US), at, by.of_task(data.domain).sign("Skip", fields))
    return data


def test_a_record_that_an_operator_skipped_is_skipped_here_too() -> None:
    report = skipping(by=factories.operator_signer()).check()
    assert [one.message for one in report.violations] == []


def test_nobody_else_can_have_a_record_skipped() -> None:
    assert 4 in broken(skipping(by=factories.merger_signer()).check())
