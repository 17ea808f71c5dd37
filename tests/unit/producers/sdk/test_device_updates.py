"""From a delta to signed bytes: clipped, rounded without bias, bounded, and refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from aggregation.codecs import codec_named
from aggregation.errors import UsageProblem
from aggregation.layout import BUFFERS, WEIGHTS, Layout
from aggregation.reasons import Reason, because
from producers.sdk import updates
from producers.sdk.advice import hint_for, problem_of
from producers.sdk.bases import Base
from producers.sdk.updates import (
    Author,
    Contribution,
    clipped,
    honest_record,
    largest_update_bytes,
    seal_update,
)
from schemas.avro import encode
from schemas.manifests import Genesis
from tests import factories

if TYPE_CHECKING:
    from aggregation.codecs import CodecName


def author(device_id: str = "d-0001", seed: int = 0) -> Author:
    genesis = Genesis(
        task=factories.TASK,
        regions={},
        control_authority="",
        layout=(),
        policy={},
        model_sha256="",
        optimizer_sha256="",
    )
    return Author(genesis, "eu", device_id, factories.device_signer(device_id), seed)


def base(layout: Layout = factories.LAYOUT, **sections: dict[str, object]) -> Base:
    zeros = np.zeros(layout.parameters, dtype=np.float32)
    return Base(4, factories.model_sha(4), zeros, factories.policy(**sections))


def delta(value: float = 0.1, layout: Layout = factories.LAYOUT) -> Contribution:
    return Contribution(np.full(layout.parameters, value, dtype=np.float32), 10, 0.5, {"accuracy": 0.9})


def test_a_delta_above_the_clipping_norm_is_scaled_down_to_it() -> None:
    long = np.array([30.0, 40.0], dtype=np.float32)
    assert np.linalg.norm(clipped(long, 10.0)) == pytest.approx(10.0)
    assert clipped(long, 50.0) is long


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_an_honest_update_carries_its_delta_clipped(codec: CodecName) -> None:
    """The fold clips too, but what a device sends is the quantized delta: its range is that of the clipped one."""
    limited = base(updates={"norm_clip": 2.0})
    who = author()
    record = honest_record(who, limited, factories.LAYOUT, codec=codec, outcome=delta(100.0), created_at_ms=1)
    sent = np.concatenate(
        [
            np.frombuffer(tensor["data"], dtype=np.int8 if codec == "int8" else "<f4").astype(np.float64)
            * (tensor["scale"] if codec == "int8" else 1.0)
            for tensor in record["tensors"]
        ]
    )
    assert np.linalg.norm(sent) == pytest.approx(2.0, rel=0.01)


def with_buffers(*buffers: float) -> Contribution:
    weights = np.full(factories.LAYOUT.parameters, 100.0)
    return Contribution(np.concatenate([weights, buffers]).astype(np.float32), 10, 0.5)


@pytest.mark.parametrize("codec", ["int8", "float32", "int4"])
def test_buffers_travel_as_they_are_and_count_for_no_norm(codec: CodecName) -> None:
    limited = base(factories.BUFFERED, updates={"norm_clip": 2.0, "codecs": [codec]})
    record = honest_record(
        author(),
        limited,
        factories.BUFFERED,
        codec=codec,
        outcome=with_buffers(1e30, -2.0, 0.1, 0.0, 7.0, 1e-40),
        created_at_ms=1,
    )
    sent = [np.frombuffer(tensor["data"], dtype="<f4").tolist() for tensor in record["tensors"][-2:]]
    expected = np.array([[1e30, -2.0, 0.1], [0.0, 7.0, 1e-40]], dtype=np.float32)
    assert sent == expected.tolist() and [one["scale"] for one in record["tensors"][-2:]] == [1.0, 1.0]
    assert record["client_metrics"]["delta_norm"] == pytest.approx(
        100.0 * np.sqrt(factories.LAYOUT.parameters)
    )
    clipped_sum = sum(
        float(np.sum((tensor["scale"] * codec_named(codec).decode(tensor["data"])) ** 2))
        for tensor in record["tensors"][:-2]
    )
    assert np.sqrt(clipped_sum) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("variance", [-0.5, float("nan"), float("inf")])
def test_a_variance_that_the_fold_would_refuse_is_not_sent(variance: float) -> None:
    with pytest.raises(UsageProblem) as caught:
        honest_record(
            author(),
            base(factories.BUFFERED),
            factories.BUFFERED,
            codec="int8",
            outcome=with_buffers(1.0, -1.0, 1.0, 1.0, variance, 1.0),
            created_at_ms=1,
        )
    assert caught.value.error_id == "FLV-2504"


def test_a_delta_of_zeros_is_a_delta() -> None:
    record = honest_record(
        author(), base(), factories.LAYOUT, codec="int8", outcome=delta(0.0), created_at_ms=1
    )
    assert all(tensor["scale"] == 0.0 for tensor in record["tensors"])


def test_the_rounding_depends_on_seed_device_and_base_alone() -> None:
    def data(who: Author) -> list[bytes]:
        random = np.random.default_rng(0).normal(size=factories.LAYOUT.parameters).astype(np.float32)
        outcome = Contribution(random, 10, 0.5)
        record = honest_record(who, base(), factories.LAYOUT, codec="int8", outcome=outcome, created_at_ms=1)
        return [tensor["data"] for tensor in record["tensors"]]

    assert data(author()) == data(author())
    assert data(author()) != data(author(seed=1))
    assert data(author()) != data(author("d-0002"))


def test_an_update_says_how_long_its_delta_was_before_clipping() -> None:
    outcome = delta(100.0)
    record = honest_record(author(), base(), factories.LAYOUT, codec="int8", outcome=outcome, created_at_ms=1)
    assert record["client_metrics"]["delta_norm"] == pytest.approx(np.linalg.norm(outcome.delta))
    assert record["client_metrics"]["accuracy"] == 0.9


def test_a_codec_that_the_policy_does_not_take_is_replaced() -> None:
    wide = base(updates={"codecs": ["float32"]})
    record = honest_record(author(), wide, factories.LAYOUT, codec="int8", outcome=delta(), created_at_ms=1)
    assert record["codec"] == "float32"


@pytest.mark.parametrize(
    "broken",
    [
        np.zeros(3, dtype=np.float32),
        np.zeros(factories.LAYOUT.parameters),
        np.full(factories.LAYOUT.parameters, np.nan, dtype=np.float32),
    ],
    ids=["of another length", "of another dtype", "with NaN"],
)
def test_what_is_not_a_delta_of_the_layout_is_refused(broken: np.ndarray) -> None:
    outcome = Contribution(broken, 10, 0.5)
    with pytest.raises(UsageProblem) as caught:
        honest_record(author(), base(), factories.LAYOUT, codec="int8", outcome=outcome, created_at_ms=1)
    assert caught.value.error_id == "FLV-2504"


@pytest.mark.parametrize(
    ("bytes_max", "message_bytes_max", "which"), [(900, 5000, "policy"), (5000, 900, "broker")]
)
def test_a_record_above_either_limit_is_refused_by_name(
    bytes_max: int, message_bytes_max: int, which: str
) -> None:
    policy = factories.policy(updates={"bytes_max": bytes_max})
    updates.check_size(b"x" * 900, policy, message_bytes_max)
    with pytest.raises(UsageProblem, match=which) as caught:
        updates.check_size(b"x" * 901, policy, message_bytes_max)
    assert caught.value.error_id == "FLV-2501"


@pytest.mark.parametrize("codecs", [["int8"], ["float32"], ["int8", "float32"]], ids="+".join)
@pytest.mark.parametrize("tensors", [1, 3, 200])
@pytest.mark.parametrize("section", [WEIGHTS, BUFFERS])
def test_the_bound_of_an_updates_bytes_holds_and_is_not_far_off(
    codecs: list[str], tensors: int, section: str
) -> None:
    layout = Layout.of(
        [("w", (9,)), *((f"a.rather.long.name.{t}", (2, 3, 50), section) for t in range(tensors))]
    )
    wide = base(layout, updates={"codecs": codecs})
    record = honest_record(
        author("d" * 64), wide, layout, codec=codecs[-1], outcome=delta(layout=layout), created_at_ms=2**41
    )
    real = len(seal_update(author("d" * 64), record))
    bound = largest_update_bytes(layout, wide.policy)
    assert real <= bound <= real * 1.5 + 7000


def test_an_update_id_is_the_same_for_a_retry_and_another_for_another_base() -> None:
    assert author().update_id(base()) == author().update_id(base())
    assert author().update_id(base()) != author("d-0002").update_id(base())
    assert len(author().update_id(base())) <= 64


def test_an_honest_record_is_what_the_schema_takes() -> None:
    record = honest_record(author(), base(), factories.LAYOUT, codec="int8", outcome=delta(), created_at_ms=1)
    assert encode("ClientUpdate", record)


def test_every_rejection_has_a_hint_and_an_accepted_update_none() -> None:
    from aggregation.fold.events import Verdict
    from aggregation.fold.rejections import ACCEPTED, RejectionReason

    assert all(hint_for(rejection.outcome) for rejection in RejectionReason)
    assert hint_for(ACCEPTED) == ""
    assert problem_of(Verdict(3, ACCEPTED), "here") is None
    problem = problem_of(Verdict(3, "too_stale", because(Reason.STALE, 41, 50, 3)), "device d")
    assert problem is not None
    assert (problem.error_id, problem.exit_code) == ("FLV-2103", 1)
