"""The live versions of a defence, and the words for what became of an update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.fold.rejections import ACCEPTED, RejectionReason

if TYPE_CHECKING:
    from fluvial.arena.perceptron import Floats

TOO_STALE: Final = RejectionReason.TOO_STALE.outcome
DUPLICATE: Final = RejectionReason.DUPLICATE.outcome
WEIGHTLESS: Final = "weightless"
"""What the table says of an accepted update that hardly counts."""
SHARE_MIN: Final = 0.05
"""An accepted update of which less than this is left, beside its staleness, counts as refused in every table."""

__all__ = ["ACCEPTED", "DUPLICATE", "SHARE_MIN", "TOO_STALE", "WEIGHTLESS", "Versions"]


class Versions:
    """Models by version, the live ones only."""

    def __init__(self, first: Floats, versions_max: int) -> None:
        self.version = 0
        self._versions_max = versions_max
        self._models = {0: first}

    @property
    def oldest_base(self) -> int:
        """The oldest version that an update may name."""
        return max(0, self.version - self._versions_max)

    def model(self, version: int) -> Floats:
        """A live version's parameters, float32[P]; the oldest live one's where it is older."""
        return self._models[max(version, min(self._models))]

    def add(self, model: Floats) -> None:
        """The next version."""
        self.version += 1
        self._models[self.version] = model
        for version in [one for one in self._models if one < self.version - self._versions_max - 1]:
            del self._models[version]
