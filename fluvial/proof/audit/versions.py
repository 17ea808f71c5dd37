"""The second half of an audit: the chain of manifests, and every version merged again from the recomputed windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.codecs import Direction
from aggregation.defences import Histograms
from aggregation.errors import IntegrityProblem, UsageProblem
from aggregation.layout import Layout
from aggregation.policy import Policy
from aggregation.server.aggregates import Aggregate, Slot
from aggregation.server.lateness import MergedWindows
from aggregation.server.merge import Checkpoint, merge
from aggregation.server.mixing import mixed_bases
from aggregation.server.rates import server_at
from aggregation.server.totals import WindowSums, add_windows
from backends.object_store import ObjectNotFound
from backends.store.task_store import TaskStore
from fluvial.proof.audit.findings import LOG, MANIFEST, OBJECT, Findings, fields_of, first_difference
from schemas.certificates import Identity
from schemas.checkpoints import decode_model, decode_sums, encode_direction, encode_model, encode_optimizer
from schemas.manifest_inputs import histograms_of, input_of, next_cursors, pools_of, sum_counts
from schemas.manifest_rules import VersionRules, rules_after
from schemas.manifest_seals import require_sealed
from schemas.manifests import Genesis, Input, Manifest, decode_manifest
from schemas.objects import manifest_key, model_key, object_key, optimizer_key, sha256_hex

SPILLED_MODELS_MAX: Final = 64
"""Of versions that were merged again: older ones, which a version may mix in, are read from the store."""
_INPUT_FIELDS: Final = tuple(Input.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Link:
    """One manifest above the genesis, with the SHA-256 of its bytes as they stand, and who signed it."""

    sha256: str
    manifest: Manifest
    merger: Identity | None = None


@dataclass(slots=True)
class Chain:
    """The genesis and the manifests 1 to ``last``: ``links[v - 1]`` is version v."""

    genesis: Genesis
    genesis_sha256: str
    links: list[Link] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The newest version in the chain."""
        return len(self.links)

    def sha256(self, version: int) -> str:
        """The SHA-256 of a version's manifest; version 0's is the genesis'."""
        return self.links[version - 1].sha256 if version else self.genesis_sha256

    def policy_sha256(self, version: int) -> str:
        """The policy in force after a version."""
        return self.links[version - 1].manifest.policy_sha256 if version else self.genesis.first_policy.sha256

    def cursors(self, version: int) -> dict[Slot, int]:
        """The next sequence of every partition after a version."""
        return (
            self.links[version - 1].manifest.slot_cursors if version else dict.fromkeys(self.genesis.slots, 0)
        )

    def hashes(self, version: int) -> tuple[str, str]:
        """(model_sha256, optimizer_sha256) of a version."""
        named = self.links[version - 1].manifest if version else self.genesis
        return named.model_sha256, named.optimizer_sha256

    def pools(self, version: int) -> Histograms:
        """What is usual after a version: as its manifest says, which is held to its parent's and its windows."""
        return histograms_of(self.links[version - 1].manifest) if version else Histograms()

    def newest_input(self, slot: Slot, version: int) -> Input | None:
        """The last aggregate of a partition that version ``version`` or one below it holds."""
        for link in reversed(self.links[:version]):
            found = [one for one in link.manifest.inputs if (one.region, one.partition) == slot]
            if found:
                return max(found, key=lambda one: one.sequence)
        return None


def read_chain(
    objects: TaskStore, genesis: Genesis, genesis_sha256: str, *, last: int, head: int, findings: Findings
) -> Chain:
    """The manifests 1 to ``last``, each held against its child's ``parent_sha256``; ends before one that is damaged."""
    chain, trust = Chain(genesis, genesis_sha256), genesis.trust
    for version in range(1, min(last + 1, head) + 1):
        key = manifest_key(objects.task, version)
        try:
            data = objects.manifest_bytes(version)
            manifest = decode_manifest(data)
            merger = require_sealed(manifest, trust)
        except IntegrityProblem as error:
            findings.unreadable(MANIFEST, f"manifest of version {version}", key, error)
            break
        if manifest.parent_sha256 != chain.sha256(version - 1):
            # The child is what later versions and barriers build on, so its word is the expected one.
            parent = manifest_key(objects.task, version - 1)
            what = f"manifest of version {version - 1}, named by version {version} as its parent"
            findings.add(
                MANIFEST,
                what,
                parent,
                "sha256",
                expected=manifest.parent_sha256,
                got=chain.sha256(version - 1),
            )
        if version <= last:
            named = [("task", objects.task, manifest.task), ("version", version, manifest.version)]
            named.append(("cursors", sorted(genesis.slots), sorted(manifest.slot_cursors)))
            if not findings.compare(MANIFEST, f"manifest of version {version}", key, named):
                break
            chain.links.append(Link(sha256_hex(data), manifest, merger))
    return chain


@dataclass(frozen=True, slots=True)
class MergedVersion:
    """The hashes of one version, merged again. ``reference_sha256`` is "" where nothing was merged yet."""

    version: int
    model_sha256: str
    optimizer_sha256: str
    reference_sha256: str


class Remerge:
    """Merges versions ``first``, ``first`` + 1, ... again from recomputed windows, and compares.

    ``windows`` holds every partition's recomputed aggregates by (slot, sequence); ``spill`` the sums that the store
    has lost. ``files_due(version)`` says whether a version's files have to be there. The checkpoint before ``first`` is
    loaded by its hash, all later ones are recomputed.
    """

    def __init__(
        self,
        objects: TaskStore,
        chain: Chain,
        windows: Mapping[tuple[Slot, int], Aggregate],
        spill: Path,
        findings: Findings,
        *,
        files_due: Callable[[int], bool],
    ) -> None:
        self._objects = objects
        self._chain = chain
        self._windows = windows
        self._spill = spill
        self._findings = findings
        self._files_due = files_due
        self._layout: Layout = chain.genesis.tensor_layout
        self._trust = chain.genesis.trust
        self._checkpoint: Checkpoint | None = None
        self._reference_sha256 = ""

    def begin(self, version: int) -> bool:
        """Load the checkpoint of ``version``, which the chain's manifest (or the genesis) names; False if damaged."""
        model_sha256, optimizer_sha256 = self._chain.hashes(version)
        try:
            self._checkpoint = self._objects.checkpoint(version, model_sha256, optimizer_sha256, self._layout)
        except IntegrityProblem as error:
            key = f"{self._objects.task}/versions/{version}/"
            self._findings.unreadable(OBJECT, f"checkpoint of version {version}", key, error)
            return False
        if version:
            self._reference_sha256 = self._chain.links[version - 1].manifest.reference_sha256
        return True

    def version(self, version: int) -> MergedVersion | None:
        """Merge one version again and compare it; None when it cannot be derived (a finding says why)."""
        manifest = self._chain.links[version - 1].manifest
        what, key = f"manifest of version {version}", manifest_key(self._objects.task, version)
        try:
            policy = self._policy(version - 1)
        except (IntegrityProblem, UsageProblem) as error:
            self._findings.unreadable(LOG, f"merge of version {version}", key, error)
            return None
        rules = rules_after(version - 1, policy, self._chain.genesis.domain)
        inputs = self._inputs(manifest, rules, what, key)
        if inputs is None:
            return None
        self._compare_derived(manifest, inputs, rules, what, key)
        try:
            merged = self._merge(version, inputs, policy)
        except (IntegrityProblem, UsageProblem) as error:
            self._findings.unreadable(LOG, f"merge of version {version}", key, error)
            return None
        names = ("model_sha256", "optimizer_sha256", "reference_sha256")
        self._findings.compare(MANIFEST, what, key, fields_of(merged, manifest, names))
        return merged

    def _inputs(self, manifest: Manifest, rules: VersionRules, what: str, key: str) -> MergedWindows | None:
        windows: list[Aggregate] = []
        for named in manifest.inputs:
            recomputed = self._windows.get(((named.region, named.partition), named.sequence))
            title = _title(named)
            if recomputed is None:
                self._findings.add(
                    MANIFEST, what, key, title, expected="a window that the log closes", got=named.sha256
                )
                return None
            windows.append(recomputed)
        merged = MergedWindows.of(windows, rules.lateness)
        for named, (one, weight) in zip(manifest.inputs, merged.pairs, strict=True):
            expected = input_of(one, weight if rules.says_lateness else None)
            fields = [
                (f"{_title(named)}: {n}", e, g) for n, e, g in fields_of(expected, named, _INPUT_FIELDS)
            ]
            self._findings.compare(MANIFEST, what, key, fields)
        return merged

    def _compare_derived(
        self, manifest: Manifest, merged: MergedWindows, rules: VersionRules, what: str, key: str
    ) -> None:
        version, inputs, counting = manifest.version, merged.windows, merged.counting
        try:
            cursors = next_cursors(self._chain.cursors(version - 1), inputs)
        except IntegrityProblem as error:
            self._findings.add(
                MANIFEST,
                what,
                key,
                "inputs",
                expected="each partition's windows in sequence",
                got=error.message,
            )
        else:
            self._findings.compare(MANIFEST, what, key, [("cursors", cursors, manifest.cursors)])
        before = self._chain.pools(version - 1)
        fields: list[tuple[str, object, object]] = [
            ("format", rules.document_format, manifest.format),
            ("counts", sum_counts(inputs), manifest.counts),
            ("accepted", merged.accepted, manifest.accepted),
            ("dropped", merged.dropped, manifest.dropped),
            ("weight_total", merged.weight_total, manifest.weight_total),
            ("staleness_total", sum(one.staleness_total for one in counting), manifest.staleness_total),
            (
                "staleness_max",
                max((one.staleness_max for one in counting), default=0),
                manifest.staleness_max,
            ),
            ("update_bytes", sum(one.update_bytes for one in counting), manifest.update_bytes),
            (
                "usual",
                pools_of(merged.pools(before) if rules.says_lateness else Histograms()),
                manifest.usual,
            ),
        ]
        # No record of an operator changes them: none is defined that could.
        floor = self._chain.links[version - 2].manifest.floor if version > 1 else 0
        fields.append(("policy_sha256", self._chain.policy_sha256(version - 1), manifest.policy_sha256))
        fields.append(("floor", floor, manifest.floor))
        fields.append(("reason", "version", manifest.reason))
        self._findings.compare(MANIFEST, what, key, fields)

    def _merge(self, version: int, merged: MergedWindows, policy: Policy) -> MergedVersion:
        assert self._checkpoint is not None, "begin comes first"
        reference = b""
        if merged.accepted:
            total = add_windows(
                (
                    WindowSums.of(self._sums(one), one, weight)
                    for one, weight in merged.pairs
                    if one.sum_sha256 and weight
                ),
                weights=self._layout.trainable.parameters,
                elements=self._layout.sum_elements,
                control=self._layout.control.parameters,
            )
            step = merge(
                self._checkpoint,
                total,
                updates=merged.accepted,
                weight_total=merged.weight_total,
                policy=policy,
                server=server_at(policy, version, merged.delay),
                layout=self._layout,
                guide=self._guide(version),
                bases=mixed_bases(merged.pairs, policy, version - 1, self._model),
            )
            self._checkpoint = step.checkpoint
            reference = encode_direction(step.reference)
            self._reference_sha256 = sha256_hex(reference)
        model, optimizer = (
            encode_model(self._checkpoint.model, self._layout),
            encode_optimizer(self._checkpoint.optimizer),
        )
        if policy.server.mixing:
            self._model_of(version).write_bytes(model)
            self._model_of(version - SPILLED_MODELS_MAX).unlink(missing_ok=True)
        self._compare_stored(version, model, optimizer, reference)
        return MergedVersion(version, sha256_hex(model), sha256_hex(optimizer), self._reference_sha256)

    def _model(self, version: int) -> npt.NDArray[np.float32]:
        """The model of an earlier version: as it was merged again, else as its manifest names it."""
        spilled = self._model_of(version)
        if spilled.exists():
            return decode_model(spilled.read_bytes(), self._layout)
        try:
            data = self._objects.model_bytes(version, self._chain.hashes(version)[0])
        except ObjectNotFound as error:
            raise IntegrityProblem(
                "FLV-3004",
                f"updates answered version {version}, and the store does not have its model",
                where=self._objects.store.describe(),
                hint="restore the task's objects from a backup, or audit from version 1 on",
            ) from error
        return decode_model(data, self._layout)

    def _model_of(self, version: int) -> Path:
        return self._spill / f"model-{version}"

    def _guide(self, version: int) -> Direction | None:
        named = self._chain.links[version - 1].manifest.guide_sha256
        guide = self._objects.guide(named, self._layout, self._trust) if named else None
        return None if guide is None else guide.direction

    def _compare_stored(self, version: int, model: bytes, optimizer: bytes, reference: bytes) -> None:
        task = self._objects.task
        stored = [
            ("model", model_key(task, version), model),
            ("optimizer", optimizer_key(task, version), optimizer),
        ]
        if reference:
            stored.append(("reference", object_key(task, sha256_hex(reference)), reference))
        for kind, key, expected in stored:
            what = f"{kind} of version {version}"
            try:
                got = self._objects.store.get(key)
            except ObjectNotFound:
                # A merger writes the files after its commit and before its barriers: the newest may be on their way.
                if self._files_due(version):
                    self._findings.add(
                        OBJECT, what, key, "bytes", expected=sha256_hex(expected), got="no object"
                    )
                continue
            if got != expected:
                detail = f"{sha256_hex(got)} ({first_difference(expected, got)})"
                self._findings.add(OBJECT, what, key, "bytes", expected=sha256_hex(expected), got=detail)

    def _sums(self, aggregate: Aggregate) -> npt.NDArray[np.int64]:
        spilled = self._spill / aggregate.sum_sha256
        if spilled.exists():
            return decode_sums(spilled.read_bytes(), self._layout, aggregate.bucket_count)
        return self._objects.sums(aggregate.sum_sha256, self._layout, aggregate.bucket_count)

    def _policy(self, version: int) -> Policy:
        sha256 = self._chain.policy_sha256(version)
        first = self._chain.genesis.first_policy
        return first if sha256 == first.sha256 else self._objects.policy(sha256)


def _title(named: Input) -> str:
    return f"input {named.sequence} of {named.region}[{named.partition}]"
