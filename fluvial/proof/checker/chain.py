"""The versions: one chain of manifests, each recomputed from the windows that it names (invariants 1 to 4 and 6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import rfc8785

from fluvial.proof.checker import arithmetic, cone, control, late, mixing, wire
from fluvial.proof.checker.buckets import weights_in
from fluvial.proof.checker.partitions import PartitionResult
from fluvial.proof.checker.rates import rate_of
from fluvial.proof.checker.report import Findings, Slot
from fluvial.proof.checker.standing import guide_of
from fluvial.proof.checker.task import (
    MANIFEST_FORMATS,
    SIGNED_MANIFEST_FORMATS,
    Damaged,
    Shelf,
    known_format,
    object_key,
    version_key,
)

_NEEDED: Final = (
    "accepted",
    "weight_total",
    "staleness_max",
    "model_sha256",
    "optimizer_sha256",
    "cursors",
    "counts",
)
_NEEDED_OF_INPUTS: Final = ("first_offset", "next_offset", "accepted", "sum_sha256", "sha256")


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version: its manifest's hash, and what its barriers and announcements have to say of it."""

    number: int
    sha256: str
    signed: dict[str, Any]
    manifest: dict[str, Any]
    merger: wire.Signer | None = None


@dataclass(slots=True)
class Chain:
    """Versions 0, 1, ... as the store has them, and the recomputed sums of each, int64."""

    shelf: Shelf
    findings: Findings
    versions: list[Version] = field(default_factory=list)
    holders: dict[tuple[Slot, int], list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)
    totals: dict[int, late.Sums] = field(default_factory=dict)

    def keep_sums(self, slot: Slot, sums: arithmetic.Ints, record: dict[str, Any]) -> None:
        """Add a recomputed window's sums to those of the version that holds it; integers, so the order is nothing.

        They count as its manifest says, which ``inputs`` holds to the policy.
        """
        for version, named in self.holders.get((slot, record["sequence"]), [])[:1]:
            weight = named.get("weight", arithmetic.WEIGHT_ONE)
            if not weight:
                continue
            if version not in self.totals:
                self.totals[version] = late.Sums(self.shelf.task.parameters, self.shelf.task.digits)
            total = self.totals[version]
            total.answered(record, weight)
            total.add(sums, weights_in(record), named.get("weight_total", 0), weight)
            if "weight" in named:  # else its manifest knows of no lateness
                total.latest = max(total.latest, version - 1 - record["version"])


def read_chain(shelf: Shelf, findings: Findings) -> Chain:
    """The manifests from version 0 on, each held against the one before (invariant 2)."""
    task, objects = shelf.task, shelf.objects
    chain = Chain(shelf, findings)
    signed = {
        "manifest_sha256": task.genesis_sha256,
        "model_sha256": task.model_sha256,
        "policy_sha256": task.policy_sha256,
        "reference_sha256": "",
        "floor": 0,
        "reason": "version",
    }
    chain.versions.append(Version(0, task.genesis_sha256, signed, {}))
    while (data := objects.get(version_key(task.name, len(chain.versions), "manifest.json"))) is not None:
        version = _version(data, len(chain.versions), chain)
        if version is None:
            break
        chain.versions.append(version)
        for one in version.manifest["inputs"]:
            slot = (one["region"], one["partition"])
            chain.holders.setdefault((slot, one["sequence"]), []).append((version.number, one))
    numbers = [
        int(parts[-2])
        for parts in (key.split("/") for key in objects.keys(f"{task.name}/versions/"))
        if parts[-1] == "manifest.json" and parts[-2].isdecimal()
    ]
    lost = sorted(number for number in numbers if number > len(chain.versions))
    if lost:
        findings.violate(2, f"version {lost[0]} has a manifest, version {len(chain.versions)} has none")
    findings.versions = len(chain.versions) - 1
    return chain


def _require_types(manifest: dict[str, Any]) -> None:
    """``ValueError`` where a number is none, or a text: a merger's key signs any."""
    whole = (
        "partition",
        "sequence",
        "first_offset",
        "next_offset",
        "accepted",
        "version",
        "weight",
        "weight_total",
        "staleness_max",
    )
    rows = [manifest, *manifest["inputs"]]
    numbers = [row[key] for row in rows for key in (*whole, "floor") if key in row]
    texts = [one["sum_sha256"] for one in manifest["inputs"]] + [manifest.get("guide_sha256", "")]
    if any(type(one) is not int for one in numbers) or any(type(one) is not str for one in texts):
        raise ValueError("of another type")


def _require_weights(manifest: dict[str, Any]) -> None:
    """``ValueError`` where what an input weighs is no number that it can weigh."""
    for one in manifest["inputs"]:
        counts = (one["version"], one["weight_total"])
        if (
            one["weight"] not in range(arithmetic.WEIGHT_ONE + 1)
            or min(counts) < 0
            or manifest["dropped"] < 0
        ):
            raise ValueError("no weights")


@lru_cache(maxsize=64)
def _parsed(data: bytes) -> tuple[dict[str, Any], bool]:
    """A manifest, and whether its bytes are its canonical form (RFC 8785)."""
    manifest = json.loads(data)
    return manifest, rfc8785.dumps(manifest) == data


def _version(data: bytes, number: int, chain: Chain) -> Version | None:
    findings, task = chain.findings, chain.shelf.task
    what = f"manifest of version {number}"
    try:
        manifest, canonical = _parsed(data)
        signs = task.notary.signs_manifests
        known_format(manifest, SIGNED_MANIFEST_FORMATS if signs else MANIFEST_FORMATS, what)
        named = ("manifest_sha256", "model_sha256", "policy_sha256", "reference_sha256", "floor", "reason")
        signed = {"manifest_sha256": arithmetic.sha256(data)} | {key: manifest[key] for key in named[1:]}
        inputs = [(one["region"], one["partition"], one["sequence"]) for one in manifest["inputs"]]
        known = all((region, partition) in task.slots for region, partition, _ in inputs)
        _ = (
            [manifest[key] for key in _NEEDED],
            [one[key] for one in manifest["inputs"] for key in _NEEDED_OF_INPUTS],
        )
        _require_types(manifest)
        if late.says_lateness(manifest):
            _require_weights(manifest)
        signed |= late.usual_of(manifest)
    except Damaged as damage:
        findings.violate(2, str(damage))
        return None
    except (ValueError, KeyError, TypeError, RecursionError, rfc8785.CanonicalizationError) as error:
        findings.violate(2, f"{what} is not a manifest: {type(error).__name__}")
        return None
    if not canonical:
        findings.violate(2, f"{what} is not in canonical form")
        return None
    if not known:
        findings.violate(3, f"{what} names partitions that the task does not have")
    parent = chain.versions[-1].sha256
    if manifest.get("parent_sha256") != parent:
        findings.forks += 1
    identity = {"parent_sha256": parent, "task": task.name, "version": number}
    findings.compare(2, what, identity, manifest)
    merger = None
    if signs:
        unsigned = {key: value for key, value in manifest.items() if key != "merger"}
        merger = task.notary.merger_of(rfc8785.dumps(unsigned), manifest.get("merger"))
        if merger is None:
            findings.violate(2, f"{what} is signed by no merger of the task")
            return None
    return Version(number, arithmetic.sha256(data), signed, manifest, merger)


# -- the models


def check_models(chain: Chain, *, complete: bool, drained: bool) -> None:
    """Recompute each version's model, optimizer state and direction, and compare with manifest and store (invariant 4).

    ``complete`` is whether all sums could be recomputed: else only the files' hashes are looked at.
    """
    shelf, findings = chain.shelf, chain.findings
    layout, weights = shelf.task.layout, shelf.task.parameters
    files = [
        shelf.objects.get(version_key(shelf.task.name, 0, f"{name}.safetensors"))
        for name in ("model", "optimizer")
    ]
    named = (shelf.task.model_sha256, shelf.task.optimizer_sha256)
    if [data and arithmetic.sha256(data) for data in files] != [*named] or None in files:
        findings.violate(4, "the files of version 0 are not what the genesis document names")
        return
    model = arithmetic.model_from(files[0] or b"", layout)
    if model[layout[-1].end - sum(one.end - one.begin for one in shelf.task.control) :].any():
        findings.violate(4, "the control variates of version 0 are not 0")
    optimizer = arithmetic.optimizer_from(files[1] or b"")
    reference = ""
    for version in chain.versions[1:]:
        manifest, before = version.manifest, chain.versions[version.number - 1]
        total, updates = chain.totals.pop(version.number, None), manifest["accepted"]
        if not complete or (total is None and updates):
            _check_files(chain, version, drained=drained)
            continue
        if total is not None and updates > 0 and manifest["weight_total"] > 0:
            try:
                policy, guide = shelf.policy(before.signed["policy_sha256"]), _guide(chain, manifest)
                models = _answered(chain, before.number, total, policy)
            except Damaged as damage:
                findings.violate(4, f"version {version.number} cannot be recomputed: {damage}")
                return
            sums = cone.turned(total.combined(policy), guide, policy, shelf.task.weights)
            divisor = arithmetic.divisor_of(updates, manifest["weight_total"], policy)
            previous, varied = model[:weights], shelf.task.control
            delta = arithmetic.mean_delta(sums, divisor, policy)
            delta = mixing.mixed(delta, models, previous, divisor)
            rate = rate_of(
                policy, version.number, late.delay_of(policy, manifest["staleness_max"], total.latest)
            )
            after, optimizer = arithmetic.server_step(policy["server"], previous, optimizer, delta, rate)
            if not late.says_lateness(manifest):  # nothing is late, and its inputs do not say what they weigh
                total.weighs = manifest["weight_total"] * arithmetic.WEIGHT_ONE
            rest = [total.means()] if shelf.task.buffers else []
            if varied:
                rest.append(control.moved(model[varied[0].begin :], total.control, policy))
            model = np.concatenate([after, *rest])
            direction = arithmetic.direction_bytes(previous, after, shelf.task.weights)
            reference = arithmetic.sha256(direction)
            if shelf.objects.get(object_key(shelf.task.name, reference)) != direction:
                findings.violate(
                    4, f"the direction of version {version.number}, {reference}, is not in the store"
                )
        derived = {
            "model_sha256": arithmetic.sha256(arithmetic.model_bytes(model, layout)),
            "optimizer_sha256": arithmetic.sha256(arithmetic.optimizer_bytes(optimizer)),
            "reference_sha256": reference,
        }
        findings.compare(4, f"manifest of version {version.number}", derived, manifest)
        _check_files(chain, version, drained=drained)


def _answered(
    chain: Chain, parent: int, total: late.Sums, policy: dict[str, Any]
) -> list[tuple[int, arithmetic.Model]]:
    """What the updates weigh that answered a version before the parent, and its weights; ascending by version.

    Only where the policy mixes models. ``Damaged`` for a version that there is not, or whose model is gone.
    """
    if not mixing.mixes(policy):
        return []
    found, task = [], chain.shelf.task
    for base in sorted(base for base in total.bases if base < parent):
        if base < 0:
            raise Damaged(f"a window has updates that answered version {base}")
        key = version_key(task.name, base, "model.safetensors")
        data = chain.shelf.file(key, chain.versions[base].signed["model_sha256"])
        found.append((total.bases[base], arithmetic.model_from(data, task.layout)[: task.parameters]))
    return found


def _guide(chain: Chain, manifest: dict[str, Any]) -> arithmetic.Direction | None:
    """The direction of the guide that a manifest names, where a guardian signed one; ``Damaged`` where it is gone."""
    named = manifest.get("guide_sha256", "")
    found = guide_of(chain.shelf, named, set()) if named else None
    return None if found is None else found[2]


def _check_files(chain: Chain, version: Version, *, drained: bool) -> None:
    """The stored files are the ones that the manifest names; the head's may still be on their way."""
    for name in ("model", "optimizer"):
        key = version_key(chain.shelf.task.name, version.number, f"{name}.safetensors")
        on_its_way = version is chain.versions[-1] and not drained
        if on_its_way and chain.shelf.objects.get(key) is None:
            continue
        try:
            chain.shelf.file(key, version.manifest[f"{name}_sha256"])
        except Damaged as damage:
            chain.findings.violate(4, f"version {version.number}: {damage}")


# -- what mergers said


def check_barriers(chain: Chain, partitions: Mapping[Slot, PartitionResult]) -> None:
    """Every authentic barrier names its version's manifest, and what stands in it (invariant 2)."""
    for result in partitions.values():
        for said, offset in result.signed:
            what = f"barrier of version {said['version']} in {result.name}@{offset}"
            committed = committed_in(chain, said["version"])
            if committed is None:
                chain.findings.forks += 1
                chain.findings.violate(2, f"{what}: no such version is committed")
            else:
                compare_signed(chain, what, committed, said)
                if late.says_lateness(committed.manifest) and "usual_norm" not in said:
                    chain.findings.violate(2, f"{what}: it does not say what is usual")


def committed_in(chain: Chain, number: int) -> Version | None:
    """A version that is committed, be it after the chain was read."""
    while len(chain.versions) <= number:
        data = chain.shelf.objects.get(
            version_key(chain.shelf.task.name, len(chain.versions), "manifest.json")
        )
        version = None if data is None else _version(data, len(chain.versions), chain)
        if version is None:
            return None
        chain.versions.append(version)
    return chain.versions[number] if number >= 0 else None


def compare_signed(chain: Chain, what: str, committed: Version, said: dict[str, Any]) -> None:
    """Every field that a merger signed of a version is the version's."""
    if said["manifest_sha256"] != committed.sha256:
        chain.findings.forks += 1
    expected = {name: value for name, value in committed.signed.items() if name in said}
    chain.findings.compare(2, what, expected, said)
