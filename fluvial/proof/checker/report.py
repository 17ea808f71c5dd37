"""What a check finds, and how it is handed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

Slot = tuple[str, int]
"""A partition of the task: (region, partition)."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

VIOLATIONS_MAX: Final = 200
"""Messages that are kept; all are counted."""
BIT_FOR_BIT: Final = frozenset({2, 3, 4, 5})
"""The invariants that have to hold for the stored versions to be identical to the recomputed ones."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One update as the broker acknowledged it to its publisher.

    ``honest`` is False for one that misbehaves on purpose: what it says of itself (update id, base) is not expected to
    be true. ``update_id`` "" is not compared.
    """

    region: str
    partition: int
    offset: int
    update_id: str
    device: str
    honest: bool = True


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: which of the eight invariants, and in words where, what was expected and what came."""

    invariant: int
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome. A healthy task has no violation and zeros in ``lost``, ``double`` and ``forks``.

    ``published`` counts ClientUpdates in the updates topics (refused ones too), ``verdicts`` offsets with a verdict,
    ``versions`` the committed versions above 0, ``ignored`` records in derived topics that nobody vouches for.
    ``unseen_edges`` are edges whose own log was not at hand: what they published was not held against it.
    ``violations`` holds at most ``VIOLATIONS_MAX`` of ``violations_total``. ``identical``: every verdict, window,
    snapshot and version recomputed bit for bit, on one chain.
    """

    published: int
    acknowledged: int
    verdicts: int
    lost: int
    double: int
    forks: int
    versions: int
    identical: bool
    ignored: int
    violations: tuple[Violation, ...]
    violations_total: int
    unseen_edges: tuple[str, ...] = ()

    def to_document(self) -> dict[str, object]:
        """The report as plain values for JSON."""
        return {
            "published": self.published,
            "acknowledged": self.acknowledged,
            "verdicts": self.verdicts,
            "lost": self.lost,
            "double": self.double,
            "forks": self.forks,
            "versions": self.versions,
            "identical": self.identical,
            "ignored": self.ignored,
            "unseen_edges": list(self.unseen_edges),
            "violations_total": self.violations_total,
            "violations": [{"invariant": one.invariant, "message": one.message} for one in self.violations],
        }


@dataclass(slots=True)
class Findings:
    """What has been found so far; every check adds to it."""

    published: int = 0
    acknowledged: int = 0
    verdicts: int = 0
    lost: int = 0
    double: int = 0
    forks: int = 0
    versions: int = 0
    ignored: int = 0
    violations: list[Violation] = field(default_factory=list)
    violations_total: int = 0
    unseen_edges: list[str] = field(default_factory=list)
    _exact: bool = True

    def violate(self, invariant: int, message: str) -> None:
        """Take down one violation."""
        self.violations_total += 1
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(Violation(invariant, message))
        if invariant in BIT_FOR_BIT:
            self._exact = False

    def compare(
        self, invariant: int, what: str, expected: Mapping[str, object], got: Mapping[str, object]
    ) -> bool:
        """One violation for every field of ``expected`` that ``got`` has otherwise; whether there was none."""
        same = True
        for name, value in expected.items():
            other = got.get(name)
            both_nan = value != value and other != other  # noqa: PLR0124 (NaN is what differs from itself)
            if value != other and not both_nan:
                same = False
                self.violate(invariant, f"{what}: {name} is {_short(other)}, expected {_short(value)}")
        return same

    def report(self) -> CheckReport:
        """The report of everything found."""
        return CheckReport(
            published=self.published,
            acknowledged=self.acknowledged,
            verdicts=self.verdicts,
            lost=self.lost,
            double=self.double,
            forks=self.forks,
            versions=self.versions,
            identical=self._exact,
            ignored=self.ignored,
            violations=tuple(self.violations),
            violations_total=self.violations_total,
            unseen_edges=tuple(sorted(set(self.unseen_edges))),
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."  # noqa: PLR2004 (a line of text)
