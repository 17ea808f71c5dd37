"""A policy as the rest of the system sees it: one meaning, whatever its document's format, and the document's bytes."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from aggregation.policy import v1, v2, v3, v4, v5
from aggregation.policy.v2 import FixedPointPolicy, UpdatesPolicy, WindowPolicy
from aggregation.policy.v3 import StalenessPolicy
from aggregation.policy.v4 import DefencePolicy, MergePolicy
from aggregation.policy.v5 import SchedulePolicy, WeightsPolicy
from aggregation.policy.v6 import (
    BufferPolicy,
    ControlPolicy,
    EdgesPolicy,
    SelectionPolicy,
    ServerPolicy,
    SharesPolicy,
)

BEFORE_V3: Final = frozenset({v1.FORMAT, v2.FORMAT})
"""Formats in which no device has a share and no window is late: records of their tasks are those of before."""

BEFORE_V4: Final = BEFORE_V3 | {v3.FORMAT}
"""Formats in which sums stand in one bucket: windows do not say how many."""

BEFORE_V5: Final = BEFORE_V4 | {v4.FORMAT}
"""Formats in which a quarantine ends by itself alone: no operator's Pardon lifts it."""

BEFORE_V6: Final = BEFORE_V5 | {v5.FORMAT}
"""Formats in which windows do not say what their updates answered, and no certificate's cohort and no edge is known."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. Made by ``policy_from_toml``, ``policy_from_mapping`` or ``policy_from_canonical``, never by hand.

    ``document`` holds the bytes that were read: they are what ``sha256`` names, whoever reads them with whatever
    version of Fluvial. Two policies are equal if their documents are.
    """

    format: str
    document: bytes
    updates: UpdatesPolicy
    weights: WeightsPolicy
    selection: SelectionPolicy
    staleness: StalenessPolicy
    window: WindowPolicy
    buffer: BufferPolicy
    shares: SharesPolicy
    server: ServerPolicy
    schedule: SchedulePolicy
    control: ControlPolicy
    defence: DefencePolicy
    merge: MergePolicy
    edges: EdgesPolicy
    fixed_point: FixedPointPolicy

    def canonical(self) -> bytes:
        """The document's bytes, as they were read."""
        return self.document

    @property
    def sha256(self) -> str:
        """SHA-256 of the document's bytes, hex."""
        return hashlib.sha256(self.document).hexdigest()

    @property
    def counts_shares(self) -> bool:
        """Whether its format has shares, lateness and usual values: then windows, barriers and manifests say them."""
        return self.format not in BEFORE_V3

    @property
    def says_buckets(self) -> bool:
        """Whether its format has buckets: then windows say what stands in each, be it one."""
        return self.format not in BEFORE_V4

    @property
    def knows_pardons(self) -> bool:
        """Whether its format knows the record by which an operator lifts a quarantine."""
        return self.format not in BEFORE_V5

    @property
    def says_bases(self) -> bool:
        """Whether its format has mixing: then windows say which versions their updates answered, and how many each."""
        return self.format not in BEFORE_V6

    @property
    def knows_cohorts(self) -> bool:
        """Whether its format knows the cohort that a device's certificate may name."""
        return self.format not in BEFORE_V6

    @property
    def knows_edges(self) -> bool:
        """Whether regions of its tasks may have edges below them."""
        return self.edges.updates_max > 0

    @property
    def in_rounds(self) -> bool:
        """Whether versions are made in synchronous rounds: of updates to the newest version alone."""
        return self.buffer.mode == "rounds"

    @property
    def updates_per_version_max(self) -> int:
        """The most updates that one version can hold.

        The buffer may be one short when a full window arrives.
        """
        return self.buffer.updates - 1 + self.updates_per_window_max

    @property
    def updates_per_window_max(self) -> int:
        """The most updates that one window can hold: it may be one short when an edge's aggregate arrives."""
        return self.window.updates_max - 1 + max(1, self.edges.updates_max)
