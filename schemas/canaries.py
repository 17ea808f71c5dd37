"""Which device is a region's canary: its name is reserved by convention, so that what is counted can leave it out.

The fold knows nothing of it: a canary's updates are judged, counted in windows and pinned in manifests like all others.
A verdict's device id is the certificate's, so only who has a certificate of that name is left out.
"""

from __future__ import annotations


def canary_name(region: str) -> str:
    """The device id of a region's canary."""
    return f"canary-{region}"


def is_canary(region: str, device_id: str) -> bool:
    """Whether a device that a verdict of this region names is its canary."""
    return device_id == canary_name(region)
