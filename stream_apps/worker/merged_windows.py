"""The windows of a partition that versions hold: whose state a worker that starts may go on from.

A signed window is a claim: whoever holds a worker's key signs a whole chain of them, each with a state that follows
from the one before. So the state of a window counts only where a merger's version holds that window:

1. A version's barrier stands in the partition's own log, signed by a merger, and names the SHA-256 of its manifest.
   Where it stands is asked of the windows: the first one of a version begins behind that version's barrier, and so
   does what follows the newest one. A lie about that leads to no barrier, or to an older one.
2. The manifest in the store has to have that hash and a merger's signature; it names its windows, and its parent by
   hash.
3. A version may hold lies that stood alone when it was made. So the newest ``WINDOWS_FOLDED_AGAIN`` of the named
   windows are folded again, ``RECORDS_FOLDED_AGAIN`` records at least (fewer where they are large), and all from a
   window with two contents on: a lie is believed that has so much behind it, signed while no honest worker ran.

A manifest that is missing or another is no reason to wait: an older version, and in the end the log's beginning, give
the same state for more work. Tasks whose manifests nobody signs (before ``fluvial/genesis/v5``) go by windows alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final

from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Barrier
from backends.log import RecordReader
from schemas.certificates import Trust
from schemas.manifest_seals import require_sealed
from schemas.manifests import Input, Manifest, decode_manifest
from schemas.objects import sha256_hex
from schemas.records import CONTROL_KINDS, Flaw, Unverified, barrier_in
from stream_apps.published import Claim
from stream_apps.worker.place import PartitionPlace
from stream_apps.worker.resume_point import WINDOWS_FOLDED_AGAIN, WindowsReadBack

RECORDS_FOLDED_AGAIN: Final = 2048
"""So many records of windows that versions hold are folded again, if they are no more than ``BYTES_FOLDED_AGAIN``."""
BYTES_FOLDED_AGAIN: Final = 64 << 20
"""By the size of an update whose weights are float32."""
READ_BACK_MAX: Final = 512
"""So many records of the aggregates topic are looked through for a newer version than the one that was found."""
MANIFESTS_MAX: Final = 1024
"""Manifests of a chain that are read for the windows of one partition."""
BEGINNING_RECORDS_MAX: Final = 64
"""Records at the beginning of a window among which barriers are looked for."""
DISPUTED_MAX: Final = 64
"""So far behind the newest window of a version another content of one counts: a merger has judged what is older."""
BASES_MAX: Final = 4
"""States that are tried, each an older window's, before a partition is folded from its log's beginning."""

log = logging.getLogger("fluvial.worker")


def manifests_are_signed(trust: Trust) -> bool:
    """Whether mergers sign manifests in this task: since ``fluvial/genesis/v5``."""
    return trust.domain.version > 1


def merged_bases(
    place: PartitionPlace, reader: RecordReader, windows: WindowsReadBack, revoked: Collection[str]
) -> tuple[Claim, ...]:
    """The windows whose state one may go on from, the newest first; () means from the log's beginning.

    ``windows`` are read as far back as it takes. ``revoked`` has the names of certificates that an operator revoked.
    """
    search = _Search(place, reader, windows, revoked)
    tried: set[tuple[int, str]] = set()
    looking = True
    while True:
        newest = max(search.barriers() - tried, default=None)
        if newest is not None and not (looking and search.is_newer_wanted(newest[0])):
            tried.add(newest)
            manifest = search.manifest(*newest)
            if manifest is not None:
                return tuple(islice(search.bases(manifest), BASES_MAX))
        elif looking:
            looking = windows.more()
        else:
            return ()


class _Search:
    """Barriers that windows lead to, manifests that these vouch for, windows that those name."""

    def __init__(
        self, place: PartitionPlace, reader: RecordReader, windows: WindowsReadBack, revoked: Collection[str]
    ) -> None:
        self._place = place
        self._reader = reader
        self._windows = windows
        self._revoked = revoked
        self._barriers: set[tuple[int, str]] = set()
        self._looked_at: set[int] = set()

    def barriers(self) -> set[tuple[int, str]]:
        """The versions whose barriers were found so far, and the SHA-256 of the manifest that each names."""
        known = self._windows.known
        for sequence in sorted(known, reverse=True):
            before = {one.aggregate.version for one in known.get(sequence - 1, ())}
            for claim in known[sequence]:
                one = claim.aggregate
                if sequence + 1 not in known:
                    self._look_from(one.next_offset - 1)
                if before - {
                    one.version
                }:  # else it is no version's first one, or the window before is not known yet
                    self._look_from(one.first_offset - 1)
        return self._barriers

    def is_newer_wanted(self, version: int) -> bool:
        """Whether it is worth looking for a newer one: there may be one, and few windows were read."""
        if self._windows.read >= READ_BACK_MAX:
            return False
        return self._place.context.store.is_committed(version + 1)

    def manifest(self, version: int, sha256: str) -> Manifest | None:
        """The version's manifest of that hash; None, and a warning, where the store has none such."""
        store, trust = self._place.context.store, self._place.context.trust
        try:
            data = store.manifest_bytes(version)
            if sha256_hex(data) != sha256:
                problem = f"it is {sha256_hex(data)[:12]}, its barrier or its child names {sha256[:12]}"
            else:
                manifest = decode_manifest(data)
                require_sealed(manifest, trust)
                return manifest
        except IntegrityProblem as error:
            problem = error.message
        text = "%s: the manifest of version %d vouches for no window: %s"
        log.warning(text, self._place, version, problem, extra={"version": version})
        return None

    def bases(self, manifest: Manifest) -> Iterator[Claim]:
        """Windows that ``manifest`` and those before it name, behind which enough is folded again, the newest first."""
        newest: Input | None = None
        for behind, named in enumerate(self._named(manifest)):
            newest = newest or named
            far = named.next_offset <= newest.next_offset - self._records_again
            claim = self._claim(named) if far and behind >= WINDOWS_FOLDED_AGAIN else None
            if claim is not None and named.sequence < self._first_disputed(manifest):
                yield claim

    @property
    def _records_again(self) -> int:
        update_bytes = 4 * self._place.context.layout.parameters
        return min(RECORDS_FOLDED_AGAIN, BYTES_FOLDED_AGAIN // max(1, update_bytes))

    def _look_from(self, start: int) -> None:
        """Take the barriers from this offset on: no record that is an update, or junk, stands between them."""
        place = self._place
        if start in self._looked_at:
            return
        self._looked_at.add(start)
        low, end = self._reader.bounds(place.updates, place.partition)
        first, end = max(low, start), min(end, start + BEGINNING_RECORDS_MAX)
        for record in self._reader.read(place.updates, place.partition, first, end) if first < end else ():
            found = barrier_in(record.value, record.timestamp_ms, place.context.trust)
            if isinstance(found, Barrier):
                ours = (found.task, found.region) == (place.task, place.region)
                if ours and found.signer not in self._revoked:
                    self._barriers.add((found.version, found.manifest_sha256))
            elif record.offset > start and not _is_control(found):
                return

    def _named(self, manifest: Manifest | None) -> Iterator[Input]:
        """The windows of this partition that a chain names, the newest first."""
        for _ in range(MANIFESTS_MAX):
            if manifest is None:
                return
            ours = [one for one in manifest.inputs if (one.region, one.partition) == self._place.slot]
            yield from sorted(ours, key=lambda one: one.sequence, reverse=True)
            if manifest.version <= 1:
                return
            manifest = self.manifest(manifest.version - 1, manifest.parent_sha256)

    def _claim(self, named: Input) -> Claim | None:
        """The record of a window that a version names. That of sequence n stands at offset n or later."""
        while True:
            for claim in self._windows.known.get(named.sequence, ()):
                if claim.aggregate.sha256 == named.sha256:
                    return claim
            if self._windows.start <= named.sequence or not self._windows.more():
                return None

    def _first_disputed(self, manifest: Manifest) -> int:
        """The first window with two contents, of those that mergers may have yet to judge."""
        cursor = manifest.slot_cursors.get(self._place.slot, 0)
        disputed = [
            at
            for at, claims in self._windows.known.items()
            if len(claims) > 1 and at >= cursor - DISPUTED_MAX
        ]
        return min(disputed, default=cursor)


def _is_control(found: Unverified) -> bool:
    return found.flaw is Flaw.WRONG_KIND and found.detail in CONTROL_KINDS
