"""Makes guides: a round on the root set from each version that is announced, signed, stored, and told of.

1. Hear of a version: an announcement that a merger signed. Only the newest counts, guides of older ones help nobody. Of
   each merger the newest is kept: what a stolen key announced hides none, once it is revoked or where it has no model.
2. Train on the root set from its model, once, as a device does. Equal task, model, root set and seed give equal bits.
3. Put the signed guide into the store, under its hash; then an announcement of it into the guides topic, and another
   every half a minute while no newer version comes: a merger that waits may have missed it.

The root set stays in this process: of it, nothing leaves but the direction.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, fields
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import FluvialError, IntegrityProblem, UsageProblem
from aggregation.fold.events import Revoke
from backends.crash_points import crash_point
from backends.log import FLUSH_TIMEOUT_S
from backends.outages import OUTAGES, UNREADABLE, retry_through_outage
from backends.reading_back import backwards
from schemas.announcing import Announcers
from schemas.checkpoints import decode_model
from schemas.guides import NoGuideError, guide_in, signed_guide
from schemas.objects import sha256_hex
from schemas.records import (
    Announcement,
    GuideAnnouncement,
    Unverified,
    guide_announcement_in,
)
from schemas.topics import guides_topic, models_topic

if TYPE_CHECKING:
    from collections.abc import Collection

    from backends.log import LogRecord
    from learning.config import TrainConfig
    from learning.root_set import RootSet
    from learning.task import Task
    from stream_apps.process_context import ProcessContext

RECORDS_MAX: Final = 20_000
"""Records of a topic that are read back at the start: anybody may have written junk behind the last one that counts."""
MERGERS_MAX: Final = 64
"""Mergers' certificates of which the newest announcement is kept."""
ANNOUNCE_AGAIN_S: Final = 30.0
"""So long after it announced a guide a guardian does so again, while no newer version comes."""
SHA256_SHOWN: Final = 12

log = logging.getLogger("fluvial.guardian")


@dataclass(slots=True)
class _Made:
    """What came of a version: what was announced, None where it has no guide; and when it is announced again."""

    record: dict[str, Any] | None
    again_s: float


class Making:
    """One guardian's work, without its framework. ``hear`` may be called while ``guide_newest`` runs on a thread.

    ``task`` is bound to the genesis; ``seed`` with the version fixes every random choice of a round.
    """

    def __init__(
        self,
        context: ProcessContext,
        task: Task,
        root: RootSet,
        *,
        seed: int = 0,
        train_config: TrainConfig | None = None,
    ) -> None:
        self._context = context
        self._task = task
        self._root = root
        self._seed = seed
        self._config = train_config or task.config
        self._announcers = Announcers(context.trust, context.genesis.task)
        self._newest: dict[str, Announcement] = {}
        self._made: dict[tuple[int, str], _Made] = {}
        self._unread: tuple[int, str] | None = None
        self.heard = 0
        """The offset of the models topic that is heard next."""
        self.guided = -1
        """The version that this guardian has made a guide of last, or could not."""

    def resume(self) -> None:
        """Find the newest guide that was announced under this key, and the newest version. Waits out outages."""
        clock = self._context.clock
        said = retry_through_outage("read the guides topic", self._newest_of_ours, clock=clock)
        if said is not None:
            self._took(said.version, said.model_sha256, _record_of(said))
        retry_through_outage("read the announcements", self._hear_what_stands, clock=clock)

    @property
    def is_behind(self) -> bool:
        """Whether a version was announced that has no guide of ours, above the newest that has one."""
        keys = [_key(one) for one in self._choices()]
        return any(key not in self._made for key in takewhile(lambda key: not self._has_guide(key), keys))

    @property
    def revoked(self) -> Collection[str]:
        """The names of certificates that operators have revoked, as far as was heard."""
        return self._announcers.revoked

    def hear(self, record: LogRecord) -> None:
        """Take one record of the models topic; in their order, each once: others are passed over."""
        if record.offset < self.heard:
            return
        self.heard = record.offset + 1
        genesis = self._context.genesis
        found = self._announcers.read(record.value, record.timestamp_ms)
        if isinstance(found, Revoke):
            log.info("announcement %d: certificate %s was revoked", record.offset, found.certificate_serial)
        elif isinstance(found, Unverified):
            log.warning("ignored announcement %d, which %s", record.offset, found.reason)
        elif found.belongs_to(genesis.task, genesis.regions):
            before = self._newest.get(found.merger)
            if before is None or found.version > before.version:
                self._newest[found.merger] = found
            while len(self._newest) > MERGERS_MAX:
                del self._newest[min(self._newest, key=lambda merger: self._newest[merger].version)]

    def guide_newest(self) -> bool:
        """Make the guide of the newest version whose model is there, or announce it again when that is due.

        False where there is nothing to do, or no model can be read now.
        """
        for announced in self._choices():
            key = _key(announced)
            if key not in self._made:
                if self._make(announced):
                    return True
            elif self._has_guide(key):
                return self._announce_again(announced, self._made[key])
        return False

    def _choices(self) -> list[Announcement]:
        """The newest announcement of each merger, the highest version first.

        Of those whose certificate was not revoked; of the others only where no other has announced anything.
        """
        newest = list(self._newest.values())
        good = [one for one in newest if one.merger not in self._announcers.revoked]
        return sorted(good or newest, key=lambda one: -one.version)

    def _has_guide(self, key: tuple[int, str]) -> bool:
        return key in self._made and self._made[key].record is not None

    def _make(self, announced: Announcement) -> bool:
        """Make a version's guide, or say that it has none; False where its model cannot be read now."""
        version, began_s = announced.version, time.perf_counter()
        try:
            data = self._guide(announced)
        except UNREADABLE as problem:
            # Not waited for here: by then another version may be the newest, and it may be a thief's, of no model.
            if self._unread != _key(announced):
                self._unread = _key(announced)
                log.warning("waiting to read version %d: %s", version, problem.message)
            return False
        except (UsageProblem, NoGuideError) as problem:
            self._failed(version, problem)
            self._took(version, announced.model_sha256, None)
            return True
        self._took(version, announced.model_sha256, self._publish(announced, data))
        seconds = time.perf_counter() - began_s
        self._context.observer.guided(version, seconds)
        shown = sha256_hex(data)[:SHA256_SHOWN]
        log.info("version %d: guide %s, in %.1f s", version, shown, seconds, extra={"version": version})
        return True

    def _took(self, version: int, model_sha256: str, record: dict[str, Any] | None) -> None:
        known = {_key(one) for one in list(self._newest.values())}
        self._made = {key: made for key, made in self._made.items() if key in known}
        again_s = self._context.clock.monotonic() + ANNOUNCE_AGAIN_S
        self._made[version, model_sha256] = _Made(record, again_s)
        self.guided = version

    def _announce_again(self, announced: Announcement, made: _Made) -> bool:
        """False where it is too early, or the store cannot be asked. A guide that the store has lost is made again."""
        now_s = self._context.clock.monotonic()
        if made.record is None or now_s < made.again_s:
            return False
        made.again_s = now_s + ANNOUNCE_AGAIN_S
        try:
            self._context.store.get_object(made.record["guide_sha256"])
        except IntegrityProblem as problem:
            log.warning("making the guide of version %d again: %s", announced.version, problem.message)
            return self._make(announced)
        except OUTAGES as problem:
            log.warning("waiting to look for the guide of version %d: %s", announced.version, problem.message)
            return False
        self._announce(made.record)
        log.info("version %d: its guide is announced again, no newer one has come", announced.version)
        return True

    def _guide(self, announced: Announcement) -> bytes:
        """The signed guide of an announced version."""
        from learning.training import guide_of

        context = self._context
        model = decode_model(
            context.store.model_bytes(announced.version, announced.model_sha256), context.layout
        )
        config = self._config.at(seed=self._seed, version=announced.version)
        data = signed_guide(
            context.signer,
            task=context.genesis.task,
            version=announced.version,
            model_sha256=announced.model_sha256,
            examples=len(self._root.examples),
            direction=guide_of(self._task, model, self._root.examples, config),
        )
        guide_in(data, context.trust, context.genesis.task, context.layout)  # nobody would take another
        return data

    def _publish(self, announced: Announcement, data: bytes) -> dict[str, Any]:
        """The object first: who reads of it finds it. Returns what was announced."""
        context = self._context
        crash_point("guardian.before-object")
        sha256 = retry_through_outage(
            "store the guide", lambda: context.store.put_object(data), clock=context.clock
        )
        record = {
            "task": context.genesis.task,
            "version": announced.version,
            "model_sha256": announced.model_sha256,
            "guide_sha256": sha256,
            "guide_bytes": len(data),
        }
        crash_point("guardian.after-object")
        self._announce(record)
        crash_point("guardian.after-announcement")
        return record

    def _announce(self, record: dict[str, Any]) -> None:
        context, task = self._context, self._context.genesis.task
        value = context.signer.sign("GuideAnnouncement", record)
        future = context.writer.append(guides_topic(task), value, key=task.encode(), partition=0)
        what = f"announce the guide of version {record['version']}"
        retry_through_outage(what, lambda: context.writer.flush(FLUSH_TIMEOUT_S), clock=context.clock)
        future.result(timeout=0)

    def _failed(self, version: int, problem: UsageProblem | NoGuideError) -> None:
        known = isinstance(problem, FluvialError)
        log.error(
            "version %d has no guide: %s",
            version,
            problem if known else f"the one that came of the root set {problem}",
            extra={"version": version},
        )
        self._context.observer.guide_failed(version, problem)

    def _hear_what_stands(self) -> None:
        """All of the models topic: so the first guide is not one of a version that was the newest long ago."""
        topic = models_topic(self._context.genesis.task)
        with self._context.open_reader("announced") as reader:
            low, end = reader.bounds(topic, 0)
            for record in reader.read(topic, 0, max(low, self.heard), end):
                self.hear(record)

    def _newest_of_ours(self) -> GuideAnnouncement | None:
        """The guide that was announced last under this certificate; None where none was."""
        context, read = self._context, 0
        own = context.trust.identify(context.signer.certificate).serial
        with context.open_reader("guides") as reader:
            for records in backwards(reader, guides_topic(context.genesis.task), 0):
                for record in reversed(records):
                    said = guide_announcement_in(record.value, record.timestamp_ms, context.trust)
                    if isinstance(said, GuideAnnouncement) and said.signer.serial == own:
                        return said
                read += len(records)
                if read >= RECORDS_MAX:
                    break
        return None


def _key(announced: Announcement) -> tuple[int, str]:
    """What a guide is of."""
    return announced.version, announced.model_sha256


def _record_of(said: GuideAnnouncement) -> dict[str, Any]:
    return {field.name: getattr(said, field.name) for field in fields(said) if field.name != "signer"}
