"""The longer words of reasons, see ``aggregation.reasons``."""

from __future__ import annotations


def clip(norm: float, clip: float) -> str:
    """Of the reason of that name."""
    return f"clipped from norm {norm:.6g} to {clip:g}"


def stale(base: int, version: int, allowed: int) -> str:
    """Of the reason of that name."""
    return f"base version {base} is {version - base} versions old, the policy allows {allowed}"


def below_floor(base: int, version: int, allowed: int, floor: int) -> str:
    """Of the reason of that name."""
    return f"{stale(base, version, allowed)}, and no base below {floor}"


def deviates(norm: float, deviations: float, allowed: float) -> str:
    """Of the reason of that name."""
    return (
        f"its norm {norm:.6g} is {deviations:.2f} robust deviations above its peers', "
        f"the policy allows {allowed:g}"
    )


def against(cosine: float, least: float) -> str:
    """Of the reason of that name."""
    return f"its cosine with the last global step is {cosine:.3f}, the policy asks for {least:g} or more"


def stale_for_long(base: int, version: int, allowed: int, seconds: float, seconds_max: float) -> str:
    """Of the reason of that name."""
    age = f"it was superseded {seconds:.0f} s ago, the policy allows {seconds_max:g} s"
    return f"{stale(base, version, allowed)}, and {age}"


def over_share(device: str, version: int, per_version: int) -> str:
    """Of the reason of that name."""
    return f"{device} has no contribution left at version {version}: each version gives it {per_version}"


def quarantined(device: str, until: int) -> str:
    """Of the reason of that name."""
    return f"{device} is in quarantine until version {until}: too many of its last updates were anomalous"


def revoke(device: str, serial: str, reason: str) -> str:
    """Of the reason of that name."""
    return f"revoked {' and '.join(name for name in (device, serial) if name)}: {reason}"


def malformed(record: str, flaw: str, at: int) -> str:
    """Of the reason of that name."""
    return f"not the one encoding of a {record}: {flaw} at byte {at}"
