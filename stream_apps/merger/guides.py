"""Which guide the next version names: the newest good one of those that guardians announced.

Anybody may write any bytes into the topic of guides and into the store, so nothing is taken on its word:

1. A record counts if a guardian signed it, with a certificate that was valid at the record's LogAppendTime.
2. It has to be for a version that is young enough, and for the very model that this version has in our chain.
3. Its object has to be in the store, to be what its hash says, of a size that the layout allows, and a guide signed
   under the same certificate: finite, of the task's layout, and not all 0.
4. A guardian whose certificate is revoked, as far as the merger has heard, is not listened to. Partitions that know
   more fold as if there were no guide.

A look is bounded in records and objects, and reads the topic's end first: what stands before is too old to help, and
guardians announce their newest guide again. An object that is missing, damaged or cannot be read now is looked for
again, after a pause of its own, for as long as its guide would be young enough.

While topic or store cannot be read, the guides that are known go on to count, for as long as they are young enough.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from aggregation.defences import defence_named
from aggregation.errors import FluvialError, IntegrityProblem
from aggregation.policy import Policy
from backends.log import LogRecord, RecordReader
from backends.object_store import ObjectNotFound
from backends.outages import UNREADABLE
from schemas.guides import flaw_of_guide, guide_bytes_max
from schemas.manifests import decode_manifest
from schemas.objects import sha256_hex
from schemas.records import GuideAnnouncement, guide_announcement_in
from schemas.topics import guides_topic
from stream_apps.merger.guiding import NO_GUIDE, UNGUIDED, Guiding, NextGuide
from stream_apps.merger.version import Version
from stream_apps.process_context import ProcessContext

LOOK_RECORDS_MAX: Final = 2_000
"""Records of the topic that one look reads: the newest. Guardians write one a version, and again while none comes."""
LOOK_AGAIN_S: Final = 5.0
"""After a look that failed, or an object that was not there, so long is gone by what is known: no merge waits."""
LOOK_AGAIN_S_MAX: Final = 30.0
"""The pause of an object doubles up to here."""
CLAIMS_OF_ONE_MAX: Final = 8
"""Guides of one certificate that are remembered, see ``_rank``: who has one guardian's key silences no other."""
SIGNERS_MAX: Final = 32
"""Certificates of guardians whose announcements are remembered, those that were heard last."""
RUNBOOK: Final = "docs/runbooks/guardian-away.md"
REFUSALS: Final = ("forged", "wrong_base", "missing", "too_large", "damaged", "no_guide")
PASSING: Final = ("missing", "damaged")
"""Refusals of what the store has now; another may stand for good, for what a hash names does not change."""
SHA256_SHOWN: Final = 12

log = logging.getLogger("fluvial.merger")


@dataclass(slots=True)
class Claim:
    """An authentic announcement; ``good``: its object is what it is said to be, None while that is not known.

    ``again_s``: when it is looked for again, by the monotonic clock; ``pause_s``: how long after that once more.
    """

    said: GuideAnnouncement
    good: bool | None = None
    again_s: float = 0.0
    pause_s: float = LOOK_AGAIN_S


@dataclass(slots=True)
class _Spell:
    """What was said of a time without guides, so that it is said once."""

    unguided: bool = False
    unreadable: bool = False
    told: set[str] = field(default_factory=set)
    barred: set[str] = field(default_factory=set)


class Guides(Guiding):
    """Chooses guides for one task. ``revoked`` gives the names of certificates that operators have revoked by now."""

    def __init__(self, context: ProcessContext, revoked: Callable[[], Collection[str]] = frozenset) -> None:
        self._context = context
        self._task = context.genesis.task
        self._store = context.store
        self._claims: OrderedDict[str, dict[str, Claim]] = OrderedDict()
        self._next_offset = 0
        self._again_s = 0.0
        self._models: dict[int, str] = {}
        self._revoked = revoked
        self._chosen: tuple[int, Claim] | None = None
        self._opened = ExitStack()
        self._reader: RecordReader | None = None
        self._spell = _Spell()
        self.refused: Counter[str] = Counter()
        """Records that were not taken, by their reason: one of ``REFUSALS``."""

    def after(self, head: Version, policy: Policy) -> NextGuide:
        """See ``Guiding``. It looks into the topic, unless a guide of the head's own model is known.

        What it has said once of a head it says again, so that who waited for a guide gets one.
        """
        defence = policy.defence
        if not defence_named(defence.kind).guided:
            return NO_GUIDE
        version = head.number + 1
        found = self._chosen_for(head) or self._choose(head, defence.guide_versions_max)
        if found is not None:
            self._chosen = (head.number, found)
            self._spell.unguided = False
            self._context.observer.guide_named(version, found.said.version)
            return NextGuide(found.said.guide_sha256)
        wait = defence.guide_missing == "wait"
        if not self._spell.unguided:
            self._spell.unguided = True
            what = "waits for one, as its policy says" if wait else "and those after it name none"
            log.warning(
                "no guide is young enough for version %d: it %s; see %s",
                version,
                what,
                RUNBOOK,
                extra={"version": version},
            )
        self._context.observer.unguided(version)
        return NextGuide(wait=wait)

    def flaw_of(self, guide_sha256: str, head: Version, policy: Policy) -> str:
        """See ``Guiding``. Which guide a version names is its merger's choice; that it is one is not.

        IntegrityProblem and outages where it cannot be read.
        """
        defence = policy.defence
        if not defence_named(defence.kind).guided:
            return super().flaw_of(guide_sha256, head, policy)
        if not guide_sha256:
            waits = defence.guide_missing == "wait"
            return "it names no guide, and its policy waits for one" if waits else ""
        guide = self._store.guide(guide_sha256, self._context.layout, self._context.trust)
        if guide is None:
            return f"its guide {guide_sha256[:SHA256_SHOWN]!r} is none that a guardian signed"
        model_sha256 = self._model_of(guide.version, head, defence.guide_versions_max)
        why = flaw_of_guide(guide, head.number + 1, defence.guide_versions_max, model_sha256)
        return f"its guide {why}" if why else ""

    # -- the topic

    def _look(self, head: int, versions_max: int) -> bool:
        """Read what is new in the topic; False where it cannot be read now."""
        if self._context.clock.monotonic() < self._again_s:
            return False
        topic = guides_topic(self._task)
        self._spell.told.clear()
        try:
            if self._reader is None:
                self._reader = self._opened.enter_context(self._context.open_reader("guides"))
            low, end = self._reader.bounds(topic, 0)
            start = max(low, self._next_offset, end - LOOK_RECORDS_MAX)
            for record in self._reader.read(topic, 0, start, end):
                self._hear(record, head, versions_max)
        except UNREADABLE as problem:
            self._again_s = self._context.clock.monotonic() + LOOK_AGAIN_S
            self._reader = None
            self._opened.close()
            self._unreadable("the topic of guides", problem)
            return False
        self._next_offset = end
        self._spell.unreadable = False
        return True

    def _hear(self, record: LogRecord, head: int, versions_max: int) -> None:
        said = guide_announcement_in(record.value, record.timestamp_ms, self._context.trust)
        if not isinstance(said, GuideAnnouncement):
            self._refuse("forged", f"record {record.offset} of the topic of guides {said.reason}")
        elif said.task != self._task:
            self._refuse("forged", f"record {record.offset} of the topic of guides is for another task")
        elif said.guide_bytes > guide_bytes_max(self._context.layout):
            self._refuse("too_large", f"the guide of {said.signer.name} has {said.guide_bytes} bytes")
        elif said.version > head - versions_max:  # a copy of an older one, by whomever, evicts nothing
            self._keep(said, head, versions_max)

    def _keep(self, said: GuideAnnouncement, head: int, versions_max: int) -> None:
        theirs = self._claims.setdefault(said.signer.serial, {})
        self._claims.move_to_end(said.signer.serial)
        while len(self._claims) > SIGNERS_MAX:
            self._claims.popitem(last=False)
        theirs.setdefault(said.guide_sha256, Claim(said))
        for sha256 in [key for key, one in theirs.items() if one.said.version <= head - versions_max]:
            del theirs[sha256]
        while len(theirs) > CLAIMS_OF_ONE_MAX:
            del theirs[min(theirs, key=lambda sha256: _rank(theirs[sha256], head))]

    # -- one guide

    def _chosen_for(self, head: Version) -> Claim | None:
        if self._chosen is None or self._chosen[0] != head.number or self._is_barred(self._chosen[1]):
            return None
        return self._chosen[1]

    def _choose(self, head: Version, versions_max: int) -> Claim | None:
        found = self._newest_good(head, versions_max)
        if (found is None or found.said.version < head.number) and self._look(head.number, versions_max):
            found = self._newest_good(head, versions_max)
        return found

    def _newest_good(self, head: Version, versions_max: int) -> Claim | None:
        every = [claim for theirs in self._claims.values() for claim in theirs.values()]
        for claim in sorted(every, key=lambda one: -one.said.version):
            is_young = 0 < head.number + 1 - claim.said.version <= versions_max
            if is_young and not self._is_barred(claim) and self._is_good(claim, head, versions_max):
                return claim
        return None

    def _is_good(self, claim: Claim, head: Version, versions_max: int) -> bool:
        if claim.good is not None:
            return claim.good
        now_s, said = self._context.clock.monotonic(), claim.said
        if now_s < claim.again_s:
            return False
        claim.again_s, claim.pause_s = now_s + claim.pause_s, min(2 * claim.pause_s, LOOK_AGAIN_S_MAX)
        try:
            model_sha256 = self._model_of(said.version, head, versions_max)
            reason, why = self._flaw(said, model_sha256)
        except UNREADABLE as problem:
            self._unreadable(f"the guide of version {said.version}", problem)
            return False
        if reason:
            self._refuse(reason, f"the guide of {said.signer.name} for version {said.version} {why}")
        if reason not in PASSING:
            claim.good = not reason
        return bool(claim.good)

    def _flaw(self, said: GuideAnnouncement, model_sha256: str) -> tuple[str, str]:
        """(one of ``REFUSALS``, what is wrong in words); ("", "") for a guide that a version may name."""
        layout, trust = self._context.layout, self._context.trust
        if said.model_sha256 != model_sha256:
            return "wrong_base", "is for another model than that version has"
        try:
            guide = self._store.guide(said.guide_sha256, layout, trust)
        except ObjectNotFound:
            return "missing", "is not in the store"
        except IntegrityProblem as problem:
            return "damaged", f"cannot be used: {problem.message}"
        named = None if guide is None else (guide.version, guide.model_sha256, guide.signer)
        if named != (said.version, said.model_sha256, trust.rules.certificate_name(said.signer.serial)):
            return "no_guide", "is no guide, or another than was announced"
        return "", ""

    def _model_of(self, version: int, head: Version, versions_max: int) -> str:
        """The hash of a version's model in the chain that ends at ``head``; "" where it is not one of the newest."""
        self._models[head.number] = head.model_sha256
        number, expected = head.number, head.manifest_sha256
        while version not in self._models and max(0, head.number - versions_max) <= version < number:
            data = self._store.manifest_bytes(number)
            if sha256_hex(data) != expected:
                raise IntegrityProblem(
                    "FLV-3304", f"the manifest of version {number} is not what the one after it names"
                )
            expected = decode_manifest(data).parent_sha256
            number -= 1
            if number == 0:
                self._models[0] = self._context.genesis.model_sha256
            elif number == version:
                self._models[number] = self._model_in(number, expected)
        self._models = {at: one for at, one in self._models.items() if at >= head.number - versions_max}
        return self._models.get(version, "")

    def _model_in(self, number: int, expected: str) -> str:
        data = self._store.manifest_bytes(number)
        if sha256_hex(data) != expected:
            raise IntegrityProblem(
                "FLV-3304", f"the manifest of version {number} is not the one of our chain"
            )
        return decode_manifest(data).model_sha256

    # -- who is revoked

    def _is_barred(self, claim: Claim) -> bool:
        name = self._context.trust.rules.certificate_name(claim.said.signer.serial)
        if name not in self._revoked():
            return False
        if name not in self._spell.barred:
            self._spell.barred.add(name)
            log.warning("guardian %s is revoked, its guides count no more: %s", claim.said.signer.name, name)
        return True

    # -- what is said

    def _refuse(self, reason: str, why: str) -> None:
        self.refused[reason] += 1
        if reason not in self._spell.told:  # once a look: anybody may write thousands
            self._spell.told.add(reason)
            log.warning("ignored: %s", why)
        self._context.observer.guide_refused(reason)

    def _unreadable(self, what: str, problem: FluvialError) -> None:
        if not self._spell.unreadable:
            self._spell.unreadable = True
            log.warning("%s cannot be read, going by what is known: %s", what, problem.message)


def _rank(claim: Claim, head: int) -> tuple[bool, int]:
    """Where a certificate has too many, the lowest goes: of versions to come the furthest, then the oldest."""
    version = claim.said.version
    return version <= head, version if version <= head else -version


def guiding_of(context: ProcessContext, revoked: Callable[[], Collection[str]]) -> Guiding:
    """What chooses a task's guides: nothing, where it has no topic of them. ``revoked``: names of certificates."""
    return Guides(context, revoked) if context.genesis.is_guided else UNGUIDED
