"""From the bytes of one log record to what it says: decode, authenticate, translate. Pure.

``decode_record`` reads an updates topic for the fold, ``skip_in`` looks there for Skips only; ``aggregate_in`` and
``announcement_in`` read the topics of windows and versions. Nothing here raises on bad input: whatever is wrong with a
record becomes ``RejectedRecord``, which the fold counts, or ``Unverified``, which readers pass over or report.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, assert_never

from aggregation.fold.events import (
    Barrier,
    EdgeAggregate,
    Event,
    RejectedRecord,
    Revoke,
    Skip,
    Tick,
    Update,
)
from aggregation.fold.rejections import REJECTIONS, RejectionReason
from aggregation.policy import UPDATE_BYTES_LIMIT, Policy
from aggregation.reasons import Because, Reason, because
from schemas import edges
from schemas.avro import CodecError, unknown_schema
from schemas.certificates import BadCertificateError, Identity, Role, Trust
from schemas.control_records import barrier_of, pardon_of, revoke_of, skip_of
from schemas.envelope import ClosedEnvelope, Envelope, read_envelope, read_update
from schemas.known import is_later, is_unknown
from schemas.objects import is_sha256
from schemas.windows import aggregate_of

if TYPE_CHECKING:
    from collections.abc import Container

    from aggregation.fold.rules import RecordRules
    from aggregation.server.aggregates import Aggregate, Slot

SIGNERS: Final = {
    "ClientUpdate": Role.DEVICE,
    "EdgeAggregate": Role.EDGE,
    "Tick": Role.WORKER,
    "RegionalAggregate": Role.WORKER,
    "Guide": Role.GUARDIAN,
    "GuideAnnouncement": Role.GUARDIAN,
    "Barrier": Role.MERGER,
    "ModelAnnouncement": Role.MERGER,
    "Revoke": Role.OPERATOR,
    "Skip": Role.OPERATOR,
    "Pardon": Role.OPERATOR,
}
"""Which role may sign which record."""

CONTROL_KINDS: Final = frozenset({"Barrier", "Tick", "Revoke", "Skip", "Pardon"})
"""What stands in an updates topic beside contributions."""
CONTRIBUTIONS: Final = frozenset({"ClientUpdate", "EdgeAggregate"})
INGRESS_KINDS: Final = CONTRIBUTIONS | CONTROL_KINDS
DEVICE_TEXT_MAX: Final = 64
"""Characters of ``device_id`` and ``update_id``."""
COHORTS: Final = {float(cohort): cohort for cohort in range(100)}
"""What a device may say in ``client_metrics["cohort"]``; anything else is as if it had said nothing."""


def decode_record(value: bytes | None, timestamp_ms: int, trust: Trust, policy: Policy) -> Event:
    """The event in one record of an updates topic; ``timestamp_ms`` is its LogAppendTime, ``policy`` that in force."""
    if value is None:
        return _refused(because(Reason.NO_VALUE))
    bytes_max = policy.updates.bytes_max
    if len(value) > bytes_max:
        # No more than that of a size which no policy allows: who reads a bomb need not know how large it is.
        if len(value) > UPDATE_BYTES_LIMIT:
            return _refused(because(Reason.FAR_TOO_LARGE, UPDATE_BYTES_LIMIT, bytes_max))
        return _refused(because(Reason.TOO_LARGE, len(value), bytes_max))
    try:
        envelope = read_update(value, trust.rules)
    except CodecError as error:
        named = error.schema
        if named is not None and is_unknown(named, policy):
            return _refused(unknown_schema(named.header))
        return _refused(error.because)
    if is_later(envelope.schema, policy):
        return _refused(unknown_schema(envelope.schema.header))
    if envelope.kind not in INGRESS_KINDS:
        return _refused(because(Reason.ANOTHER_TOPIC, envelope.kind))
    signer = authenticate(
        envelope,
        timestamp_ms,
        trust,
        guardians=policy.counts_shares,
        cohorts=policy.knows_cohorts,
        edges=policy.knows_edges,
    )
    if isinstance(signer, RejectedRecord):
        return signer
    try:  # only now: decoding costs memory and time that a stranger must not be able to spend
        opened = envelope.open(trust.rules)
    except CodecError as error:
        return _refused(error.because, signer.region if envelope.kind == edges.KIND else signer.name)
    return _translate(opened, signer, len(value), timestamp_ms, trust.rules)


def _refused(why: Because, device_id: str = "") -> RejectedRecord:
    """A record with the outcome that its reason leads to."""
    return RejectedRecord(REJECTIONS[why.reason.outcome], why, device_id)


def skip_in(value: bytes | None, timestamp_ms: int, trust: Trust) -> Skip | None:
    """The Skip in one record of an updates topic, if it is one that an operator signed; of whatever partition.

    Whether that operator's certificate was revoked before is for whoever goes through the log to say: ``signer``.
    """
    opened = _verified(value, timestamp_ms, trust, "Skip")
    if isinstance(opened, Unverified):
        return None
    envelope, signer = opened
    by = trust.rules.certificate_name(signer.serial) if trust.rules.revokes_all else ""
    return skip_of(envelope.record, by)


def revoke_in(value: bytes | None, timestamp_ms: int, trust: Trust) -> Revoke | None:
    """The Revoke in one record of an updates topic, if it is one that an operator signed; of whatever task."""
    opened = _verified(value, timestamp_ms, trust, "Revoke")
    if isinstance(opened, Unverified):
        return None
    envelope, signer = opened
    by = trust.rules.certificate_name(signer.serial) if trust.rules.revokes_all else ""
    return revoke_of(envelope.record, by, trust.rules)


def barrier_in(value: bytes | None, timestamp_ms: int, trust: Trust) -> Barrier | Unverified:
    """The Barrier in one record of an updates topic, if a merger signed it; of whatever task and region.

    Whether that merger's certificate was revoked before is for whoever goes through the log to say: ``signer``.
    """
    opened = _verified(value, timestamp_ms, trust, "Barrier")
    if isinstance(opened, Unverified):
        return opened
    envelope, signer = opened
    barrier = _translate(envelope, signer, len(value or b""), timestamp_ms, trust.rules)
    assert isinstance(barrier, Barrier), "its kind says so"
    return barrier


class Flaw(enum.Enum):
    """What is wrong with a record; each is followed by what ``Unverified.detail`` holds then."""

    UNDECODABLE = enum.auto()
    """The codec's error."""
    WRONG_KIND = enum.auto()
    """The kind that it is."""
    FORGED = enum.auto()
    """What is wrong with its certificate or signature, in words."""
    WRONG_REGION = enum.auto()
    """Of which region its signer is, in words."""
    WRONG_PLACE = enum.auto()
    """Where it belongs, in words."""
    REVOKED = enum.auto()
    """With which certificate it is signed, in words: one that was revoked before."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """A record that is not what its topic holds, and why."""

    flaw: Flaw
    detail: str

    @property
    def reason(self) -> str:
        """Why, in words that go on from "the record"."""
        match self.flaw:
            case Flaw.UNDECODABLE:
                return f"cannot be decoded: {self.detail}"
            case Flaw.WRONG_KIND:
                return f"is a {self.detail}"
            case Flaw.FORGED | Flaw.WRONG_REGION | Flaw.WRONG_PLACE | Flaw.REVOKED:
                return self.detail
            case _:
                assert_never(self.flaw)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A version that is ready for a region's devices. The hashes are hex.

    ``merger`` is the name of who signed it among what is revoked; "" where a Revoke bars devices only.
    """

    task: str
    region: str
    version: int
    manifest_sha256: str
    model_sha256: str
    policy_sha256: str
    merger: str = field(default="", compare=False)

    def belongs_to(self, task: str, regions: Container[str]) -> bool:
        """Whether it is for that task, and for a region of it: a signature alone does not say so."""
        return self.task == task and self.region in regions


def announcement_in(value: bytes | None, timestamp_ms: int, trust: Trust) -> Announcement | Unverified:
    """The announcement in one record of a models topic, if a merger signed it; of whatever task and region.

    Whether that merger's certificate was revoked before is for whoever goes through the log to say:
    ``schemas.announcing``.
    """
    opened = _verified(value, timestamp_ms, trust, "ModelAnnouncement")
    if isinstance(opened, Unverified):
        return opened
    envelope, signer = opened
    by = trust.rules.certificate_name(signer.serial) if trust.rules.revokes_all else ""
    return Announcement(**envelope.record, merger=by)


@dataclass(frozen=True, slots=True)
class GuideAnnouncement:
    """A guide that is in the store: for which version, its object's SHA-256 (hex) and bytes, and who signed this."""

    task: str
    version: int
    model_sha256: str
    guide_sha256: str
    guide_bytes: int
    signer: Identity


def guide_announcement_in(
    value: bytes | None, timestamp_ms: int, trust: Trust
) -> GuideAnnouncement | Unverified:
    """The announcement in one record of a guides topic, if a guardian signed it; of whatever task.

    Its object's name is one: a store would refuse others in its own way.
    """
    opened = _verified(value, timestamp_ms, trust, "GuideAnnouncement")
    if isinstance(opened, Unverified):
        return opened
    envelope, signer = opened
    if not is_sha256(envelope.record["guide_sha256"]):
        return Unverified(Flaw.UNDECODABLE, "its guide_sha256 is not 64 lower-case hex digits")
    return GuideAnnouncement(**envelope.record, signer=signer)


def aggregate_in(
    value: bytes | None, timestamp_ms: int, trust: Trust, task: str, slot: Slot
) -> Aggregate | Unverified:
    """The closed window in one record of an aggregates topic, if a worker of the region of ``slot`` signed it.

    ``slot`` is the partition that the record stands in, ``timestamp_ms`` its LogAppendTime.
    """
    found = signed_aggregate_in(value, timestamp_ms, trust, task, slot)
    return found if isinstance(found, Unverified) else found[0]


def signed_aggregate_in(
    value: bytes | None, timestamp_ms: int, trust: Trust, task: str, slot: Slot
) -> tuple[Aggregate, Identity] | Unverified:
    """As ``aggregate_in``, and who signed it."""
    opened = _verified(value, timestamp_ms, trust, "RegionalAggregate")
    if isinstance(opened, Unverified):
        return opened
    envelope, signer = opened
    if signer.region != slot[0]:
        return Unverified(Flaw.WRONG_REGION, f"is signed by a worker of {signer.region}, not of {slot[0]}")
    aggregate = aggregate_of(envelope.record, envelope.payload)
    if (aggregate.task, aggregate.slot) != (task, slot):
        home = f"{aggregate.region}[{aggregate.partition}] of task {aggregate.task}"
        return Unverified(Flaw.WRONG_PLACE, f"belongs to {home}, not here")
    return aggregate, signer


def _verified(
    value: bytes | None, timestamp_ms: int, trust: Trust, kind: str
) -> tuple[Envelope, Identity] | Unverified:
    """The opened envelope and its signer, if it is of this kind and signed by who may sign that.

    The payload is decoded last: that costs memory and time which a stranger must not be able to spend.
    """
    try:
        envelope = read_envelope(value or b"", trust.rules)
        if envelope.kind != kind:
            return Unverified(Flaw.WRONG_KIND, envelope.kind)
        signer = authenticate(envelope, timestamp_ms, trust)
        if isinstance(signer, RejectedRecord):
            return Unverified(Flaw.FORGED, signer.because.text)
        return envelope.open(trust.rules), signer
    except CodecError as error:
        return Unverified(Flaw.UNDECODABLE, str(error))


def authenticate(
    envelope: ClosedEnvelope,
    timestamp_ms: int,
    trust: Trust,
    *,
    guardians: bool = True,
    cohorts: bool = True,
    edges: bool | None = None,
) -> Identity | RejectedRecord:
    """Who signed the envelope, if that role may sign this kind; an update's signer has to be its device.

    ``guardians``, ``cohorts`` and ``edges``: whether these are known, see ``Trust.identify``.
    """
    try:
        signer = trust.identify(envelope.certificate, guardians=guardians, cohorts=cohorts, edges=edges)
    except BadCertificateError as error:
        return _unauthentic(envelope, error.because)
    if not signer.valid_at(timestamp_ms):
        return _unauthentic(envelope, because(Reason.EXPIRED, signer.serial, timestamp_ms))
    if SIGNERS.get(envelope.kind) is not signer.role:
        return _unauthentic(envelope, because(Reason.ROLE_MAY_NOT, signer.role.value, envelope.kind))
    if not envelope.signed_by(signer.public_key, trust.domain):
        reason = Reason.NOT_SIGNED if trust.domain.version == 1 else Reason.NOT_SIGNED_FOR_THIS
        return _unauthentic(envelope, because(reason, signer.name))
    return signer


def _unauthentic(envelope: ClosedEnvelope, why: Because) -> RejectedRecord:
    """A control record that fails is a forgery, whichever check it fails; its reason says which."""
    if envelope.kind not in CONTRIBUTIONS:
        return RejectedRecord(RejectionReason.BAD_SIGNATURE, replace(why, forged=envelope.kind))
    return _refused(why)


def _translate(
    envelope: Envelope, signer: Identity, record_bytes: int, timestamp_ms: int, rules: RecordRules
) -> Event:
    record = envelope.record
    by = rules.certificate_name(signer.serial)
    barred_as = by if rules.revokes_all else ""
    match envelope.kind:
        case "ClientUpdate":
            return _update(record, signer, envelope.signature, (record_bytes, timestamp_ms), by)
        case edges.KIND:
            found = edges.edge_event(record, signer.region, signer.serial, envelope.signature, rules)
            if not isinstance(found, EdgeAggregate):
                return _refused(found, signer.region)
            return replace(found, record_bytes=record_bytes, signer=by, timestamp_ms=timestamp_ms)
        case "Barrier":
            return barrier_of(record, barred_as, timestamp_ms)
        case "Tick":
            if record["region"] != signer.region:
                return _unauthentic(envelope, because(Reason.WORKER_OF_ANOTHER_REGION, signer.region))
            first = record["window_first_offset"]
            return Tick(record["task"], record["region"], record["partition"], first, barred_as)
        case "Revoke":
            return revoke_of(record, barred_as, rules)
        case "Skip":
            return skip_of(record, barred_as)
        case "Pardon":
            return pardon_of(record, barred_as)
        case kind:
            raise ValueError(f"no translation for {kind}")  # INGRESS_KINDS and this match disagree: a defect


def _update(
    record: dict[str, Any], signer: Identity, signature: bytes, size_and_time: tuple[int, int], by: str
) -> Update | RejectedRecord:
    device_id = record["device_id"]
    if device_id != signer.name:
        return _refused(because(Reason.ANOTHER_DEVICE, device_id[:DEVICE_TEXT_MAX], signer.name), signer.name)
    if len(record["update_id"]) > DEVICE_TEXT_MAX:
        return _refused(because(Reason.LONG_UPDATE_ID, DEVICE_TEXT_MAX), signer.name)
    if record["region"] != signer.region:
        region = record["region"][:DEVICE_TEXT_MAX]
        return _refused(because(Reason.DEVICE_OF_ANOTHER_REGION, region, signer.region), signer.name)
    tensors = record["tensors"]
    return Update(
        task=record["task"],
        region=signer.region,
        device_id=device_id,
        certificate_serial=signer.serial,
        base_version=record["base_version"],
        base_sha256=record["base_sha256"],
        update_id=record["update_id"],
        num_examples=record["num_examples"],
        codec=record["codec"],
        names=tuple(tensor["name"] for tensor in tensors),
        shapes=tuple(tuple(tensor["shape"]) for tensor in tensors),
        scales=tuple(tensor["scale"] for tensor in tensors),
        data=tuple(tensor["data"] for tensor in tensors),
        signature=signature,
        record_bytes=size_and_time[0],
        cohort=COHORTS.get(record["client_metrics"].get("cohort")),
        signer=by,
        timestamp_ms=size_and_time[1],
        certified_cohort=signer.cohort,
    )
