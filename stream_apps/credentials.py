"""Whether a process's own key is one whose records the others verify: asked at its start, and while it runs.

Whatever is signed by another role, for another region or after the certificate's end stands in the log and is passed
over by every reader, so such a process would work on for ever and achieve nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from aggregation.errors import UsageProblem
from aggregation.fold.rules import CERTIFICATE
from schemas.certificates import BadCertificateError, Identity, Role, Trust
from schemas.envelope import KeyPair


def own_identity(key_pair: KeyPair, trust: Trust, *, region: str, role: Role) -> Identity:
    """Whose keys these are; UsageProblem FLV-3203 unless the task's CA of ``region`` vouches for them in this role."""
    try:
        identity = trust.identify(key_pair.certificate)
    except BadCertificateError as error:
        raise _unfit(region, role, str(error)) from error
    if (identity.region, identity.role) != (region, role):
        raise _unfit(
            region, role, f"it is the key of {identity.region}/{identity.role.value}/{identity.name}"
        )
    return identity


def require_valid(identity: Identity) -> None:
    """UsageProblem FLV-3203 outside the certificate's time, by this machine's clock."""
    now_ms = round(time.time() * 1000)
    if not identity.valid_at(now_ms):
        when = "has expired" if now_ms > identity.not_after_ms else "is not valid yet"
        raise _unfit(identity.region, identity.role, f"the certificate of {identity.name} {when}")


def require_not_revoked(identity: Identity, revoked: Collection[str]) -> None:
    """UsageProblem FLV-3203 where an operator has revoked the certificate; ``revoked`` has names of such."""
    if CERTIFICATE + identity.serial in revoked:
        raise _unfit(
            identity.region,
            identity.role,
            f"an operator has revoked the certificate {identity.serial} of {identity.name}",
        )


def _unfit(region: str, role: Role, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-3203",
        f"every reader would reject what this process signs as a {role.value} of {region}: {reason}",
        hint=f"issue a key with `fluvial ca issue --region {region} --role {role.value} NAME`, "
        "and name it with `--key`; if it is not valid yet, see to this machine's clock",
    )
