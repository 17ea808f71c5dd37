"""The one shape of a defence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from aggregation.weights.fixed_point import WEIGHT_ONE

if TYPE_CHECKING:
    from aggregation.defences.norms import NormHistory
    from aggregation.defences.usual import Usual
    from aggregation.reasons import Because


class DefenceParameters(Protocol):
    """What a policy says beside the kind; each member reads what it needs."""

    @property
    def norm_clip_medians(self) -> float:
        """So many times the usual norm an update is clipped to."""
        ...

    @property
    def norm_clip_floor(self) -> float:
        """How far clipping to the usual norm goes down at least: a share of the policy's ``norm_clip``."""
        ...

    @property
    def norm_deviations_max(self) -> float:
        """For ``peers``."""
        ...

    @property
    def cosine_min(self) -> float:
        """For ``peers``: the least cosine with the last step."""
        ...

    @property
    def history_updates(self) -> int:
        """For ``peers``."""
        ...

    @property
    def history_updates_min(self) -> int:
        """For ``peers``."""
        ...

    @property
    def guide_cosine_min(self) -> float:
        """For ``guide``: the least cosine with the guide."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What a defence is shown of an update: its L2 norm before clipping, its cosine, its device's share.

    ``cosine`` is with the direction that the member compares with; 0.0 where there is none. ``compared`` says whether
    there was one. ``share``: how many updates of its device were accepted in the last ``SHARE_VERSIONS`` versions,
    this one included. ``norm_clip`` is the policy's.
    """

    norm: float
    cosine: float
    compared: bool
    share: int = 1
    norm_clip: float = 1.0


@dataclass(frozen=True, slots=True)
class Judged:
    """What a defence says: ``problem`` is None for an update that counts.

    ``clip_to`` is the norm that it is clipped to, None for the policy's alone; ``factor``, in units of 1/65536, what
    of its weight is left.
    """

    problem: Because | None = None
    norm_deviations: float = 0.0
    clip_to: float | None = None
    factor: int = WEIGHT_ONE


COUNTS: Final = Judged()
"""It counts as it is."""


class Defence(ABC):
    """One defence. Pure: the same arguments give the same verdict everywhere."""

    name: ClassVar[str]
    guided: ClassVar[bool] = False
    """Whether cosines are with the guide, not with the last step."""
    remembers_norms: ClassVar[bool] = False
    """Whether partitions keep a history of norms for it."""

    @abstractmethod
    def judge(self, parameters: DefenceParameters, seen: Seen, usual: Usual, history: NormHistory) -> Judged:
        """Judge one update of a norm that the policy allows."""
