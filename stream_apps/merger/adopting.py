"""Adopting the head of the chain: is the chain whole, is it the announced one, which version is its newest.

A manifest is named by no hash in the store. Were the merger to go on from a lost or damaged one, it would fork the
chain. So it looks for holes, reads each manifest twice, and holds it against what mergers announced before.

The files of a version are missing when its merger died between the commit and the files: they are derived again.
"""

from __future__ import annotations

import logging
from functools import partial

from aggregation.errors import IntegrityProblem
from aggregation.server.merge import Checkpoint
from backends.object_store import StoreUnavailable
from backends.outages import UNREADABLE, retry_through_outage
from schemas.manifests import Manifest, decode_manifest
from schemas.objects import sha256_hex
from stream_apps.merger.announced import announced_manifests
from stream_apps.merger.deriving import derive
from stream_apps.merger.policies import Policies
from stream_apps.merger.version import Version, first_version, version_of
from stream_apps.process_context import ProcessContext

log = logging.getLogger("fluvial.merger")


class Adopting:
    """The chain of one task. ``announced`` has the SHA-256 of manifests by version, as far as ``begin`` read back."""

    def __init__(self, context: ProcessContext, policies: Policies) -> None:
        self._context = context
        self._store = context.store
        self._policies = policies
        self.announced: dict[int, str] = {}

    def genesis(self) -> Version:
        """Version 0 with its arrays."""
        genesis, layout = self._context.genesis, self._context.layout
        checkpoint = retry_through_outage(
            "load version 0",
            lambda: self._store.checkpoint(0, genesis.model_sha256, genesis.optimizer_sha256, layout),
            UNREADABLE,
            self._context.clock,
        )
        return first_version(genesis, checkpoint)

    def begin(self) -> None:
        """Look for holes in the chain (``IntegrityProblem`` FLV-3303), and read what was announced."""
        clock = self._context.clock
        retry_through_outage("look for every version's manifest", self._require_whole_chain, clock=clock)
        self.announced = retry_through_outage("read the announcements", self._read_announced, clock=clock)

    def newest(self, head: Version) -> Version:
        """The newest committed version from ``head`` on; derives on the way what its merger did not get to write."""
        clock = self._context.clock
        found = retry_through_outage(
            "find the head version", lambda: self._store.head(head.number), clock=clock
        )
        if found is None:
            return head
        first = retry_through_outage(
            "look for a checkpoint", lambda: self._newest_checkpoint(head.number, found.version), clock=clock
        )
        for number in range(first, found.version + 1):
            head = retry_through_outage(
                f"load version {number}", partial(self.load, number, head), UNREADABLE, clock
            )
        return head

    def require_announced(self, head: Version) -> None:
        """``IntegrityProblem`` FLV-3303 where a version after ``head`` was announced: its manifest is lost."""
        announced = max(self.announced, default=0)
        if announced > head.number:
            raise IntegrityProblem(
                "FLV-3303",
                f"version {announced} was announced, and the newest manifest is version {head.number}'s",
                where=self._store.store.describe(),
                hint=f"restore it from a backup: its SHA-256 is {self.announced[announced]}",
            )

    def load(self, number: int, before: Version) -> Version:
        """Version ``number`` with its arrays; where its files are missing, from ``before`` if that is its parent."""
        data = self.checked_manifest(number)
        manifest = decode_manifest(data)
        if self._store.has_checkpoint(number):
            checkpoint = self._store.checkpoint(
                number, manifest.model_sha256, manifest.optimizer_sha256, self._context.layout
            )
        elif manifest.parent_sha256 == before.manifest_sha256:
            checkpoint = self._derive_again(manifest, before)
        else:
            raise StoreUnavailable(
                "FLV-3301", f"version {number} has no model file yet, and its parent is not loaded"
            )
        return version_of(manifest, sha256_hex(data), checkpoint)

    def checked_manifest(self, number: int) -> bytes:
        """A manifest's bytes: two reads of it agree (FLV-4103), and it is the announced one (FLV-3304)."""
        data = self._store.manifest_bytes(number)
        if data != self._store.manifest_bytes(number):
            raise StoreUnavailable("FLV-4103", f"two reads of the manifest of version {number} differ")
        announced = self.announced.get(number, sha256_hex(data))
        if announced != sha256_hex(data):
            raise IntegrityProblem(
                "FLV-3304",
                f"the manifest of version {number} is {sha256_hex(data)[:12]}, announced was {announced[:12]}",
                where=self._store.store.describe(),
                hint="restore it from a backup; this merger waits and builds nothing on it, see "
                "docs/runbooks/damaged-object.md",
            )
        return data

    def _require_whole_chain(self) -> None:
        """Where a manifest is lost, the version before it looks like the head: what came of it would be a fork."""
        missing = self._store.missing_versions()
        if missing:
            raise IntegrityProblem(
                "FLV-3303",
                f"version {missing[0]} has no manifest, but a later version has one",
                where=self._store.store.describe(),
                hint="restore it from a backup: its SHA-256 stands in the barriers of its version",
            )

    def _read_announced(self) -> dict[int, str]:
        genesis = self._context.genesis
        with self._context.open_reader("announced") as reader:
            return announced_manifests(reader, self._context.trust, genesis.task, genesis.regions)

    def _newest_checkpoint(self, ours: int, head: int) -> int:
        """The newest version above ours whose files are there: no need to go through those before it."""
        number = max(head, ours + 1)
        while number > ours + 1 and not self._store.has_checkpoint(number):
            number -= 1
        return number

    def _derive_again(self, manifest: Manifest, parent: Version) -> Checkpoint:
        """Write the files of a version whose merger died between the commit and the files."""
        layout = self._context.layout
        sums = (self._store.sums(one.sum_sha256, layout) for one in manifest.inputs if one.sum_sha256)
        derived = derive(
            parent.checkpoint,
            sums,
            updates=manifest.accepted,
            weight_total=manifest.weight_total,
            policy=self._policies.of(parent.policy_sha256),
            layout=layout,
        )
        if not derived.is_what(manifest):
            raise StoreUnavailable(
                "FLV-3302",
                f"version {manifest.version} derives to another model than its manifest says",
                hint="run `fluvial audit`; this merger commits nothing until it is resolved",
            )
        self._store.put_object(derived.reference)
        self._store.write_checkpoint(manifest.version, derived.model, derived.optimizer)
        log.info(
            "finished version %d, which another merger had committed",
            manifest.version,
            extra={"version": manifest.version},
        )
        return derived.checkpoint
