"""Lag in records and seconds, looked up between samples of a log's end."""

from __future__ import annotations

from backends.observing.lag import LagTable


def test_lag_is_zero_only_without_records_and_is_looked_up_between_samples() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    assert table.lag(100, 1003.0) == (0, 0.0)
    table.add(200, 1010.0)
    assert table.lag(150, 1010.0) == (50, 5.0)
    assert table.lag(199, 1010.0)[0] == 1 and table.lag(199, 1010.0)[1] > 0
    assert table.lag(250, 1011.0) == (0, 0.0)


def test_lag_of_a_partition_that_stands_grows_even_when_the_log_does_not() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    seen = []
    for second in range(1, 2000):
        table.add(101, 1000.0 + second)
        seen.append(table.lag(100, 1000.0 + second)[1])
    assert seen == sorted(seen) and seen[-1] > 1990


def test_lag_from_before_the_first_sample_is_at_least_that_of_the_last_record_folded() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    assert table.lag(40, 1001.0) == (60, 1.0)
    assert table.lag(40, 1001.0, 401.0) == (60, 600.0)


def test_a_log_that_became_shorter_is_another_one() -> None:
    table = LagTable()
    table.add(100, 1000.0)
    table.add(10, 1001.0)
    assert table.lag(5, 1002.0) == (5, 1.0)
