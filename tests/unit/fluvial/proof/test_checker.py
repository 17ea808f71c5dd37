"""The offline checker recomputes healthy federations of every kind, and gives every verdict that the fold gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import CODECS, DEFAULT_CODEC, accumulate_values_into, mean_of_values
from aggregation.defences import DEFENCES
from aggregation.layout import VALUE_DIGITS
from aggregation.optimizers import OPTIMIZERS
from aggregation.weights.divisors import DIVISORS
from aggregation.weights.staleness import STALENESS_KINDS
from backends.kafka.configuration import connection
from fluvial.proof.checker import CheckRequest, StoreAddress, buffers, check
from schemas import avro as codec
from schemas.topics import verdicts_topic
from tests import defended, factories
from tests.small_federation import PARTITIONS, SmallFederation, on_mock_cluster
from tests.unit.fluvial.proof.checked_copy import copy_of

if TYPE_CHECKING:
    from pathlib import Path


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
        for optimizer, name in zip(OPTIMIZERS, cycle(CODECS), strict=False)
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


@pytest.mark.parametrize("merge", defended.MERGES)
def test_every_merge_recomputes(merge: str) -> None:
    report = copy_of(defended.bucketed(merge)).check()
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
