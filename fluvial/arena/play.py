"""One play: an attack against a defence, over one world's rounds of devices.

::

    device takes the newest version ──(its pace)──▶ trains ──▶ honest: its delta, malicious: the attack's
                                                                 │ Sent
                                     Defence.offer ──▶ outcome ──┤
                          due, or the deadline: Defence.step ──▶ version + 1

Time is the play's own; nothing waits. A device takes one version at a time and each at most once. The same world,
attack, defence and seed give the same play.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from fluvial.arena.attacks.shape import Attack, Knowledge, Rules, Sent, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluvial.arena.perceptron import Floats
    from fluvial.arena.world import World

VERSIONS: Final = 40
MEASURED: Final = 5
"""The accuracy is the mean over so many of the last versions."""
DEADLINE_S: Final = 3.0
"""A version is made of what is there so long after the last one, in median rounds of a device."""
HONEST_SEEN: Final = 20
ARRIVALS_MAX: Final = 60_000
ROUND_SPREAD: Final = 0.3
FAST_MIN_S: Final = 0.02
SECONDS_MIN: Final = 10.0
"""A play of ``VERSIONS`` lasts so many median rounds at least: the honest have a say, however fast an attack is."""
VERSIONS_MAX: Final = 500
TIMED_EVERY: Final = 16
"""One offer in so many is timed: to ask for the time can cost more than the offer."""


class Defence(Protocol):
    """What stands between the updates and the model. ``version`` is the newest; versions begin at 0."""

    version: int
    rules: Rules
    guided: bool

    def offer(self, sent: Sent, now: float) -> None:
        """Judge one update: sets its ``outcome``, and ``weight`` and ``share`` where they are known at once.

        ``now`` is in median rounds.
        """

    def due(self) -> bool:
        """Whether enough has been accepted for a version."""

    def waiting(self) -> int:
        """Accepted updates that no version holds yet."""

    def step(self, guide: Floats | None, now: float) -> None:
        """Make the next version of what waits. ``guide`` float32[P] is of the version that stands till then."""

    def tick(self) -> None:
        """A deadline has passed and nothing waits."""

    def model(self, version: int) -> Floats:
        """A live version's parameters, float32[P]."""

    @property
    def oldest_base(self) -> int:
        """The oldest version that an update may name."""
        ...

    @property
    def state_bytes(self) -> int:
        """What it remembers between versions."""
        ...


@dataclass(slots=True)
class Played:
    """What came of a play. ``accuracies`` and backdoor ``successes`` are of the last versions."""

    sent: list[Sent] = field(default_factory=list)
    versions: int = 0
    accuracies: list[float] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    offers_s: list[float] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    state_bytes: int = 0


class Play:
    """The devices of one play. ``run`` it once."""

    def __init__(
        self,
        world: World,
        attack: Attack | None,
        defence: Defence,
        *,
        malicious: float,
        seed: int,
        versions: int = VERSIONS,
    ) -> None:
        self._world, self._attack, self._defence, self._versions = world, attack, defence, versions
        self._rng = np.random.default_rng((seed, 11))
        self._seed = seed
        self._seconds_min = SECONDS_MIN * min(1.0, versions / VERSIONS)
        bad = round(malicious * world.devices) if attack is not None else 0
        self._malicious = list(range(world.devices - bad, world.devices))
        self._examples = [(world.x[d], world.y[d]) for d in range(world.devices)]
        for number, device in enumerate(self._malicious):
            assert attack is not None
            self._examples[device] = attack.data(world, number, *self._examples[device])
        self._names = self._named()
        self._events: list[tuple[float, int, str, object]] = []
        self._count = 0
        self._untrained: dict[int, list[int]] = {}
        self._trained: dict[tuple[int, int], Floats] = {}
        self._took = [-1] * world.devices
        self._idle = set(range(world.devices))
        self._honest: deque[Floats] = deque(maxlen=HONEST_SEEN)
        self._norms: deque[float] = deque(maxlen=64)
        self._cosines: deque[float] = deque(maxlen=64)
        self._guide: Floats | None = None
        self._last_step: Floats | None = None
        self._answered: set[tuple[str, int]] = set()
        self._now = self._made_at = 0.0
        self._played = Played()
        self._trigger = attack.triggered(world) if attack is not None else None

    def _named(self) -> list[str]:
        """Ids; an attack that asks for it sits in the region ``b`` as a whole, the honest are in both in turn."""
        one_region = self._attack is not None and self._attack.one_region
        return [
            f"{'b' if (d in self._malicious and one_region) or d % 2 else 'a'}-{d}"
            for d in range(self._world.devices)
        ]

    def run(self) -> Played:
        """Play to the last version, or until nothing more can come."""
        defence, played = self._defence, self._played
        self._begin_rounds(0.0)
        stuck = 0
        while not self._over() and len(played.sent) < ARRIVALS_MAX:
            soonest = self._events[0][0] if self._events else np.inf
            deadline = self._made_at + DEADLINE_S
            if soonest > deadline:
                if defence.waiting():
                    self._make_version(deadline)
                    stuck = 0
                else:
                    defence.tick()
                    self._made_at, stuck = deadline, stuck + 1
                    if not self._events or stuck > self._versions:
                        break
                continue
            self._now, _, kind, what = heapq.heappop(self._events)
            self._end_round(self._now, what) if kind == "round" else self._offer(self._now, what)  # type: ignore[arg-type]
        played.versions = defence.version
        if len(played.accuracies) == 0:
            self._measure()
        return played

    def _over(self) -> bool:
        version = self._defence.version
        return version >= VERSIONS_MAX or (version >= self._versions and self._now >= self._seconds_min)

    def _push(self, at: float, kind: str, what: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, kind, what))

    def _begin_rounds(self, now: float) -> None:
        version = self._defence.version
        for device in sorted(self._idle):
            if self._took[device] >= version:
                continue
            self._idle.discard(device)
            self._took[device] = version
            self._untrained.setdefault(version, []).append(device)
            pace = self._world.paces[device]
            if device in self._malicious:
                assert self._attack is not None
                pace = min(pace, 1.0) * self._attack.pace if self._attack.pace < 1.0 else pace
            seconds = max(FAST_MIN_S, pace * float(self._rng.lognormal(0.0, ROUND_SPREAD)))
            self._push(now + seconds, "round", (device, version))

    def _own(self, device: int, base: int) -> Floats:
        """What the device's training gives; all that wait for the same base are trained together."""
        if (device, base) not in self._trained:
            together = self._untrained.pop(base)
            x = np.stack([self._examples[d][0] for d in together])
            y = np.stack([self._examples[d][1] for d in together])
            rng = np.random.default_rng((self._seed, base, together[0]))
            deltas = self._world.model.deltas(self._defence.model(base), x, y, rng)
            self._trained.update({(d, base): delta for d, delta in zip(together, deltas, strict=True)})
        return self._trained.pop((device, base))

    def _end_round(self, now: float, what: tuple[int, int]) -> None:
        device, base = what
        own = self._own(device, base)
        if base >= self._defence.oldest_base or device not in self._malicious:
            for delay, sent in self._messages(device, base, own):
                self._push(now + delay, "sent", sent)
        self._idle.add(device)
        self._begin_rounds(now)

    def _messages(self, device: int, base: int, own: Floats) -> Iterator[tuple[float, Sent]]:
        if device not in self._malicious:
            self._see(own)
            yield 0.0, Sent(self._names[device], base, own)
            return
        attack = self._attack
        assert attack is not None
        member = self._malicious.index(device)
        rng = np.random.default_rng((self._seed, device, base, 3))
        turn = Turn(self._names[device], member, len(self._malicious), base, own, self._knowledge(), rng)
        answers = attack.answers(turn)
        for number in range(self._identities()):
            delay = float(rng.uniform(0.0, attack.pace)) if number else 0.0
            name = f"{self._names[device]}.{number}" if number else self._names[device]
            for one in answers:
                if (name, one.base) in self._answered:
                    continue  # it would be a duplicate
                self._answered.add((name, one.base))
                yield delay, Sent(name, one.base, one.delta, malicious=True)

    def _identities(self) -> int:
        assert self._attack is not None
        share = self._attack.traffic
        if not share:
            return 1
        honest = self._world.devices - len(self._malicious)
        return int(np.ceil(share / (1.0 - share) * honest / max(1, len(self._malicious))))

    def _see(self, own: Floats) -> None:
        self._honest.append(own)
        norm = float(np.linalg.norm(own))
        self._norms.append(norm)
        if self._guide is not None and norm > 0.0:
            self._cosines.append(float(own @ self._guide) / norm / float(np.linalg.norm(self._guide)))

    def _knowledge(self) -> Knowledge:
        defence = self._defence
        return Knowledge(
            world=self._world,
            rules=defence.rules,
            version=defence.version,
            oldest_base=defence.oldest_base,
            honest=np.stack(self._honest)
            if self._honest
            else np.zeros((0, self._world.first.size), np.float32),
            last_step=self._last_step,
            guide=self._guide,
            norm_usual=float(np.median(self._norms)) if self._norms else 1.0,
            cosine_usual=float(np.median(self._cosines)) if self._cosines else 0.2,
            model=defence.model,
        )

    def _offer(self, now: float, sent: Sent) -> None:
        self._played.sent.append(sent)
        if len(self._played.sent) % TIMED_EVERY:
            self._defence.offer(sent, now)
        else:
            began = time.process_time()
            self._defence.offer(sent, now)
            self._played.offers_s.append(time.process_time() - began)
        if self._defence.due():
            self._make_version(now)

    def _make_version(self, now: float) -> None:
        defence = self._defence
        before = defence.model(defence.version)
        if defence.guided:
            self._guide = self._new_guide(before)  # so what partitions hear of is one version late
        began = time.process_time()
        defence.step(self._guide, now)
        self._played.steps_s.append(time.process_time() - began)
        after = defence.model(defence.version)
        self._last_step, self._made_at = after - before, now
        self._played.state_bytes = max(self._played.state_bytes, defence.state_bytes)
        if (
            self._now >= self._seconds_min * (1.0 - MEASURED / self._versions)
            and defence.version > self._versions - MEASURED
        ):
            self._measure()
        self._begin_rounds(now)

    def _new_guide(self, base: Floats) -> Floats:
        world = self._world
        rng = np.random.default_rng((self._seed, 5))
        guide: Floats = world.model.deltas(base, world.root_x[None], world.root_y[None], rng)[0]
        return guide

    def _measure(self) -> None:
        world, model = self._world, self._defence.model(self._defence.version)
        self._played.accuracies.append(
            float((world.model.answers(model, world.test_x) == world.test_y).mean())
        )
        del self._played.accuracies[:-MEASURED]
        if self._trigger is not None:
            x, wanted = self._trigger
            self._played.successes.append(float((world.model.answers(model, x) == wanted).mean()))
            del self._played.successes[:-MEASURED]
