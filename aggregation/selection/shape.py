"""The one shape of a selection: a function of what is public about a device and a version.

There is no server whose word would have to be believed: the device draws its lot, the fold draws it again, and so does
an audit. Nothing is kept a device.

Where too few come, more are asked: every ``buffer.seconds_max`` that a version is the newest is a turn, and with each
the selection widens, until it is everybody. Else a version whose few devices are away would be the task's last one.
Once there is a next version, nobody more is selected for this one.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

DRAWN_BYTES: Final = 8
DRAWN_END: Final = 1 << 8 * DRAWN_BYTES
"""Lots are whole numbers below this."""


class Candidate(NamedTuple):
    """A device, by its id, before the task's version ``version``, whose model's SHA-256 (hex) is ``model_sha256``.

    ``turns``: how many deadlines passed since that version came, and before the next one did.
    ``cohort``: the one that the device's certificate names; "" where it names none.
    """

    task: str
    device_id: str
    version: int
    model_sha256: str
    turns: int = 0
    cohort: str = ""


class SelectionParameters(Protocol):
    """What a policy says of the selection; each member reads what it needs."""

    @property
    def kind(self) -> str:
        """The member's name."""
        ...

    @property
    def share(self) -> float:
        """For ``share``: of all devices so much, above 0 to 1. For ``cohorts``: of the devices of no named cohort."""
        ...

    @property
    def cohorts(self) -> Mapping[str, float]:
        """For ``cohorts``: of the devices of each named cohort so much, 0 to 1."""
        ...

    @property
    def slots(self) -> int:
        """For ``slots``: each device's turn comes once in so many versions."""
        ...


class Selection(ABC):
    """One selection. Pure: the same arguments give the same answer everywhere."""

    name: ClassVar[str]
    selective: ClassVar[bool] = True
    """Whether it leaves anybody out."""
    asks_cohort: ClassVar[bool] = False
    """Whether it goes by what a device's certificate names."""
    foresees: ClassVar[bool] = False
    """Whether a lot is known before its version is made."""

    @abstractmethod
    def selects(self, parameters: SelectionParameters, candidate: Candidate) -> bool:
        """Whether this device may answer this version."""

    def selects_ever(self, parameters: SelectionParameters, cohort: str) -> bool:  # noqa: ARG002 (most ask nothing)
        """Whether a device of that cohort ("" for none) is selected for a version after so many turns."""
        return True

    def versions_until(self, parameters: SelectionParameters, candidate: Candidate) -> int:  # noqa: ARG002 (see above)
        """How many versions later the device's next lot is, or may be: 1 or more."""
        return 1


def turns_after(seconds: float, seconds_max: float) -> int:
    """How many deadlines of ``seconds_max`` fit into ``seconds``; 0 where that is below 0."""
    return max(0, int(seconds / seconds_max))


def drawn(prefix: bytes, *parts: str) -> int:
    """The first eight bytes, big-endian, of SHA-256(``prefix`` 0 part 0 part ...), parts in UTF-8."""
    text = b"\0".join((prefix, *(part.encode() for part in parts)))
    return int.from_bytes(hashlib.sha256(text).digest()[:DRAWN_BYTES], "big")
