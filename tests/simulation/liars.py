"""Who holds what should be secret: a worker's key, or one that may write the store."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from aggregation.errors import IntegrityProblem
from schemas import avro
from schemas.avro import CodecError
from schemas.envelope import open_envelope
from schemas.manifests import Manifest, decode_manifest
from schemas.objects import manifest_key, model_key, sha256_hex
from schemas.topics import aggregates_topic
from tests import factories
from tests.simulation.keys import remembering
from tests.simulation.memory_log import MemoryLog, Place
from tests.simulation.memory_store import MemoryObjects

if TYPE_CHECKING:
    from schemas.manifests import Genesis

EVIL = "e" * 64
LIES: tuple[dict[str, Any], ...] = (
    {"contributors_sha256": EVIL},
    {"state_sha256": EVIL},
    {"sum_sha256": EVIL, "counts": {"accepted": 1}, "accepted": 1},
    {"weight_total": 1 << 60},
    {"counts": {"accepted": 10_000}, "accepted": 10_000},
    {"previous_sha256": EVIL},
    {"update_bytes": 1 << 62},
    {"sequence": 5000},
)


@dataclass
class Liar:
    """Signs other windows than those that stand there, with a stolen worker's key. ``told`` is where they stand.

    The honest window comes first. A lie that is alone may be merged, as docs/adr/0037 says: no schedule could be clean.
    """

    log: MemoryLog
    genesis: Genesis
    rng: random.Random
    told: set[tuple[Place, int]] = field(default_factory=set)

    def act(self) -> str:
        """One lie; what it was about."""
        region, partition = self.rng.choice(self.genesis.slots)
        place = (aggregates_topic(self.genesis.task, region), partition)
        honest = [one for one in self.log.records[place][-6:] if (place, one.offset) not in self.told]
        try:
            record = open_envelope(self.rng.choice(honest).value or b"").record if honest else {}
        except CodecError:
            record = {}
        if record.get("region") != region or record.get("partition") != partition:
            return "nothing to lie about"
        changed = self.rng.choice(LIES)
        payload = avro.encode("RegionalAggregate", record | changed)
        signer = factories.worker_signer(self.rng.choice(("thief", f"worker-{region}-0")), region)
        signing = remembering(signer.of_task(self.genesis.domain))
        value = signing.sign_payload("RegionalAggregate", payload)
        self.told.add((place, len(self.log.records[place])))
        self.log.append(place, None, value)
        return f"{place} {record['sequence']} {sorted(changed)}"


@dataclass
class Planter:
    """Puts a manifest under the next version's name, and a model beside it; an operator takes them away again."""

    objects: MemoryObjects
    task: str
    rng: random.Random

    def act(self, head: int) -> str:
        """Plant the version after ``head``; what it was."""
        key = manifest_key(self.task, head + 1)
        try:
            manifest = decode_manifest(self.objects.objects[manifest_key(self.task, head)]) if head else None
        except IntegrityProblem:
            manifest = None
        if manifest is None or key in self.objects.objects:
            return "nothing to plant on"
        self.objects.objects[key] = data = self._planted(manifest).canonical()
        self.objects.objects[model_key(self.task, head + 1)] = b"evil"
        return f"{head + 1} {sha256_hex(data)[:8]}"

    def _planted(self, parent: Manifest) -> Manifest:
        """Of no windows, of its parent's windows again, or of another model; each names its parent as it should."""
        following = {
            "version": parent.version + 1,
            "parent_sha256": sha256_hex(parent.canonical()),
            "model_sha256": sha256_hex(b"evil"),
        }
        empty = {"inputs": (), "counts": {}, "accepted": 0, "weight_total": 0, "update_bytes": 0}
        changed = self.rng.choice((empty, {}, {"reason": "rollback"}, empty | {"reason": "rollback"}))
        return msgspec.structs.replace(parent, **following, **changed)

    def remove(self, genuine: set[bytes]) -> None:
        """What an operator does: what no merger wrote goes."""
        prefix = f"{self.task}/versions/"
        for key in [one for one in self.objects.objects if one.startswith(prefix)]:
            if key.endswith("manifest.json") and self.objects.objects[key] not in genuine:
                del self.objects.objects[key]
