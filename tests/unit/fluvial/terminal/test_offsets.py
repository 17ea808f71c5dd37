"""The offset language: what each form means, what is refused, and ranges whose times hold colons."""

from __future__ import annotations

import pytest

from aggregation.errors import UsageProblem
from fluvial.terminal.offsets import (
    Ago,
    At,
    End,
    Offset,
    Range,
    Start,
    parse_point,
    parse_range,
    resolve,
    resolve_range,
)

TEN = 1_795_341_600_000  # 2026-11-22T10:00 UTC
POINTS = [
    ("120394", Offset(120394)),
    ("0", Offset(0)),
    ("@start", Start()),
    ("@end", End()),
    ("@-90s", Ago(90_000)),
    ("@-10m", Ago(600_000)),
    ("@-2h", Ago(7_200_000)),
    ("@-1d", Ago(86_400_000)),
    ("@2026-11-22T10:00", At(TEN)),
    ("@2026-11-22T10:00:30", At(TEN + 30_000)),
    ("@2026-11-22T10:00Z", At(TEN)),
    ("@2026-11-22T12:00+02:00", At(TEN)),
    ("@2026-11-22", At(TEN - 36_000_000)),
]


class SmallLog:
    """Offsets 100 to 199, one a second from ten o'clock on."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 100, 200

    def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        return min(200, 100 + max(0, -((TEN - timestamp_ms) // 1000)))


@pytest.mark.parametrize(("text", "point"), POINTS, ids=[text for text, _ in POINTS])
def test_each_form_means_one_point(text: str, point: object) -> None:
    assert parse_point(text) == point
    assert parse_range(text) == Range(point, End())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5:9", Range(Offset(5), Offset(9))),
        ("5:", Range(Offset(5), End())),
        (":9", Range(Start(), Offset(9))),
        ("@start:@end", Range(Start(), End())),
        ("@-1h:@-10m", Range(Ago(3_600_000), Ago(600_000))),
        ("@2026-11-22T10:00:@2026-11-22T10:01", Range(At(TEN), At(TEN + 60_000))),
        ("@2026-11-22T10:00:30:150", Range(At(TEN + 30_000), Offset(150))),
        ("@2026-11-22T10:00Z:30", Range(At(TEN), Offset(30))),
        ("120:@2026-11-22T10:00", Range(Offset(120), At(TEN))),
    ],
)
def test_a_range_is_two_points(text: str, expected: Range) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":", "@", "-5", "@now", "@-10", "@-m", "@-1w", "1:2:3", "a:b", "@2026-13-40", "1 ", "٣"]
)
def test_what_is_not_in_the_language_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_range(text)
    assert caught.value.error_id == "FLV-6201" and "@start" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("@start", 100),
        ("@end", 200),
        ("150", 150),
        ("200", 200),
        ("@-30s", 170),
        ("@2026-11-22T10:00:05", 105),
        ("@-1d", 100),
    ],
)
def test_a_point_resolves_within_the_log(text: str, offset: int) -> None:
    assert resolve(parse_point(text), SmallLog(), "t", 0, now_ms=TEN + 100_000) == offset


@pytest.mark.parametrize("text", ["99", "201"])
def test_a_number_outside_of_the_log_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        resolve(parse_point(text), SmallLog(), "t", 0, now_ms=TEN)
    assert caught.value.error_id == "FLV-6202" and "100 to 199" in caught.value.message


def test_a_range_resolves_and_the_wrong_way_round_is_refused() -> None:
    assert resolve_range(parse_range("110:@end"), SmallLog(), "t", 0, now_ms=TEN) == (110, 200)
    with pytest.raises(UsageProblem) as caught:
        resolve_range(parse_range("120:110"), SmallLog(), "t", 0, now_ms=TEN)
    assert caught.value.error_id == "FLV-6203"
