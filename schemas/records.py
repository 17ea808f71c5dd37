"""From the bytes of one log record to the event that the fold takes: decode, authenticate, translate. Pure.

Nothing here raises on bad input: whatever is wrong with a record becomes ``Refused`` with its rejection.
"""

from __future__ import annotations

from typing import Any, Final

from aggregation.fold.events import Barrier, Event, RejectedRecord, Revoke, Skip, Tick, Update
from aggregation.fold.rejections import RejectionReason
from aggregation.policy import UPDATE_BYTES_LIMIT, Policy
from schemas.avro import CodecError, UnknownSchemaError, unknown_schema
from schemas.certificates import BadCertificateError, Identity, Role, Trust
from schemas.envelope import ClosedEnvelope, Envelope, read_envelope

SIGNERS = {
    "ClientUpdate": Role.DEVICE,
    "Tick": Role.WORKER,
    "RegionalAggregate": Role.WORKER,
    "Barrier": Role.MERGER,
    "ModelAnnouncement": Role.MERGER,
    "Revoke": Role.OPERATOR,
    "Skip": Role.OPERATOR,
}
"""Which role may sign which record."""

INGRESS_KINDS = frozenset({"ClientUpdate", "Barrier", "Tick", "Revoke", "Skip"})
UPDATE_SCHEMAS: Final = {"fluvial/policy/v1": 1, "fluvial/policy/v2": 2}
"""The newest ClientUpdate that a policy's format takes. To a policy, a newer one is what it was to the Fluvial that
wrote it, an unknown schema: so workers old and new give one verdict, and a log audits alike for ever."""
DEVICE_TEXT_MAX = 64
"""Characters of ``device_id`` and ``update_id``."""
COHORTS: Final = {float(cohort): cohort for cohort in range(100)}
"""What a device may say in ``client_metrics["cohort"]``; anything else is as if it had said nothing."""


def decode_record(value: bytes | None, timestamp_ms: int, trust: Trust, policy: Policy) -> Event:
    """The event in one record of an updates topic; ``timestamp_ms`` is its LogAppendTime, ``policy`` that in force."""
    if value is None:
        return RejectedRecord(RejectionReason.UNDECODABLE, "the record has no value")
    bytes_max = policy.updates.bytes_max
    if len(value) > bytes_max:
        # No more than that of a size which no policy allows: who reads a bomb need not know how large it is.
        size = f"over {UPDATE_BYTES_LIMIT}" if len(value) > UPDATE_BYTES_LIMIT else f"{len(value)}"
        return RejectedRecord(RejectionReason.TOO_LARGE, f"{size} bytes, the policy allows {bytes_max}")
    try:
        envelope = read_envelope(value)
    except UnknownSchemaError as error:
        return RejectedRecord(RejectionReason.UNKNOWN_SCHEMA, str(error))
    except CodecError as error:
        return RejectedRecord(RejectionReason.UNDECODABLE, str(error))
    if envelope.kind == "ClientUpdate" and envelope.schema.version > UPDATE_SCHEMAS[policy.format]:
        return RejectedRecord(RejectionReason.UNKNOWN_SCHEMA, unknown_schema(envelope.schema.header))
    if envelope.kind not in INGRESS_KINDS:
        return RejectedRecord(
            RejectionReason.UNDECODABLE, f"a {envelope.kind} does not belong into an updates topic"
        )
    signer = authenticate(envelope, timestamp_ms, trust)
    if isinstance(signer, RejectedRecord):
        return signer
    # Only now: decoding costs memory and time that a stranger must not be able to spend.
    try:
        opened = envelope.open()
    except CodecError as error:
        return RejectedRecord(RejectionReason.UNDECODABLE, str(error), signer.name)
    return _translate(opened, signer, len(value))


def skip_in(value: bytes | None, timestamp_ms: int, trust: Trust) -> Skip | None:
    """The Skip in one record of an updates topic, if it is one that an operator signed; of whatever partition.

    Cheap for all others: a record's payload is not looked at unless its envelope says that it is a Skip.
    """
    try:
        envelope = read_envelope(value or b"")
        if envelope.kind != "Skip" or isinstance(authenticate(envelope, timestamp_ms, trust), RejectedRecord):
            return None
        record = envelope.open().record
    except CodecError:
        return None
    return Skip(record["task"], record["region"], record["partition"], record["offset"], record["reason"])


def authenticate(envelope: ClosedEnvelope, timestamp_ms: int, trust: Trust) -> Identity | RejectedRecord:
    """Who signed the envelope, if that role may sign this kind; an update's signer has to be its device."""
    try:
        signer = trust.identify(envelope.certificate)
    except BadCertificateError as error:
        return _unauthentic(envelope, RejectionReason.BAD_CERTIFICATE, str(error))
    if not signer.valid_at(timestamp_ms):
        return _unauthentic(
            envelope,
            RejectionReason.CERTIFICATE_EXPIRED,
            f"certificate {signer.serial} was not valid at {timestamp_ms} ms",
        )
    if SIGNERS.get(envelope.kind) is not signer.role:
        return _unauthentic(
            envelope, RejectionReason.BAD_CERTIFICATE, f"a {signer.role.value} may not sign a {envelope.kind}"
        )
    if not envelope.signed_by(signer.public_key):
        return _unauthentic(
            envelope, RejectionReason.BAD_SIGNATURE, f"the signature is not {signer.name}'s over this payload"
        )
    return signer


def _unauthentic(envelope: ClosedEnvelope, rejection: RejectionReason, detail: str) -> RejectedRecord:
    """A control record that fails is a forgery, whichever check it fails; its detail says which."""
    if envelope.kind != "ClientUpdate":
        return RejectedRecord(RejectionReason.BAD_SIGNATURE, f"forged {envelope.kind}: {detail}")
    return RejectedRecord(rejection, detail)


def _translate(envelope: Envelope, signer: Identity, record_bytes: int) -> Event:
    record = envelope.record
    match envelope.kind:
        case "ClientUpdate":
            return _update(record, signer, envelope.signature, record_bytes)
        case "Barrier":
            return Barrier(
                task=record["task"],
                region=record["region"],
                version=record["version"],
                manifest_sha256=record["manifest_sha256"],
                model_sha256=record["model_sha256"],
                reference_sha256=record["reference_sha256"],
                policy_sha256=record["policy_sha256"],
                floor=record["floor"],
                reason=record["reason"],
            )
        case "Tick":
            if record["region"] != signer.region:
                return RejectedRecord(
                    RejectionReason.BAD_SIGNATURE, f"forged Tick: signed by a worker of {signer.region}"
                )
            return Tick(record["task"], record["region"], record["partition"], record["window_first_offset"])
        case "Revoke":
            return Revoke(record["task"], record["device_id"], record["certificate_serial"], record["reason"])
        case "Skip":
            return Skip(
                record["task"], record["region"], record["partition"], record["offset"], record["reason"]
            )
        case kind:
            raise ValueError(f"no translation for {kind}")  # INGRESS_KINDS and this match disagree: a defect


def _update(
    record: dict[str, Any], signer: Identity, signature: bytes, record_bytes: int
) -> Update | RejectedRecord:
    device_id = record["device_id"]
    if device_id != signer.name:
        return RejectedRecord(
            RejectionReason.BAD_SIGNATURE,
            f"it names device {device_id[:DEVICE_TEXT_MAX]!r}, signed by {signer.name}",
            signer.name,
        )
    if len(record["update_id"]) > DEVICE_TEXT_MAX:
        return RejectedRecord(
            RejectionReason.WRONG_LAYOUT, f"update_id is over {DEVICE_TEXT_MAX} characters", signer.name
        )
    if record["region"] != signer.region:
        return RejectedRecord(
            RejectionReason.WRONG_REGION,
            f"it is for {record['region'][:DEVICE_TEXT_MAX]!r}, its device is of {signer.region}",
            signer.name,
        )
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
        record_bytes=record_bytes,
        cohort=COHORTS.get(record["client_metrics"].get("cohort")),
    )
