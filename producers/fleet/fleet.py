"""Many devices in one process: each fetches, takes its time, trains, publishes, and waits for a newer version.

One loop drives them all, by a heap of due times. There is no pool of threads: training is bound to the interpreter's
lock and to torch's one process-wide generator, so threads would only take turns; the broker's answers come in by
callback. A round starts as soon as its device is free and a newer version is announced: base versions are taken at
the start of a round and published at its end, so slow devices are stale, as they are in life. A round that fails is
its device's alone (``failures``): the others go on.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from aggregation.errors import AccessProblem, FluvialError, UsageProblem
from backends.kafka.writing import LogWriter
from backends.keys import Keeping
from backends.log import Headers
from backends.observer import UNOBSERVED, Observer
from backends.programs import find_program
from backends.store.factory import open_object_store
from backends.store.task_store import TaskStore
from backends.tasks import keys_folder, private_folder
from producers.fleet.activity import ActivityFile
from producers.fleet.behaviours import Behaviour
from producers.fleet.bell import Bell, RoundAbandoned, StopAskedError
from producers.fleet.journal import Entry, Journal, Outcome, newest_bases
from producers.fleet.population import next_behaviour, populate, selected_now
from producers.fleet.rounds import Rounds
from producers.fleet.summary import FleetSummary, Speaker
from producers.sdk.announcements import Announcements
from producers.sdk.bases import Bases
from producers.sdk.private_layers import PrivateLayers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from backends.log import Position
    from backends.settings import Settings
    from backends.tasks import TaskFile
    from learning import Examples, Task
    from producers.fleet.failures import FailedRound
    from producers.fleet.population import FleetConfig, Member
    from producers.sdk.bases import Base
    from producers.sdk.updates import Publication

PROGRESS_EVERY_S: Final = 5.0
IDLE_S_MAX: Final = 0.1
FLUSH_TIMEOUT_S: Final = 60.0


class Fleet:
    """A fleet of one task. ``run`` drives it until it is done, or ``stop`` is called from any thread."""

    def __init__(
        self,
        settings: Settings,
        task_file: TaskFile,
        config: FleetConfig,
        *,
        speaker: Speaker,
        journal: Path | None = None,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._settings = settings
        self._task_file = task_file
        self._config = config
        self._speaker = speaker
        self._journal_path = journal
        self._bell = Bell()
        self._drive: _Drive | None = None

    def stop(self) -> None:
        """Begin no more rounds; ``run`` then delivers what is under way and returns.

        From a signal's handler that interrupted a training, it raises RoundAbandoned there, and ``run`` returns too.
        """
        self._bell.stop()
        if self._drive is not None:
            self._drive.rounds.abandon()

    def run(self) -> FleetSummary:
        """Drive the fleet.

        TimeoutProblem FLV-2502 when no model is ever announced; UsageProblem FLV-6310 when every device fails again and
        again; what loading the task, its data and the store raise.
        """
        from learning.binding import bind
        from learning.cohorts import certified_cohorts
        from learning.parts import device_data, device_ids, devices_of
        from learning.task import load_task

        settings, config, name = self._settings, self._config, self._task_file.task
        store = TaskStore(open_object_store(settings.store, self._observer), name)
        genesis = store.genesis(self._task_file.genesis_sha256)
        with (
            Announcements(settings, genesis, self._bell.ring) as announcements,
            Journal(self._journal_path) as journal,
            ActivityFile(self._journal_path, config.devices, self._observer) as activity,
        ):
            reference = find_program(
                settings.home, genesis, store.get_object, self._task_file.reference, say=self._speaker.say
            )
            task = bind(load_task(reference, self._task_file.settings), genesis, store.get_object)
            data = task.data()
            asked = None if config.parts_decide else config.devices
            config = replace(config, devices=devices_of(data, asked, config.devices))
            shards = device_data(data, config.devices, config.alpha, config.seed)
            ids = device_ids(data, config.devices)
            keeping, folder = Keeping(settings.key), keys_folder(settings.home, name)
            cohorts = certified_cohorts(genesis.first_policy, task, shards)
            members = populate(genesis, folder, config, ids, keeping, cohorts=cohorts)
            bases_of = newest_bases(self._journal_path)
            for member in members:  # a fleet that goes on does not repeat what is in the log
                member.last_base = bases_of.get(member.author.device_id, member.last_base)
            self._speaker.say(
                f"fleet of {config.devices} devices in {', '.join(sorted(genesis.regions))}: "
                f"{config.attackers} attack, {config.misbehaving} misbehave"
            )
            self._drive = _Drive(
                config=config,
                message_bytes_max=settings.message_bytes_max,
                members=members,
                task=task,
                shards=shards,
                bases=Bases(store, genesis, check=self._bell.raise_if_stopping),
                writer=LogWriter(settings, f"fluvial-fleet-{name}", observer=self._observer),
                observer=self._observer,
                private=PrivateLayers(private_folder(settings.home, name), genesis.sha256),
                journal=journal,
                activity=activity,
                announcements=announcements,
                bell=self._bell,
                speaker=self._speaker,
            )
            return self._drive.to_the_end()


@dataclass(frozen=True, slots=True)
class _Sent:
    """A record under way. ``time``: seconds since 1970 UTC; ``attempt``: its id in the journal."""

    member: Member
    behaviour: Behaviour
    base_version: int
    what: Publication
    time: float
    attempt: str
    headers: Headers


class _Drive:
    """One run of a fleet: the loop and what it has under way."""

    def __init__(
        self,
        *,
        config: FleetConfig,
        message_bytes_max: int,
        members: list[Member],
        task: Task,
        shards: Sequence[Examples],
        bases: Bases,
        writer: LogWriter,
        journal: Journal,
        activity: ActivityFile,
        announcements: Announcements,
        bell: Bell,
        speaker: Speaker,
        observer: Observer,
        private: PrivateLayers,
    ) -> None:
        self._observer = observer
        self._config = config
        self._bases = bases
        self._writer = writer
        self._journal = journal
        self._activity = activity
        self._announcements = announcements
        self._bell = bell
        self._say = speaker.say
        self.rounds = Rounds(
            members,
            task,
            shards,
            layout=bases.layout,
            codec=config.codec,
            train_config=task.config,
            message_bytes_max=message_bytes_max,
            now_ms=lambda: time.time_ns() // 1_000_000,
            on_failure=self._round_failed,
            private=private,
            trains=activity.trains,
            observer=observer,
            can_run=task.can_run,
        )
        self._idle: dict[str, list[Member]] = {region: [] for region in bases.genesis.regions}
        for member in members:
            self._idle[member.author.region].append(member)
        self._rounds: list[tuple[float, int, Member, Base]] = []
        self._answers: deque[tuple[_Sent, Future[Position], float]] = deque()
        self._appended = 0
        self._failed = 0
        self._versions: dict[str, int] = {}
        self._seen_at: dict[str, float] = {}
        self._started = self._told = time.monotonic()
        self._told_total = 0

    def to_the_end(self) -> FleetSummary:
        """Run until a limit or a stop; then wait for every acknowledgement."""
        try:
            self._first_news()
            self._started = self._told = time.monotonic()
            while not self._done():
                self._settle()
                self._give_another_try()
                self._begin_rounds()
                self._end_a_round_or_wait()
                self._tell()
        except (StopAskedError, RoundAbandoned):
            self._say("stopping: delivering what is under way")
        finally:
            seconds = time.monotonic() - self._started
            try:
                self._writer.flush(FLUSH_TIMEOUT_S)
            finally:
                self._settle()
        published = dict(sorted(self._journal.published.items()))
        done, versions = self.rounds, dict(self._versions)
        return FleetSummary(published, self._failed, seconds, versions, done.failed, dict(done.declined))

    def _first_news(self) -> None:
        """Wait for the first model of any region, and say every few seconds what for."""
        timeout_s, said_s = self._config.announcement_timeout_s, 0.0
        while not any(self._announcements.latest(region) for region in self._idle):
            self._bell.raise_if_stopping()
            waited_s = time.monotonic() - self._started
            if waited_s >= timeout_s:
                raise self._announcements.none_came(min(self._idle), 0, timeout_s)
            if waited_s - said_s >= PROGRESS_EVERY_S:
                self._say(f"waiting for the first model (is a merger running?), {waited_s:.0f} s")
                said_s = waited_s
            self._bell.wait(IDLE_S_MAX)
            self._bell.silence()

    def _done(self) -> bool:
        config = self._config
        if self._bell.stopping:
            return True
        if config.seconds_max is not None and time.monotonic() - self._started >= config.seconds_max:
            return True
        if config.updates_max is not None and self._appended >= config.updates_max:
            return True
        limit = config.version_max
        return limit is not None and all(self._versions.get(region, -1) >= limit for region in self._idle)

    def _give_another_try(self) -> None:
        """Let devices that failed try their version again, once it is plain that no newer one comes soon."""
        if not self._rounds:
            for member in self.rounds.again(time.monotonic()):
                member.last_base, member.asked = -1, (-1, -1)

    def _begin_rounds(self) -> None:
        """Every free device whose region has a version that is new to it fetches it and, if it may, starts."""
        self._bell.silence()
        now = time.monotonic()
        for region, idle in self._idle.items():
            announcement = self._announcements.latest(region)
            if announcement is None:
                continue
            if self._versions.get(region) != announcement.version:
                self._versions[region], self._seen_at[region] = announcement.version, now
            ready = [one for one in idle if one.last_base < announcement.version and self.rounds.may_run(one)]
            if not ready:
                continue
            base, waited_s = self._bases.announced(announcement), now - self._seen_at[region]
            ready = selected_now(ready, base, waited_s)
            begun = {member.index for member in ready}
            self._idle[region] = [member for member in idle if member.index not in begun]
            for member in ready:
                member.last_base = base.version
                due = now + member.round_seconds(self._config)
                heapq.heappush(self._rounds, (due, member.index, member, base))

    def _end_a_round_or_wait(self) -> None:
        wait_s = self._rounds[0][0] - time.monotonic() if self._rounds else IDLE_S_MAX
        if wait_s > 0:
            self._bell.wait(min(wait_s, IDLE_S_MAX))
            return
        _, _, member, base = heapq.heappop(self._rounds)
        self._contribute(member, base)
        self._idle[member.author.region].append(member)

    def _contribute(self, member: Member, base: Base) -> None:
        behaviour = next_behaviour(member, self._config)
        for number, what in enumerate(self.rounds.make(member, base, behaviour)):
            # A replay's first record is the honest one; only its copy is the replay.
            is_original = behaviour is Behaviour.REPLAY and number == 0
            self._append(member, Behaviour.HONEST if is_original else behaviour, base, what)

    def _round_failed(self, failed: FailedRound, first_of_its_kind: bool) -> None:  # noqa: FBT001
        self._journal.failed(failed)
        if first_of_its_kind:
            self._say(failed.told())

    def _append(self, member: Member, behaviour: Behaviour, base: Base, what: Publication) -> None:
        attempt = self._journal.invoked(
            device=member.author.device_id,
            region=what.region,
            behaviour=behaviour.label,
            update_id=what.update_id,
        )
        headers = self._observer.publishing(what.region, self._config.codec, len(what.value))
        sent = _Sent(member, behaviour, base.version, what, time.time(), attempt, headers)
        answered = partial(self._answered, sent)
        future = self._writer.append(
            what.topic, what.value, key=what.key, partition=what.partition, headers=headers
        )
        future.add_done_callback(answered)
        self._appended += 1

    def _answered(self, sent: _Sent, future: Future[Position]) -> None:
        """A future swallows what its callbacks raise, so this one does nothing that can fail."""
        self._answers.append((sent, future, time.time()))

    def _settle(self) -> None:
        """Take down what the broker has answered."""
        self._observer.beat()
        self._activity.at_work = len(self._rounds)
        self._activity.version = max(self._versions.values(), default=-1)
        self._activity.failing = self.rounds.failing
        self._writer.poll()
        while self._answers:
            sent, future, now = self._answers.popleft()
            error = future.exception()
            if error is None:
                position = future.result()
                self._journal.acknowledged(_entry(sent, position, now))
                self._observer.acknowledged(sent.what.region, now - sent.time)
                self._observer.placed(sent.headers, position)
                self._journal.answered(
                    sent.attempt, "ok", partition=position.partition, offset=position.offset
                )
                continue
            self._failed += 1
            self._observer.unacknowledged(sent.what.region, error)
            self._observer.placed(sent.headers, None)
            reason = error.message if isinstance(error, FluvialError) else str(error)
            # Refused for what it is: it stands nowhere. Anything else may have reached the log unheard.
            outcome: Outcome = "fail" if isinstance(error, UsageProblem) else "unknown"
            self._journal.answered(sent.attempt, outcome, reason=reason)
            self._say(f"an update of {sent.member.author.device_id} was not acknowledged: {reason}")
            if isinstance(error, AccessProblem):
                raise error  # it would be refused to all, for as long as they try

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_EVERY_S:
            return
        total = self._journal.total
        rate = (total - self._told_total) / (now - self._told)
        newest = max(self._versions.values(), default=-1)
        failed = f", {self.rounds.failed.total} rounds failed" if self.rounds.failed.total else ""
        if total == self._told_total and not self._rounds:
            self._say(
                f"all have contributed: waiting for version {newest + 1}, {total} updates so far{failed}"
            )
        else:
            at_work = len(self._rounds)
            self._say(
                f"version {newest}: {total} updates published, {rate:.1f}/s, {at_work} devices at work{failed}"
            )
        self._told, self._told_total = now, total


def _entry(sent: _Sent, position: Position, now: float) -> Entry:
    return Entry(
        time=now,
        sent=sent.time,
        device=sent.member.author.device_id,
        region=sent.what.region,
        partition=position.partition,
        offset=position.offset,
        behaviour=sent.behaviour.label,
        base_version=sent.base_version,
        update_id=sent.what.update_id,
    )
