"""What one partition remembers between records.

The rules, kept by ``fold`` and checked by ``validate``:

1. ``next_offset`` is the only offset that the fold takes; the open window covers ``[window.first_offset,
   next_offset)``.
2. ``models`` holds the hashes of the live base versions, those an update may still name: ``oldest_base`` to
   ``version``.
3. ``counted`` holds (device, base version) pairs of live versions only: one contribution each.
4. A window that closes is numbered ``sequence``; the next one begins where it ended, so windows tile the log.
5. A refused record changes ``next_offset`` and the window's counts, and nothing else. (An ``anomalous`` one also uses
   up its device's contribution and enters the norm history.)
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aggregation.defences import NOT_KNOWN, NormHistory, Usual
from aggregation.defences.usual import Counting
from aggregation.fold.contributions import Contributions
from aggregation.fold.events import Barrier
from aggregation.fold.rejections import ACCEPTED
from aggregation.fold.shares import Shares
from aggregation.regions import is_within
from aggregation.selection import turns_after

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from aggregation.codecs import Direction
    from aggregation.fold.bases import Base
    from aggregation.layout import Layout
    from aggregation.merges import Bucket
    from aggregation.policy import Policy

NO_SHA256: Final = ""
"""Stands where a hash would, when there is no such object: no reference before the first step, no first
aggregate."""

COUNTED_MAX: Final = 1_000_000
"""(device, base version) pairs that are remembered, at some 100 bytes each and 17 in every snapshot."""


LIVE_MAX: Final = 10_000
"""Base versions that are remembered because they are young in time; each is 80 bytes of a snapshot."""


class EdgePlace(NamedTuple):
    """How far an edge has come in a partition: the number of its next window, and the SHA-256 (hex) of its last.

    ``accepted`` updates of it were counted while the partition was at ``version``, that of its last window that
    counted.
    """

    sequence: int = 0
    sha256: str = NO_SHA256
    version: int = 0
    accepted: int = 0

    def accepted_at(self, version: int) -> int:
        """How many updates of it were counted at a version of the partition, of those that are not past."""
        return self.accepted if self.version == version else 0


@dataclass(slots=True)
class OpenWindow:
    """The window that is being filled.

    ``sums`` is int64[``layout.sum_elements_of(buckets)``] once something was accepted, and ``buckets`` has an entry for
    each bucket of the policy then; before, they are None and (). ``bases`` has what was accepted by the version that it
    answered, ``cohorts`` how many updates by the cohort that their certificates name, "" for none.
    """

    first_offset: int
    counts: Counter[str] = field(default_factory=Counter)
    weight_total: int = 0
    staleness_total: int = 0
    staleness_max: int = 0
    update_bytes: int = 0
    sums: npt.NDArray[np.int64] | None = None
    buckets: tuple[Bucket, ...] = ()
    bases: dict[int, Base] = field(default_factory=dict)
    cohorts: Counter[str] = field(default_factory=Counter)
    counting: Counting = field(default_factory=Counting)
    contributors: Any = field(default_factory=hashlib.sha256)
    edge_updates: int = 0
    """Updates that count in windows of edges."""

    @property
    def records(self) -> int:
        """Records of any verdict but ``control``."""
        return sum(self.counts.values())

    @property
    def accepted(self) -> int:
        """Updates that count, be they in this log or in edges'."""
        return self.counts[ACCEPTED] + self.edge_updates

    def add_contributor(self, offset: int, weight: int, clip: float, signature: bytes) -> None:
        """Bind one accepted update into ``contributors_sha256``.

        Offset, weight, clip factor, and what was signed.
        """
        self.contributors.update(struct.pack("<qqd", offset, weight, clip))
        self.contributors.update(signature)


@dataclass(slots=True)
class PartitionState:
    """The whole state of one partition's fold. Made by ``initial``, changed only by ``fold.fold_into``."""

    task: str
    region: str
    partition: int
    partitions: int
    layout: Layout
    next_offset: int
    version: int
    floor: int
    policy: Policy
    policy_sha256: str
    reference: Direction | None
    reference_sha256: str
    models: dict[int, str]
    counted: Contributions
    revoked: set[str]
    history: NormHistory
    sequence: int
    previous_sha256: str
    window: OpenWindow
    superseded: dict[int, int]
    shares: Shares
    usual: Usual = NOT_KNOWN
    guide: Direction | None = None
    guide_sha256: str = NO_SHA256
    edges: dict[str, EdgePlace] = field(default_factory=dict)

    @property
    def oldest_base(self) -> int:
        """The oldest base version that may still be welcome; ``stale_for_s`` says whether it is."""
        oldest = self.version - self.policy.staleness.versions_max
        if self.superseded:
            oldest = min(oldest, next(iter(self.superseded)))
        return max(self.floor, oldest)

    def stale_for_s(self, base: int, timestamp_ms: int) -> float | None:
        """For how many seconds ``base`` has been too old at a record of that LogAppendTime; None where it is not.

        One that is at most ``versions_max`` versions old never is.
        """
        if base >= self.version - self.policy.staleness.versions_max:
            return None
        if base not in self.superseded:
            return None  # a base that was never seen here: that is said of it
        age_s = (timestamp_ms - self.superseded[base]) / 1000.0
        return age_s if age_s > self.policy.staleness.seconds_max else None

    def stands_since_ms(self, base: int) -> int | None:
        """The LogAppendTime of the barrier by which this partition came to ``base``.

        None where that is not known: of version 0, and where no base before it is remembered.
        """
        before = next((one for one in reversed(self.superseded) if one < base), None)
        return None if before is None else self.superseded[before]

    def turns_of(self, base: int, timestamp_ms: int) -> int | None:
        """How many deadlines had passed of ``base`` as the newest version, at a record of that LogAppendTime.

        What passes once a newer version is there does not count. Where it is not known since when it stands: None for
        version 0 and for the newest one, which everybody may answer, and 0 for the others.
        """
        since_ms = self.stands_since_ms(base)
        if since_ms is None:
            return None if base in {0, self.version} else 0
        until_ms = min(timestamp_ms, self.superseded.get(base, timestamp_ms))
        return turns_after((until_ms - since_ms) / 1000.0, self.policy.buffer.seconds_max)

    def supersede(self, version: int, timestamp_ms: int) -> None:
        """A barrier to ``version`` stands at that time: from then on the base before it grows old.

        Bases that are too old in versions and in time, or more than ``LIVE_MAX``, are forgotten, the oldest first.
        """
        limits = self.policy.staleness
        if limits.seconds_max <= 0.0:
            self.superseded.clear()
            return
        for base in self.models:
            if base < version:
                self.superseded.setdefault(base, timestamp_ms)
        for base, since_ms in list(self.superseded.items()):
            behind, age_s = version - base, (timestamp_ms - since_ms) / 1000.0
            young = behind <= limits.versions_max or age_s <= limits.seconds_max
            if base >= self.floor and young and behind <= LIVE_MAX:
                break
            del self.superseded[base]

    def applies(self, barrier: Barrier) -> bool:
        """Whether a barrier would change anything.

        Only one that is ours and above the current version does.
        """
        ours = barrier.task == self.task and self.obeys(barrier)
        return ours and barrier.version > self.version and barrier.signer not in self.revoked

    def obeys(self, barrier: Barrier) -> bool:
        """Whether a barrier is of this region; that of one above an edge is the edge's own too."""
        if not self.policy.knows_edges:
            return barrier.region == self.region
        return is_within(self.region, barrier.region)

    def forget_old_bases(self) -> None:
        """Drop what is remembered about versions that no update may name any more."""
        oldest = self.oldest_base
        self.models = {version: sha for version, sha in self.models.items() if version >= oldest}
        self.superseded = {base: since for base, since in self.superseded.items() if base >= oldest}
        self.counted.forget_before(oldest)

    def bound_counted(self) -> None:
        """Remember at most ``COUNTED_MAX`` contributions, but all to the newest version.

        Beyond that the oldest base is welcome no more, as a rollback's floor would have it: its updates are
        ``too_stale``, none counts twice. Each device contributes once to the newest version, so what is left is bounded
        by the devices that the CA has certified. The log decides, so audit and workers agree.
        """
        if self.counted.pairs <= COUNTED_MAX:
            return
        while self.oldest_base < self.version and self.counted.pairs > COUNTED_MAX:
            self.floor = self.oldest_base + 1
            self.counted.forget_before(self.floor)
        self.forget_old_bases()

    def validate(self) -> None:
        """Raise AssertionError where a rule of this module is broken; for tests and the simulator."""
        assert self.window.first_offset <= self.next_offset, "the window begins after the next offset"
        assert self.window.records <= self.next_offset - self.window.first_offset, (
            "more verdicts than offsets"
        )
        assert self.version in self.models, "the current version has no hash"
        assert all(self.oldest_base <= v <= self.version for v in self.models), "a dead version is remembered"
        assert all(self.oldest_base <= v <= self.version for v in self.counted), "a dead version is counted"
        assert self.window.accepted <= self.policy.updates_per_window_max, "the window is over-full"
        assert (self.window.sums is None) == (self.window.accepted == 0), "sums and count disagree"
        if self.window.buckets:
            said = (
                sum(one.accepted for one in self.window.buckets),
                sum(one.weight for one in self.window.buckets),
            )
            assert said == (self.window.accepted, self.window.weight_total), "the buckets do not add up"
        bases = self.window.bases.values()
        said = (sum(one.accepted for one in bases), sum(one.weight for one in bases))
        assert said == (self.window.accepted, self.window.weight_total), "the bases do not add up"
        most = self.policy.shares.cohort_window_max
        assert not most or all(number <= most for cohort, number in self.window.cohorts.items() if cohort), (
            "a cohort has more of the window than the policy allows"
        )
        assert list(self.superseded) == sorted(self.superseded), "bases were not superseded in their order"
        assert all(base in self.models for base in self.superseded), "a dead version grows old"
        quarantined = self.shares.quarantined
        assert not any(
            one.scored for device, one in self.shares if quarantined.get(device, 0) > self.version
        ), "something was scored in quarantine"
        assert self.policy_sha256 == self.policy.sha256, "the policy is not the one its hash names"


def initial(
    *,
    task: str,
    region: str,
    partition: int,
    partitions: int,
    layout: Layout,
    policy: Policy,
    model_sha256: str,
) -> PartitionState:
    """The state before offset 0: version 0, as the genesis document says."""
    return PartitionState(
        task=task,
        region=region,
        partition=partition,
        partitions=partitions,
        layout=layout,
        next_offset=0,
        version=0,
        floor=0,
        policy=policy,
        policy_sha256=policy.sha256,
        reference=None,
        reference_sha256=NO_SHA256,
        models={0: model_sha256},
        counted=Contributions(),
        revoked=set(),
        history=NormHistory(),
        sequence=0,
        previous_sha256=NO_SHA256,
        window=OpenWindow(first_offset=0),
        superseded={},
        shares=Shares(),
    )
