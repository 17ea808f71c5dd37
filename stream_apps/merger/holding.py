"""Holding a version of which nobody was told yet against what it says that it was made of.

A manifest in the store is a claim, by whoever may write there. It is a version if a merger could have made it:

1. it is this task's, of this number, names its parent, and is signed by a merger where the task's are;
2. it is an ordinary one: for any other reason, floor or policy an operator's record would have to stand, and there is
   no such record yet;
3. each of its windows was signed by a worker of its region, stands in the aggregates topic under the hash that it
   names, and goes on where the parent's cursors stand;
4. parent and windows, merged again, give the very bytes of the manifest: counts, totals, cursors and hashes.

Which windows go into a version is the merger's choice, so nothing is asked of that but the policy's bound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.errors import IntegrityProblem
from aggregation.fold.rules import CERTIFICATE
from aggregation.server.aggregates import Aggregate
from aggregation.server.lateness import MergedWindows
from aggregation.server.mixing import mixed_bases
from aggregation.server.rates import server_at
from aggregation.server.totals import WindowSums
from aggregation.weights.fixed_point import WEIGHT_ONE
from schemas.certificates import Identity
from schemas.manifest_inputs import input_of, next_cursors
from schemas.manifest_rules import VersionRules, rules_after
from schemas.manifest_seals import require_sealed
from schemas.manifests import NOT_SAID, Input, Manifest, decode_manifest
from schemas.objects import sha256_hex
from schemas.windows import direction_of_guide
from stream_apps.merger.bounding import Bounding
from stream_apps.merger.deciding import next_manifest
from stream_apps.merger.deriving import Derived, derive
from stream_apps.merger.guiding import UNGUIDED, Guiding
from stream_apps.merger.models import Models
from stream_apps.merger.policies import Policies
from stream_apps.merger.version import Version, version_of
from stream_apps.merger.windows import Windows
from stream_apps.process_context import ProcessContext

RUNBOOK: Final = "docs/runbooks/planted-version.md"
_DERIVED: Final = frozenset({"model_sha256", "optimizer_sha256", "reference_sha256"})


@dataclass(frozen=True, slots=True)
class Held:
    """A version that was derived again, and the files that came of it."""

    version: Version
    derived: Derived


@dataclass(frozen=True, slots=True)
class Parent:
    """What an ordinary version has from the one before it, and how many updates its policy takes at most."""

    manifest_sha256: str
    policy_sha256: str
    floor: int
    updates_max: int


def flaw_of(manifest: Manifest, task: str, number: int, parent: Parent) -> str:
    """Why no merger can have made ``manifest`` as version ``number``, whatever its windows are; "" where one may."""
    said = (manifest.task, manifest.version, manifest.parent_sha256)
    if said != (task, number, parent.manifest_sha256):
        return (
            f"it says that it is version {manifest.version} of {manifest.task[:64]!r}, after "
            f"{manifest.parent_sha256[:12]!r}; version {number - 1} is {parent.manifest_sha256[:12]}"
        )
    if manifest.reason != "version":
        return f"its reason is {manifest.reason[:64]!r}, and no operator's record says so"
    if (manifest.policy_sha256, manifest.floor) != (parent.policy_sha256, parent.floor):
        return "its policy or floor is not its parent's, and no operator's record says so"
    counting = [one.accepted for one in manifest.inputs if not one.is_dropped]
    updates, most = [accepted for accepted in counting if accepted], parent.updates_max
    if not updates or (sum(updates) > most and len(updates) > 1):
        return f"it holds {sum(updates)} updates, a version holds 1 to {most}"
    return ""


def ended(signer: Identity | None, now_s: float, revoked: Collection[str]) -> str:
    """Why a manifest that nobody announced is refused for who signed it: it carries no time, so our clock's counts.

    ``revoked`` has the names of the certificates that operators have revoked by now.
    """
    if signer is None:
        return ""
    if CERTIFICATE + signer.serial in revoked:
        return f"the certificate {signer.serial} of {signer.name}, who signed it, was revoked"
    if signer.valid_at(round(now_s * 1000)):
        return ""
    return f"the certificate of {signer.name}, who signed it, is not valid now"


class Holding:
    """Derives versions of one task again. ``revoked`` gives the certificates that were revoked by now, by name."""

    def __init__(
        self,
        context: ProcessContext,
        policies: Policies,
        guiding: Guiding = UNGUIDED,
        revoked: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._context = context
        self._store = context.store
        self._policies = policies
        self._guiding = guiding
        self._revoked = revoked
        self._models = Models(context)

    def hold(self, data: bytes, parent: Version, windows: Windows) -> Held:
        """The version after ``parent`` whose manifest is ``data``, derived again.

        Raises ``IntegrityProblem``: FLV-3305 where no merger can have made it, FLV-3302 where its windows give other
        files than it names, FLV-4102 where it is no manifest, and what reading its windows raises.
        """
        manifest = decode_manifest(data)
        self._require_sealed(manifest, parent.number + 1)
        self._require_ordinary(manifest, parent)
        inputs = self._inputs(manifest, parent, windows)
        rules = rules_after(
            parent.number, self._policies.of(parent.policy_sha256), self._context.trust.domain
        )
        derived = self._derive(
            MergedWindows.of(inputs, rules.lateness), parent, windows, manifest.guide_sha256
        )
        unsigned = self._unsigned(manifest, parent, inputs, derived, rules)
        expected = msgspec.structs.replace(unsigned, merger=manifest.merger)
        got, wanted = msgspec.structs.asdict(manifest), msgspec.structs.asdict(expected)
        others = [name for name, value in wanted.items() if got[name] != value]
        if others and set(others) <= _DERIVED:
            raise IntegrityProblem(
                "FLV-3302",
                f"version {manifest.version} derives to another model than its manifest says: {', '.join(others)}",
                where=self._store.store.describe(),
                hint=f"run `fluvial audit`; this merger signs and builds nothing on it, see {RUNBOOK}",
            )
        if others or expected.canonical() != data:
            raise self._refused(
                manifest.version, f"its {', '.join(others) or 'form'} is not what its windows give"
            )
        return Held(version_of(manifest, sha256_hex(data), derived.checkpoint), derived)

    def _unsigned(
        self,
        manifest: Manifest,
        parent: Version,
        inputs: tuple[Aggregate, ...],
        derived: Derived,
        rules: VersionRules,
    ) -> Manifest:
        """What its merger had to write, with the guide that it chose."""
        task, number = self._context.genesis.task, parent.number + 1
        if manifest.format != rules.document_format:
            raise self._refused(
                number, f"it is a {manifest.format}, under its policy it is a {rules.document_format}"
            )
        try:
            return next_manifest(task, parent, inputs, derived, rules, guide_sha256=manifest.guide_sha256)
        except IntegrityProblem as problem:
            raise self._refused(number, problem.message) from problem

    def _require_sealed(self, manifest: Manifest, number: int) -> None:
        try:
            signer = require_sealed(manifest, self._context.trust)
        except IntegrityProblem as problem:
            raise self._refused(number, problem.message) from problem
        if why := ended(signer, self._context.clock.time(), self._revoked()):
            raise self._refused(number, why)

    def _require_ordinary(self, manifest: Manifest, parent: Version) -> None:
        number = parent.number + 1
        most = self._policies.of(parent.policy_sha256).updates_per_version_max
        before = Parent(parent.manifest_sha256, parent.policy_sha256, parent.floor, most)
        why = flaw_of(manifest, self._context.genesis.task, number, before)
        policy = self._policies.of(parent.policy_sha256)
        if why := why or self._guiding.flaw_of(manifest.guide_sha256, parent, policy):
            raise self._refused(number, why)

    def _inputs(self, manifest: Manifest, parent: Version, windows: Windows) -> tuple[Aggregate, ...]:
        number = parent.number + 1
        named = {(one.region, one.partition) for one in manifest.inputs}
        if strange := named - parent.cursors.keys():
            raise self._refused(number, f"it names partitions that the task does not have, as {min(strange)}")
        windows.take_missing((one.region, one.partition, one.sequence) for one in manifest.inputs)
        inputs = tuple(self._input(number, one, windows) for one in manifest.inputs)
        try:
            next_cursors(parent.cursors, inputs)
        except IntegrityProblem as problem:
            raise self._refused(number, problem.message) from problem
        return inputs

    def _input(self, number: int, named: Input, windows: Windows) -> Aggregate:
        slot = (named.region, named.partition)
        found = windows.pending.window(slot, named.sequence)
        what = f"window {named.sequence} of {slot[0]}[{slot[1]}], which it names,"
        if found is None:
            raise self._refused(number, f"{what} was signed by no worker, or a version before holds it")
        said = msgspec.structs.replace(named, version=NOT_SAID, weight_total=0, weight=WEIGHT_ONE)
        if input_of(found) != said:  # the rest is held to what its windows give
            raise self._refused(
                number, f"{what} is {named.sha256[:12]!r} there, signed was {found.sha256[:12]}"
            )
        return found

    def _derive(self, merged: MergedWindows, parent: Version, windows: Windows, guide_sha256: str) -> Derived:
        layout, policy = self._context.layout, self._policies.of(parent.policy_sha256)
        bounding = Bounding(self._context, self._policies, windows.judging.is_given)

        def refuse_lie(one: Aggregate, problem: IntegrityProblem | None) -> None:
            if problem is not None and windows.judging.doubt((one,)):
                what = f"window {one.sequence} of {one.region}[{one.partition}], which it names, is a lie"
                raise self._refused(parent.number + 1, f"{what}: {problem.message}")

        def sums(one: Aggregate) -> npt.NDArray[np.int64]:
            refuse_lie(one, bounding.said_problem(one))
            found = self._store.sums(one.sum_sha256, layout, one.bucket_count)
            refuse_lie(one, bounding.problem(one, found))
            return found

        return derive(
            parent.checkpoint,
            (
                WindowSums.of(sums(one), one, weight)
                for one, weight in merged.pairs
                if one.sum_sha256 and weight
            ),
            updates=merged.accepted,
            weight_total=merged.weight_total,
            policy=policy,
            server=server_at(policy, parent.number + 1, merged.delay),
            layout=layout,
            guide=direction_of_guide(self._store.guide(guide_sha256, layout, self._context.trust)),
            bases=mixed_bases(merged.pairs, policy, parent.number, self._models.read),
        )

    def _refused(self, number: int, why: str) -> IntegrityProblem:
        return IntegrityProblem(
            "FLV-3305",
            f"version {number} in the store was made by no merger: {why}",
            where=self._store.store.describe(),
            hint=f"this merger signs and builds nothing on it, and waits: see {RUNBOOK}",
        )
