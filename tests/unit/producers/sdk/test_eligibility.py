"""Whether a device may take part now: asked before fetching and before training, said, counted, and never lost."""

from __future__ import annotations

import logging
import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from aggregation.errors import UsageProblem
from producers.sdk.conditions import Conditions
from producers.sdk.eligibility import (
    ASKED_EVERY_S,
    OTHERS,
    REASON_CHARACTERS_MAX,
    REASONS_MAX,
    CanRun,
    Eligibility,
    NotNowProblem,
    reason_of,
)
from tests.unit.producers.sdk.test_device_turns import device, slots

if TYPE_CHECKING:
    from pathlib import Path


def raises() -> bool:
    raise OSError("the sensor is gone")


@pytest.mark.parametrize(
    ("can_run", "reason"),
    [
        (lambda: True, ""),
        (lambda: None, ""),
        (lambda: "", ""),
        (lambda: False, "its program says no"),
        (lambda: "the network is metered", "the network is metered"),
        (raises, "the question fails: OSError: the sensor is gone"),
        (lambda: 0, "the question gives int"),
        (lambda: ["no"], "the question gives list"),
        (lambda: "\x1b[31mred\n", "\\x1b[31mred\\n"),
    ],
)
def test_what_a_program_may_say(can_run: CanRun, reason: str) -> None:
    assert reason_of(can_run).startswith(reason) and bool(reason_of(can_run)) is bool(reason)


def test_a_long_reason_is_cut_off() -> None:
    assert len(reason_of(lambda: "no " * 1000)) == REASON_CHARACTERS_MAX


def test_who_is_never_asked_may_always() -> None:
    one = Eligibility(None, "device d-1")
    assert one.why_not() == ""
    one.require()
    assert one.document() == {"asked": 0, "declined": 0, "reasons": {}}


def test_reasons_are_counted_by_kind_and_told_when_the_kind_changes(caplog: pytest.LogCaptureFixture) -> None:
    answers = ["battery at 11 %", "battery at 12 %", "", "", "no data", ""]
    one = Eligibility(lambda: answers.pop(0), "device d-1")
    with caplog.at_level(logging.INFO, "fluvial.device"):
        said = [one.why_not() for _ in range(6)]
    assert said == ["battery at 11 %", "battery at 12 %", "", "", "no data", ""]
    assert caplog.messages == [
        "device d-1 takes no part now: battery at 11 %",
        "device d-1 takes part again",
        "device d-1 takes no part now: no data",
        "device d-1 takes part again",
    ]
    assert one.document() == {"asked": 6, "declined": 3, "reasons": {"battery at # %": 2, "no data": 1}}


def test_kinds_of_reasons_are_bounded() -> None:
    words = iter(f"because of {chr(ord('a') + n % 26) * (n // 26 + 1)}" for n in range(100))
    one = Eligibility(lambda: next(words), "device d-1")
    for _ in range(100):
        one.why_not()
    assert len(one.reasons) == REASONS_MAX + 1
    assert one.reasons[OTHERS] == 100 - REASONS_MAX


# -- a device


def test_a_device_waits_until_it_may_and_then_fetches() -> None:
    one, clock = device(slots(1), every=5.0)
    began, free_at = clock.now, clock.now + 3.5 * ASKED_EVERY_S
    one.eligibility = Eligibility(lambda: clock.now >= free_at, "device d")
    assert one.fetch_selected(timeout_s=100.0).version == 4, "the newest by then"
    assert clock.now - began >= 3.5 * ASKED_EVERY_S
    assert one.eligibility.reasons.total() == 4


def test_one_that_may_not_in_time_is_told_why_and_fetches_nothing() -> None:
    one, clock = device(slots(50), every=5.0)
    one.eligibility = Eligibility(lambda: "the network is metered", "device d")
    began = clock.now
    with pytest.raises(NotNowProblem, match="metered") as caught:
        one.fetch_selected(timeout_s=12.0)
    assert caught.value.error_id == "FLV-2512"
    assert clock.now - began == 12.0
    with pytest.raises(NotNowProblem):
        one.fetch()


def test_it_is_asked_again_before_training_and_the_base_stays_good() -> None:
    one, _ = device(slots(50), every=5.0)
    answers = [True, "a call comes in", True]
    one.eligibility = Eligibility(lambda: answers.pop(0), "device d")
    base = one.fetch()
    with pytest.raises(NotNowProblem, match="a call comes in"):
        one.train(base, None, None)  # type: ignore[arg-type]
    assert one.is_selected(base) and one.eligibility.why_not() == ""


# -- conditions


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"battery_min": 1.1}, "battery_min"),
        ({"battery_min": float("nan")}, "battery_min"),
        ({"load_max": 0.0}, "load_max"),
        ({"memory_bytes_min": -1}, "memory_bytes_min"),
        ({"data": "x"}, "data"),
        ({"data_days_max": 1.0}, "data"),
        ({"data": "x", "data_days_max": 0.0}, "data_days_max"),
    ],
)
def test_a_condition_out_of_its_bounds_is_refused_by_name(bad: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageProblem, match=name) as caught:
        Conditions(**bad)
    assert caught.value.error_id == "FLV-2513"


def test_what_is_not_given_is_not_asked_for() -> None:
    assert Conditions()() == ""


@pytest.mark.parametrize(
    ("battery", "holds"),
    [
        (None, True),
        (SimpleNamespace(percent=20.0, power_plugged=True), True),
        (SimpleNamespace(percent=30.0, power_plugged=False), True),
        (SimpleNamespace(percent=29.9, power_plugged=False), False),
        (SimpleNamespace(percent=5.0, power_plugged=None), False),
    ],
)
def test_a_battery_is_full_enough_or_on_mains(
    monkeypatch: pytest.MonkeyPatch, battery: object, *, holds: bool
) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery)
    assert (Conditions(battery_min=0.3)() == "") is holds


def test_this_machine_is_asked_for_its_load_and_memory() -> None:
    assert Conditions(load_max=1e9, memory_bytes_min=1)() == ""
    assert "memory" in Conditions(memory_bytes_min=1 << 60)()
    busy = Conditions(load_max=1e-12)()
    assert (busy == "") is (psutil.getloadavg()[0] == 0.0)


def test_the_newest_file_says_how_fresh_the_data_is(tmp_path: Path) -> None:
    asked = Conditions(data=tmp_path, data_days_max=2.0)
    assert "no data" in asked()
    for name, days in (("old", 9.0), ("below", 3.0)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "rows.csv").write_text("1")
        os.utime(folder / "rows.csv", (0, time.time() - 86_400 * days))
        assert f"{min(days, 9.0):.1f} days old" in asked()
    assert Conditions(data=tmp_path / "below" / "rows.csv", data_days_max=4.0)() == ""
    (tmp_path / "old" / "new.csv").write_text("1")
    assert asked() == ""
