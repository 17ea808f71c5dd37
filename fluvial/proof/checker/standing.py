"""What a partition remembers for the rules of ``fluvial/policy/v3``: shares, quarantine, time, guide, what is usual.

To a policy before v3 all of it is empty. The rules, from docs/policy.md and docs/defences.md:

* a device has ``saved_max`` contributions at first, a version gives it ``per_version``, a scored update takes one;
* six (``quarantine_refusals``) anomalous ones of its last eight scored updates bring it into quarantine;
* what a device had is forgotten when its last scored update is eight versions ago;
* a base is welcome beyond ``versions_max`` for ``seconds_max`` after the barrier behind it, at most 10,000 versions.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from fluvial.proof.checker import arithmetic, wire
from fluvial.proof.checker.encoding import Undecodable
from fluvial.proof.checker.lots import turns_of
from fluvial.proof.checker.task import Shelf

VERSIONS: Final = 8
LIVE_MAX: Final = 10_000
NORMS: Final = (1e-100, 1e100)
"""Of a guide."""
GUIDE_ENVELOPE_BYTES_MAX: Final = 16_384
"""What a guide's object has at most, beside a byte a weight and eight a tensor; a larger one is none."""
PEERS: Final = ("norm_deviations_max", "cosine_min", "history_updates", "history_updates_min")


def counts_shares(policy: dict[str, Any]) -> bool:
    """Whether the policy's format has shares, defences and lateness."""
    return "shares" in policy


def defence_of(policy: dict[str, Any]) -> dict[str, Any]:
    """The section ``defence``; what ``anomaly`` says in the words of one, for formats before v3."""
    if counts_shares(policy):
        defence: dict[str, Any] = policy["defence"]
        return defence
    anomaly = policy["anomaly"]
    return {name: anomaly[name] for name in PEERS} | {"kind": "peers" if anomaly["enabled"] else "none"}


@dataclass(slots=True)
class Had:
    """What a device had of late: an entry a version (newest last), and whether its last scored ones were refused."""

    version: int
    tokens: int
    accepted: list[int] = field(default_factory=lambda: [0] * VERSIONS)
    refused: list[bool] = field(default_factory=list)

    def at(self, version: int, shares: dict[str, Any]) -> Had:
        """The same, so many versions later."""
        passed = version - self.version
        tokens = min(shares["saved_max"], self.tokens + shares["per_version"] * passed)
        return Had(version, tokens, (self.accepted + [0] * passed)[-VERSIONS:], list(self.refused))

    def entry(self, device: str) -> dict[str, Any]:
        """As a snapshot has it: counts as 4 bits each, refusals as bits, the newest lowest."""
        accepted = sum(count << 4 * age for age, count in enumerate(reversed(self.accepted)))
        refused = sum(one << age for age, one in enumerate(reversed(self.refused)))
        counts = {"version": self.version, "tokens": self.tokens, "accepted": accepted, "refused": refused}
        return {"device_id": device} | counts | {"scored": len(self.refused)}


@dataclass(slots=True)
class Standing:
    """One partition's. ``superseded``: since when, in ms, a live version is not the newest."""

    usual: dict[str, Any] = field(default_factory=lambda: {"norm": 0.0, "cosine": 0, "share": 0})
    guide: arithmetic.Direction | None = None
    guide_sha256: str = ""
    superseded: dict[int, int] = field(default_factory=dict)
    devices: dict[str, Had] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)

    # -- shares

    def of(self, device: str, version: int, policy: dict[str, Any]) -> Had | None:
        """What a device had, as of ``version``; None where no policy counts it."""
        shares = policy.get("shares", {"per_version": 0})
        if not shares["per_version"]:
            return None
        known = self.devices.get(device)
        return Had(version, shares["saved_max"]) if known is None else known.at(version, shares)

    def refusal(self, device: str, version: int, policy: dict[str, Any], *, crowded: bool) -> str:
        """``over_share``, ``quarantined`` or "", at ``version``.

        ``crowded``: the window has taken as many updates of the device's cohort as it may.
        """
        had = self.of(device, version, policy)
        if crowded or (had is not None and had.tokens < 1):
            return "over_share"
        in_quarantine = had is not None and self.quarantined.get(device, 0) > version
        return "quarantined" if in_quarantine else ""

    def scored(self, device: str, had: Had | None, policy: dict[str, Any], *, accepted: bool) -> None:
        """An update of a device was scored."""
        if had is None:
            return
        had.tokens -= 1
        if accepted:
            had.accepted[-1] = min(15, had.accepted[-1] + 1)
        had.refused = [*had.refused, not accepted][-VERSIONS:]
        self.devices[device] = had
        most = policy["defence"]["quarantine_refusals"]
        if most and sum(had.refused) >= most:
            self.quarantined[device] = min(2**63 - 1, had.version + policy["defence"]["quarantine_versions"])
            had.refused = []

    def pardon(self, device: str, until: int) -> None:
        """An operator lifts the quarantine of that device that ends at that version, if there is one."""
        if (device, until) in self.quarantined.items():
            del self.quarantined[device]

    # -- bases

    def oldest(self, by_versions: int) -> int:
        """The oldest base that may be welcome, where by versions alone it is ``by_versions``."""
        return min([by_versions, *self.superseded])

    def since_ms(self, base: int) -> int | None:
        """When the barrier of ``base`` stood here: it superseded the one before. None where that is not remembered."""
        before = [one for one in self.superseded if one < base]
        return self.superseded[max(before)] if before else None

    def turns(self, base: int, version: int, now_ms: int, policy: dict[str, Any]) -> int | None:
        """How many deadlines the base had as the newest version; None: everybody may answer it."""
        since_ms = self.since_ms(base)
        if since_ms is None:
            return None if base in (0, version) else 0
        gone_ms = self.superseded.get(base)
        until_ms = now_ms if gone_ms is None or gone_ms > now_ms else gone_ms
        return turns_of(policy, since_ms, until_ms)

    def too_old(self, base: int, by_versions: int, timestamp_ms: int, policy: dict[str, Any]) -> bool:
        """Whether a base that is older than ``by_versions`` is so in time too."""
        if base >= by_versions or base not in self.superseded:
            return False
        return bool((timestamp_ms - self.superseded[base]) / 1000.0 > policy["staleness"]["seconds_max"])

    def supersede(
        self, version: int, timestamp_ms: int, models: dict[int, str], floor: int, policy: dict[str, Any]
    ) -> None:
        """A barrier to ``version`` came: the bases in ``models`` are not the newest any more."""
        staleness = policy["staleness"]
        if staleness.get("seconds_max", 0.0) <= 0.0:
            self.superseded = {}
            return
        for base in sorted(models):
            if base < version:
                self.superseded.setdefault(base, timestamp_ms)

        def stays(base: int) -> bool:
            behind, age_s = version - base, (timestamp_ms - self.superseded[base]) / 1000.0
            young = behind <= staleness["versions_max"] or age_s <= staleness["seconds_max"]
            return base >= floor and young and behind <= LIVE_MAX

        first = next((base for base in sorted(self.superseded) if stays(base)), version)
        self.superseded = {base: since for base, since in sorted(self.superseded.items()) if base >= first}

    def forget_before(self, oldest: int) -> None:
        """Bases below ``oldest`` are welcome no more."""
        self.superseded = {base: since for base, since in self.superseded.items() if base >= oldest}

    # -- barriers

    def adopt(self, shelf: Shelf, barrier: dict[str, Any], models: dict[int, str], revoked: set[str]) -> None:
        """What a barrier says is usual, and its guide where that is one; ``Damaged`` where its object is not there."""
        version, policy = barrier["version"], shelf.policy(barrier["policy_sha256"])
        self.usual = {name: barrier.get(f"usual_{name}", 0) for name in ("norm", "cosine", "share")}
        self.guide, self.guide_sha256 = None, ""
        named = barrier.get("guide_sha256", "")
        guide = guide_of(shelf, named, revoked) if named else None
        if guide is not None:
            base, model_sha256, direction = guide
            young = 0 <= version - base <= policy.get("defence", {}).get("guide_versions_max", 0)
            if young and models.get(base) == model_sha256:
                self.guide, self.guide_sha256 = direction, named
        self.devices = {d: had for d, had in self.devices.items() if had.version > version - VERSIONS}
        self.quarantined = {device: until for device, until in self.quarantined.items() if until > version}
        if not counts_shares(policy):
            self.devices, self.quarantined = {}, {}

    def snapshot(self, policy: dict[str, Any]) -> dict[str, Any]:
        """The fields of a PartitionState since v2 that v1 has not, by the policy's format."""
        if not counts_shares(policy):
            return {}
        return {
            "guide_sha256": self.guide_sha256,
            "usual_norm": float(self.usual["norm"]),
            "usual_cosine": self.usual["cosine"],
            "usual_share": self.usual["share"],
            "superseded": [{"version": v, "since_ms": ms} for v, ms in sorted(self.superseded.items())],
            "shares": [self.devices[device].entry(device) for device in sorted(self.devices)],
            "quarantined": [
                {"device_id": d, "until": until} for d, until in sorted(self.quarantined.items())
            ],
        }


def guide_of(shelf: Shelf, name: str, revoked: set[str]) -> tuple[int, str, arithmetic.Direction] | None:
    """(version, model hash, direction) of the guide that ``name`` names; None where no guardian signed such a one."""
    data, task = shelf.named(name), shelf.task
    if len(data) > task.parameters + 8 * len(task.weights) + GUIDE_ENVELOPE_BYTES_MAX:
        return None
    try:
        sealed = wire.open_sealed(task.notary, data)
    except Undecodable:
        return None
    record = sealed.record
    if sealed.kind != "Guide" or record is None or not sealed.genuine or sealed.signer is None:
        return None
    if sealed.signer.role != "guardian" or task.certificate_name(sealed.signer.serial) in revoked:
        return None
    direction = shelf.direction_in(record["direction"]) if record["task"] == task.name else None
    if direction is None or not all(math.isfinite(one) and one >= 0.0 for one in direction.scales):
        return None
    good = NORMS[0] <= direction.norm <= NORMS[1]
    return (record["version"], record["model_sha256"], direction) if good else None


# -- defences


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a defence makes of an update: whether it is anomalous; its deviations, clipping norm and factor if not."""

    anomalous: bool
    deviations: float = 0.0
    clip_to: float = math.inf
    factor: int = arithmetic.WEIGHT_ONE


def ruling(
    policy: dict[str, Any], norm: float, cosine: float, *, standing: Standing, share: int, norms: list[float]
) -> Ruling:
    """Rule on an update of that norm, cosine (with the guide for ``guide``, else with the last step) and share."""
    defence = defence_of(policy)
    kind = defence["kind"]
    if kind == "none":
        return Ruling(anomalous=False)
    if kind == "peers":
        known = len(norms) >= defence["history_updates_min"]
        deviations = arithmetic.robust_deviations(norm, norms) if known else 0.0
        far = deviations > defence["norm_deviations_max"] or cosine < defence["cosine_min"]
        return Ruling(far, deviations)
    if norm == 0.0:
        return Ruling(anomalous=True)
    usual = standing.usual
    floor = defence["norm_clip_floor"] * policy["updates"]["norm_clip"]
    medians = defence["norm_clip_medians"] * usual["norm"]
    clip_to = max(floor, medians) if usual["norm"] > 0.0 else math.inf
    if kind == "median":
        return Ruling(anomalous=False, clip_to=clip_to)
    one = arithmetic.WEIGHT_ONE
    fair = min(one, one * usual["share"] // share) if usual["share"] else one
    if standing.guide is None:
        return Ruling(anomalous=False, clip_to=clip_to, factor=fair)
    if cosine < defence["guide_cosine_min"]:
        return Ruling(anomalous=True)
    least = defence["guide_cosine_min"]
    above, full = (math.trunc(one * (value - least)) for value in (cosine, usual["cosine"] / 64))
    agreed = min(one, one * above // full) if full > 0 else one
    return Ruling(anomalous=False, clip_to=clip_to, factor=max(1, agreed * fair // one))


# -- histograms


def times(policy: dict[str, Any], norm: float, clip_to: float) -> int:
    """How many times a norm counts: by its square, in eighths of what it is clipped to, where the policy says so."""
    if policy["defence"].get("usual_norm_by", "updates") == "updates":
        return 1
    eighths = 8 if norm >= clip_to else math.floor(8.0 * (norm / clip_to) + 0.5)
    return int(max(1, eighths) ** 2)


@dataclass(slots=True)
class Tally:
    """A window's histograms."""

    norms: dict[int, int] = field(default_factory=dict)
    cosines: dict[int, int] = field(default_factory=dict)
    shares: dict[int, int] = field(default_factory=dict)

    def add(self, norm: float, cosine: float | None, share: int | None, times: int) -> None:
        """Count an accepted update, its norm so many times; ``share`` is None where the policy counts none."""
        count = 840 // min(8, share or 1)
        if norm > 0.0:
            high = struct.unpack(">H", struct.pack(">d", norm)[:2])[0] >> 1
            self.norms[high] = self.norms.get(high, 0) + count * times
        if cosine is not None:
            step = math.floor(cosine * 64.0)
            self.cosines[step] = self.cosines.get(step, 0) + count
        if share is not None:
            self.shares[share] = self.shares.get(share, 0) + count

    def add_all(self, record: dict[str, Any]) -> None:
        """Count what the window of an edge counted, by its RegionalAggregate."""
        for name, counts in (("norms", self.norms), ("cosines", self.cosines), ("shares", self.shares)):
            for one in record[name]:
                counts[one["bucket"]] = counts.get(one["bucket"], 0) + one["count"]

    def record(self) -> dict[str, Any]:
        """The fields of a RegionalAggregate since v2 that v1 has not."""
        return {
            name: [{"bucket": bucket, "count": counts[bucket]} for bucket in sorted(counts)]
            for name, counts in (("norms", self.norms), ("cosines", self.cosines), ("shares", self.shares))
        }
