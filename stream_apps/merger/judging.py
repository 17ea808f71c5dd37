"""Which of the windows that workers signed count: a signature is a claim, the partition's log is the truth.

A window is a pure function of its partition's log. So, for each that comes:

1. What no honest worker signs, whatever its log holds, is a lie: offsets that the log does not have, counts and totals
   that contradict each other.
2. The first of its sequence that goes on where the one before it ended is taken on its worker's word.
3. Where two contradict each other, or one does not follow the one before it, that part of the log is folded again here.
   What comes of it counts, and whoever signed another is a liar: named, and barred.
4. The word of a barred certificate, or of one that an operator revoked, is worth nothing any more: what it signed and
   no version holds is folded again,
   and so is what it signs from then on. An honest worker whose key was stolen is heard, at the price of a fold.

A lie that stands alone is taken, for folding everything again would be the workers' work once more. The honest worker
publishes its own window of that sequence, and then 3. finds the lie: before a version holds it, or after. Then the
version is named, and `fluvial audit` says what is wrong in it.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Final

from aggregation.errors import IntegrityProblem
from aggregation.fold.rejections import ACCEPTED, AGGREGATED
from aggregation.merges import BUCKETS_MAX
from aggregation.policy import UPDATE_BYTES_LIMIT, VERSIONS_MAX_LIMIT
from aggregation.server.aggregates import MERGED_REMEMBERED_MAX, Aggregate, PendingAggregates, Slot
from aggregation.weights.staleness import WEIGHT_ONE
from backends.outages import retry_through_outage
from schemas.topics import updates_topic
from stream_apps.merger.fitting import histograms_fit
from stream_apps.merger.refolding import Refolding
from stream_apps.process_context import ProcessContext
from stream_apps.published import Claim

RUNBOOK: Final = "docs/runbooks/diverging-workers.md"
OUTCOMES_MAX: Final = 64
JSON_INTEGER_MAX: Final = 2**53 - 1
"""The largest that canonical JSON can say (RFC 8785): what is beyond it can stand in no manifest."""
_OUTCOME: Final = re.compile(r"[a-z_]{1,64}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger("fluvial.merger")


class Judging:
    """Takes claims into ``pending``, or does not. ``barred`` has the workers of barred certificates, by serial.

    "" is the worker of one that an operator revoked.

    ``dropped`` says since when claims of a partition were passed over for what may pass, as a log that was cut and
    comes back: they are to be offered again.
    """

    def __init__(self, context: ProcessContext, pending: PendingAggregates) -> None:
        self._context = context
        self._pending = pending
        self._refolding = Refolding(context)
        self._signed: dict[tuple[Slot, int], Claim] = {}
        self._ends: dict[Slot, int] = {}
        self._queue: deque[Claim] = deque()
        self._lies: dict[tuple[Slot, int, str], tuple[int, bool]] = {}
        self._given: dict[tuple[Slot, int], str] = {}
        self.dropped: dict[Slot, float] = {}
        self.barred: dict[str, str] = {}

    def take(self, claim: Claim) -> bool:
        """Whether a claim is a window that counts and was not known. Blocks while a log is folded again."""
        self._queue.append(claim)
        taken = False
        while self._queue:
            one = self._queue.popleft()
            new = self._take(one)
            taken = new if one is claim else taken
        return taken

    def doubt(self, windows: tuple[Aggregate, ...]) -> bool:
        """Fold windows again that cannot be merged as they are; True where one of them is not what its log gives.

        Where it is, its sums stand in the store afterwards.
        """
        found = False
        for one in windows:
            claim = self._signed.get((one.slot, one.sequence))
            if claim is not None and self._pending.window(one.slot, one.sequence) == one:
                found = not self._settle(claim, one) or found
        self._take_queued()
        return found

    def is_given(self, one: Aggregate) -> bool:
        """Whether a window came of its log when it was folded here."""
        return self._given.get((one.slot, one.sequence)) == one.sha256

    def bar(self, serials: Collection[str]) -> None:
        """The word of these certificates (serials, hex) is worth nothing any more: an operator has revoked them."""
        for serial in sorted(serials):
            if serial not in self.barred:
                self._bar(serial, "")
        self._take_queued()

    def forget_merged(self, cursors: Mapping[Slot, int]) -> None:
        """Forget who signed what a version has held for long."""
        self._signed = {
            (slot, at): one
            for (slot, at), one in self._signed.items()
            if at >= cursors[slot] - MERGED_REMEMBERED_MAX
        }
        self._given = {(slot, at): one for (slot, at), one in self._given.items() if at >= cursors[slot]}
        self._lies = {key: one for key, one in self._lies.items() if one[0] >= cursors[key[0]]}

    # -- one claim

    def _take_queued(self) -> None:
        while self._queue:
            self._take(self._queue.popleft())

    def _take(self, claim: Claim) -> bool:
        one, pending = claim.aggregate, self._pending
        slot, sequence = claim.place
        known = pending.window(slot, sequence)
        if known is not None and known.sha256 == one.sha256:
            return False
        if known is None and pending.is_merged(slot, sequence):
            return False  # a version holds one of that sequence, too long ago to say which: an audit can
        if self._lies.get(_record_of(claim), (0, False))[1]:
            return False  # it was offered before, and its log gave another
        if pending.is_too_far(slot, sequence):
            log.warning("passed over: %s is too far ahead of those that came", claim)
            self._drop(slot)
            return False
        why = self._impossible(claim)
        if why:
            self._disprove(claim, why)
            return False
        if known is None and claim.serial not in self.barred and _follows(pending, one):
            self._accept(claim)
            return True
        return self._settle(claim, known) and not pending.is_merged(slot, sequence)

    def _accept(self, claim: Claim) -> None:
        slot, sequence = claim.place
        after = self._pending.window(slot, sequence + 1)
        if after is not None and after.previous_sha256 != claim.aggregate.sha256:
            self._take_again(slot, sequence + 1)
        self._signed[claim.place] = claim
        self._pending.offer(claim.aggregate)

    def _drop(self, slot: Slot) -> None:
        self.dropped.setdefault(slot, self._context.clock.monotonic())

    def _settle(self, claim: Claim, known: Aggregate | None) -> bool:
        """Let the log decide between a claim and what is ``known``; True where the claim is what it gives."""
        slot, sequence = claim.place
        claimed = [one for one in (claim.aggregate, known) if one is not None]
        try:
            given = self._refolding.window(slot, sequence, self._pending.before(slot, sequence), claimed)
        except IntegrityProblem as error:
            # It is of the log. What says nothing of it, as a refused access, ends the merger.
            log.error("nobody can say who is right about %s:\n%s", claim, error)  # noqa: TRY400 (said in full)
            self._drop(slot)
            return False
        right = None if given is None else given.aggregate
        if right is not None:
            self._given[slot, sequence] = right.sha256
        why = "its log gives another" if right else "its log closes no such window yet"
        if known is not None and known != right:
            rival = self._signed.pop(claim.place, claim)
            self._correct(known, right)
            if rival is not claim:
                self._disprove(rival, why)
        if claim.aggregate != right:
            self._disprove(claim, why)
            self._lies[_record_of(claim)] = (sequence, right is not None)
            return False
        if self._pending.is_merged(slot, sequence) or self._pending.window(slot, sequence) is not None:
            return True
        if not _follows(self._pending, claim.aggregate):
            self._settle_before(slot, sequence)
        if not _follows(self._pending, claim.aggregate):
            log.error("%s is what its log gives, and does not follow what counts before it", claim)
            return False
        self._accept(claim)
        return True

    def _settle_before(self, slot: Slot, sequence: int) -> None:
        """A window is right, and does not follow the one before it: then that is a lie which stood alone until now."""
        before = self._pending.window(slot, sequence - 1)
        assert before is not None, "else nothing would contradict it"
        claim = self._signed.get((slot, sequence - 1), Claim(before, "", "", -1))
        self._settle(claim, before)

    def _correct(self, lie: Aggregate, right: Aggregate | None) -> None:
        """Take back what counted until now; what a version holds stays, and is named."""
        slot, sequence = lie.slot, lie.sequence
        if not self._pending.is_merged(slot, sequence):
            self._take_again(slot, sequence)
            return
        log.error(
            "error[FLV-3307]: a version holds window %d of %s[%d], %s, and its log gives %s\n"
            "hint: `fluvial audit` names the version; see %s",
            sequence,
            *slot,
            lie.sha256[:12],
            right.sha256[:12] if right else "none",
            RUNBOOK,
        )
        self._context.observer.lie_merged(slot, lie)
        if right is not None:
            self._pending.correct(right)
            after = max(sequence + 1, self._first_unmerged(slot, sequence + 1))
            self._take_again(slot, after)

    def _first_unmerged(self, slot: Slot, sequence: int) -> int:
        while self._pending.is_merged(slot, sequence):
            sequence += 1
        return sequence

    def _take_again(self, slot: Slot, sequence: int) -> None:
        """Withdraw the windows of a partition from there on, and judge them anew."""
        again = sorted((at for one, at in self._signed if one == slot and at >= sequence))
        self._pending.withdraw(slot, sequence)
        self._queue.extend(self._signed.pop((slot, at)) for at in again)

    # -- liars

    def _disprove(self, claim: Claim, why: str) -> None:
        if _record_of(claim) not in self._lies:  # else it was offered again, and all of it is said
            self._lies[_record_of(claim)] = (claim.place[1], False)
            log.error(
                "error[FLV-3002]: %s is a lie: %s\nhint: revoke that certificate, see %s", claim, why, RUNBOOK
            )
            self._context.observer.window_disproved(claim.place[0], claim.aggregate, claim.serial)
        if claim.serial not in self.barred:
            self._bar(claim.serial, claim.worker)

    def _bar(self, serial: str, worker: str) -> None:
        """What it signed and no version holds is judged anew."""
        self.barred[serial] = worker
        firsts: dict[Slot, int] = {}
        for (slot, at), one in self._signed.items():
            if one.serial == serial and not self._pending.is_merged(slot, at):
                firsts[slot] = min(at, firsts.get(slot, at))
        for slot, first in firsts.items():
            self._take_again(slot, first)

    def _impossible(self, claim: Claim) -> str:
        """Why no honest worker signs this, whatever the log holds; "" where one may."""
        one = claim.aggregate
        records = one.next_offset - one.first_offset
        counts = one.counts
        if one.first_offset < 0 or records <= 0:
            return f"it holds no records: {one.first_offset} to {one.next_offset}"
        if len(counts) > OUTCOMES_MAX or not all(_OUTCOME.fullmatch(name) for name in counts):
            return "its counts are of outcomes that there are not"
        if min(counts.values(), default=0) < 0 or sum(counts.values()) > records:
            return f"it counts {sum(counts.values())} verdicts on {records} records"
        own = counts.get(ACCEPTED, 0)
        if one.accepted != own and not (one.accepted > own and counts.get(AGGREGATED, 0)):
            return f"it says {one.accepted} accepted, and counts {own}"
        if not _totals_fit(one):
            return "its totals are not those of its updates"
        if not histograms_fit(one.histograms, one.accepted, by_squares=bool(one.buckets)):
            return "its histograms are not those of its updates"
        names = [one.state_sha256, one.policy_sha256, one.contributors_sha256]
        names += [one.sum_sha256] if one.accepted else []
        if not all(_SHA256.fullmatch(name) for name in names) or bool(one.sum_sha256) != bool(one.accepted):
            return "it names objects that there cannot be"
        return self._beyond_log(one)

    def _beyond_log(self, one: Aggregate) -> str:
        if one.next_offset > self._ends.get(one.slot, 0):
            self._ends[one.slot] = retry_through_outage(
                "see where a log ends", lambda: self._end(one.slot), clock=self._context.clock
            )
        end = self._ends[one.slot]
        if one.next_offset <= end:
            return ""
        self._drop(one.slot)
        return f"it ends at offset {one.next_offset}, its log at {end} (or the log was cut)"

    def _end(self, slot: Slot) -> int:
        with self._context.open_reader("ends") as reader:
            return reader.bounds(updates_topic(self._context.genesis.task, slot[0]), slot[1])[1]


def _follows(pending: PendingAggregates, one: Aggregate) -> bool:
    """Whether it goes on where the window before it ended, as far as that is known."""
    before = pending.window(one.slot, one.sequence - 1)
    return before is None or (before.sha256, before.next_offset) == (one.previous_sha256, one.first_offset)


def _record_of(claim: Claim) -> tuple[Slot, int, str]:
    return claim.place[0], claim.offset, claim.aggregate.sha256


def _totals_fit(one: Aggregate) -> bool:
    """Whether each total is at most what so many updates can come to."""
    return (
        _weighs_as_many(one, one.accepted, one.weight_total)
        and _buckets_fit(one)
        and _bases_fit(one)
        and 0 <= one.staleness_total <= one.accepted * one.staleness_max
        and one.version >= 0
        and 0 <= one.staleness_max <= min(max(one.version, 0), VERSIONS_MAX_LIMIT)
        and max(one.version, one.update_bytes, one.staleness_total, one.sequence) <= JSON_INTEGER_MAX
        and 0 <= one.update_bytes <= one.accepted * UPDATE_BYTES_LIMIT
    )


def _weighs_as_many(one: Aggregate, accepted: int, weight: int) -> bool:
    """Whether so many of its updates can weigh that: each 1/65536 at least, but for those of edges' late windows."""
    least = min(accepted, 1) if one.counts.get(AGGREGATED, 0) else accepted
    return 0 <= least <= weight <= accepted * WEIGHT_ONE


def _buckets_fit(one: Aggregate) -> bool:
    """Whether what stands in the buckets comes to the window's totals, where it says buckets."""
    said = one.buckets
    totals = (sum(each.accepted for each in said), sum(each.weight for each in said))
    return not said or (
        len(said) <= BUCKETS_MAX
        and totals == (one.accepted, one.weight_total)
        and all(_weighs_as_many(one, each.accepted, each.weight) for each in said)
    )


def _bases_fit(one: Aggregate) -> bool:
    """Whether what answered each version comes to the window's totals, where it says versions."""
    said = one.bases
    totals = (sum(each.accepted for each in said), sum(each.weight for each in said))
    named = [each.base for each in said]
    return not said or (
        totals == (one.accepted, one.weight_total)
        and all(earlier < later for earlier, later in pairwise(named))
        and named[0] >= 0
        and named[-1] <= one.version
        and all(each.accepted > 0 and _weighs_as_many(one, each.accepted, each.weight) for each in said)
    )
