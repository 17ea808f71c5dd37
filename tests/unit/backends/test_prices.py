"""The prices that costs are reckoned with: those that are shipped are valid, and wrong ones stop the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregation.errors import UsageProblem
from backends.prices import load_prices

ROOT = Path(__file__).parents[3]


def test_the_shipped_prices_are_valid() -> None:
    assert load_prices().currency == "EUR"


@pytest.mark.parametrize(
    "change",
    [("up_per_gib = 0.0", "up_per_gib = -1.0"), ('"EUR"', "3"), ("device_hour", "hour"), ("= 0.09", "= inf")],
)
def test_wrong_prices_stop_the_start(
    change: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.toml"
    path.write_text((ROOT / "infra" / "prices.toml").read_text().replace(*change))
    monkeypatch.setenv("FLUVIAL_PRICES", str(path))
    with pytest.raises(UsageProblem, match="prices cannot be used") as caught:
        load_prices()
    assert caught.value.error_id == "FLV-7041"
