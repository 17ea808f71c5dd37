"""Rounds that failed: one device's ``train()`` raised, gave NaN, or made something that cannot be published.

Such a round is that device's outcome and nobody else's: it is counted, its device sits the round out and tries again
at a later version. A kind of failure is an error's id and the line that it came from; the first of a kind is told with
that line, the others are counted. Only when every device has failed ``ROUNDS_FAILED_MAX`` times in a row is there
nothing to go on with.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from aggregation.errors import FluvialError, UsageProblem

if TYPE_CHECKING:
    from producers.fleet.population import Member

ROUNDS_FAILED_MAX: Final = 3
"""Failed rounds in a row, of every device, after which there is nothing to go on with."""
RETRY_S: Final = 10.0
"""A device that failed tries the same version again after so long without a newer one: what failed may be mended."""
ALL_FAILED_RETRY_S: Final = 1.0
"""The same, where every device's last round failed: no newer version can come."""
KINDS_MAX: Final = 32
DEVICES_SHOWN_MAX: Final = 3
TEXT_CHARACTERS_MAX: Final = 600
_NUMBER: Final = re.compile(r"\d+(\.\d+)?")


class FailedRound(msgspec.Struct, frozen=True):
    """One failed round, as it stands in a journal. ``time``: seconds since 1970 UTC by the fleet's clock."""

    time: float
    device: str
    region: str
    base_version: int
    error_id: str
    message: str
    where: str
    hint: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """What makes two failures the same: numbers in the message are no difference."""
        return self.error_id, self.where, _NUMBER.sub("#", self.message)

    def told(self) -> str:
        """It in words, for the first of a kind."""
        out = f"device {self.device} sits version {self.base_version} out, its round failed"
        lines = [f"{out}: {self.message} ({self.error_id})"]
        lines += [f"  {self.where}"] if self.where else []
        lines += [f"  hint: {self.hint}"] if self.hint else []
        lines.append("  it tries again at a later version; more of this kind are counted, not told")
        return "\n".join(lines)


def failed_round(*, device: str, region: str, base_version: int, error: BaseException) -> FailedRound:
    """The failure of a device's round on a base version, by ``error``."""
    known = isinstance(error, FluvialError)
    message = error.message if isinstance(error, FluvialError) else f"{type(error).__name__}: {error}"
    return FailedRound(
        time=time.time(),
        device=device,
        region=region,
        base_version=base_version,
        error_id=error.error_id if isinstance(error, FluvialError) else "FLV-9000",
        message=message[:TEXT_CHARACTERS_MAX],
        where=error.where[:TEXT_CHARACTERS_MAX] if known else "",  # type: ignore[attr-defined]
        hint=error.hint[:TEXT_CHARACTERS_MAX] if known else "",  # type: ignore[attr-defined]
    )


@dataclass(slots=True)
class Cause:
    """All failures of one kind: the first of them, how many, and whose."""

    first: FailedRound
    rounds: int = 0
    devices: set[str] = field(default_factory=set)

    def line(self) -> str:
        """``5 rounds of d-0003: train() reports the loss nan (FLV-2208)``."""
        named = sorted(self.devices)
        more = f" and {len(named) - DEVICES_SHOWN_MAX} more" if len(named) > DEVICES_SHOWN_MAX else ""
        whose = ", ".join(named[:DEVICES_SHOWN_MAX]) + more
        rounds = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        return f"{rounds} of {whose}: {self.first.message} ({self.first.error_id})"

    def document(self) -> dict[str, object]:
        """It as JSON wants it."""
        return {
            "error_id": self.first.error_id,
            "message": self.first.message,
            "where": self.first.where,
            "rounds": self.rounds,
            "devices": sorted(self.devices),
            "first_version": self.first.base_version,
        }


class FailedRounds:
    """The failed rounds of a fleet, by kind."""

    def __init__(self) -> None:
        self.total = 0
        self.by_kind: dict[tuple[str, str, str], Cause] = {}
        self.newest: FailedRound | None = None

    def add(self, failed: FailedRound) -> bool:
        """Count one; whether it is the first of its kind. Beyond ``KINDS_MAX`` kinds all are one."""
        kind = failed.kind
        is_new = kind not in self.by_kind
        if is_new and len(self.by_kind) >= KINDS_MAX:
            kind, is_new = next(reversed(self.by_kind)), False
        cause = self.by_kind.setdefault(kind, Cause(failed))
        cause.rounds += 1
        cause.devices.add(failed.device)
        self.total += 1
        self.newest = failed
        return is_new

    @property
    def devices(self) -> list[str]:
        """Every device that had one, sorted."""
        return sorted(set[str]().union(*(cause.devices for cause in self.by_kind.values())))

    @property
    def causes(self) -> list[Cause]:
        """The kinds, the most frequent first."""
        return sorted(self.by_kind.values(), key=lambda cause: -cause.rounds)

    def document(self) -> dict[str, object]:
        """They as JSON wants it."""
        return {
            "rounds": self.total,
            "devices": self.devices,
            "causes": [cause.document() for cause in self.causes],
        }


def all_failing(members: Sequence[Member]) -> bool:
    """Whether the last round of every device failed."""
    return all(member.failures for member in members)


def hopeless(members: Sequence[Member]) -> bool:
    """Whether every device has failed again and again."""
    return all(member.failures >= ROUNDS_FAILED_MAX for member in members)


def no_round_succeeds(failed: FailedRounds, devices: int, rounds: int = ROUNDS_FAILED_MAX) -> UsageProblem:
    """UsageProblem FLV-6310: every one of ``devices`` failed so many ``rounds`` in a row; with the chief cause."""
    first = failed.causes[0].first
    whose = "the device fails" if devices == 1 else f"all {devices} devices fail"
    others = len(failed.by_kind) - 1
    more = f"; {others} other kinds of failure" if others else ""
    in_a_row = "its only round" if rounds == 1 else f"{rounds} rounds in a row"
    return UsageProblem(
        "FLV-6310",
        f"{whose} {in_a_row}: {first.message} ({first.error_id}{more})",
        where=first.where,
        hint=first.hint or "`fluvial run FILE --simulate` shows the same in seconds",
    )
