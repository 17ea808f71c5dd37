"""Regions without a centre: every region's merger derives the same versions from the same set of facts. Pure.

A fact is a window that some region's worker closed, or a decision of some region's merger: which windows make a version
after which other one. Facts are signed, are never changed, and are never taken back, so what a region knows is a set
that only grows, and two regions that gossip have the union of theirs, in whatever order it came.

::

    head_of(facts)      which decision is the newest version: the one whose chain holds the most accepted updates
    decide(facts)       what the next version would be, of all that the head's chain does not hold yet
    derive_version      its arrays: by the one merge, as a central merger would

A decision's name is the hash of what it says, not of who says it: regions that know the same decide the same, and it is
one decision. Regions that are cut off from each other decide apart. When they meet, the heavier chain stays as it is;
the windows of the other one are in nobody's chain then, and come into the next versions as late ones, by how many
versions they are behind the version where the two parted (ADR 42). No window is lost, and none counts twice.

This stands in the simulation alone (ADR 58): the product's merges have one chain by one conditional PUT.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from aggregation.server.lateness import MergedWindows, lateness_under
from aggregation.server.merge import choose
from aggregation.server.rates import server_at
from aggregation.server.totals import WindowSums
from stream_apps.merger.deriving import derive

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from aggregation.layout import Layout
    from aggregation.policy import Policy
    from aggregation.server.aggregates import Aggregate, Slot
    from aggregation.server.merge import Checkpoint
    from stream_apps.merger.deriving import Derived

GENESIS: Final = ""
"""The name of version 0."""


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window. ``under``: the name of the version that its partition was at when it was folded.

    ``sums``: int64[``layout.sum_elements``], its exact sums, as its ``sum_sha256`` names them.
    """

    aggregate: Aggregate
    under: str
    sums: npt.NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The hash of its record."""
        return self.aggregate.sha256


@dataclass(frozen=True)
class Decision:
    """Version ``number``, after the decision ``parent``, is made of the windows of these names, in this order."""

    number: int
    parent: str
    windows: tuple[str, ...]

    @cached_property
    def name(self) -> str:
        """SHA-256 (hex) of what it says."""
        said = json.dumps([self.number, self.parent, self.windows], separators=(",", ":"))
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass
class Facts:
    """What a region knows. It only grows: ``learn`` is a union, the same in any order and any number of times."""

    windows: dict[str, Window] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)

    def learn(self, *facts: Window | Decision) -> None:
        """Add them."""
        for fact in facts:
            if isinstance(fact, Window):
                self.windows.setdefault(fact.name, fact)
            else:
                self.decisions.setdefault(fact.name, fact)

    def beyond(self, known: set[str]) -> list[Window | Decision]:
        """The facts whose names are not ``known``: what is to be sent to who knows these."""
        facts: list[Window | Decision] = [*self.windows.values(), *self.decisions.values()]
        return [fact for fact in facts if fact.name not in known]

    @property
    def names(self) -> set[str]:
        """The names of all facts: what a region says of itself when it asks for the rest."""
        return {*self.windows, *self.decisions}


@dataclass(frozen=True)
class Chain:
    """A version by its decision, with what its chain holds. ``updates``: accepted ones that count, of the whole chain.

    ``path``: the names of version 0 to this one. ``cursors``: the next sequence of each partition, ``last`` the hash of
    the window before it. ``merged``: the windows of this version as they count, ``dropped`` the updates that came too
    late in the whole chain.
    """

    decision: Decision | None
    path: tuple[str, ...]
    cursors: Mapping[Slot, int]
    last: Mapping[Slot, str]
    merged: MergedWindows
    updates: int = 0
    dropped: int = 0

    @property
    def name(self) -> str:
        """The decision's; ``GENESIS`` for version 0."""
        return self.path[-1]

    @property
    def number(self) -> int:
        """The version's."""
        return len(self.path) - 1

    @property
    def rank(self) -> tuple[int, str]:
        """The greater one is the head: more accepted updates, else the greater name."""
        return self.updates, self.name


class Chains:
    """The chains of one set of facts under one policy. What it remembers follows from the facts: it is no state."""

    def __init__(self, facts: Facts, policy: Policy, slots: tuple[Slot, ...]) -> None:
        self._facts = facts
        self._policy = policy
        nothing = MergedWindows((), ())
        first = Chain(None, (GENESIS,), dict.fromkeys(slots, 0), dict.fromkeys(slots, ""), nothing)
        self._known: dict[str, Chain] = {GENESIS: first}
        self._waiting: set[str] = set()
        self._seen = 0

    def of(self, name: str) -> Chain | None:
        """The chain that ends with a decision; None while facts of it are missing, or it says what cannot be."""
        self._look()
        return self._known.get(name)

    def head(self) -> Chain:
        """The newest version: the chain that holds the most accepted updates."""
        self._look()
        return max(self._known.values(), key=lambda chain: chain.rank)

    def _look(self) -> None:
        """Take in what has come. A decision whose parent or windows are missing waits for them."""
        facts = self._facts
        if (size := len(facts.windows) + len(facts.decisions)) == self._seen:
            return
        self._seen = size
        self._waiting |= facts.decisions.keys() - self._known.keys()
        while True:
            whole = [
                decision
                for name in sorted(self._waiting)
                if (decision := facts.decisions[name]).parent in self._known
                and all(map(self._is_whole, decision.windows))
            ]
            for decision in whole:
                self._waiting.discard(decision.name)
                chain = self._after(self._known[decision.parent], decision)
                if chain is not None:
                    self._known[decision.name] = chain
            if not whole:
                return

    def _after(self, parent: Chain, decision: Decision) -> Chain | None:
        """The parent's chain and one version more; None where no merger may decide so."""
        cursors, last = dict(parent.cursors), dict(parent.last)
        taken = []
        for name in decision.windows:
            window = self._facts.windows[name]
            aggregate = window.aggregate
            slot = aggregate.slot
            if (aggregate.sequence, aggregate.previous_sha256) != (cursors.get(slot), last.get(slot)):
                return None
            cursors[slot], last[slot] = aggregate.sequence + 1, name
            taken.append(self.seen_from(parent, window))
        merged = MergedWindows.of(taken, lateness_under(self._policy, parent.number))
        if decision.number != parent.number + 1 or not merged.accepted:
            return None
        if merged.accepted > self._policy.updates_per_version_max and len(taken) > 1:
            return None
        return Chain(
            decision,
            (*parent.path, decision.name),
            cursors,
            last,
            merged,
            parent.updates + merged.accepted,
            parent.dropped + merged.dropped,
        )

    def _is_whole(self, name: str) -> bool:
        """Whether a window is here with the chain that it was folded under: by that it is known how late it is."""
        window = self._facts.windows.get(name)
        return window is not None and window.under in self._known

    def seen_from(self, chain: Chain, window: Window) -> Aggregate:
        """A window's record as ``chain`` counts it: folded under the last version that both have.

        What a window says itself is the number of a version of its own branch. It has to be whole.
        """
        return replace(window.aggregate, version=_common(chain, self._known[window.under]))

    def waiting(self, chain: Chain) -> list[Window]:
        """The windows that ``chain`` does not hold and could, in the order in which they are taken.

        By the version that they were folded under, then region, partition and sequence. Those of one partition follow
        each other, so none stands before its predecessor.
        """
        found: list[tuple[tuple[int, str, int, int], Window]] = []
        following: dict[tuple[Slot, int, str], Window] = {}
        for window in sorted(self._facts.windows.values(), key=lambda one: one.name, reverse=True):
            one = window.aggregate
            if self._is_whole(window.name):  # of two that differ, the one of the lesser name
                following[one.slot, one.sequence, one.previous_sha256] = window
        for slot, cursor in chain.cursors.items():
            at, before, version = cursor, chain.last[slot], 0
            while (after := following.get((slot, at, before))) is not None:
                version = max(version, self.seen_from(chain, after).version)
                found.append(((version, *slot, at), after))
                at, before = at + 1, after.name
        return [window for _, window in sorted(found, key=lambda one: one[0])]


def _common(one: Chain, other: Chain) -> int:
    """The number of the last version that two chains have in common."""
    number = min(one.number, other.number)
    while one.path[number] != other.path[number]:
        number -= 1
    return number


def decide(chains: Chains, policy: Policy, *, deadline_passed: bool) -> Decision | None:
    """What a merger decides that knows this: the version after the head, or None while none is due.

    By the product's ``choose``, with lateness. Only ``deadline_passed`` is of a clock: whoever waits longer may decide
    of fewer windows, and says so to all.
    """
    head = chains.head()
    waiting = chains.waiting(head)
    records = [chains.seen_from(head, window) for window in waiting]
    chosen = choose(
        records,
        policy,
        deadline_passed=deadline_passed,
        lateness=lateness_under(policy, head.number),
    )
    if not chosen:
        return None
    return Decision(head.number + 1, head.name, tuple(one.sha256 for one in chosen))


def derive_version(chain: Chain, parent: Checkpoint, facts: Facts, policy: Policy, layout: Layout) -> Derived:
    """The arrays of a version of ``chain`` from those of its ``parent``, as a central merger derives them."""
    merged = chain.merged
    return derive(
        parent,
        [
            WindowSums.of(facts.windows[one.sha256].sums, one, weight)
            for one, weight in merged.pairs
            if weight and one.sum_sha256
        ],
        updates=merged.accepted,
        weight_total=merged.weight_total,
        policy=policy,
        server=server_at(policy, chain.number, merged.delay),
        layout=layout,
    )
