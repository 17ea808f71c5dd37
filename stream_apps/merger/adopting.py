"""Adopting the head of the chain: which version mergers vouched for, and what stands above it.

Whoever may write the store may put any manifest under a version's name, and no hash names it there. So a merger takes
a version for true in two ways only, and signs for nothing else:

1. A merger announced it: the signed announcement has its manifest's SHA-256, and each manifest names its parent's.
   The version's files are taken by their hashes; where they are missing, they are derived again.
2. It was derived here, from its parent's arrays and from windows that workers signed, to the same bytes (``holding``).

A merger tells everybody of a version before it makes the next. So where nothing was announced of a version, nothing
honest stands behind the one after it: a manifest beyond a hole there was planted, and no lost one.
"""

from __future__ import annotations

import logging
from functools import partial

from aggregation.errors import IntegrityProblem
from aggregation.server.merge import Checkpoint
from aggregation.server.rates import server_at
from backends.object_store import StoreUnavailable
from backends.outages import UNREADABLE, retry_through_outage
from schemas.manifest_rules import delay_of, rules_after
from schemas.manifest_seals import require_sealed
from schemas.manifests import Manifest, decode_manifest
from schemas.objects import sha256_hex
from schemas.windows import direction_of_guide
from stream_apps.merger.announced import Announced
from stream_apps.merger.deriving import Derived, derive
from stream_apps.merger.guiding import UNGUIDED, Guiding
from stream_apps.merger.holding import Holding
from stream_apps.merger.models import bases_of
from stream_apps.merger.named_windows import sums_of
from stream_apps.merger.policies import Policies
from stream_apps.merger.told import held_until, told_by_barriers
from stream_apps.merger.version import Version, first_version, version_of
from stream_apps.merger.windows import Windows
from stream_apps.process_context import ProcessContext

log = logging.getLogger("fluvial.merger")


class Adopting:
    """The chain of one task. ``announced`` has the SHA-256 of manifests that mergers vouched for, by version.

    ``models`` is what was read of the models topic: also the certificates that operators revoked.
    """

    def __init__(self, context: ProcessContext, policies: Policies, guiding: Guiding = UNGUIDED) -> None:
        self._context = context
        self._store = context.store
        self._policies = policies
        genesis = context.genesis
        self.models = Announced(context.trust, genesis.task, genesis.regions)
        self._holding = Holding(context, policies, guiding, lambda: self.models.revoked)
        self.announced: dict[int, str] = {}

    def hear(self) -> None:
        """Read what was announced and revoked since. Waits out what passes."""
        retry_through_outage("read the announcements", self._learn_announced, clock=self._context.clock)

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
        """Read what was announced, and look for holes in the chain up to there (``IntegrityProblem`` FLV-3303)."""
        clock = self._context.clock
        self.hear()
        retry_through_outage("read the barriers of the newest version", self._learn_told, clock=clock)
        retry_through_outage("look for every version's manifest", self._require_whole_chain, clock=clock)

    def vouched(self, head: Version) -> Version:
        """The newest version that was announced, or ``head`` where that is as new. Waits out what passes."""
        clock, newest = self._context.clock, max(self.announced, default=0)
        if newest <= head.number:
            return head
        first = retry_through_outage(
            "look for a checkpoint", lambda: self._newest_checkpoint(head.number, newest), clock=clock
        )
        retry_through_outage(
            f"read the manifests before version {newest}",
            lambda: self._vouch_for_parents(first, newest),
            UNREADABLE,
            clock,
        )
        for number in range(first, newest + 1):
            head = retry_through_outage(
                f"load version {number}", partial(self.load, number, head), UNREADABLE, clock
            )
        return head

    def after(self, head: Version, windows: Windows) -> Version | None:
        """The version to go on to from ``head``: an announced one, else the next one, derived; None if there is none.

        Waits, and says so, while the next one stands there and is not what comes of windows that workers signed.
        """

        def find() -> Version | int | None:
            self._learn_announced()
            newest, number = max(self.announced, default=0), head.number + 1
            if newest > head.number:
                return newest
            return self._held(number, head, windows) if self._store.is_committed(number) else None

        what = f"adopt version {head.number + 1}"
        found = retry_through_outage(what, find, UNREADABLE, self._context.clock)
        return self.vouched(head) if isinstance(found, int) else found

    def load(self, number: int, before: Version) -> Version:
        """An announced version with its arrays.

        Where its files are missing or damaged they come from ``before``, if that is its parent: whoever may write the
        store can put others there while the version's merger is between the commit and the files.
        """
        data = self.checked_manifest(number)
        manifest = decode_manifest(data)
        require_sealed(manifest, self._context.trust)
        try:
            checkpoint = self._read(manifest)
        except IntegrityProblem as problem:
            if manifest.parent_sha256 != before.manifest_sha256:
                raise StoreUnavailable(
                    "FLV-3301", f"version {number} has no whole files, and its parent is not loaded"
                ) from problem
            checkpoint = self._derive_again(manifest, before)
        return version_of(manifest, sha256_hex(data), checkpoint)

    def _read(self, manifest: Manifest) -> Checkpoint:
        """A version's arrays, of its files. IntegrityProblem where one is missing or not what the manifest names."""
        layout = self._context.layout
        return self._store.checkpoint(
            manifest.version, manifest.model_sha256, manifest.optimizer_sha256, layout
        )

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

    def _held(self, number: int, parent: Version, windows: Windows) -> Version:
        """A version of which nobody was told yet, derived again from ``parent``; its files are written if missing."""
        try:
            held = self._holding.hold(self.checked_manifest(number), parent, windows)
        except IntegrityProblem as problem:
            self._context.observer.version_refused(number, problem)
            raise
        if not self._has_files(held.version, held.derived):
            self._store.put_object(held.derived.reference)
            self._store.write_checkpoint(number, held.derived.model, held.derived.optimizer)
            self._say_finished(number)
        return held.version

    def _has_files(self, version: Version, derived: Derived) -> bool:
        """Whether a version's files are there, and are what came of it."""
        layout = self._context.layout
        try:
            self._store.checkpoint(version.number, derived.model_sha256, derived.optimizer_sha256, layout)
        except IntegrityProblem:
            return False
        return True

    def _require_whole_chain(self) -> None:
        """Where a manifest is lost, the version before it looks like the head: what came of it would be a fork."""
        newest = max(self.announced, default=0)
        missing = self._store.missing_versions(newest)
        if missing and missing[0] == newest:
            raise IntegrityProblem(
                "FLV-3303",
                f"version {newest} was announced, and it has no manifest",
                where=self._store.store.describe(),
                hint=f"restore it from a backup: its SHA-256 is {self.announced[newest]}",
            )
        if missing:
            raise IntegrityProblem(
                "FLV-3303",
                f"version {missing[0]} has no manifest, but a later version was announced",
                where=self._store.store.describe(),
                hint="restore it from a backup: its SHA-256 stands in the barriers of its version",
            )

    def _learn_announced(self) -> None:
        with self._context.open_reader("announced") as reader:
            if not self.models.read(reader):
                return
        found = self.models.manifests
        for version in sorted(self.models.doubtful, reverse=True):
            if version < max(found.keys() - self.models.doubtful, default=0):
                break  # somebody else vouches for a later one, and so for this one
            if not self._stands(version, found[version]):
                text = "passed over: version %d, which is not in the store, was announced by a revoked merger alone"
                log.error(text, version, extra={"version": version})
                del found[version]
                self.announced.pop(version, None)
        self.announced |= found

    def _stands(self, version: int, manifest_sha256: str) -> bool:
        """Whether the store has the manifest of that hash."""
        try:
            return sha256_hex(self._store.manifest_bytes(version)) == manifest_sha256
        except IntegrityProblem:
            return False

    def _learn_told(self) -> None:
        """Count the barriers above what was announced: a merger may have died between the two."""
        genesis, newest = self._context.genesis, max(self.announced, default=0)
        starts = held_until(newest, genesis.slots, self._store.manifest)
        with self._context.open_reader("told") as reader:
            told = told_by_barriers(
                reader,
                self._context.trust,
                genesis.task,
                genesis.slots,
                starts=starts,
                revoked=self.models.was_revoked,
            )
        for version, sha256 in sorted(told.items()):
            # Where nothing was announced a whole chain may be made again from its logs: then what stands counts.
            if version > newest and (newest or self._stands(version, sha256)):
                log.info("version %d was told to workers, and not announced", version)
                self.announced[version] = sha256

    def _vouch_for_parents(self, first: int, newest: int) -> None:
        """What an announced version names as its parent is vouched for as well: down to ``first``."""
        for number in range(newest, first, -1):
            parent_sha256 = decode_manifest(self.checked_manifest(number)).parent_sha256
            self.announced.setdefault(number - 1, parent_sha256)

    def _newest_checkpoint(self, ours: int, head: int) -> int:
        """The newest version above ours whose files are there and whole: no need to go through those before it."""
        number = max(head, ours + 1)
        while number > ours + 1 and not self._is_whole(number):
            number -= 1
        return number

    def _is_whole(self, number: int) -> bool:
        if not self._store.has_checkpoint(number):
            return False
        try:
            self._read(decode_manifest(self.checked_manifest(number)))
        except IntegrityProblem:
            return False
        return True

    def _derive_again(self, manifest: Manifest, parent: Version) -> Checkpoint:
        """Write the files of an announced version that have gone."""
        layout, policy = self._context.layout, self._policies.of(parent.policy_sha256)
        rules = rules_after(parent.number, policy, self._context.signer.domain)
        derived = derive(
            parent.checkpoint,
            sums_of(self._context, manifest),
            updates=manifest.accepted,
            weight_total=manifest.weight_total,
            policy=policy,
            server=server_at(policy, manifest.version, delay_of(manifest, rules)),
            layout=layout,
            guide=direction_of_guide(self._store.guide(manifest.guide_sha256, layout, self._context.trust)),
            bases=bases_of(self._context, manifest, policy),
        )
        if not derived.is_what(manifest):
            raise StoreUnavailable(
                "FLV-3302",
                f"version {manifest.version} derives to another model than its manifest says",
                hint="run `fluvial audit`; this merger commits nothing until it is resolved",
            )
        self._store.put_object(derived.reference)
        self._store.write_checkpoint(manifest.version, derived.model, derived.optimizer)
        self._say_finished(manifest.version)
        return derived.checkpoint

    def _say_finished(self, number: int) -> None:
        text = "finished version %d, which another merger had committed"
        log.info(text, number, extra={"version": number})
