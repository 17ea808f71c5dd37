"""What went into each version: windows that the logs close, each once, and what follows of it (invariants 1 to 4)."""

from __future__ import annotations

from collections.abc import Mapping

from fluvial.proof.checker import late
from fluvial.proof.checker.arithmetic import WEIGHT_ONE
from fluvial.proof.checker.chain import Chain, Version
from fluvial.proof.checker.derived import Window
from fluvial.proof.checker.partitions import PartitionResult
from fluvial.proof.checker.report import Findings, Slot
from fluvial.proof.checker.standing import counts_shares
from fluvial.proof.checker.task import Damaged


def check_inputs(chain: Chain, partitions: Mapping[Slot, PartitionResult]) -> None:
    """Every input is a recomputed window, each in one version; cursors and totals follow (invariants 1, 3, 4)."""
    findings = chain.findings
    cursors = dict.fromkeys(partitions, 0)
    for version in chain.versions[1:]:
        windows = _windows_of(version, partitions, cursors, findings)
        if windows is not None:
            parent = chain.versions[version.number - 1]
            _compare_weights(chain, version, parent, windows)
            _compare_totals(version, parent, windows, cursors, findings)
    for result in partitions.values():
        _check_accepted(chain, result)


def _windows_of(
    version: Version,
    partitions: Mapping[Slot, PartitionResult],
    cursors: dict[Slot, int],
    findings: Findings,
) -> list[Window] | None:
    windows = []
    for one in version.manifest["inputs"]:
        slot, sequence = (one["region"], one["partition"]), one["sequence"]
        what = f"version {version.number}, input {sequence} of {slot[0]}[{slot[1]}]"
        result = partitions.get(slot)
        if result is None or not 0 <= sequence < len(result.windows):
            if result is None or result.complete:
                findings.violate(4, f"{what}: the log closes no such window")
            return None
        window = result.windows[sequence]
        names = ("first_offset", "next_offset", "accepted", "sum_sha256")
        expected = {name: window.record[name] for name in names} | {"sha256": window.sha256}
        findings.compare(4, what, expected, one)
        if sequence != cursors[slot]:
            findings.violate(3, f"{what}: the next window to be merged is {cursors[slot]}")
        cursors[slot] = sequence + 1
        windows.append(window)
    return windows


def _compare_totals(
    version: Version,
    parent: Version,
    windows: list[Window],
    cursors: Mapping[Slot, int],
    findings: Findings,
) -> None:
    what = f"manifest of version {version.number}"
    rows: dict[str, list[int]] = {}
    for region, partition in sorted(cursors):
        rows.setdefault(region, []).append(cursors[region, partition])
    findings.compare(3, what, {"cursors": rows}, version.manifest)
    counts: dict[str, int] = {}
    for window in windows:
        for outcome, count in window.record["counts"].items():
            counts[outcome] = counts.get(outcome, 0) + count
    says = late.says_lateness(version.manifest)
    weights = [one["weight"] if says else WEIGHT_ONE for one in version.manifest["inputs"]]
    counting = [one.record for one, weight in zip(windows, weights, strict=True) if weight]
    added = ("accepted", "staleness_total", "update_bytes")
    expected: dict[str, object] = {name: sum(one[name] for one in counting) for name in added}
    expected["weight_total"] = sum(
        late.weight_after(one.record["weight_total"], weight)
        for one, weight in zip(windows, weights, strict=True)
    )
    expected["counts"] = counts
    expected["staleness_max"] = max((one["staleness_max"] for one in counting), default=0)
    if says:
        expected["dropped"] = sum(one.record["accepted"] for one in windows) - sum(
            one["accepted"] for one in counting
        )
        expected["usual"] = late.pools_after(parent.manifest, counting)
    expected |= {name: parent.signed[name] for name in ("policy_sha256", "floor")} | {"reason": "version"}
    findings.compare(4, what, expected, version.manifest)


def _compare_weights(chain: Chain, version: Version, parent: Version, windows: list[Window]) -> None:
    """The manifest's format, and what it says is left of each window, follow from the policy in force."""
    findings, what = chain.findings, f"manifest of version {version.number}"
    try:
        policy = chain.shelf.policy(parent.signed["policy_sha256"])
    except Damaged as damage:
        findings.violate(4, f"{what}: whether windows are late cannot be said: {damage}")
        return
    says = chain.shelf.task.notary.signs_manifests and counts_shares(policy)
    if says != late.says_lateness(version.manifest):
        findings.violate(2, f"{what} is a {version.manifest['format']}, which its policy does not make")
    if not says or not late.says_lateness(version.manifest):
        return
    for window, one in zip(windows, version.manifest["inputs"], strict=True):
        record = window.record
        left = late.weight_left(policy, parent.number, record["version"])
        expected = {"version": record["version"], "weight_total": record["weight_total"], "weight": left}
        named = f"{what}, input {one['sequence']} of {one['region']}[{one['partition']}]"
        findings.compare(4, named, expected, one)


def _check_accepted(chain: Chain, result: PartitionResult) -> None:
    """Every accepted offset lies in one version's input ranges, or above all of them: in a window still unmerged."""
    findings = chain.findings
    spans = sorted(
        (one["first_offset"], one["next_offset"], version.number)
        for version in chain.versions[1:]
        for one in version.manifest["inputs"]
        if (one["region"], one["partition"]) == result.slot
    )
    merged = 0
    for first, after, version in spans:
        if first > merged:
            left_out = [offset for offset in result.accepted if merged <= offset < first]
            findings.violate(3, f"{result.name}: no version holds offsets {merged} to {first - 1}")
            if left_out:
                findings.violate(
                    1, f"{result.name}@{left_out[0]} was accepted, later ones are merged, it is not"
                )
        again = [offset for offset in result.accepted if first <= offset < min(after, merged)]
        if first < merged:
            findings.violate(3, f"{result.name}: version {version} holds offsets again from {first} on")
        for offset in again:
            findings.double += 1
            findings.violate(1, f"{result.name}@{offset} is in two versions, one of them is {version}")
        merged = max(merged, after)
