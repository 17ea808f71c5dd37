"""That a process which takes too much, or grows, is found; and one that swings in a short run is not."""

from __future__ import annotations

import pytest

from tests.fuzz.memory import GROWTH_BYTES_MAX, SAMPLE_EVERY_S, THIRD_MIN_S, MemorySamples

START, HELD = 80 << 20, 200 << 20
LONG = round(3 * THIRD_MIN_S / SAMPLE_EVERY_S)
SHORT = 50


def findings(samples: list[int]) -> list[str]:
    memory = MemorySamples({}, HELD)
    memory._samples["worker"] = samples
    return [found.partition(" from ")[0].partition(" at ")[0] for found in memory.findings()]


def ramp(count: int, by: int) -> list[int]:
    return [START + by * number // count for number in range(count + 1)]


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        ([START] * LONG, []),
        (ramp(SHORT, HELD), []),
        (ramp(LONG, 2 * GROWTH_BYTES_MAX), []),
        (ramp(LONG, 4 * GROWTH_BYTES_MAX), ["worker grew", "worker peaked"]),
        ([START] * SHORT + [START + HELD + 1], ["worker peaked"]),
    ],
    ids=["flat", "held for a moment", "a little", "growing", "one peak"],
)
def test_what_is_found(samples: list[int], found: list[str]) -> None:
    assert sorted(findings(samples)) == found
