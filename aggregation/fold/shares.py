"""How much each device has had of the last versions: a token bucket, a short memory of what was accepted, quarantine.

A device's entry is forgotten ``SHARE_VERSIONS`` versions after its last scored update: its bucket is full again by
then. So what is remembered is bounded by the devices that are active, each with a few dozen bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aggregation.defences import SCORES_REMEMBERED, SHARE_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aggregation.policy import DefencePolicy, SharesPolicy

UNTIL_MAX: Final = (1 << 63) - 1
"""The last version that there can be: a quarantine ends then at the latest."""
COUNT_BITS: Final = 4
"""Of the accepted updates of one version; no policy allows more of a device than fit."""
COUNT_MAX: Final = (1 << COUNT_BITS) - 1
_ALL_VERSIONS: Final = (1 << COUNT_BITS * SHARE_VERSIONS) - 1
_EVEN: Final = _ALL_VERSIONS // 255 * COUNT_MAX
"""Every second of the counts."""
_ALL_SCORES: Final = (1 << SCORES_REMEMBERED) - 1


@dataclass(slots=True)
class Share:
    """One device's entry, as it stood at ``version``.

    accepted: how many updates of each of the last ``SHARE_VERSIONS`` versions, ``COUNT_BITS`` bits each, the newest
    lowest. refused: which of its last scored updates were anomalous, a bit each, the newest lowest. scored: how many of
    these bits count.
    """

    version: int
    tokens: int
    accepted: int = 0
    refused: int = 0
    scored: int = 0

    @property
    def total(self) -> int:
        """Accepted updates of all remembered versions."""
        # Added in pairs to a byte each. 256 is 1 modulo 255, so that the remainder is the sum of the bytes.
        return ((self.accepted & _EVEN) + (self.accepted >> COUNT_BITS & _EVEN)) % 255


class Shares:
    """The devices that had a share of late, and those in quarantine: device id to the first version without it."""

    __slots__ = ("_by_device", "quarantined")

    def __init__(
        self, shares: Iterable[tuple[str, Share]] = (), quarantined: Iterable[tuple[str, int]] = ()
    ) -> None:
        self._by_device = dict(shares)
        self.quarantined = dict(quarantined)

    def __len__(self) -> int:
        return len(self._by_device)

    def __iter__(self) -> Iterator[tuple[str, Share]]:
        """Every entry, by device id ascending."""
        return iter(sorted(self._by_device.items()))

    def of(self, device: str, version: int, limits: SharesPolicy) -> Share:
        """A device's entry as it stands at ``version``; nothing is changed."""
        known = self._by_device.get(device)
        if known is None:
            return Share(version, limits.saved_max)
        passed = version - known.version
        tokens = min(limits.saved_max, known.tokens + limits.per_version * passed)
        accepted = known.accepted << COUNT_BITS * min(passed, SHARE_VERSIONS) & _ALL_VERSIONS
        return Share(version, tokens, accepted, known.refused, known.scored)

    def take(self, device: str, share: Share, *, accepted: bool, defence: DefencePolicy) -> None:
        """Write down one scored update of a device, of which ``share`` is the entry: a token is gone.

        Where too many of its last ones were refused, quarantine begins, and what was scored is forgotten.
        """
        share.tokens -= 1
        share.accepted += accepted and share.accepted & COUNT_MAX < COUNT_MAX
        share.refused = (share.refused << 1 | (not accepted)) & _ALL_SCORES
        share.scored = min(share.scored + 1, SCORES_REMEMBERED)
        self._by_device[device] = share
        most = defence.quarantine_refusals
        if most and share.refused.bit_count() >= most:
            self.quarantined[device] = min(UNTIL_MAX, share.version + defence.quarantine_versions)
            share.refused = share.scored = 0

    def lift(self, device: str, until: int) -> bool:
        """Whether a device is in the quarantine that lasts until version ``until``; if so, not any more.

        What was scored was forgotten when the quarantine began, and nothing is scored in it: the device begins anew.
        Its tokens and what was accepted of it stay.
        """
        if self.quarantined.get(device) != until:
            return False
        del self.quarantined[device]
        return True

    def forget_before(self, version: int) -> None:
        """The task is at ``version``: forget who was silent for long, and whose quarantine is over."""
        gone = [device for device, one in self._by_device.items() if one.version <= version - SHARE_VERSIONS]
        for device in gone:
            del self._by_device[device]
        for device in [one for one, until in self.quarantined.items() if until <= version]:
            del self.quarantined[device]
