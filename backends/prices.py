"""Unit prices, for the cost fields of metric records: a small TOML file, read and validated once at start."""

from __future__ import annotations

import importlib.resources
import math
from pathlib import Path
from typing import Annotated, Final

import msgspec

from aggregation.errors import UsageProblem
from backends.environment import prices_file
from backends.text_files import plain_utf8

GIB: Final = 1 << 30

Price = Annotated[float, msgspec.Meta(ge=0.0)]


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What things cost, in ``currency``. Storage is per GiB and month, all else per unit used."""

    currency: Annotated[str, msgspec.Meta(min_length=1, max_length=8)]
    up_per_gib: Price
    down_per_gib: Price
    device_hour: Price
    storage_per_gib_month: Price


def load_prices(path: Path | None = None) -> Prices:
    """The prices of ``path``, else of FLUVIAL_PRICES, else those that ship.

    Raises UsageProblem: FLV-7041, the file cannot be read or is not a table of prices.
    """
    chosen = path or prices_file() or _shipped()
    try:
        prices = msgspec.toml.decode(plain_utf8(chosen.read_bytes()), type=Prices)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad(chosen, str(error)) from error
    numbers = (prices.up_per_gib, prices.down_per_gib, prices.device_hour, prices.storage_per_gib_month)
    if not all(map(math.isfinite, numbers)):
        raise _bad(chosen, "every price must be finite")
    return prices


def _shipped() -> Path:
    """In a checkout it lies in infra/; in an installed package beside the stack's files."""
    checkout = Path(__file__).parent.parent / "infra" / "prices.toml"
    if checkout.is_file():
        return checkout
    return Path(str(importlib.resources.files("fluvial") / "local" / "infra" / "prices.toml"))


def _bad(path: Path, why: str) -> UsageProblem:
    return UsageProblem(
        "FLV-7041",
        f"the unit prices cannot be used: {why}",
        where=str(path),
        hint="compare it with infra/prices.toml, or unset FLUVIAL_PRICES to use that",
    )
