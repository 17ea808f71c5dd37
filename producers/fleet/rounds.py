"""Local rounds of a fleet's devices, on the real stack and in simulation: each ends in records, or fails for itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from backends.observer import UNOBSERVED, Observer
from producers.fleet.behaviours import Behaviour, Round, perform
from producers.fleet.failures import (
    ALL_FAILED_RETRY_S,
    RETRY_S,
    FailedRounds,
    all_failing,
    failed_round,
    hopeless,
    no_round_succeeds,
)
from producers.sdk.updates import check_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aggregation.codecs import CodecName
    from aggregation.layout import Layout
    from learning import Examples, Task, TrainConfig
    from producers.fleet.failures import FailedRound
    from producers.fleet.population import Member
    from producers.sdk.bases import Base
    from producers.sdk.updates import Publication


class Rounds:
    """What ``members`` make of ``task``, each on its own of ``shards``; ``on_failure`` hears of every failed round.

    Its second argument is whether it is the first of its kind. ``now_ms``: milliseconds since 1970 UTC.
    """

    def __init__(
        self,
        members: Sequence[Member],
        task: Task,
        shards: Sequence[Examples],
        *,
        layout: Layout,
        codec: CodecName,
        train_config: TrainConfig,
        message_bytes_max: int,
        now_ms: Callable[[], int],
        on_failure: Callable[[FailedRound, bool], None],
        observer: Observer = UNOBSERVED,
    ) -> None:
        self.failed = FailedRounds()
        self._members = members
        self._task = task
        self._shards = shards
        self._layout = layout
        self._codec = codec
        self._train_config = train_config
        self._message_bytes_max = message_bytes_max
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._observer = observer
        self._failed_at = 0.0

    def make(self, member: Member, base: Base, behaviour: Behaviour) -> list[Publication]:
        """Train from ``base`` and give what to append, in order; nothing when the round failed.

        Whatever a device's own work raises is its own outcome. UsageProblem FLV-6310 once every device has failed again
        and again.
        """
        member.rounds += 1
        try:
            made = self._made(member, base, behaviour)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (users' code may raise anything, also what is no Exception)
            self._take_down(member, base, error)
            return []
        if member.failures:
            member.failures = 0
            self._observer.round_succeeded(self._failing())
        return made

    def retry_due(self, now_s: float) -> bool:
        """Whether devices that failed should try their version again: no newer one came soon.

        ``now_s`` is a monotonic time; asked only while no device is at work.
        """
        if not any(member.failures for member in self._members):
            return False
        pause_s = ALL_FAILED_RETRY_S if all_failing(self._members) else RETRY_S
        if now_s - self._failed_at < pause_s:
            return False
        self._failed_at = now_s
        return True

    def _made(self, member: Member, base: Base, behaviour: Behaviour) -> list[Publication]:
        from learning.training import train_locally

        config = self._train_config.at(seed=member.training_seed, version=base.version)
        turn = Round(
            author=member.author,
            base=base,
            layout=self._layout,
            codec=self._codec,
            outcome=train_locally(self._task, base.parameters, self._shards[member.index], config),
            created_at_ms=self._now_ms(),
        )
        made = perform(behaviour, turn)
        for what in made:
            check_size(what.value, base.policy, self._message_bytes_max)
        return made

    def _take_down(self, member: Member, base: Base, error: BaseException) -> None:
        member.failures += 1
        self._failed_at = time.monotonic()
        author = member.author
        failed = failed_round(
            device=author.device_id, region=author.region, base_version=base.version, error=error
        )
        self._on_failure(failed, self.failed.add(failed))
        self._observer.round_failed(author.region, failed.error_id, self._failing())
        if hopeless(self._members):
            raise no_round_succeeds(self.failed, len(self._members))

    def _failing(self) -> int:
        return sum(member.failures > 0 for member in self._members)
