"""What each behaviour of a device gets from the real fold: the table of ``Behaviour`` holds, and hurts nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.codecs import mean_of_values
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.state import PartitionState, initial
from aggregation.fold.transition import fold_into
from aggregation.layout import Layout
from aggregation.partitioning import partition_of
from producers.fleet.behaviours import ATTACKS, MISBEHAVIOURS, Behaviour, Round, perform
from producers.sdk.bases import Base
from producers.sdk.updates import Author, Contribution, Publication
from schemas.manifests import Genesis, Region, TensorEntry
from schemas.records import decode_record
from tests import factories

if TYPE_CHECKING:
    from aggregation.policy import Policy

VERSION = 3
PARTITIONS = 2
NOT_ATTACKS = [behaviour for behaviour in Behaviour if behaviour not in (Behaviour.HONEST, *ATTACKS)]


def genesis(policy: Policy, regions: tuple[str, ...] = ("eu", "us")) -> Genesis:
    def pem(region: str) -> str:
        return factories.authority(region).public_bytes(Encoding.PEM).decode()

    return Genesis(
        task=factories.TASK,
        regions={region: Region(partitions=PARTITIONS, authority=pem(region)) for region in regions},
        control_authority=pem(factories.CONTROL),
        layout=tuple(TensorEntry(name=spec.name, shape=spec.shape) for spec in factories.LAYOUT.tensors),
        policy={},
        model_sha256=factories.model_sha(0),
        optimizer_sha256=factories.sha("optimizer"),
    )


@dataclass
class Logs:
    """The partitions of both regions, folded in memory as the records come."""

    policy: Policy
    layout: Layout = factories.LAYOUT

    def __post_init__(self) -> None:
        self.states = {
            (region, p): self._state(region, p) for region in ("eu", "us") for p in range(PARTITIONS)
        }
        self.trust = factories.trust()

    def _state(self, region: str, partition: int) -> PartitionState:
        state = initial(
            task=factories.TASK,
            region=region,
            partition=partition,
            partitions=PARTITIONS,
            layout=self.layout,
            policy=self.policy,
            model_sha256=factories.model_sha(0),
        )
        state.version = VERSION
        state.models = {version: factories.model_sha(version) for version in range(VERSION + 1)}
        return state

    def append(self, what: Publication) -> Verdict:
        state = self.states[what.region, what.partition]
        event = decode_record(what.value, factories.NOW_MS, self.trust, self.policy)
        verdict, *_ = fold_into(state, state.next_offset, event)
        state.validate()
        assert isinstance(verdict, Verdict)
        return verdict


def turn(
    policy: Policy,
    device_id: str = "d-0001",
    regions: tuple[str, ...] = ("eu", "us"),
    layout: Layout = factories.LAYOUT,
) -> Round:
    author = Author(genesis(policy, regions), "eu", device_id, factories.device_signer(device_id), seed=7)
    delta = np.random.default_rng(1).normal(0.0, 0.1, layout.parameters).astype(np.float32)
    delta[layout.trainable.parameters :] = 5.0
    base = Base(VERSION, factories.model_sha(VERSION), np.zeros_like(delta), policy)
    return Round(author, base, layout, "int8", Contribution(delta, 10, 0.5), created_at_ms=1)


@pytest.mark.parametrize("behaviour", Behaviour, ids=lambda behaviour: behaviour.label)
@pytest.mark.parametrize("codecs", [("int8", "float32"), ("int8",), ("float32",)], ids="+".join)
@pytest.mark.parametrize("layout", [factories.LAYOUT, factories.BUFFERED], ids=["", "buffers"])
def test_each_behaviour_gets_one_of_its_expected_outcomes(
    behaviour: Behaviour, codecs: tuple[str, ...], layout: Layout
) -> None:
    policy = factories.policy(updates={"codecs": list(codecs)})
    logs = Logs(policy, layout)

    *_, last = [logs.append(what) for what in perform(behaviour, turn(policy, layout=layout))]

    assert last.outcome in behaviour.expected
    assert last.outcome == behaviour.expected[0] or behaviour in ATTACKS


@pytest.mark.parametrize("behaviour", NOT_ATTACKS, ids=lambda behaviour: behaviour.label)
def test_no_broken_rule_adds_to_a_sum_or_uses_up_anybody_elses_contribution(behaviour: Behaviour) -> None:
    policy = factories.policy()
    logs = Logs(policy)

    for what in perform(behaviour, turn(policy, "d-0001")):
        logs.append(what)
    honest = [logs.append(what) for what in perform(Behaviour.HONEST, turn(policy, "d-0002"))]

    assert [verdict.outcome for verdict in honest] == [ACCEPTED]
    accepted = sum(state.window.accepted for state in logs.states.values())
    assert accepted == (2 if behaviour is Behaviour.REPLAY else 1)
    assert all(state.version == VERSION for state in logs.states.values())


def test_an_attack_is_five_times_as_strong_as_the_honest_update() -> None:
    policy = factories.policy(updates={"norm_clip": 100.0})
    honest, flipped, noise = (
        Logs(policy).append(perform(behaviour, turn(policy))[0])
        for behaviour in (Behaviour.HONEST, Behaviour.SIGN_FLIP, Behaviour.NOISE)
    )

    assert flipped.norm == pytest.approx(5 * honest.norm, rel=0.05)
    assert noise.norm == pytest.approx(5 * honest.norm, rel=0.05)


def test_an_attack_is_on_the_weights_and_leaves_the_buffers_as_they_are() -> None:
    policy = factories.policy(updates={"norm_clip": 100.0})
    for behaviour in (Behaviour.HONEST, *ATTACKS):
        logs = Logs(policy, factories.BUFFERED)
        assert logs.append(perform(behaviour, turn(policy, layout=factories.BUFFERED))[0]).outcome == ACCEPTED
        (sums,) = [state.window.sums for state in logs.states.values() if state.window.sums is not None]
        buffers = mean_of_values(sums[factories.LAYOUT.parameters :], 1 << 16)
        assert buffers.tolist() == [5.0] * 6


def test_in_a_task_of_one_region_a_wrong_region_is_claimed() -> None:
    policy = factories.policy()

    (what,) = perform(Behaviour.WRONG_REGION, turn(policy, regions=("eu",)))

    assert what.region == "eu"
    assert Logs(policy).append(what).outcome == "wrong_region"


def test_equal_rounds_give_equal_bytes() -> None:
    policy = factories.policy()
    for behaviour in Behaviour:
        assert perform(behaviour, turn(policy)) == perform(behaviour, turn(policy))


def test_everything_is_addressed_to_the_devices_own_partition_but_where_that_is_the_point() -> None:
    policy = factories.policy()
    for behaviour in set(Behaviour) - {Behaviour.WRONG_PARTITION}:
        for what in perform(behaviour, turn(policy)):
            assert what.partition == partition_of("d-0001", PARTITIONS)
            assert what.key == b"d-0001"


def test_what_the_issue_names_is_in_the_fleets_repertoire() -> None:
    labels = {behaviour.label for behaviour in MISBEHAVIOURS}
    assert {"bad_signature", "replay", "stale_base", "wrong_region", "truncated", "not_a_number"} <= labels
