"""The checker's own fold against the workers', on signed logs under v3: the same verdicts, windows and states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregation.codecs import direction_of
from aggregation.defences import DEFENCES
from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Barrier, Verdict, WindowClosed
from aggregation.fold.state import PartitionState
from aggregation.fold.transition import fold_into
from aggregation.policy import Policy
from aggregation.reasons import Reason
from backends.memory.store import MemoryStore
from backends.store.task_store import TaskStore
from fluvial.proof.checker import encoding
from fluvial.proof.checker.fold import Partition
from fluvial.proof.checker.task import Damaged, Shelf, task_of
from schemas import avro
from schemas.certificates import Role
from schemas.guides import signed_guide
from schemas.objects import sha256_hex
from schemas.records import decode_record
from schemas.snapshots import encode_state
from schemas.windows import aggregate_of, encode_window, restore_state, state_names
from tests import factories
from tests.factories import LAYOUT, NOW_MS, TASK, devices, model_sha
from tests.unit.schemas.test_manifests import genesis

FORMAT = "fluvial/policy/v3"
BUCKETED: dict[str, Any] = {"format": "fluvial/policy/v4", "merge": {"kind": "krum", "buckets": 3}}
NEWEST = "fluvial/policy/v5"
LEARNING: dict[str, dict[str, Any]] = {
    "rounds": {"format": NEWEST, "buffer": {"mode": "rounds"}, "selection": {"kind": "slots", "slots": 2}},
    "a share": {
        "format": NEWEST,
        "selection": {"kind": "share", "share": 0.6},
        "weights": {"by": "examples", "examples_max": 40},
        "server": {"divide_by": "weights"},
    },
    "bases": {
        "format": "fluvial/policy/v6",
        "selection": {"kind": "cohorts", "share": 0.7, "cohorts": {"phones": 0.1}},
        "weights": {"by": "examples", "examples_max": 9},
        "server": {"divide_by": "weights", "mixing": True},
    },
}
"""What a policy of v5 and v6 says beside."""
OLD = "fluvial/policy/v2"


def rules(kind: str = "median", **sections: Any) -> Policy:
    """A small v3 policy in which everything happens soon."""
    base: dict[str, Any] = {
        "window": {"updates_max": 5, "records_max": 20},
        "staleness": {"versions_max": 2, "seconds_max": 30.0},
        "defence": {
            "kind": kind,
            "history_updates_min": 3,
            "quarantine_refusals": 2,
            "quarantine_versions": 2,
        },
    }
    return factories.policy(**(base | {"format": FORMAT} | sections))


class Objects(MemoryStore):
    """A store as the checker wants it."""

    def keys(self, prefix: str) -> Iterator[str]:
        return self.list(prefix)


@dataclass
class Log:
    """Signed records with their times, and the objects that they name."""

    policy: Policy
    records: list[tuple[int, bytes]] = field(default_factory=list)
    objects: Objects = field(default_factory=Objects)
    now_ms: int = NOW_MS

    def __post_init__(self) -> None:
        self.store = TaskStore(self.objects, TASK)

    def add(self, value: bytes) -> None:
        self.records.append((self.now_ms, value))

    def update(self, device: str, base: int, factor: float, seed: int, codec: str = "int8") -> None:
        values = (factor * factories.delta(seed % 5)).astype(np.float32)
        tensors = factories.encoded(values, codec, seed)
        fields: dict[str, Any] = {"base": base, "seed": seed, "tensors": tensors, "codec": codec}
        self.add(factories.update_bytes(device, num_examples=seed % 9 * 7, **fields))

    def guide(self, version: int, *, by: Role = Role.GUARDIAN, task: str = TASK, factor: float = 1.0) -> str:
        signer = factories.signer("control", by, "g-1")
        direction = direction_of(factor * factories.delta(version % 5).astype(np.float64), LAYOUT)
        data = signed_guide(
            signer,
            task=task,
            version=version,
            model_sha256=model_sha(version),
            examples=9,
            direction=direction,
        )
        return self.store.put_object(data)

    def barrier(self, version: int, **changed: Any) -> None:
        usual: dict[str, Any] = {"usual_norm": 0.0, "usual_cosine": 0, "usual_share": 0, "guide_sha256": ""}
        self.store.put_object(self.policy.canonical())
        fields = usual | {"policy_sha256": self.policy.sha256} | changed
        if not self.policy.counts_shares:
            fields = {name: value for name, value in fields.items() if name not in usual}
        self.add(factories.barrier_bytes(version, self.policy, **fields))


def guides(log: Log, rng: random.Random, version: int) -> str:
    """Good ones mostly, and every kind that is none."""
    match rng.randrange(8):
        case 0:
            return ""
        case 1:
            return log.guide(max(0, version - 5))
        case 2:
            return log.guide(version, by=Role.OPERATOR)
        case 3:
            return log.store.put_object(b"no guide")
        case 4:
            return log.guide(version, task="another")
        case 5:
            return log.guide(version, factor=0.0)
        case _:
            return log.guide(max(0, version - rng.randrange(2)))


def random_log(seed: int, policy: Policy, length: int = 120) -> Log:
    """Devices of every sort: prompt, slow, loud, silent, against the guide; barriers with and without guides."""
    rng, log, version = random.Random(seed), Log(policy), 0
    names = devices(6)
    for n in range(length):
        log.now_ms += rng.choice([0, 1, 500, 5_000, 40_000 if rng.random() < 0.1 else 3])
        match rng.randrange(12):
            case 0 | 1:
                version += 1 + (rng.random() < 0.1)
                floor = max(0, version - 4) if rng.random() < 0.1 else 0
                log.barrier(
                    version,
                    floor=floor,
                    usual_norm=rng.choice([0.0, 0.004, 0.3, 1.7, 40.0]),
                    usual_cosine=rng.choice([0, 1, 20, 64]),
                    usual_share=rng.choice([0, 1, 2, 5]),
                    guide_sha256=guides(log, rng, version),
                )
            case 2:
                log.add(factories.tick_bytes(rng.randrange(n + 1)))
            case 3 if policy.knows_pardons:
                region = "us" if rng.random() < 0.1 else "eu"
                until = version + rng.choice([0, 1, 1, 2, 2, 3])
                log.add(factories.pardon_bytes(rng.choice([*names, "nobody"]), until, region=region))
            case 3:
                log.add(b"junk" if rng.random() < 0.8 else factories.revoke_bytes(rng.choice(names)))
            case kind:
                factor = rng.choice([1.0, 1.0, 1.0, -1.0, 0.0, 30.0, 0.001])
                base = max(0, version - rng.choice([0, 0, 0, 1, 2, 3, 6]))
                log.update(rng.choice(names), base, factor, n, "float32" if kind == 4 else "int8")
    return log


def document_of(policy: Policy) -> bytes:
    one = genesis()
    said = {"regions": {"eu": replace_partitions(one.regions["eu"])}, "model_sha256": model_sha(0)}
    return msgspec.structs.replace(
        one, policy=msgspec.json.decode(policy.canonical()), format="fluvial/genesis/v4", **said
    ).canonical()


def replace_partitions(region: Any) -> Any:
    return msgspec.structs.replace(region, partitions=1)


def folded(log: Log, state: PartitionState) -> Iterator[tuple[Verdict, bytes | None, bytes | None]]:
    """The worker's fold: each record's verdict, and payload and snapshot of the window that it closed."""
    trust = factories.trust("eu")
    for timestamp_ms, value in log.records[state.next_offset :]:
        event = decode_record(value, timestamp_ms, trust, state.policy)
        if isinstance(event, Barrier):
            guide = log.store.guide(event.guide_sha256, LAYOUT, trust)
            event = replace(event, policy=log.policy, guide=guide)
        verdict, *closed = fold_into(state, state.next_offset, event)
        state.validate()
        assert isinstance(verdict, Verdict)
        payload = snapshot = None
        for one in closed:
            assert isinstance(one, WindowClosed)
            snapshot = encode_state(state)
            payload = encode_window(state, one).payload
        yield verdict, payload, snapshot


FIELDS = (
    "outcome",
    "device_id",
    "update_id",
    "base_version",
    "staleness",
    "weight",
    "clip",
    "norm",
    "cosine",
)


def outcomes_of(log: Log) -> list[str]:
    """Fold and check; the outcomes."""
    shelf = Shelf(log.objects, task_of(document_of(log.policy)))
    checker, outcomes = Partition(shelf, ("eu", 0)), []
    for (timestamp_ms, value), (verdict, payload, snapshot) in zip(
        log.records, folded(log, factories.state_of(log.policy)), strict=True
    ):
        came = checker.take(timestamp_ms, value)
        said = {name: getattr(verdict, name) for name in FIELDS}
        assert {name: came.verdict[name] for name in FIELDS} == said, verdict
        assert came.verdict["norm_deviations"] == verdict.norm_deviations
        assert (came.closed is None) == (payload is None)
        if came.closed is not None:
            assert encoding.encode("PartitionState", came.closed.snapshot) == snapshot
            assert encoding.encode("RegionalAggregate", came.closed.record) == payload
        outcomes.append(verdict.outcome)
    return outcomes


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from(sorted(DEFENCES)),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([{}, BUCKETED, *LEARNING.values()]),
)
def test_both_folds_say_the_same_of_every_log(
    seed: int, kind: str, per_version: int, newer: dict[str, Any]
) -> None:
    shares = {"per_version": per_version, "saved_max": per_version}
    outcomes_of(random_log(seed, rules(kind, shares=shares, **newer)))


def test_the_logs_have_every_outcome_in_them() -> None:
    seen: set[str] = set()
    for seed in range(3):
        seen |= set(outcomes_of(random_log(seed, rules("guide"))))
    expected = {"accepted", "anomalous", "over_share", "quarantined", "duplicate", "too_stale", "revoked"}
    assert expected <= seen


@pytest.mark.parametrize(
    ("name", "outcomes"), [("rounds", {"round_over", "not_selected"}), ("a share", {"not_selected"})]
)
def test_the_logs_of_v5_have_its_outcomes_in_them(name: str, outcomes: set[str]) -> None:
    assert outcomes | {"accepted", "duplicate"} <= set(outcomes_of(random_log(1, rules(**LEARNING[name]))))


@pytest.mark.parametrize("kind", ["peers", "none"])
def test_under_v2_nothing_of_it_is_there(kind: str) -> None:
    old = factories.policy(
        format=OLD, window={"updates_max": 5}, anomaly={"enabled": kind == "peers", "history_updates_min": 3}
    )
    outcomes = outcomes_of(random_log(3, old))
    assert {"over_share", "quarantined"}.isdisjoint(outcomes)


@pytest.mark.parametrize("sealed", ["barrier", "guide"])
def test_records_that_came_with_v3_are_of_an_unknown_schema_to_a_log_of_v2(sealed: str) -> None:
    log = Log(factories.policy(format=OLD))
    if sealed == "guide":
        log.add(log.store.get_object(log.guide(0)))
    else:
        usual: dict[str, Any] = {"usual_norm": 1.0, "usual_cosine": 1, "usual_share": 1, "guide_sha256": ""}
        log.add(factories.barrier_bytes(1, log.policy, **usual))
    assert outcomes_of(log) == ["unknown_schema"]


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1 << 30), st.lists(st.integers(1, 119), max_size=4))
def test_a_worker_that_restarts_says_the_same(seed: int, crashes: list[int]) -> None:
    log = random_log(seed, rules("guide"))
    straight = list(folded(log, factories.state_of(log.policy)))
    trust = factories.trust("eu")
    for crash in crashes:
        state, last = factories.state_of(log.policy), None
        for offset, (_, payload, snapshot) in enumerate(folded(log, state)):
            if payload is not None and snapshot is not None:
                last = (offset + 1, payload, snapshot)
            if offset == crash:
                break
        if last is None:
            continue
        after, payload, snapshot = last
        _, _, guide_sha256 = state_names(snapshot)
        guide = log.store.guide(guide_sha256, LAYOUT, trust)
        again = restore_state(
            snapshot,
            aggregate_of(avro.decode(payload)[1], payload),
            partitions=1,
            layout=LAYOUT,
            policy=log.policy,
            reference=None,
            guide=None if guide is None else guide.direction,
        )
        assert (encode_state(again), again.previous_sha256) == (snapshot, sha256_hex(payload))
        assert list(folded(log, again)) == straight[after:]


def in_quarantine(log: Log, device: str, version: int) -> None:
    """A barrier to that version, and two updates of zeros: a device in quarantine."""
    log.barrier(version)
    log.update(device, version, 0.0, 1)
    log.barrier(version + 1)
    log.update(device, version + 1, 0.0, 2)


def test_a_quarantine_at_the_end_of_all_versions_ends_with_them() -> None:
    log = Log(rules())
    in_quarantine(log, devices(1)[0], 2**63 - 3)
    log.add(factories.tick_bytes(0))
    assert outcomes_of(log)[-2:] == ["anomalous", "control"]


def test_shares_and_quarantine_do_not_outlive_a_policy_that_knows_them() -> None:
    log, device = Log(rules()), devices(1)[0]
    in_quarantine(log, device, 1)
    old = factories.policy(format=OLD)
    log.store.put_object(old.canonical())
    log.add(factories.barrier_bytes(3, old))
    log.add(factories.barrier_bytes(4, log.policy))
    log.update(device, 4, 1.0, 3)
    trust, state = factories.trust("eu"), factories.state_of(log.policy)
    checker = Partition(Shelf(log.objects, task_of(document_of(log.policy))), ("eu", 0))
    outcomes: list[str] = []
    for timestamp_ms, value in log.records:
        event = decode_record(value, timestamp_ms, trust, state.policy)
        if isinstance(event, Barrier):
            event = replace(event, policy=old if event.version == 3 else log.policy)
        verdict, *_ = fold_into(state, state.next_offset, event)
        assert isinstance(verdict, Verdict)
        outcomes.append(verdict.outcome)
        assert checker.take(timestamp_ms, value).verdict["outcome"] == outcomes[-1]
    assert outcomes[-1] == "accepted"


@pytest.mark.parametrize("by", ["guardian", "nobody"])
@pytest.mark.parametrize("kind", ["update", "barrier"])
def test_to_a_log_of_v2_there_is_no_guardian(kind: str, by: str) -> None:
    """A role that came later is a name that a certificate may not have, whoever issued it, as it was then."""
    log = Log(factories.policy(format=OLD))
    issuer = "control" if by == "guardian" else "eu"
    signer = factories.signer("control", Role.GUARDIAN, "g-1", issuer=issuer)
    value = (
        factories.update_bytes("g-1", by=signer)
        if kind == "update"
        else factories.barrier_bytes(1, log.policy, by=signer)
    )
    log.add(value)
    assert outcomes_of(log) == ["bad_certificate" if kind == "update" else "bad_signature"]
    event = decode_record(value, NOW_MS, factories.trust("eu"), log.policy)
    assert event.because.reason is Reason.WRONG_NAME  # type: ignore[union-attr]
    newer = decode_record(value, NOW_MS, factories.trust("eu"), rules())
    assert newer.because.reason is not Reason.WRONG_NAME  # type: ignore[union-attr]


def test_a_snapshot_of_a_share_that_is_to_come_is_none() -> None:
    log = Log(rules())
    log.update(devices(1)[0], 0, 1.0, 1)
    log.add(factories.tick_bytes(0))
    *_, (_, payload, snapshot) = folded(log, factories.state_of(log.policy))
    assert payload is not None and snapshot is not None
    _, record = avro.decode(snapshot)
    record["shares"][0]["version"] = 5
    spoiled = avro.encode_as("PartitionState", 2, record)
    with pytest.raises(IntegrityProblem, match="FLV-3005"):
        restore_state(
            spoiled,
            aggregate_of(avro.decode(payload)[1], payload),
            partitions=1,
            layout=LAYOUT,
            policy=log.policy,
            reference=None,
        )


@pytest.mark.parametrize("name", [" ", "../../etc/passwd", "\0", "é" * 64, "A" * 64, "0" * 63, "0" * 3000])
def test_what_is_no_hash_names_no_object(name: str) -> None:
    log = Log(rules())
    with pytest.raises(IntegrityProblem, match="FLV-4103"):
        log.store.get_object(name)
    with pytest.raises(Damaged):
        Shelf(log.objects, task_of(document_of(log.policy))).named(name)
