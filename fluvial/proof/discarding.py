"""Taking away what somebody put in the store under a version's name and no merger made.

Its name is taken by the one conditional write, so no merger can put the right one there. Mergers refuse it and wait;
once it is gone, they go on. A version that a merger announced, or that mergers would adopt, stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aggregation.errors import IntegrityProblem, UsageProblem
from backends.clock import SYSTEM_CLOCK, Clock
from backends.store.removing import remove_objects
from fluvial.proof.audit import audit_task
from fluvial.proof.audit.findings import MANIFEST
from schemas.manifest_seals import require_sealed
from schemas.manifests import decode_manifest
from schemas.objects import manifest_key, sha256_hex, versions_prefix
from stream_apps.merger.announced import Announced
from stream_apps.merger.holding import Parent, ended, flaw_of
from stream_apps.merger.told import held_until, told_by_barriers

if TYPE_CHECKING:
    from collections.abc import Collection

    from fluvial.reading.task_view import TaskView
    from fluvial.terminal.output import Output


@dataclass(frozen=True, slots=True)
class Discarded:
    """What has gone: the manifest's SHA-256, under which its bytes are kept, how many objects, and what was wrong."""

    manifest_sha256: str
    objects: int
    why: tuple[str, ...]


def flaws_of(view: TaskView, version: int, output: Output, clock: Clock = SYSTEM_CLOCK) -> tuple[str, ...]:
    """Why what stands in the store as ``version`` is none. UsageProblem FLV-3306 where it is one, or there is none."""
    if not view.objects.is_committed(version):
        raise _stays(view, f"there is no version {version} of {view.task} in the store")
    announced = Announced(view.trust, view.task, view.genesis.regions)
    announced.read(view.reader)
    newest = max(announced.manifests, default=0)
    if version == newest + 1 and version in _told(view, newest, announced):
        raise _stays(view, f"a merger wrote barriers of version {version}: workers were told of it")
    if version <= newest:
        raise _stays(view, f"a merger announced version {newest}: devices and workers were told of it")
    if version > newest + 1 and not view.objects.is_committed(version - 1):
        return (f"version {version - 1} has no manifest: nobody can have made version {version}",)
    if version == newest + 1 and (refused := _refused_by_mergers(view, version, clock, announced.revoked)):
        return (f"manifest of version {version}: {refused}",)
    report = audit_task(view.settings, view.file, first=version, last=version, output=output)
    keys = {manifest_key(view.task, version), manifest_key(view.task, version - 1)}
    why = tuple(str(one) for one in report.findings if one.error_id == MANIFEST and one.where in keys)
    if not why:
        raise _stays(
            view, f"version {version} is what its windows give: a merger made it and has yet to tell of it"
        )
    return why


def _told(view: TaskView, newest: int, announced: Announced) -> dict[int, str]:
    """What barriers behind the newest announced version say: a merger may have died before it announced the next."""
    slots = view.genesis.slots
    starts = held_until(newest, slots, view.objects.manifest)
    return told_by_barriers(
        view.reader,
        view.trust,
        view.task,
        slots,
        starts=starts,
        revoked=announced.was_revoked,
        records_max=None,
    )


def discard(view: TaskView, version: int, why: tuple[str, ...]) -> Discarded:
    """Remove ``versions/<version>/``; the manifest is kept as an object, for whoever looks into it."""
    sha256 = view.objects.put_object(view.objects.manifest_bytes(version))
    assert sha256 == sha256_hex(view.objects.get_object(sha256))
    removed = remove_objects(view.settings.store, f"{versions_prefix(view.task)}{version}/")
    return Discarded(sha256, removed, why)


def _refused_by_mergers(view: TaskView, version: int, clock: Clock, revoked: Collection[str]) -> str:
    """Which of the mergers' rules it breaks by itself; "" where the audit has to say what is wrong, if anything is."""
    genesis, objects = view.genesis, view.objects
    try:
        data, before = objects.manifest_bytes(version), objects.manifest_bytes(version - 1)
        manifest = decode_manifest(data)
        signer = require_sealed(manifest, view.trust)
        parent = decode_manifest(before) if version > 1 else None
    except IntegrityProblem:
        return ""
    if manifest.parent_sha256 != sha256_hex(before):
        return ""  # of the two either may be the wrong one
    first = genesis.first_policy
    policy_sha256 = parent.policy_sha256 if parent else first.sha256
    policy = first if policy_sha256 == first.sha256 else objects.policy(policy_sha256)
    floor = parent.floor if parent else 0
    named = Parent(manifest.parent_sha256, policy_sha256, floor, policy.updates_per_version_max)
    return flaw_of(manifest, view.task, version, named) or ended(signer, clock.time(), revoked)


def _stays(view: TaskView, why: str) -> UsageProblem:
    return UsageProblem(
        "FLV-3306",
        f"nothing is discarded: {why}",
        where=view.objects.store.describe(),
        hint="a merger names the version that it refuses (FLV-3305); `fluvial audit` compares all of them",
    )
