"""Regions that gossip: windows close, mergers decide, links are cut and heal, all by a seed.

::

    python -m tests.simulation.without_centre --seeds 2000

Real are the rules (``fluvial.simulating.regions``) and the merge. Windows are drawn: what devices send, and how workers
fold it, is the other simulator's matter. Gossip is an exchange of what the other does not know; every message may come
late, twice, in another order, in part, or never.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aggregation.layout import Layout
from aggregation.optimizers import initial_state
from aggregation.policy import Policy, policy_from_mapping
from aggregation.server.aggregates import Aggregate, Slot
from aggregation.server.merge import Checkpoint
from aggregation.weights.fixed_point import WEIGHT_ONE
from fluvial.simulating.regions import GENESIS, Chain, Chains, Decision, Facts, Window, decide, derive_version

LAYOUT: Final = Layout.of([("w", (3,)), ("b", (1,))])
POLICY: Final = policy_from_mapping(
    {
        "buffer": {"updates": 6, "seconds_max": 5.0},
        "staleness": {"versions_max": 6, "kind": "polynomial", "exponent": 0.5},
        "server": {"momentum": 0.5},
    }
)
REGIONS: Final = ("ap", "eu", "us")
SLOTS: Final = (("ap", 0), ("eu", 0), ("eu", 1), ("us", 0))
DEADLINE_STEPS: Final = 12


@dataclass
class Place:
    """One region: what it knows, and since when its merger has had the head that it has."""

    name: str
    policy: Policy
    facts: Facts = field(default_factory=Facts)
    since: int = 0
    adopted: list[str] = field(default_factory=list)
    """The heads that it has had, in order."""

    def __post_init__(self) -> None:
        self.chains = Chains(self.facts, self.policy, SLOTS)
        self.models: dict[str, Checkpoint] = {}

    def look(self, now: int) -> Chain:
        """Its head now."""
        head = self.chains.head()
        if not self.adopted or self.adopted[-1] != head.name:
            self.adopted.append(head.name)
            self.since = now
        return head

    def model_of(self, chain: Chain) -> Checkpoint:
        """The arrays of a version, derived by this region alone."""
        if chain.name == GENESIS:
            return Checkpoint(
                np.zeros(LAYOUT.parameters, np.float32), initial_state(self.policy.server, LAYOUT.parameters)
            )
        if chain.name not in self.models:
            parent = self.chains.of(chain.path[-2])
            assert parent is not None
            derived = derive_version(chain, self.model_of(parent), self.facts, self.policy, LAYOUT)
            self.models[chain.name] = derived.checkpoint
        return self.models[chain.name]


class Regions:
    """A run by its seed: ``play`` it, then ``heal``."""

    def __init__(self, seed: int, policy: Policy = POLICY) -> None:
        self.random = random.Random(seed)
        self.policy = policy
        self.places = {name: Place(name, policy) for name in REGIONS}
        self.now = 0
        self.cut: set[frozenset[str]] = set()
        self.partitions = 0
        self.forks = 0
        self.made_while_cut = 0
        self._last: dict[Slot, tuple[int, str, int]] = dict.fromkeys(SLOTS, (0, "", 0))
        self._under_way: list[tuple[int, str, Window | Decision]] = []

    # -- what happens

    def play(self, steps: int) -> None:
        """So many moments: windows close, mergers look, regions gossip, links are cut and heal."""
        for _ in range(steps):
            self.now += 1
            self._deliver()
            for place in self.places.values():
                if self.random.random() < 0.4:
                    place.facts.learn(self.window(place))
                if self.random.random() < 0.5:
                    self._merge(place)
            self._gossip()
            self._weather()

    def calm(self) -> Chain:
        """No link is cut, nothing is under way any more, and all know what any of them knew: the head of all."""
        self.cut.clear()
        self._deliver(everything=True)
        for one in self.places.values():
            for other in self.places.values():
                other.facts.learn(*one.facts.beyond(other.facts.names))
        heads = [place.look(self.now) for place in self.places.values()]
        assert len({head.name for head in heads}) == 1, "regions that know the same have different heads"
        return heads[0]

    def heal(self) -> Chain:
        """The same, and every deadline passes, until nobody has more to do."""
        while True:
            self.calm()
            before = {name: place.facts.names for name, place in self.places.items()}
            for place in self.places.values():
                place.look(self.now)
                self.now += DEADLINE_STEPS
                self._merge(place)
            if before == {name: place.facts.names for name, place in self.places.items()}:
                return next(iter(self.places.values())).look(self.now)

    def window(self, place: Place) -> Window:
        """The next window of one of a region's partitions, folded under its head."""
        slot = self.random.choice([one for one in SLOTS if one[0] == place.name])
        sequence, previous, offset = self._last[slot]
        accepted = self.random.choice([0, 1, 1, 2, 3])
        weight = sum(self.random.randint(1, WEIGHT_ONE) for _ in range(accepted))
        numbers = [
            self.random.randint(-1 << 30, 1 << 30) if accepted else 0 for _ in range(LAYOUT.sum_elements)
        ]
        sums = np.array(numbers, dtype=np.int64)
        head = place.look(self.now)
        said = f"{slot}/{sequence}/{previous}/{accepted}/{weight}/{numbers}/{head.name}"
        sha256 = hashlib.sha256(said.encode()).hexdigest()
        records = accepted + self.random.randint(1, 3)
        aggregate = Aggregate(
            task="t",
            region=slot[0],
            partition=slot[1],
            sequence=sequence,
            first_offset=offset,
            next_offset=offset + records,
            version=head.number,
            policy_sha256=self.policy.sha256,
            counts={"accepted": accepted},
            accepted=accepted,
            weight_total=weight,
            staleness_total=0,
            staleness_max=0,
            update_bytes=10 * accepted,
            sum_sha256=hashlib.sha256(sums.tobytes()).hexdigest() if accepted else "",
            state_sha256="",
            contributors_sha256="",
            previous_sha256=previous,
            sha256=sha256,
        )
        self._last[slot] = (sequence + 1, sha256, offset + records)
        return Window(aggregate, head.name, sums)

    def _merge(self, place: Place) -> None:
        place.look(self.now)
        late = self.now - place.since >= DEADLINE_STEPS
        decision = decide(place.chains, self.policy, deadline_passed=late)
        if decision is None:
            return
        if decision.name not in place.facts.decisions:
            self.made_while_cut += bool(self.cut)
        place.facts.learn(decision)
        place.look(self.now)
        assert place.chains.of(decision.name) is not None, (
            "what a merger decides is a version to whoever knows the same"
        )

    # -- the network

    def _gossip(self) -> None:
        one, other = self.random.sample(REGIONS, 2)
        if frozenset((one, other)) in self.cut or self.random.random() < 0.3:
            return
        facts = self.places[one].facts.beyond(self.places[other].facts.names)
        self.random.shuffle(facts)
        for fact in facts:
            for _ in range(self.random.choice([0, 1, 1, 1, 2])):  # lost, sent, sent twice
                self._under_way.append((self.now + self.random.randint(1, 6), other, fact))

    def _deliver(self, *, everything: bool = False) -> None:
        due = [one for one in self._under_way if everything or one[0] <= self.now]
        self._under_way = [one for one in self._under_way if not everything and one[0] > self.now]
        for _, name, fact in due:
            self.places[name].facts.learn(fact)
        for place in self.places.values():
            had = place.look(self.now) if not due else None
            after = place.look(self.now)
            self.forks += had is not None and had.name not in after.path
            before = place.adopted[-2] if len(place.adopted) > 1 else GENESIS
            self.forks += before not in after.path

    def _weather(self) -> None:
        if self.cut and self.random.random() < 0.03:
            self.cut.clear()
        elif not self.cut and self.random.random() < 0.05:
            alone = self.random.choice(REGIONS)
            self.cut = {frozenset((alone, other)) for other in REGIONS if other != alone}
            self.partitions += 1


def adopted_by_all(regions: Regions) -> str:
    """The newest version that stands in every region's chain now."""
    paths = [place.chains.head().path for place in regions.places.values()]
    number = min(map(len, paths)) - 1
    while len({path[number] for path in paths}) > 1:
        number -= 1
    return paths[0][number]


def undone_after_all_had_adopted_it(seed: int, steps: int = 60) -> bool:
    """Whether a version is undone that stood in every region's chain at one moment, while facts were under way."""
    regions, adopted = Regions(seed), []
    for _ in range(4):
        regions.play(steps // 4)
        adopted.append(adopted_by_all(regions))
    return any(one not in regions.heal().path for one in adopted)


def violations(seed: int, steps: int = 60) -> tuple[list[str], Regions]:
    """What does not hold of a run that is cut and healed a few times."""
    regions, found = Regions(seed), []
    settled: list[str] = []
    for part in range(4):
        regions.play(steps // 4)
        if part == 1:
            settled += regions.calm().path
    head = regions.heal()
    places = list(regions.places.values())
    if len({place.chains.head().name for place in places}) != 1:
        found.append("regions that know the same have different heads")
    if len({place.model_of(place.chains.head()).model.tobytes() for place in places}) != 1:
        found.append("regions that have the same head have different models")
    found += [
        f"a version of the set that all knew was undone: {one[:8]}" for one in settled if one not in head.path
    ]
    facts = places[0].facts
    held = [name for decision in head.path[1:] for name in facts.decisions[decision].windows]
    if len(held) != len(set(held)):
        found.append("a window stands in the chain twice")
    missing = [name for name, one in facts.windows.items() if name not in held and one.aggregate.accepted]
    waiting = places[0].chains.waiting(head)
    counting = [one for one in waiting if places[0].chains.seen_from(head, one).version >= head.number - 6]
    if sum(one.aggregate.accepted for one in counting) or len(missing) > len(waiting):
        found.append(f"{len(missing)} windows with updates are in no version")
    total = sum(facts.windows[name].aggregate.accepted for name in held)
    if head.updates + head.dropped != total:
        found.append(f"{head.updates} updates count and {head.dropped} came too late, of {total}")
    return found, regions


def main() -> None:
    """Many seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    failed = partitions = versions = forks = 0
    for seed in range(options.first, options.first + options.seeds):
        found, regions = violations(seed)
        failed += bool(found)
        partitions += regions.partitions
        forks += regions.forks
        versions += next(iter(regions.places.values())).chains.head().number
        for one in found:
            sys.stdout.write(f"seed {seed}: {one}\n")
    sys.stdout.write(
        f"{options.seeds} seeds: {failed} failed; {partitions} partitions, {versions} versions, "
        f"{forks} heads given up\n"
    )
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
