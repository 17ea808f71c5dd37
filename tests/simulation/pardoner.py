"""An operator who lifts quarantines: those that stand, earlier ones, others, and now and then in the wrong place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.partitioning import partition_of
from aggregation.reasons import Reason
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.simulation.memory_log import seeded
from tests.simulation.scenario import TASK

if TYPE_CHECKING:
    from tests.simulation.federation import Federation

LOOK_EVERY_S: Final = 0.4
AGAIN: Final = 0.1
"""The share of those that were pardoned before, at each look."""
STRANGER: Final = ("nobody-knows-it", 9)


class Pardoner:
    """Goes by the quarantines that verdicts name: once each, and while faults strike now and then again."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._rng = seeded(federation.seed, "operator")
        self._named: set[tuple[str, str, int]] = set()
        self._signer = factories.operator_signer().of_task(federation.genesis.domain)

    def look_on(self) -> None:
        """Look from time to time, from now on."""
        self._federation.loop.later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        for region in self._federation.genesis.partitions:
            for device, until in [*self._held(region), STRANGER]:
                quarantine = region, device, until
                again = self._rng.random() < AGAIN and not self._federation.healthy
                if again or quarantine not in self._named:
                    self._named.add(quarantine)
                    self._pardon(*quarantine)
        self.look_on()

    def _held(self, region: str) -> list[tuple[str, int]]:
        """The quarantines that verdicts name, over or not: device, and until which version."""
        topic, count = verdicts_topic(TASK, region), self._federation.genesis.partitions[region]
        records = [
            record for number in range(count) for record in self._federation.log.records[topic, number]
        ]
        reasons = [decode_verdict(record.value or b"").because for record in records]
        held = [one.named for one in reasons if one.reason is Reason.QUARANTINED]
        return sorted({(str(one["device_id"]), int(one["until"])) for one in held})

    def _pardon(self, region: str, device: str, until: int) -> None:
        run, count = self._federation, self._federation.genesis.partitions[region]
        said = self._rng.choice(sorted(run.genesis.partitions)) if self._rng.random() < 0.2 else region
        fields = {"task": TASK, "region": said, "device_id": device, "until": until, "reason": "mended"}
        place = updates_topic(TASK, region), partition_of(device, count)
        run.trace("operator: pardons", device, "of", said, "in", place)
        run.log.append(place, device.encode(), self._signer.sign("Pardon", fields))
