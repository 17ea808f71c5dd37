"""The merger's work without its framework, in five steps.

1. adopt    the chain's head, and tell everybody of it again (``adopting``): at the start, and after a lost race
2. take     windows as they come, in sequence by partition (``windows``)
3. decide   whether a version is due, and of which windows (``deciding``, pure)
4. commit   derive it, and put its manifest if none stands there (``committing``)
5. tell     barriers into all partitions; once acknowledged, the announcements (``telling``)

Which windows make a version is the one decision; it becomes true by the conditional PUT. Everything after it is derived
from the head manifest, so it can be done again by anybody, any number of times.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from aggregation.server.aggregates import Aggregate, PendingAggregates, Slot
from backends.log import Headers, LogRecord
from backends.revocations import serials_of
from schemas.manifest_rules import rules_after
from stream_apps.credentials import require_not_revoked
from stream_apps.merger.adopting import Adopting
from stream_apps.merger.committing import Committed, Committing, DoubtfulWindows
from stream_apps.merger.deciding import windows_due
from stream_apps.merger.guides import guiding_of
from stream_apps.merger.guiding import Guiding
from stream_apps.merger.policies import Policies
from stream_apps.merger.telling import Telling
from stream_apps.merger.version import Version
from stream_apps.merger.windows import Windows
from stream_apps.process_context import ProcessContext

REVOKES_EVERY_S: Final = 2.0
"""So often it is looked whether an operator has revoked a certificate, and before a version at the latest."""
DOUBT_S: Final = 1.0
"""Windows are right and cannot be merged, as where the store gives other bytes each time: then it waits so long."""

log = logging.getLogger("fluvial.merger")


class Merger:
    """One merger. Not thread-safe: one call at a time. Every call blocks and waits out outages, saying so."""

    def __init__(self, context: ProcessContext, guiding: Guiding | None = None) -> None:
        """``guiding`` is for tests: else it goes by the task's guardians, where it has any."""
        self.context = context
        guiding = guiding or guiding_of(context, lambda: self._adopting.models.revoked)
        self._policies = Policies(context)
        self._adopting = Adopting(context, self._policies, guiding)
        self._telling = Telling(context, self._policies)
        self._headers: Headers = ()
        self._started = False
        self._heard_at_s = -REVOKES_EVERY_S
        self._revoked: frozenset[str] = frozenset()
        self.head = self._adopting.genesis()
        self._windows = Windows(context, self.head.cursors)
        self._committing = Committing(context, self._policies, guiding, self._windows.judging.is_given)
        self._go_on_at(self.head)

    @property
    def pending(self) -> PendingAggregates:
        """The windows that no version holds yet."""
        return self._windows.pending

    def resume(self) -> Mapping[Slot, int]:
        """Adopt the head of the chain; returns, for each slot, where to go on reading its aggregates topic.

        Once started it answers from memory, so that it can be asked again at any time.
        """
        if not self._started:
            self._adopting.begin()
            self._heed_revokes()
            self._go_on_at(self._adopting.vouched(self.head))
            self._windows.begin_at(self.head.cursors)
            self._adopt_head()
            self.finish()
            self.context.observer.adopted(self.head.number, self.context.genesis.partitions)
            self._started = True
        return self._windows.next_offsets

    def offer(self, record: LogRecord, region: str) -> None:
        """Take one record of an aggregates topic, or first the ones before it that the framework has lost."""
        self._windows.offer(record, region)

    def merge_if_due(self) -> bool:
        """Commit the next version if it is due; True when the head has moved (by us or by another merger)."""
        self._hear_of_revokes()
        self._windows.take_dropped()
        chosen = self._due()
        if not chosen or self._committing.waits_for_guide(self.head):
            return False
        try:
            committed = self._committing.commit(self.head, chosen)
        except DoubtfulWindows as doubtful:
            self._settle(doubtful)
            return False
        if committed is None:
            self._follow_winner()
        else:
            self._go_on_from(committed)
        self._windows.wait_anew()
        self.finish()
        return True

    def _hear_of_revokes(self) -> None:
        now_s = self.context.clock.monotonic()
        if now_s - self._heard_at_s < REVOKES_EVERY_S:
            return
        self._heard_at_s = now_s
        self._adopting.hear()
        if self._heed_revokes() & self._adopting.models.mergers:
            self.finish()  # what the other one told of the head is nobody's word to a device that starts now

    def _heed_revokes(self) -> frozenset[str]:
        """Go by what operators have revoked; what is new of it. UsageProblem FLV-3203 where that is our certificate."""
        new, self._revoked = self._adopting.models.revoked - self._revoked, self._adopting.models.revoked
        if new:
            log.warning("operators revoked %s: what they sign alone counts no more", ", ".join(sorted(new)))
            context = self.context
            require_not_revoked(context.trust.identify(context.signer.certificate), new)
            self._windows.judging.bar(serials_of(new))
        return new

    def finish(self) -> None:
        """Tell everybody of the head: barriers, then announcements."""
        self._telling.tell(self.head, self._headers)

    def _due(self) -> tuple[Aggregate, ...]:
        policy = self._policies.of(self.head.policy_sha256)
        now_s = self.context.clock.monotonic()
        waiting = self.pending.waiting()
        self.context.observer.waiting(len(waiting), self._windows.updates, policy.buffer.updates)
        return windows_due(
            waiting,
            policy,
            since_s=self._windows.waiting_since_s,
            now_s=now_s,
            head_since_s=self._head_since_s,
            lateness=self._windows.lateness,
        )

    def _go_on_at(self, head: Version) -> None:
        self.head, self._head_since_s = head, self.context.clock.monotonic()
        policy, domain = self._policies.of(head.policy_sha256), self.context.trust.domain
        self._windows.lateness = rules_after(head.number, policy, domain).lateness

    def _settle(self, doubtful: DoubtfulWindows) -> None:
        """Hold windows against their logs: those that are right have their sums afterwards, the others are gone."""
        names = ", ".join(f"{one.sequence} of {one.region}[{one.partition}]" for one in doubtful.windows)
        log.warning("folding window %s again: %s", names, doubtful.problem.message)
        if not self._windows.judging.doubt(doubtful.windows):
            self.context.clock.sleep(DOUBT_S)

    def _go_on_from(self, committed: Committed) -> None:
        self._go_on_at(committed.version)
        self._headers = committed.headers
        self._windows.forget_merged(self.head.cursors)
        self._windows.write_facts(self.head.number)
        log.info(
            "version %d: %d updates of %d windows",
            self.head.number,
            committed.manifest.accepted,
            len(committed.manifest.inputs),
            extra={"version": self.head.number},
        )
        for one in committed.manifest.inputs:
            if one.is_dropped and one.accepted:
                log.warning(
                    "version %d drops window %d of %s[%d]: it is %d versions late, with %d updates",
                    self.head.number,
                    one.sequence,
                    one.region,
                    one.partition,
                    self.head.number - 1 - one.version,
                    one.accepted,
                    extra={"version": self.head.number},
                )

    def _follow_winner(self) -> None:
        lost = self.head.number + 1
        self._headers = ()
        self._adopt_head()
        if self.head.number >= lost:  # else what stood there was no version, and is gone
            log.info("version %d was committed by another merger", lost, extra={"version": lost})
            self.context.observer.race_lost(lost)
        self.context.observer.adopted(self.head.number, self.context.genesis.partitions)

    def _adopt_head(self) -> None:
        while (after := self._adopting.after(self.head, self._windows)) is not None:
            self._go_on_at(after)
            self._windows.forget_merged(after.cursors)
