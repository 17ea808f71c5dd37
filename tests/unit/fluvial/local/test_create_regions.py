"""The language of ``--regions``."""

from __future__ import annotations

import pytest

from aggregation.errors import UsageProblem
from fluvial.local.create import describe_regions, parse_regions


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("eu:2,us:2", {"eu": 2, "us": 2}),
        ("eu", {"eu": 2}),
        (" eu:1 , ap ", {"eu": 1, "ap": 2}),
        ("eu:1024", {"eu": 1024}),
    ],
)
def test_what_it_means(text: str, regions: dict[str, int]) -> None:
    assert parse_regions(text) == regions
    assert parse_regions(describe_regions(regions)) == regions


@pytest.mark.parametrize(
    "text",
    ["", "eu:0", "eu:1025", "eu:x", "eu:-1", "eu:", "eu,eu", "control:1", "EU", "e u", "-eu", "eu,,us"],
)
def test_what_it_refuses(text: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_regions(text)
    assert caught.value.error_id == "FLV-2405"
