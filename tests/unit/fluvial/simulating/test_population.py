"""Devices that are arithmetic: what follows from a seed and a number, and what a trace says instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aggregation.errors import UsageProblem
from fluvial.simulating.draws import normal, uniform
from fluvial.simulating.population import SLOWEST, Drawn
from fluvial.simulating.trace import Trace, read_trace

MANY = np.arange(20_000)
MASK = (1 << 64) - 1


def mixed(word: int) -> int:
    """SplitMix64's finalizer, after the paper."""
    word = (word + 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def test_draws_are_those_of_a_twin_in_plain_integers() -> None:
    found = uniform(7, 3, np.array([0, 5, 1 << 40]), 11)
    for device, value in zip((0, 5, 1 << 40), found.tolist(), strict=True):
        words = 7
        for word in (3, device, 11):
            words = mixed(words ^ mixed(word))
        assert value == ((words >> 11) + 0.5) * 2.0**-53


def test_draws_are_spread_as_they_should_be_and_know_nothing_of_each_other() -> None:
    draws, others = uniform(0, 0, MANY), uniform(0, 1, MANY)
    assert 0.0 < draws.min() < 0.001
    assert 0.999 < draws.max() < 1.0
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(draws, others)[0, 1]) < 0.03
    bell = normal(0, 0, MANY)
    assert abs(bell.mean()) < 0.03
    assert abs(bell.std() - 1.0) < 0.03


@pytest.mark.parametrize(("delays", "tail"), [("none", 1.0), ("lognormal", 1.0), ("pareto", 1.5)])
def test_a_round_takes_its_median_and_the_tail_is_as_heavy_as_it_is_said(delays: str, tail: float) -> None:
    crowd = Drawn(devices=len(MANY), round_s=60.0, speed_spread=0.0, delays=delays, tail=tail)  # type: ignore[arg-type]
    seconds, lost = crowd.rounds(MANY, 0, 0.0)
    assert not lost.any()
    assert abs(np.median(seconds) / 60.0 - 1.0) < 0.05
    assert seconds.max() <= 60.0 * SLOWEST
    share = {"none": 0.0, "lognormal": 0.0107, "pareto": 0.5 * 10.0**-1.5}[delays]
    assert abs((seconds > 600.0).mean() - share) < 0.004


def test_a_device_keeps_its_pace_and_its_rounds_differ() -> None:
    crowd = Drawn(devices=len(MANY), speed_spread=1.0, tail=0.1)
    first, second = crowd.rounds(MANY, 0, 0.0)[0], crowd.rounds(MANY, 1, 0.0)[0]
    assert (first != second).all()
    assert np.corrcoef(np.log(first), np.log(second))[0, 1] > 0.95
    assert np.array_equal(first[:10], crowd.rounds(MANY[:10], 0, 0.0)[0])
    assert not np.array_equal(first, crowd.seeded(1).rounds(MANY, 0, 0.0)[0])


def test_zones_sleep_in_turn_and_everybody_is_awake_for_his_share_of_a_day() -> None:
    crowd = Drawn(devices=len(MANY), day_s=86_400.0, awake=0.4, zones=2)
    hours = np.array([crowd.available(MANY, 3600.0 * hour) for hour in range(24)])
    assert abs(hours.mean() - 0.4) < 0.02
    zone = hours[:, MANY % 2 == 0].mean(axis=1)
    assert zone.max() > 0.95
    assert zone.min() < 0.05
    assert hours.any(axis=0).all()


def test_who_goes_to_bed_or_drops_out_in_the_middle_has_worked_for_nothing() -> None:
    sleepy = Drawn(devices=len(MANY), round_s=6 * 3600.0, day_s=86_400.0, awake=0.25, delays="none")
    awake = MANY[sleepy.available(MANY, 0.0)]
    seconds, lost = sleepy.rounds(awake, 0, 0.0)
    assert lost.mean() > 0.4
    assert not sleepy.available(awake[lost], float(seconds[lost].max()) + 1.0).all()
    dropping = Drawn(devices=len(MANY), dropouts=0.3)
    assert abs(dropping.rounds(MANY, 0, 0.0)[1].mean() - 0.3) < 0.02


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("devices", 0),
        ("devices", 1 << 30),
        ("seed", -1),
        ("round_s", 0.0),
        ("round_s", float("nan")),
        ("speed_spread", -1.0),
        ("tail", 0.0),
        ("tail", float("inf")),
        ("day_s", -1.0),
        ("awake", 0.0),
        ("awake", 1.1),
        ("zones", 0),
        ("dropouts", 1.0),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UsageProblem, match=name) as caught:
        Drawn(**{name: value})  # type: ignore[arg-type]
    assert caught.value.error_id == "FLV-6450"


# -- traces

GOOD = "device,start_s,end_s,round_s\nb,50,100,20\na,0,40,10\na,60,90,5\n"


def trace_of(folder: Path, text: str | bytes) -> Trace:
    path = folder / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_trace(path)


def test_a_trace_says_who_is_there_and_how_long_a_round_takes(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, GOOD)
    assert trace.names == ("b", "a")
    both = np.array([0, 1])
    assert trace.available(both, 0.0).tolist() == [False, True]
    assert trace.available(both, 45.0).tolist() == [False, False]
    assert trace.available(both, 60.0).tolist() == [True, True]
    seconds, lost = trace.rounds(both, 0, 85.0)
    assert (seconds.tolist(), lost.tolist()) == ([15.0, 5.0], [True, False])
    assert [trace.next_change(at) for at in (0.0, 49.0, 50.0, 99.0)] == [50.0, 50.0, 60.0, 100.0]


def test_after_its_end_a_trace_begins_again(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, GOOD)
    both = np.array([0, 1])
    assert trace.period_s == 100.0
    assert trace.available(both, 305.0).tolist() == trace.available(both, 5.0).tolist()
    assert trace.rounds(both, 0, 385.0)[0].tolist() == trace.rounds(both, 0, 85.0)[0].tolist()


def test_what_editors_do_to_a_trace_is_no_matter(tmp_path: Path) -> None:
    same = trace_of(tmp_path, GOOD)
    for text in (
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(",", " , "),
        GOOD.replace("b,", '"b",'),
    ):
        found = trace_of(tmp_path, text)
        assert (found.names, found.starts, found.period_s) == (same.names, same.starts, same.period_s)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "columns"),
        ("device,start_s,end_s\n", 1, "columns"),
        ("device,start,end,round\na,0,1,1\n", 1, "columns"),
        ("device,start_s,end_s,round_s\n", 1, "no device"),
        (GOOD + "c,1,2\n", 5, "4 columns, got 3"),
        (GOOD + "\nc,1,2,3\n", 5, "got 0"),
        (GOOD + "c,1,2,3,4\n", 5, "got 5"),
        (GOOD + "c,,2,3\n", 5, "start_s"),
        (GOOD + "c,1,nan,3\n", 5, "end_s"),
        (GOOD + "c,1,1e999,3\n", 5, "end_s"),
        (GOOD + "c,-1,2,3\n", 5, "start_s"),
        (GOOD + "c,1,2,soon\n", 5, "round_s"),
        (GOOD + "c,1,2,0\n", 5, "round_s"),
        (GOOD + "c,2,2,3\n", 5, "end_s"),
        (GOOD + ",1,2,3\n", 5, "device"),
        (GOOD + "x" * 65 + ",1,2,3\n", 5, "device"),
        (GOOD + "a,30,50,3\n", 5, "by line 3"),
        (GOOD + 'c,1,2,"3\n', 5, "no CSV"),
        (GOOD.encode() + b"\xff,1,2,3\n", 5, "UTF-8"),
    ],
)
def test_a_trace_with_holes_names_its_file_and_line(
    tmp_path: Path, text: str | bytes, line: int, words: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        trace_of(tmp_path, text)
    problem = caught.value
    assert problem.error_id == "FLV-6451"
    assert problem.where == f"{tmp_path / 'trace.csv'}:{line}"
    assert words in problem.message
    assert problem.hint


def test_a_trace_may_say_of_which_cohort_a_device_is(tmp_path: Path) -> None:
    assert trace_of(tmp_path, GOOD).cohorts == ()
    named = "device,start_s,end_s,round_s,cohort\nb,50,100,20,old\na,0,40,10, \na,60,90,5,\nc,0,1,1,3\n"
    trace = trace_of(tmp_path, named)
    assert dict(zip(trace.names, trace.cohorts, strict=True)) == {"b": "old", "a": "", "c": "3"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("c,1,2,3", "5 columns, got 4"),
        ("c,1,2,3,old,x", "got 6"),
        ("c,1,2,3,Old", "cohort"),
        ("c,1,2,3," + "a" * 33, "cohort"),
        ("b,200,300,5,new", "by line 2"),
        ("b,200,300,5,", "by line 2"),
    ],
)
def test_a_cohort_that_no_certificate_could_name_is_refused_with_its_line(
    tmp_path: Path, row: str, words: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        trace_of(tmp_path, f"device,start_s,end_s,round_s,cohort\nb,50,100,20,old\n{row}\n")
    assert caught.value.error_id == "FLV-6451"
    assert caught.value.where.endswith("trace.csv:3")
    assert words in caught.value.message
