"""Which device has which examples: the natural parts of a task's data where it has any, else parts that are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.errors import UsageProblem
from learning.partition import split_among_devices

if TYPE_CHECKING:
    from learning.datasets import Dataset, Examples

_NAMES_SHOWN: Final = 6


def devices_of(data: Dataset, asked: int | None, default: int) -> int:
    """How many devices there are: so many as were asked for, else one a natural part, else ``default``.

    Raises UsageProblem FLV-2232: more were asked for than the data has parts.
    """
    if not data.parts:
        return default if asked is None else asked
    _check(data, asked)
    return len(data.parts) if asked is None else asked


def device_data(data: Dataset, devices: int, alpha: float, seed: int) -> list[Examples]:
    """Each device's examples: the first ``devices`` natural parts, or ``split_among_devices``.

    Raises UsageProblem FLV-2232 (more devices than parts), FLV-2212 (as ``split_among_devices`` does).
    """
    if not data.parts:
        return split_among_devices(data.train, devices, alpha, seed)
    _check(data, devices)
    return list(data.parts.values())[:devices]


def device_ids(data: Dataset, devices: int) -> list[str]:
    """What the devices of the first ``devices`` natural parts are called; empty where there are none."""
    return list(data.parts)[:devices]


def part_of(data: Dataset, device_id: str) -> Examples | None:
    """The part of the device of this name; None where no part is called so."""
    return data.parts.get(device_id)


def parts_in_words(data: Dataset, devices: int) -> str:
    """``hospital-a, hospital-b and 3 more``."""
    ids = device_ids(data, devices)
    more = f" and {len(ids) - _NAMES_SHOWN} more" if len(ids) > _NAMES_SHOWN else ""
    return ", ".join(ids[:_NAMES_SHOWN]) + more


def _check(data: Dataset, asked: int | None) -> None:
    if asked is not None and asked > len(data.parts):
        raise UsageProblem(
            "FLV-2232",
            f"{asked} devices, and the task's data has {len(data.parts)} parts: each part is one device's",
            hint=f"leave `--devices` out, or choose 1 to {len(data.parts)}",
        )
