"""``share``: a random share of all devices, drawn anew with each version (McMahan et al. 2017, algorithm 1).

What is drawn with is the version's model, which nobody knows before it is made: so devices cannot be made beforehand
for a version's lot. (Whoever knows all other updates of a version, and sends the last, may try variants of its own, and
so choose among models and among lots.) The server of the paper draws a fixed number; here each device is drawn by
itself, so the number varies.
"""

from __future__ import annotations

from typing import ClassVar, Final

from aggregation.selection.shape import DRAWN_END, Candidate, Selection, SelectionParameters, drawn

DOUBLINGS_MAX: Final = 64
_PREFIX: Final = b"fluvial/lot/v1"


class Share(Selection):
    """Lot("fluvial/lot/v1", model's hash, device id) < min(1, share · 2^turns) · 2^64: each turn doubles the share."""

    name: ClassVar[str] = "share"

    def selects(self, parameters: SelectionParameters, candidate: Candidate) -> bool:
        """See ``Selection``."""
        return is_drawn(parameters.share, candidate)


def is_drawn(share: float, candidate: Candidate) -> bool:
    """Whether a device is in its version's lot, where a share (0 to 1) of devices like it is, by turns more."""
    widened = share * float(1 << min(candidate.turns, DOUBLINGS_MAX))
    end = int(min(1.0, widened) * DRAWN_END)  # both products are with powers of two, so they are exact
    return drawn(_PREFIX, candidate.model_sha256, candidate.device_id) < end
