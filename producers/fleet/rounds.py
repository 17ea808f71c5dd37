"""Local rounds of a fleet's devices, on the real stack and in simulation: each ends in records, or fails for itself."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from backends.observer import UNOBSERVED, Observer
from producers.fleet.behaviours import Behaviour, Round, perform
from producers.fleet.bell import RoundAbandoned
from producers.fleet.failures import (
    ALL_FAILED_RETRY_S,
    RETRY_S,
    ROUNDS_FAILED_MAX,
    FailedRounds,
    all_failing,
    failed_round,
    hopeless,
    no_round_succeeds,
)
from producers.sdk.eligibility import ASKED_EVERY_S, count_in, reason_of
from producers.sdk.private_layers import PrivateLayers
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

log = logging.getLogger("fluvial.fleet")


class Rounds:
    """What ``members`` make of ``task``, each on its own of ``shards``; ``on_failure`` hears of every failed round.

    Its second argument is whether it is the first of its kind. ``private``: where private layers wait for the next
    round; None for this process. ``can_run`` says of a device's examples whether it may take part now, or why not; None
    where nobody asks, as in a simulation. ``now_ms``: milliseconds since 1970 UTC. ``trains`` is
    told which device's training begins, and "" at its end.
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
        private: PrivateLayers | None = None,
        trains: Callable[[str], None] = lambda _device: None,
        observer: Observer = UNOBSERVED,
        can_run: Callable[[Examples], object] | None = None,
    ) -> None:
        self.failed = FailedRounds()
        self.declined: Counter[str] = Counter()
        self._can_run = can_run
        self._asked: dict[int, tuple[float, bool]] = {}
        self._trains = trains
        self._trains_in: threading.Thread | None = None
        self._members = members
        self._task = task
        self._shards = shards
        self._layout = layout
        self._codec = codec
        self._train_config = train_config
        self._message_bytes_max = message_bytes_max
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._private = private or PrivateLayers()
        self._observer = observer
        self._failed_at = 0.0

    def may_run(self, member: Member) -> bool:
        """Whether a device may take part now: asked at most every ``ASKED_EVERY_S``, and once more by ``make``."""
        if self._can_run is None:
            return True
        now_s, (asked_s, able) = time.monotonic(), self._asked.get(member.index, (-math.inf, False))
        if now_s - asked_s >= ASKED_EVERY_S:
            able = self._is_able(member)
            self._asked[member.index] = now_s, able
        return able

    def _is_able(self, member: Member) -> bool:
        ask, examples = self._can_run, self._shards[member.index]
        reason = "" if ask is None else reason_of(lambda: ask(examples))
        if reason and count_in(self.declined, reason):
            device = member.author.device_id
            log.info("device %s takes no part now: %s; more of this kind are counted", device, reason)
        return not reason

    def make(self, member: Member, base: Base, behaviour: Behaviour) -> list[Publication]:
        """Train from ``base`` and give what to append, in order; nothing when the round failed.

        Nothing either where the device may not take part any more: it may begin on the same version later.

        Whatever a device's own work raises is its own outcome. UsageProblem FLV-6310 once every device has failed again
        and again.
        """
        if not self._is_able(member):
            self._asked[member.index] = time.monotonic(), False
            member.last_base, member.asked = -1, (-1, -1)
            return []
        member.rounds += 1
        self._trains(member.author.device_id)
        self._trains_in = threading.current_thread()
        try:
            made = self._made(member, base, behaviour)
        except (KeyboardInterrupt, RoundAbandoned):
            raise
        except BaseException as error:  # noqa: BLE001 (users' code may raise anything, also what is no Exception)
            self._take_down(member, base, error)
            return []
        finally:
            self._trains_in = None
            self._trains("")
        if member.failures:
            member.failures = 0
            self._observer.round_succeeded(self.failing)
        return made

    def abandon(self) -> None:
        """From a signal's handler: leave the training that it interrupted, if it did. Raises RoundAbandoned."""
        if self._trains_in is threading.current_thread():
            raise RoundAbandoned

    def again(self, now_s: float) -> list[Member]:
        """Who should try its version again, since no newer one came soon; ``now_s`` is a monotonic time.

        Whoever has failed ``ROUNDS_FAILED_MAX`` times in a row waits for a newer one.
        """
        failing = [member for member in self._members if 0 < member.failures < ROUNDS_FAILED_MAX]
        pause_s = ALL_FAILED_RETRY_S if all_failing(self._members) else RETRY_S
        return failing if now_s - self._failed_at >= pause_s else []

    @property
    def failing(self) -> int:
        """How many devices' last round failed."""
        return sum(member.failures > 0 for member in self._members)

    def _made(self, member: Member, base: Base, behaviour: Behaviour) -> list[Publication]:
        from learning.training import train_locally

        config = self._train_config.at(seed=member.training_seed, version=base.version)
        device_id = member.author.device_id
        outcome = train_locally(
            self._task,
            base.parameters,
            self._shards[member.index],
            config,
            private=self._private.of(device_id),
        )
        turn = Round(
            author=member.author,
            base=base,
            layout=self._layout,
            codec=self._codec,
            outcome=outcome,
            created_at_ms=self._now_ms(),
        )
        made = perform(behaviour, turn)
        for what in made:
            check_size(what.value, base.policy, self._message_bytes_max)
        self._private.keep(device_id, outcome.private)
        return made

    def _take_down(self, member: Member, base: Base, error: BaseException) -> None:
        member.failures += 1
        self._failed_at = time.monotonic()
        author = member.author
        failed = failed_round(
            device=author.device_id, region=author.region, base_version=base.version, error=error
        )
        self._on_failure(failed, self.failed.add(failed))
        self._observer.round_failed(author.region, failed.error_id, self.failing)
        if hopeless(self._members):
            raise no_round_succeeds(self.failed, len(self._members))
