"""One task's part of the object store: objects by hash, versions by number. Every read is checked against its hash."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.codecs import Direction
from aggregation.errors import IntegrityProblem
from aggregation.fold.events import Guide
from aggregation.layout import Layout
from aggregation.policy import Policy, policy_from_canonical
from aggregation.server.merge import Checkpoint
from backends.object_limits import ObjectLimits
from backends.object_store import ObjectNotFound, ObjectStore
from schemas import checkpoints, objects
from schemas.certificates import Trust
from schemas.guides import NoGuideError, guide_in
from schemas.manifest_seals import require_sealed
from schemas.manifests import Genesis, Manifest, decode_genesis, decode_manifest
from schemas.objects import sha256_hex

CREATED_AT_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999: facts that name a later time name none."""
CACHED_REFERENCES_MAX: Final = 4
"""Every partition of a worker needs the same one at a barrier: it is loaded and checked once."""

SHA256_SHOWN: Final = 16

log = logging.getLogger("fluvial.store")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest committed version: its number and the SHA-256 of its manifest."""

    version: int
    manifest_sha256: str


class TaskStore:
    """Reads and writes of one task. Blocking and thread-safe, as the object store below it.

    Raises what the object store raises (outages), ``ObjectNotFound``, and IntegrityProblem FLV-4103 where bytes are
    not what their hash says.
    """

    def __init__(self, store: ObjectStore, task: str) -> None:
        self.store = store
        self.task = task
        self._references: dict[str, Direction] = {}
        self._guides: dict[str, Guide] = {}
        self._linked = 0
        self._trust: Trust | None = None

    # -- objects by hash

    def put_object(self, data: bytes) -> str:
        """Store bytes under their SHA-256; storing twice is harmless."""
        sha256 = sha256_hex(data)
        self.store.put(objects.object_key(self.task, sha256), data)
        return sha256

    def get_object(self, sha256: str, *, bytes_max: int | None = None) -> bytes:
        """The bytes that ``sha256`` names, no more than ``bytes_max`` if that is known (FLV-4105).

        FLV-4103 where it is no hash: what signed records say may be any text.
        """
        if not objects.is_sha256(sha256):
            raise self._differs(f"an object called {sha256[:80]!r}", "64 hex digits", sha256[:SHA256_SHOWN])
        return self._checked(objects.object_key(self.task, sha256), sha256, bytes_max)

    def policy(self, sha256: str) -> Policy:
        """The policy document that ``sha256`` names."""
        return policy_from_canonical(self.get_object(sha256))

    def reference(self, sha256: str, layout: Layout) -> Direction | None:
        """The fixed-point step that ``sha256`` names; None for "", before the first step."""
        if not sha256:
            return None
        known = self._references.get(sha256)
        if known is None:
            known = checkpoints.decode_direction(self.get_object(sha256), layout)
            while len(self._references) >= CACHED_REFERENCES_MAX:
                self._references.pop(next(iter(self._references), ""), None)
            self._references[sha256] = known
        return known

    def guide(self, sha256: str, layout: Layout, trust: Trust) -> Guide | None:
        """The guide that ``sha256`` names; None for "", and for an object that no guardian of the task signed."""
        if not sha256:
            return None
        known = self._guides.get(sha256)
        if known is None:
            data = self.get_object(sha256)
            try:
                known = guide_in(data, trust, self.task, layout)
            except NoGuideError as problem:
                log.warning("guide %s %s: going on without", sha256[:SHA256_SHOWN], problem)
                return None
            while len(self._guides) >= CACHED_REFERENCES_MAX:
                self._guides.pop(next(iter(self._guides), ""), None)
            self._guides[sha256] = known
        return known

    def sums(self, sha256: str, layout: Layout, buckets: int = 1) -> npt.NDArray[np.int64]:
        """A window's sums in so many buckets, int64[``layout.sum_elements_of(buckets)``].

        Raises ``IntegrityProblem``: FLV-4105 where the object is longer, before it is read, FLV-4101 where it is
        shorter, FLV-4103 where it is not what its hash says.
        """
        data = self.get_object(sha256, bytes_max=checkpoints.sums_bytes(layout, buckets))
        return checkpoints.decode_sums(data, layout, buckets)

    # -- versions

    def genesis(self, expected_sha256: str | None = None) -> Genesis:
        """Version 0's document; with ``expected_sha256``, only if it is that one."""
        data = self.manifest_bytes(0)
        if expected_sha256 is not None and sha256_hex(data) != expected_sha256:
            raise self._differs(objects.manifest_key(self.task, 0), expected_sha256, sha256_hex(data))
        genesis = decode_genesis(data)
        limits = getattr(self.store, "limits", None)
        if expected_sha256 is not None and isinstance(limits, ObjectLimits):
            limits.learn(genesis)
        return genesis

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version above 0."""
        return decode_manifest(self.manifest_bytes(version))

    def signed_manifest(self, version: int, trust: Trust) -> Manifest:
        """The same, as a task's own rules want it: for whoever hands on what it names.

        IntegrityProblem FLV-4104 where no merger of the task signed it (in tasks whose mergers sign), or it is another
        version's.
        """
        manifest = self.manifest(version)
        require_sealed(manifest, trust)
        if (manifest.task, manifest.version) != (self.task, version):
            raise IntegrityProblem(
                "FLV-4104",
                f"where {self.task}@{version} should be, the manifest of {manifest.task}@{manifest.version} stands",
                where=self.store.describe(),
                hint="somebody who may write the store put it there: see docs/runbooks/planted-version.md",
            )
        return manifest

    def manifest_bytes(self, version: int) -> bytes:
        """A manifest's (or the genesis') bytes, as they stand."""
        return self.store.get(objects.manifest_key(self.task, version))

    def commit(self, version: int, manifest: bytes) -> bool:
        """The conditional PUT that makes a version: True if this call made it, False if it exists already."""
        return self.store.create(objects.manifest_key(self.task, version), manifest)

    def model_bytes(self, version: int, sha256: str) -> bytes:
        """A version's model.safetensors, checked."""
        return self._checked(objects.model_key(self.task, version), sha256)

    def checkpoint(
        self, version: int, model_sha256: str, optimizer_sha256: str, layout: Layout
    ) -> Checkpoint:
        """A version's arrays."""
        return Checkpoint(
            checkpoints.decode_model(self.model_bytes(version, model_sha256), layout),
            checkpoints.decode_optimizer(
                self._checked(objects.optimizer_key(self.task, version), optimizer_sha256), layout
            ),
        )

    def write_checkpoint(self, version: int, model: bytes, optimizer: bytes) -> None:
        """Write a committed version's files. They are derived from the manifest, so writing again changes nothing."""
        self.store.put(objects.optimizer_key(self.task, version), optimizer)
        self.store.put(objects.model_key(self.task, version), model)

    def has_checkpoint(self, version: int) -> bool:
        """Whether a committed version's files are written (the model is written last)."""
        return self.store.exists(objects.model_key(self.task, version))

    def head(self, at_least: int = 0) -> Head | None:
        """The newest version, by doubling and halving from ``at_least``; None when there is no genesis.

        Where what is found so is no version of a chain, as a manifest is that somebody planted far ahead, only such
        count as are one by themselves: this task's, of their number, signed where the task's are, behind their parent.
        """
        found = self.newest_manifest(at_least)
        if found is None or found.version <= self._linked or self._is_link(found.version):
            self._linked = max(self._linked, found.version if found else 0)
            return found
        low = self._search(0, lambda version: self.is_committed(version) and self._is_link(version))
        return Head(low, sha256_hex(self.manifest_bytes(low)))

    def newest_manifest(self, at_least: int = 0) -> Head | None:
        """The same, going by names alone: whatever stands there, a plant or damage too, as an audit needs it."""
        if not self.is_committed(at_least):
            return self.newest_manifest() if at_least else None
        low = self._search(at_least, self.is_committed)
        return Head(low, sha256_hex(self.manifest_bytes(low)))

    def _search(self, at_least: int, holds: Callable[[int], bool]) -> int:
        """The last version for which it holds, by doubling and halving; it holds for ``at_least``."""
        step = 1
        while holds(at_least + step):
            step *= 2
        low, high = at_least + step // 2, at_least + step
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        return low

    def _is_link(self, version: int) -> bool:
        """Whether a manifest is one of its task and number, signed if the task's are, whose parent it names.

        Without a genesis that says how they are signed nobody can tell: then it is.
        """
        if self._trust is None:
            try:
                self._trust = self.genesis().trust
            except (IntegrityProblem, ValueError):  # ValueError: it has no CAs
                return True
        if version == 0:
            return True
        try:
            parent = self.manifest_bytes(version - 1)
            return self.signed_manifest(version, self._trust).parent_sha256 == sha256_hex(parent)
        except (IntegrityProblem, ValueError):  # ValueError: keys of other types
            return False

    def missing_versions(self, through: int) -> tuple[int, ...]:
        """Versions up to ``through`` without a manifest: none, unless something was lost. Lists all."""
        keys = self.store.list(objects.versions_prefix(self.task))
        present = {objects.version_of_manifest(self.task, key) for key in keys}
        absent = [number for number in range(through + 1) if number not in present]
        return tuple(
            number for number in absent if not self.is_committed(number)
        )  # committed during the listing

    def put_facts(self, version: int, facts: dict[str, object]) -> None:
        """Wall-clock facts about a commit: advice, never truth."""
        self.store.put(objects.facts_key(self.task, version), msgspec.json.encode(facts))

    def facts(self, version: int) -> dict[str, object]:
        """The facts of a version; empty when its merger did not get to write them, or when they are not readable."""
        try:
            return msgspec.json.decode(
                self.store.get(objects.facts_key(self.task, version)), type=dict[str, object]
            )
        except (ObjectNotFound, msgspec.DecodeError, RecursionError):
            return {}  # they are advice: nothing depends on them

    def created_at_ms(self, version: int) -> int | None:
        """When a version was committed, as its facts say, in ms since 1970 UTC; None where they name no time."""
        noted = self.facts(version).get("created_at_ms")
        whole = isinstance(noted, int) and not isinstance(noted, bool)
        return noted if whole and 0 < noted <= CREATED_AT_MS_MAX else None  # type: ignore[operator, return-value]

    def is_committed(self, version: int) -> bool:
        """Whether a version has a manifest (version 0: the genesis document)."""
        return self.store.exists(objects.manifest_key(self.task, version))

    def _checked(self, key: str, sha256: str, bytes_max: int | None = None) -> bytes:
        data = self.store.get(key, bytes_max=bytes_max)
        if sha256_hex(data) != sha256:
            raise self._differs(key, sha256, sha256_hex(data))
        return data

    def _differs(self, key: str, expected: str, got: str) -> IntegrityProblem:
        return IntegrityProblem(
            "FLV-4103",
            f"{key} is not what its hash says: expected {expected[:16]}, got {got[:16]}",
            where=self.store.describe(),
            hint="restore the object from a backup; `fluvial audit` names everything that differs",
        )
