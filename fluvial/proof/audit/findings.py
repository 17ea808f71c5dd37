"""What an audit finds: differences that say what, where, which field, expected and got. All counted, some listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from aggregation.errors import FluvialError

FINDINGS_SHOWN_MAX: Final = 100
"""How many differences an audit lists; the rest are only counted."""

_HASH_CHARACTERS: Final = 64
_HASH_SHOWN: Final = 16
_VALUE_CHARACTERS_MAX: Final = 200

OBJECT: Final = "FLV-5002"
MANIFEST: Final = "FLV-5003"
AGGREGATE: Final = "FLV-5004"
SIGNED_NAME: Final = "FLV-5005"
LOG: Final = "FLV-5006"
GENESIS: Final = "FLV-5007"
SKIPS: Final = "FLV-5013"
BEYOND_LOG: Final = "FLV-5020"
UNJUDGED: Final = "FLV-5021"
OTHER_VERDICT: Final = "FLV-5022"
VOUCHED: Final = "FLV-5023"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: ``where`` is an object key or ``topic[partition]@offset``, ``expected`` what was recomputed."""

    error_id: str
    what: str
    where: str
    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.what}: {self.field} expected {_short(self.expected)}, got {_short(self.got)}   at {self.where}"

    def document(self) -> dict[str, str]:
        """For JSON."""
        return {
            "id": self.error_id,
            "what": self.what,
            "where": self.where,
            "field": self.field,
            "expected": self.expected,
            "got": self.got,
        }


@dataclass(slots=True)
class Findings:
    """Differences in the order in which they were found: ``total`` of them, the first ones in ``shown``."""

    shown: list[Difference] = field(default_factory=list)
    total: int = 0

    def add(
        self, error_id: str, what: str, where: str, field_name: str, *, expected: object, got: object
    ) -> None:
        """Record one difference."""
        self.total += 1
        if len(self.shown) < FINDINGS_SHOWN_MAX:
            self.shown.append(Difference(error_id, what, where, field_name, _text(expected), _text(got)))

    def compare(
        self, error_id: str, what: str, where: str, fields: Iterable[tuple[str, object, object]]
    ) -> bool:
        """Record every (name, expected, got) that differs; True when none does."""
        same = True
        for name, expected, got in fields:
            if expected != got:
                same = False
                self.add(error_id, what, where, name, expected=expected, got=got)
        return same

    def unreadable(self, error_id: str, what: str, where: str, error: FluvialError) -> None:
        """Record something that could not be read or derived, with the reason."""
        self.add(
            error_id,
            what,
            where,
            "content",
            expected="readable and whole",
            got=f"{error.error_id}: {error.message}",
        )

    def extend(self, other: Findings) -> None:
        """Take over another part's findings."""
        self.total += other.total
        self.shown.extend(other.shown[: FINDINGS_SHOWN_MAX - len(self.shown)])

    def __iter__(self) -> Iterator[Difference]:
        return iter(self.shown)


def first_difference(expected: bytes, got: bytes) -> str:
    """Where two byte strings part, in words."""
    if len(expected) != len(got):
        return f"{len(got)} bytes, expected {len(expected)}"
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a != b), len(expected))
    return f"first differs at byte {at}"


def fields_of(expected: object, got: object, names: Iterable[str]) -> list[tuple[str, object, object]]:
    """The fields ``names`` of two like objects, for ``Findings.compare``."""
    return [(name, getattr(expected, name), getattr(got, name)) for name in names]


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _short(value: str) -> str:
    head, _, rest = value.partition(" ")
    if len(head) == _HASH_CHARACTERS and all(c in "0123456789abcdef" for c in head):
        return f"{head[:_HASH_SHOWN]}…" + (f" {rest}" if rest else "")
    if not value:
        return "nothing"
    return value if len(value) <= _VALUE_CHARACTERS_MAX else value[:_VALUE_CHARACTERS_MAX] + "…"
