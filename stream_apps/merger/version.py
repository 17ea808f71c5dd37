"""A committed version as the merger carries it from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aggregation.defences import Histograms
from aggregation.server.aggregates import Slot
from aggregation.server.merge import Checkpoint
from schemas.manifest_inputs import histograms_of
from schemas.manifests import Genesis, Manifest
from schemas.objects import sha256_hex

NO_POOLS: Final = Histograms()


@dataclass(frozen=True, slots=True)
class Version:
    """Hashes, cursors (the next sequence of every partition that no version holds yet), and arrays.

    ``pools``: what is usual, empty before ``fluvial/manifest/v3``. ``guide_sha256``: what its barriers name, or "".
    """

    number: int
    manifest_sha256: str
    model_sha256: str
    reference_sha256: str
    policy_sha256: str
    floor: int
    reason: str
    cursors: Mapping[Slot, int]
    checkpoint: Checkpoint
    pools: Histograms = NO_POOLS
    guide_sha256: str = ""


def first_version(genesis: Genesis, checkpoint: Checkpoint) -> Version:
    """Version 0."""
    return Version(
        number=0,
        manifest_sha256=sha256_hex(genesis.canonical()),
        model_sha256=genesis.model_sha256,
        reference_sha256="",
        policy_sha256=genesis.first_policy.sha256,
        floor=0,
        reason="version",
        cursors=dict.fromkeys(genesis.slots, 0),
        checkpoint=checkpoint,
    )


def version_of(manifest: Manifest, manifest_sha256: str, checkpoint: Checkpoint) -> Version:
    """The version that a manifest describes, with its arrays."""
    return Version(
        number=manifest.version,
        manifest_sha256=manifest_sha256,
        model_sha256=manifest.model_sha256,
        reference_sha256=manifest.reference_sha256,
        policy_sha256=manifest.policy_sha256,
        floor=manifest.floor,
        reason=manifest.reason,
        cursors=manifest.slot_cursors,
        checkpoint=checkpoint,
        pools=histograms_of(manifest),
        guide_sha256=manifest.guide_sha256,
    )
