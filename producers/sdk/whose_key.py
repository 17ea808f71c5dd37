"""Whose a device's key is: the id, the region, the role and the cohort that its certificate says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregation.errors import UsageProblem
from aggregation.regions import is_edge
from schemas.certificates import BadCertificateError, Role

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.certificates import Identity
    from schemas.envelope import KeyPair
    from schemas.manifests import Genesis


def holder_of_key(key_pair: KeyPair, genesis: Genesis, region: str, key: Path | str) -> Identity:
    """What a device's certificate says; FLV-2407 or FLV-2506 unless this region's CA issued it to a device."""
    check_region(genesis, region)
    try:
        identity = genesis.trust.identify(key_pair.certificate, edges=is_edge(region, genesis.regions))
    except BadCertificateError as error:
        raise _unfit(genesis, region, key, str(error)) from error
    if identity.role is not Role.DEVICE:
        raise _unfit(genesis, region, key, f"it is a {identity.role.value}'s")
    if identity.region != region:
        raise _unfit(genesis, region, key, f"it is of region {identity.region}")
    return identity


def check_region(genesis: Genesis, region: str) -> None:
    """UsageProblem FLV-2407 unless the task has ``region``, or it is an edge below one."""
    if region not in genesis.regions and not is_edge(region, genesis.regions):
        raise UsageProblem(
            "FLV-2407",
            f"the task {genesis.task} has no region {region!r}, it has {', '.join(sorted(genesis.regions))}",
            hint="name one of them with `--region`; a task's regions are fixed when it is created",
        )


def _unfit(genesis: Genesis, region: str, key: Path | str, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2506",
        f"the certificate is not a device's of region {region} in the task {genesis.task}: {reason}",
        where=str(key),
        hint=f"issue one with `fluvial ca issue --task {genesis.task} --region {region} --role device NAME`",
    )
