"""How a version has to be made: which format its manifest is of, and what lateness leaves of its windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregation.server.lateness import ON_TIME, Lateness, lateness_under
from schemas.documents import manifest_v1
from schemas.manifest_seals import manifest_format
from schemas.manifests import MANIFESTS_BEFORE_V3, Manifest

if TYPE_CHECKING:
    from aggregation.policy import Policy
    from schemas.signing import SignatureDomain


@dataclass(frozen=True, slots=True)
class VersionRules:
    """The rules of one version; by default those of tasks before ``fluvial/genesis/v5``."""

    document_format: str = manifest_v1.FORMAT
    lateness: Lateness = ON_TIME

    @property
    def says_lateness(self) -> bool:
        """Whether its manifest says how late windows were, and what is usual."""
        return self.document_format not in MANIFESTS_BEFORE_V3


def rules_after(version: int, policy: Policy, domain: SignatureDomain) -> VersionRules:
    """The rules of the version after ``version``, of a task with these signatures; ``policy`` is in force there.

    Where a manifest cannot say lateness, there is none.
    """
    document_format = manifest_format(domain, policy)
    late = document_format not in MANIFESTS_BEFORE_V3
    return VersionRules(document_format, lateness_under(policy, version) if late else ON_TIME)


def delay_of(manifest: Manifest, rules: VersionRules) -> int:
    """``MergedWindows.delay`` of the version that a manifest describes, from what it says."""
    counting = (one for one in manifest.inputs if one.accepted and not one.is_dropped)
    return manifest.staleness_max + max(map(rules.lateness.versions_of, counting), default=0)
