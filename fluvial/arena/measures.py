"""What a play comes to: the numbers of one cell of the table."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from fluvial.arena.play import MEASURED
from fluvial.arena.versions import ACCEPTED, SHARE_MIN, WEIGHTLESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluvial.arena.attacks.shape import Sent
    from fluvial.arena.play import Played

UPDATES_MIN: Final = 5
"""The worst device is sought among those with so many updates."""


class Measures(msgspec.Struct, frozen=True):
    """One play's numbers, or the means of several's.

    accuracy: mean of the last five versions, in [0, 1]. spread: the best seed's less the worst one's. success:
    of the backdoor, None where there is none.
    refused: share of the honest updates by reason; ``weightless`` are accepted ones of which less than a twentieth is
    left beside their staleness. worst_device: the largest share refused of one honest device. malicious_weight: their
    share of all weight in the model. cpu_us: of the defence, an update. versions: how many were made.
    """

    accuracy: float
    spread: float
    success: float | None
    refused: dict[str, float]
    worst_device: float
    malicious_weight: float
    cpu_us: float
    state_bytes: float
    versions: float

    @property
    def honest_refused(self) -> float:
        """The share of the honest updates that is refused for any reason."""
        return sum(self.refused.values())


def outcome_of(sent: Sent) -> str:
    """What the table calls what became of an update."""
    return WEIGHTLESS if sent.outcome == ACCEPTED and sent.share < SHARE_MIN else sent.outcome


def measured(played: Played) -> Measures:
    """The numbers of a play."""
    honest = [one for one in played.sent if not one.malicious]
    outcomes = Counter(outcome_of(one) for one in honest)
    refused = {reason: n / len(honest) for reason, n in sorted(outcomes.items()) if reason != ACCEPTED}
    by_device: dict[str, list[bool]] = defaultdict(list)
    for one in honest:
        by_device[one.device].append(outcome_of(one) != ACCEPTED)
    weight = sum(one.weight for one in played.sent)
    bad = sum(one.weight for one in played.sent if one.malicious)
    last = played.accuracies[-MEASURED:]
    successes = [one for one in played.successes[-MEASURED:] if math.isfinite(one)]
    return Measures(
        accuracy=float(np.mean(last)),
        spread=0.0,
        success=float(np.mean(successes)) if successes else None,
        refused=refused,
        worst_device=max(
            (float(np.mean(one)) for one in by_device.values() if len(one) >= UPDATES_MIN), default=0.0
        ),
        malicious_weight=bad / weight if weight else 0.0,
        cpu_us=1e6 * _cpu_s(played),
        state_bytes=float(played.state_bytes),
        versions=float(played.versions),
    )


def _cpu_s(played: Played) -> float:
    """Seconds an update, by medians: what is compiled in the first one is not the defence's."""
    offers = float(np.median(played.offers_s)) if played.offers_s else 0.0
    steps = float(np.median(played.steps_s)) if played.steps_s else 0.0
    return offers + steps * len(played.steps_s) / max(1, len(played.sent))


def mean_of(several: Sequence[Measures]) -> Measures:
    """Their means, number by number."""
    reasons = sorted({reason for one in several for reason in one.refused})
    successes = [one.success for one in several if one.success is not None]
    return Measures(
        accuracy=float(np.mean([one.accuracy for one in several])),
        spread=max(one.accuracy for one in several) - min(one.accuracy for one in several),
        success=float(np.mean(successes)) if successes else None,
        refused={r: float(np.mean([one.refused.get(r, 0.0) for one in several])) for r in reasons},
        worst_device=float(np.mean([one.worst_device for one in several])),
        malicious_weight=float(np.mean([one.malicious_weight for one in several])),
        cpu_us=float(np.mean([one.cpu_us for one in several])),
        state_bytes=float(np.mean([one.state_bytes for one in several])),
        versions=float(np.mean([one.versions for one in several])),
    )
