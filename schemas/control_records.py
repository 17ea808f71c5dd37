"""What a decoded control record says, as the fold takes it. ``barred_as``: its signer's name among what is revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aggregation.defences import Usual
from aggregation.fold.events import Barrier, Pardon, Revoke, Skip

if TYPE_CHECKING:
    from aggregation.fold.rules import RecordRules


def barrier_of(record: dict[str, Any], barred_as: str, timestamp_ms: int) -> Barrier:
    """A Barrier; v1 has neither a guide nor usual values."""
    return Barrier(
        task=record["task"],
        region=record["region"],
        version=record["version"],
        manifest_sha256=record["manifest_sha256"],
        model_sha256=record["model_sha256"],
        reference_sha256=record["reference_sha256"],
        policy_sha256=record["policy_sha256"],
        floor=record["floor"],
        reason=record["reason"],
        signer=barred_as,
        usual=Usual(*(record.get(f"usual_{name}", 0) for name in ("norm", "cosine", "share"))),
        guide_sha256=record.get("guide_sha256", ""),
        timestamp_ms=timestamp_ms,
    )


def revoke_of(record: dict[str, Any], barred_as: str, rules: RecordRules) -> Revoke:
    """A Revoke."""
    serial = record["certificate_serial"]
    named = rules.certificate_name(serial)
    return Revoke(record["task"], record["device_id"], serial, record["reason"], barred_as, named)


def skip_of(record: dict[str, Any], barred_as: str) -> Skip:
    """A Skip."""
    place = record["task"], record["region"], record["partition"]
    return Skip(*place, record["offset"], record["reason"], barred_as)


def pardon_of(record: dict[str, Any], barred_as: str) -> Pardon:
    """A Pardon."""
    place = record["task"], record["region"], record["device_id"]
    return Pardon(*place, record["until"], record["reason"], barred_as)
