"""What the console follows: each verdict once, junk and planted records counted and without effect, all in bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from aggregation.errors import UsageProblem
from aggregation.fold.events import Verdict
from aggregation.fold.rejections import ACCEPTED, CONTROL
from backends.log import LogRecord
from fluvial.console import queries
from fluvial.console.bounded import Bins, Newest
from fluvial.console.devices import participation
from fluvial.console.follow import Follower
from fluvial.console.limits import PAGE_RECORDS, TEXT_CHARACTERS_MAX
from fluvial.console.quality import curve_points, quality_seen
from fluvial.console.recent import Recent, SlotFacts
from fluvial.console.records import packed, printable, unpacked
from fluvial.console.samples import Reached, Sample, rate, trend
from schemas.certificates import CONTROL as CONTROL_AUTHORITY
from schemas.manifests import Region
from tests import factories
from tests.factories import verdict_bytes
from tests.unit.fluvial.console.console_home import SLOT, TASK, genesis

NOW_MS = 1_800_000_000_000
VERDICTS, METRICS, WINDOWS = f"fl.{TASK}.verdicts.eu", f"fl.{TASK}.metrics", f"fl.{TASK}.aggregates.eu"


@pytest.fixture
def recent() -> Recent:
    return Recent({SLOT: SlotFacts()})


@pytest.fixture
def follower(recent: Recent) -> Follower:
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = factories.authority("eu").public_bytes(Encoding.PEM).decode()
    control = factories.authority(CONTROL_AUTHORITY).public_bytes(Encoding.PEM).decode()
    known = msgspec.structs.replace(genesis(), regions={"eu": Region(1, pem)}, control_authority=control)
    return Follower(TASK, known, recent)


def record(topic: str, value: bytes | None, offset: int = 0) -> LogRecord:
    return LogRecord(topic, 0, offset, NOW_MS, None, value)


def judge(
    recent: Recent, offset: int, outcome: str = ACCEPTED, *, position: int | None = None, **more: Any
) -> None:
    at = offset if position is None else position
    fields: dict[str, Any] = {"device_id": "d", "staleness": 0} | more
    verdict = Verdict(offset, outcome, **fields)
    recent.add_verdict(SLOT, at, verdict, NOW_MS + offset)


def test_a_verdict_that_comes_twice_counts_once(recent: Recent) -> None:
    for offset in (0, 1, 2):
        judge(recent, offset)
    for offset in (1, 2, 3):
        judge(recent, offset, position=offset + 2)
    assert recent.outcomes["eu", ACCEPTED] == 4
    assert (recent.slots[SLOT].folded_to, recent.slots[SLOT].duplicates) == (4, 2)


def test_a_verdict_on_an_offset_beyond_its_position_was_planted_and_hides_nothing(recent: Recent) -> None:
    judge(recent, 0)
    judge(recent, 10**15, position=1)
    judge(recent, 1, position=2)
    assert (recent.strays, recent.slots[SLOT].folded_to) == (1, 2)


def test_control_records_are_folded_and_are_no_updates(recent: Recent) -> None:
    judge(recent, 0, CONTROL)
    assert recent.slots[SLOT].folded_to == 1
    assert not recent.outcomes and not len(recent.devices)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00" * 64,
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"kind": "evaluation"}',
        b'{"kind": "evaluation", "version": "3", "schema_version": 1}',
        b'{"kind": "evaluation", "version": -3, "schema_version": 1}',
        b'{"kind": "evaluation", "version": 3, "schema_version": 2}',
        b'{"kind": "version", "version": 3, "at_ms": null, "schema_version": 1}',
        b'{"kind": "region_minute", "region": 5, "partition": 0, "sequence": 0, "minute_ms": 0}',
        b'{"kind": "region_minute", "region": "eu", "partition": 7, "sequence": 0, "minute_ms": 0, "cost_total": 1}',
        b'["evaluation"]',
        b'"evaluation"',
        b'{"kind": "evaluation", "version": 1e400}',
    ],
)
def test_junk_in_any_topic_is_counted_and_changes_nothing(
    follower: Follower, recent: Recent, value: bytes
) -> None:
    for topic in (VERDICTS, METRICS, WINDOWS):
        follower.take(record(topic, value))
    assert recent.strays >= 2
    assert not len(recent.evaluations) and not len(recent.committed_ms) and not recent.cost_by_region
    follower.take(record(VERDICTS, verdict_bytes(Verdict(3, ACCEPTED)), 3))
    assert recent.slots[SLOT].folded_to == 4


def test_an_aggregate_that_no_worker_signed_is_junk(follower: Follower, recent: Recent) -> None:
    follower.take(record(WINDOWS, factories.update_bytes("d-1")))
    assert (recent.strays, recent.slots[SLOT].windows) == (1, 0)


def test_a_record_of_a_future_schema_is_junk(follower: Follower, recent: Recent) -> None:
    future = {"kind": "evaluation", "version": 1, "schema_version": 99, "accuracy": 1.0}
    follower.take(record(METRICS, json.dumps(future).encode()))
    assert (recent.strays, len(recent.evaluations)) == (1, 0)


def test_long_and_hostile_text_is_kept_short_and_as_it_is(recent: Recent) -> None:
    hostile = "<script>alert(1)</script>"
    judge(recent, 0, device_id=hostile, update_id=hostile)
    judge(recent, 1, device_id="x" * 10_000, update_id="y" * 10_000)
    assert [len(one.device_id) for one in recent.devices.rows()] == [len(hostile), TEXT_CHARACTERS_MAX]
    assert recent.updates.get(hostile) == (SLOT, 0)


def test_the_first_evaluation_of_a_version_counts(recent: Recent) -> None:
    for accuracy in (0.5, 0.9):
        recent.add_metric({"kind": "evaluation", "version": 1, "accuracy": accuracy})
    evaluation = recent.evaluations.get(1)
    assert evaluation is not None and evaluation["accuracy"] == 0.5


def test_a_minute_that_comes_twice_costs_once(recent: Recent) -> None:
    minute = {
        "kind": "region_minute",
        "region": "eu",
        "partition": 0,
        "sequence": 4,
        "minute_ms": 60_000,
        "cost_total": 0.25,
        "bytes_up": 100,
        "device_seconds": 1.5,
        "accepted": 2,
        "cohort_3_accepted": 1,
        "cohort_3_cost_total": 0.125,
        "cohort_3_bytes_up": 50,
        "cohort_x_accepted": 9,
    }
    for one in (minute, minute, minute | {"minute_ms": 120_000}):
        recent.add_metric(one)
    assert recent.window_cost("eu", 0, 4) == 0.5
    assert recent.cost_by_region["eu"] == [0.5, 200, 3.0, 4]
    assert recent.window_cost("eu", 0, 5) is None
    assert recent.cost_by_cohort == {"3": [0.25, 100, 0.0, 2]}


def test_a_long_curve_is_thinned_and_keeps_its_newest_point(recent: Recent) -> None:
    for version in range(1, 1001):
        recent.add_metric({"kind": "evaluation", "version": version, "accuracy": version / 1000})
    shown, of, every = curve_points(quality_seen(None, recent), ["accuracy"], 300)
    assert (len(shown), of, every, shown[-1]["version"]) == (250, 1000, 4, 1000)
    assert [one["version"] for one in shown] == sorted(one["version"] for one in shown)


def test_bins_count_by_time_and_never_grow() -> None:
    bins = Bins(120, 2)
    for second in range(1000):
        bins.add(NOW_MS + second * 1000, accepted=second % 4 != 0)
    bins.add(5, accepted=True)
    now_ms = NOW_MS + 999_000
    assert bins.sums(now_ms, 60) == (45, 15)
    accepted, refused, end_ms = bins.series(now_ms)
    assert (len(accepted), len(refused), end_ms) == (60, 60, NOW_MS + 998_000)
    assert len(bins._bins) <= 62


def test_the_newest_are_kept() -> None:
    newest: Newest[int, int] = Newest(3)
    for number in (1, 2, 3, 1, 4):
        newest.put(number, number)
    assert ([key for key, _ in newest.items()], newest.forgotten) == ([3, 1, 4], 1)


def test_equal_devices_have_a_gini_of_zero_and_one_that_does_all_nearly_one() -> None:
    assert participation([5, 5, 5, 5])["gini"] == 0.0
    assert participation([1] * 99 + [10_000])["gini"] > 0.97
    assert participation([0, 0])["gini"] is None
    assert participation([1, 2, 3])["histogram"][0] == {"updates_min": 1, "updates_max": 1, "devices": 1}


# -- rates and trends


def samples(*lags: int) -> list[Sample]:
    return [
        Sample(
            NOW_MS + 1000 * second, {SLOT: Reached(100 + 10 * second, 100 + 10 * second - lag, 0, 0, 0)}, 0
        )
        for second, lag in enumerate(lags)
    ]


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        ((0,), "none"),
        ((0, 0, 0), "none"),
        ((5, 5, 5), "steady"),
        ((5, 3, 0), "falling"),
        ((0, 3, 9), "rising"),
    ],
)
def test_a_trend_compares_with_some_seconds_ago(lags: tuple[int, ...], expected: str) -> None:
    assert trend(samples(*lags), lambda sample: sample.slots[SLOT].lag_records) == expected


def test_a_rate_is_a_mean_over_some_seconds() -> None:
    assert rate(samples(*[0] * 30), lambda sample: sample.slots[SLOT].log_end) == 10.0
    assert rate(samples(0), lambda sample: sample.slots[SLOT].log_end) is None


# -- values in addresses


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "٣", " 1", "9" * 30, "0x1", "nan"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as raised:
        queries.number({"n": text}, "n", None)
    assert raised.value.error_id == "FLV-6505"


@pytest.mark.parametrize("text", ["", "1", "1.2.3", "a.b", "1.-2", "..", "1.2\n"])
def test_a_place_that_no_answer_gave_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem):
        queries.cursor({"after": text}, "after", 2)


def test_a_place_goes_through_an_address_and_back() -> None:
    hostile = 'd/ü"<&?#%\x00'
    assert unpacked("after", packed(7, "eu", hostile), 3) == ["7", "eu", hostile]
    for text in ("", "!!!", "AAAA", packed("x", "eu", "d"), packed(1, "eu")):
        with pytest.raises(UsageProblem):
            unpacked("after", text, 3)


def test_what_a_record_says_is_made_printable_within_bounds() -> None:
    deep: Any = "end"
    for _ in range(50):
        deep = [deep]
    said = printable(
        {"b": b"\x01\x02", "long": b"x" * 999, "nan": float("nan"), "deep": deep, "many": [0] * 10_000}
    )
    assert (said["b"], said["long"], said["nan"], len(said["many"])) == ("0102", "999 bytes", None, 200)
    assert json.dumps(said, allow_nan=False)


def test_slots_know_their_open_window() -> None:
    facts = SlotFacts(folded_to=7, sealed_to=5)
    facts.open_times.extend([(5, 100), (6, 200)])
    assert (facts.open_records, facts.open_since_ms()) == (2, 100)
    assert replace(facts, folded_to=-1).open_records == 0
    assert PAGE_RECORDS == 500
