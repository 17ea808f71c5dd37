"""An operator who lifts quarantines: of devices that are in one, of others, and now and then in the wrong place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aggregation.fold.rejections import RejectionReason
from aggregation.partitioning import partition_of
from schemas.topics import updates_topic, verdicts_topic
from schemas.verdicts import decode_verdict
from tests import factories
from tests.simulation.memory_log import seeded
from tests.simulation.scenario import TASK

if TYPE_CHECKING:
    from tests.simulation.federation import Federation

LOOK_EVERY_S: Final = 1.3
STRANGER: Final = "nobody-knows-it"
SUSPECTED: Final = frozenset({RejectionReason.ANOMALOUS.outcome, RejectionReason.QUARANTINED.outcome})


class Pardoner:
    """Goes by what the verdicts say of devices, whether or not they are in quarantine by now; ends when faults do."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._rng = seeded(federation.seed, "operator")
        self._signer = factories.operator_signer().of_task(federation.genesis.domain)

    def look_on(self) -> None:
        """Look from time to time, from now on."""
        self._federation.loop.later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        if self._federation.healthy:
            return
        region = self._rng.choice(sorted(self._federation.genesis.partitions))
        suspected = self._suspected(region)
        device = self._rng.choice(suspected) if suspected and self._rng.random() < 0.9 else STRANGER
        self._pardon(region, device)
        self.look_on()

    def _suspected(self, region: str) -> list[str]:
        topic, count = verdicts_topic(TASK, region), self._federation.genesis.partitions[region]
        records = [
            record for number in range(count) for record in self._federation.log.records[topic, number]
        ]
        verdicts = [decode_verdict(record.value or b"") for record in records]
        return sorted({one.device_id for one in verdicts if one.outcome in SUSPECTED and one.device_id})

    def _pardon(self, region: str, device: str) -> None:
        run, count = self._federation, self._federation.genesis.partitions[region]
        said = self._rng.choice(sorted(run.genesis.partitions)) if self._rng.random() < 0.2 else region
        fields = {"task": TASK, "region": said, "device_id": device, "reason": "its data is mended"}
        place = updates_topic(TASK, region), partition_of(device, count)
        run.trace("operator: pardons", device, "of", said, "in", place)
        run.log.append(place, device.encode(), self._signer.sign("Pardon", fields))
