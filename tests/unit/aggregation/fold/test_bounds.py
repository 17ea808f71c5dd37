"""Whatever a stranger or a device sends, what is remembered of it is bounded: each bound by its name, at its edge."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from aggregation.errors import IntegrityProblem
from aggregation.fold import state as partition_state
from aggregation.fold.contributions import Contributions
from aggregation.fold.events import RejectedRecord, Verdict
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, RecordRules
from aggregation.reasons import Reason, because
from aggregation.server.aggregates import SEQUENCES_AHEAD_MAX, PendingAggregates
from backends.log import LogRecord
from fluvial.reading.progress import Follower, RunFacts
from fluvial.reading.verdict_stream import VerdictStream
from fluvial.terminal.output import Output
from schemas import avro as codec
from schemas import canonical, certificates
from schemas.avro import ITEMS_MAX, READS_UNCOUNTED_BYTES
from schemas.certificates import Role
from schemas.records import decode_record
from schemas.windows import encode_state
from tests import factories
from tests.factories import verdict_bytes

if TYPE_CHECKING:
    from backends.settings import Settings

NOTHING = {"name": "", "shape": [], "scale": 0.0, "data": b""}


# -- decoding


@pytest.mark.parametrize(
    "changed",
    [
        {"tensors": [NOTHING] * 110_000},
        {"client_metrics": {str(number): 0.0 for number in range(110_000)}},
        {"tensors": [NOTHING | {"shape": [0] * 1_200_000}]},
    ],
    ids=["empty tensors", "metrics", "a shape"],
)
@pytest.mark.parametrize(
    ("rules", "items_max"), [(FIRST_RULES, codec.ITEMS_MAX), (CANONICAL_RULES, canonical.ITEMS_MAX)]
)
def test_a_record_of_countless_items_is_given_up_early(
    changed: dict[str, Any], rules: RecordRules, items_max: int
) -> None:
    record = factories.update_record("d-1") | changed
    value = factories.device_signer("d-1").sign("ClientUpdate", record)
    event = decode_record(
        value,
        factories.NOW_MS,
        factories.trust(rules=rules),
        factories.policy(updates={"bytes_max": factories.BYTES_MAX * 2}),
    )
    assert isinstance(event, RejectedRecord)
    assert event.because == because(Reason.TOO_MANY_ITEMS, items_max, "ClientUpdate")


def test_a_large_update_of_many_tensors_is_decoded() -> None:
    tensors = [
        {"name": f"layer.{n}", "shape": [1000], "scale": 0.5, "data": bytes(1000)} for n in range(5000)
    ]
    record = factories.update_record("d-1") | {"tensors": tensors}
    data = codec.encode("ClientUpdate", record)
    assert len(data) > READS_UNCOUNTED_BYTES
    assert codec.decode(data)[1]["tensors"] == tensors


def test_a_partitions_own_state_may_hold_as_many_devices_as_there_are() -> None:
    state = factories.state_of()
    state.counted = Contributions({0: {f"device-{number}" for number in range(ITEMS_MAX)}})
    data = encode_state(state)
    assert len(data) > READS_UNCOUNTED_BYTES
    assert len(codec.decode(data)[1]["counted"][0]["devices"]) == ITEMS_MAX


# -- certificates


def test_remembered_certificates_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CACHED_CERTIFICATES_MAX", 5)
    trust = factories.trust()
    for number in range(23):
        assert trust.identify(factories.certificate("eu", Role.DEVICE, f"d-{number}")).name == f"d-{number}"
        assert len(trust._known) <= 5
    assert trust._known_bytes == sum(map(len, trust._known))


def test_remembered_certificates_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    ders = [factories.certificate("eu", Role.DEVICE, f"d-{number}") for number in range(10)]
    bound = 3 * max(map(len, ders))
    monkeypatch.setattr(certificates, "CACHED_CERTIFICATE_BYTES_MAX", bound)
    trust = factories.trust()
    for der in ders * 2:
        trust.identify(der)
        assert trust._known_bytes == sum(map(len, trust._known)) <= bound


def test_strangers_do_not_push_devices_out_of_memory() -> None:
    trust = factories.trust()
    trust.identify(factories.certificate("eu", Role.DEVICE, "d-1"))
    for number in range(50):
        with pytest.raises(certificates.BadCertificateError):
            trust.identify(factories.certificate("eu", Role.DEVICE, f"d-{number}", secret="another"))
    assert len(trust._known) == 1


# -- a partition's state


def test_counted_contributions_are_bounded_by_giving_up_the_oldest_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(partition_state, "COUNTED_MAX", 6)
    rules = factories.policy(staleness={"versions_max": 5}, anomaly={"enabled": False})
    state = factories.state_of(rules)
    state.version, state.models = 3, {version: factories.model_sha(version) for version in range(4)}
    state.counted = Contributions({version: {f"d-{n}" for n in range(2)} for version in range(4)})
    state.bound_counted()
    state.validate()
    assert (state.oldest_base, sum(map(len, state.counted.values()))) == (1, 6)
    assert sorted(state.models) == [1, 2, 3]


def test_contributions_to_the_newest_version_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_state, "COUNTED_MAX", 6)
    state = factories.state_of(factories.policy(staleness={"versions_max": 5}))
    state.version, state.models = 1, {0: factories.model_sha(0), 1: factories.model_sha(1)}
    state.counted = Contributions({0: {"d-0"}, 1: {f"d-{n}" for n in range(20)}})
    state.bound_counted()
    state.validate()
    assert (state.floor, list(state.counted), len(state.counted[1])) == (1, [1], 20)


def test_within_the_bound_nothing_is_given_up() -> None:
    state = factories.state_of()
    state.counted = Contributions({0: {"d-0"}})
    before = factories.snapshot(state)
    state.bound_counted()
    assert factories.snapshot(state) == before


# -- pending aggregates


def test_windows_far_ahead_of_their_turn_are_refused_and_not_kept() -> None:
    pending = PendingAggregates({("eu", 0): 0})
    assert pending.offer(factories.aggregate("eu", 0, SEQUENCES_AHEAD_MAX))
    with pytest.raises(IntegrityProblem) as caught:
        pending.offer(factories.aggregate("eu", 0, SEQUENCES_AHEAD_MAX + 1))
    assert caught.value.error_id == "FLV-3003"
    assert sum(map(len, pending._early.values())) == len(pending._known) == 1
    assert pending.offer(factories.aggregate("eu", 0, 0))
    assert pending.updates == 4


# -- what is shown of a run


@dataclass
class Ended:
    """A reader of a log that ends at ``end``."""

    end: int

    def bounds(self, _topic: str, _partition: int) -> tuple[int, int]:
        return 0, self.end


def test_following_verdicts_believes_none_beyond_the_log() -> None:
    view = SimpleNamespace(task="t", reader=Ended(end=50))
    stream = VerdictStream(view, [("eu", 0)], Output(), outcome=None, limit=None)  # type: ignore[arg-type]

    def verified(offset: int) -> bool:
        return stream._verified(("eu", 0), verdict_bytes(Verdict(offset, ACCEPTED))) is not None

    assert [verified(offset) for offset in (0, 49, 50, 1 << 62)] == [True, True, False, False]
    for garbage in (b"", b"\xff" * 9, b"\xc3\x01" + b"\7" * 30):
        assert stream._verified(("eu", 0), garbage) is None


def follower(facts: RunFacts) -> Follower:
    settings: Settings = None  # type: ignore[assignment]  # it is not started, so it reads nothing
    return Follower(settings, "t", {"eu": 1}, facts)


GARBAGE = [b"", None, b"\xff\xfe", b"[]", b"null", b'"text"', b"{", b"\xc3\x01" + b"\7" * 40, b"[" * 100_000]


@pytest.mark.parametrize("topic", ["fl.t.verdicts.eu", "fl.t.metrics"])
def test_garbage_in_the_topics_that_a_view_follows_is_counted_and_ends_nothing(topic: str) -> None:
    facts = RunFacts()
    one = follower(facts)
    for offset, value in enumerate(GARBAGE):
        one._take(LogRecord(topic, 0, offset, 0, None, value))
    verdict = verdict_bytes(Verdict(0, ACCEPTED))
    one._take(LogRecord("fl.t.verdicts.eu", 0, 99, 0, None, verdict))
    evaluation = {"kind": "evaluation", "version": 3, "accuracy": 0.5}
    one._take(LogRecord("fl.t.metrics", 0, 99, 0, None, json.dumps(evaluation).encode()))
    assert facts.strays == len(GARBAGE)
    assert facts.outcomes() == {ACCEPTED: 1}
    assert facts.version() == 3


@pytest.mark.parametrize("version", [None, "3", 1.5, True, [], 10**400])
def test_an_evaluation_of_no_version_is_a_stray(version: object) -> None:
    facts = RunFacts()
    value = json.dumps({"kind": "evaluation", "version": version, "accuracy": "high"}).encode()
    follower(facts)._take(LogRecord("fl.t.metrics", 0, 0, 0, None, value))
    assert (facts.strays, facts.version()) == ((0, version) if version == 10**400 else (1, 0))


def test_the_rate_remembers_its_window_only_though_nobody_asks() -> None:
    facts = RunFacts()
    facts._recent.extend([time.monotonic() - 3600] * 1000)
    facts.add_verdict("eu", 0, Verdict(0, ACCEPTED), 0)
    assert len(facts._recent) == 1
