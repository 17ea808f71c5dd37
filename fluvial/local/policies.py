"""Which policy a task gets when several places say something, key by key.

What the command line names goes before the task file's POLICY, and that before the quick defaults of a run.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import UsageProblem
from aggregation.policy import BYTE_ORDER_MARK, NEWEST, Policy, policy_from_toml
from backends.text_files import plain_utf8

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


QUICK_WINDOW_S: Final = 0.25
BUFFER_UPDATES_MAX: Final = 64


def read_policy_file(path: Path | None) -> str:
    """The text of a policy file; empty for None.

    Raises UsageProblem: FLV-2001, it is not TOML.
    """
    if path is None:
        return ""
    try:
        text = plain_utf8(path.read_bytes()).decode()
        tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(
            "FLV-2001",
            f"the policy is not TOML: {error}",
            where=str(path),
            hint="docs/policy.md shows how one is written, and every key",
        ) from error
    return text


def layered_policy(
    *, explicit: str = "", task: Mapping[str, Any], defaults: str = "", default_format: str = NEWEST
) -> Policy:
    """The policy of ``explicit`` (TOML) over the POLICY of a ``task`` file over ``defaults`` (TOML).

    Raises UsageProblem: FLV-2001 (form), FLV-2002 (meaning), FLV-2003 (overflow).
    """
    overrides = _laid_over(task, tomllib.loads(explicit.removeprefix(BYTE_ORDER_MARK)))
    return policy_from_toml(defaults, overrides=overrides, default_format=default_format)


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


def require_reachable(policy: Policy, devices: int) -> None:
    """Refuse a policy under which so many devices can make no version at all: UsageProblem FLV-2002."""
    if policy.buffer.quorum > devices:
        raise UsageProblem(
            "FLV-2002",
            f"buffer.quorum = {policy.buffer.quorum} asks for more updates of a version than {devices} devices send",
            hint="lower buffer.quorum, or run more devices: each answers a version once",
        )


def buffer_updates_for(honest_devices: int) -> int:
    """FedBuff's K for a fleet: most of its honest devices, since each contributes only once a version."""
    return max(1, min(BUFFER_UPDATES_MAX, honest_devices * 4 // 5))


def quick_policy(honest_devices: int, *, defence: str = "", control: bool = False) -> str:
    """Policy defaults (TOML) for a fleet on one machine; POLICY of the task file and ``--policy`` go before them.

    ``defence`` is its kind; "" for the default one. ``control``: whether they train with control variates.

    Windows are short, so that a version is made of all partitions and not of the two or three whose windows closed
    first: with few devices and uneven data that would make the model sway.
    """
    updates = buffer_updates_for(honest_devices)
    quick = f"[window]\nseconds_max = {QUICK_WINDOW_S}\n\n[buffer]\nupdates = {updates}\n"
    quick += f'\n[defence]\nkind = "{defence}"\n' if defence else ""
    return quick + (control_policy(honest_devices) if control else "")


def control_policy(devices: int) -> str:
    """Policy defaults (TOML) where so many devices train with control variates: N of SCAFFOLD's server."""
    return f"\n[control]\ndevices = {devices}\n"
