"""Records and certificates in their one encoding: what is taken, and each flaw by its name."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation import codecs
from aggregation.fold.events import RejectedRecord, Update, Verdict
from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES
from aggregation.reasons import Because, Reason, because
from fluvial.documents import reasons_page
from fluvial.proof.checker import encoding, wire
from schemas import avro, canonical, quick
from schemas.avro import CodecError
from schemas.certificates import BadCertificateError, Role
from schemas.envelope import ENVELOPE, Signer
from schemas.records import decode_record
from schemas.verdicts import decode_verdict, encode_verdict
from tests import factories
from tests.factories import NOW_MS, certificate, device_signer, policy, trust, update_record
from tests.fuzz import records
from tests.fuzz.loose import Loose

if TYPE_CHECKING:
    from collections.abc import Callable

DEVICE = "d-1"
SCHEMA = avro.schemas_for("ClientUpdate")[0]
GOOD = avro.encode("ClientUpdate", update_record(DEVICE))
TRUST = trust()
NOTARY = wire.notary_of(
    tuple(
        (region, TRUST.authorities[region].public_bytes(Encoding.PEM).decode())
        for region in sorted(TRUST.authorities)
    ),
    canonical=True,
    named="",
)
BASE = GOOD.index(b"\x06d-1") + 4
"""Where the base version stands: one byte, behind task, region and device."""
TENSORS = GOOD.index(b"\x08bias") - 1
"""Where the count of the tensors stands."""


def signed(payload: bytes, by: Signer | None = None) -> bytes:
    """An envelope, canonical, around whatever payload."""
    signer = by or device_signer(DEVICE)
    return signer.sign_payload("ClientUpdate", payload)


def spliced(at: int, new: bytes, old: int = 1) -> bytes:
    """A payload with other bytes in the place of ``old``."""
    return GOOD[:at] + new + GOOD[at + old :]


def judged(value: bytes, rules: Any = CANONICAL_RULES) -> Because | None:
    """Why a record is refused; None for one that comes through as an update."""
    event = decode_record(value, NOW_MS, trust(rules=rules), policy())
    if isinstance(event, RejectedRecord):
        assert event.rejection.outcome in {event.because.reason.outcome, "bad_signature"}
        return event.because
    assert isinstance(event, Update)
    return None


def malformed(flaw: str, at: int, record: str = "ClientUpdate") -> Because:
    return because(Reason.MALFORMED, record, flaw, at)


ZIGZAG_2_64 = b"\x80" * 9 + b"\x02"
PAYLOADS: dict[str, tuple[bytes, Because]] = {
    "a number in two bytes": (spliced(BASE, b"\x80\x00"), malformed("long_number", BASE)),
    "a number in ten bytes": (spliced(BASE, b"\x80" * 9 + b"\x00"), malformed("long_number", BASE)),
    "a number in eleven bytes": (spliced(BASE, b"\x80" * 10 + b"\x00"), malformed("wide_number", BASE)),
    "2**64 in ten bytes": (spliced(BASE, ZIGZAG_2_64), malformed("wide_number", BASE)),
    "a number without an end": (GOOD[:BASE] + b"\x80" * 5, malformed("cut_short", BASE)),
    "cut short": (GOOD[:-3], malformed("cut_short", len(GOOD) - 6)),
    "nothing behind the header": (GOOD[:10], malformed("cut_short", 10)),
    "a byte to spare": (GOOD + b"\0", because(Reason.BYTES_LEFT, 1, "ClientUpdate")),
    "a string that is not UTF-8": (spliced(10, b"\x0c\xffigits", 7), malformed("not_utf8", 10)),
    "a string with a surrogate": (spliced(10, b"\x06\xed\xa0\x80", 7), malformed("not_utf8", 10)),
    "a string in a longer form": (spliced(10, b"\x04\xc0\x80", 7), malformed("not_utf8", 10)),
    "a negative length": (spliced(10, b"\x01", 7), malformed("negative_length", 10)),
    "a length beyond the record": (spliced(10, b"\xfe\xff\xff\xff\x0f", 1), malformed("cut_short", 10)),
    "a length of 2**62": (spliced(10, b"\x80" * 8 + b"\x80\x01", 1), malformed("cut_short", 10)),
    "a length in a longer form": (spliced(10, b"\x8c\x00", 1), malformed("long_number", 10)),
    "a block that says its size": (spliced(TENSORS, b"\x05\x02"), malformed("blocks", TENSORS)),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_that_is_not_its_one_encoding_is_undecodable_and_says_where(name: str) -> None:
    payload, why = PAYLOADS[name]
    value = signed(payload)
    assert judged(value) == why
    sealed = wire.open_sealed(NOTARY, value)
    assert sealed.genuine and sealed.record is None
    assert records.by_words(payload, ("client_update", 1))[0] is None


def with_fields(**changed: Any) -> bytes:
    return avro.encode("ClientUpdate", update_record(DEVICE) | changed)


def test_arrays_and_maps_stand_in_one_block_and_name_no_key_twice() -> None:
    metrics = with_fields(client_metrics={"a": 1.0, "b": 2.0})
    at = metrics.index(b"\x02a")
    entry = metrics[at : at + 10]
    two_blocks = metrics[: at - 1] + b"\x02" + entry + b"\x02" + metrics[at + 10 :]
    assert judged(signed(two_blocks)) == malformed("blocks", at + 10)
    twice = metrics.replace(b"\x02b", b"\x02a")
    assert judged(signed(twice)) == malformed("key_twice", at + 10)
    assert judged(signed(metrics)) is None
    other_order = with_fields(client_metrics={"b": 2.0, "a": 1.0})
    assert judged(signed(other_order)) is None
    for spoiled in (two_blocks, twice):
        assert wire.open_sealed(NOTARY, signed(spoiled)).record is None
        assert judged(signed(spoiled), FIRST_RULES) is None  # as in tasks of before


@pytest.mark.parametrize(
    ("at_ms", "taken"),
    [
        (canonical.TIME_MIN_MS, True),
        (canonical.TIME_MIN_MS - 1, False),
        (canonical.TIME_MAX_MS, True),
        (canonical.TIME_MAX_MS + 1, False),
        (-(2**63), False),
        (2**63 - 1, False),
    ],
)
def test_a_time_is_of_the_years_1_to_9999(at_ms: int, taken: bool) -> None:  # noqa: FBT001
    payload = with_fields(created_at=at_ms)
    why = judged(signed(payload))
    assert (why is None) is taken
    if why is not None:
        assert why.values[:2] == ("ClientUpdate", "no_time")
    assert (wire.open_sealed(NOTARY, signed(payload)).record is not None) is taken


@pytest.mark.parametrize("base", [0, 2**63 - 1, -(2**63), 2**31, 64, -64, -65])
def test_a_number_may_be_any_of_64_bits(base: int) -> None:
    assert judged(signed(with_fields(base_version=base))) is None


def test_an_enum_has_the_symbols_of_its_schema() -> None:
    at = TENSORS - 1  # before the tensors' count
    for symbol in (b"\x01", b"\x04", b"\x7e"):
        assert judged(signed(spliced(at, symbol))) == malformed("no_symbol", at)


@pytest.mark.parametrize("bits", ["010000000000f07f", "deadbeef0000f8ff", "0000000000000080"])
def test_a_double_may_be_any_64_bits_and_what_counts_is_judged_by_its_value(bits: str) -> None:
    loss = avro.encode("ClientUpdate", update_record(DEVICE, local_loss=1234.5))
    assert judged(signed(loss.replace(bytes.fromhex("00000000004a9340"), bytes.fromhex(bits)))) is None
    tensors = factories.encoded(factories.delta(0))
    scaled = [codecs.EncodedTensor(t.name, t.shape, 1234.5, t.data) for t in tensors]
    payload = avro.encode("ClientUpdate", update_record(DEVICE, tensors=scaled)).replace(
        bytes.fromhex("00000000004a9340"), bytes.fromhex(bits)
    )
    verdict = factories.Site().append(signed(payload))
    assert verdict.outcome == ("accepted" if bits.endswith("80") else "not_finite"), verdict.detail


def test_the_level_minus_128_of_int8_counts_as_what_it_is() -> None:
    tensors = [
        codecs.EncodedTensor(t.name, t.shape, 1.0 / 128, b"\x80" * len(t.data))
        for t in factories.encoded(factories.delta(0))
    ]
    verdict = factories.Site().append(factories.update_bytes(DEVICE, tensors=tensors))
    assert (verdict.outcome, verdict.norm) == ("accepted", factories.LAYOUT.parameters**0.5)


# -- envelopes


def envelope(**changed: bytes) -> bytes:
    """An envelope, field by field, each with its length before it."""
    signer = device_signer(DEVICE)
    signature = signer.key.sign(signer.domain.signed_bytes("ClientUpdate", SCHEMA.sha256, GOOD))
    fields = {
        "kind": b"ClientUpdate",
        "payload": GOOD,
        "certificate": signer.certificate,
        "signature": signature,
    }
    lengths = {name: Loose(random.Random(0), 0.0).number(len(data)) for name, data in fields.items()}
    parts = (changed.get(name, lengths[name] + data) for name, data in fields.items())
    return avro.schema_for(ENVELOPE).header + b"".join(parts)


ENVELOPES: dict[str, tuple[Callable[[], bytes], Because]] = {
    "a byte to spare": (lambda: envelope() + b"\0", because(Reason.BYTES_LEFT, 1, ENVELOPE)),
    "a length in a longer form": (
        lambda: envelope(kind=b"\x98\x00ClientUpdate"),
        malformed("long_number", 10, ENVELOPE),
    ),
    "a kind that is not UTF-8": (lambda: envelope(kind=b"\x02\xff"), malformed("not_utf8", 10, ENVELOPE)),
    "another kind": (
        lambda: envelope(kind=b"\x10" + "\U0001fae8".encode() * 2),
        because(Reason.ANOTHER_KIND, "\U0001fae8" * 2, "ClientUpdate"),
    ),
    "cut short": (lambda: envelope()[:20], malformed("cut_short", 10, ENVELOPE)),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_that_is_not_its_one_encoding_is_undecodable(name: str) -> None:
    make, why = ENVELOPES[name]
    assert judged(make()) == why
    with pytest.raises(encoding.Undecodable):
        wire.open_sealed(NOTARY, make())
    assert judged(envelope()) is None


def test_all_readers_agree_on_ten_thousand_mutated_records_and_certificates() -> None:
    """The sample of every run; `make fuzz-records` and `make test-long` have a million."""
    report = records.run(10_000, seed=20_261_129)
    assert report.findings == []
    assert report.taken > 2000 and report.certificates_taken > 80
    assert {flaw.value for flaw in canonical.Flaw} <= set(report.flaws)


def test_running_out_of_memory_is_no_flaw_of_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    readers = (
        (CANONICAL_RULES, quick, "_text"),
        (FIRST_RULES, quick, "_text"),
        (CANONICAL_RULES, canonical, "_step_of"),
        (FIRST_RULES, fastavro, "schemaless_reader"),
    )
    for rules, module, name in readers:
        with monkeypatch.context() as patched:
            if module is not quick:  # which reads what is ordinary, before any other does
                patched.setattr(quick, "KIND", "")
            patched.setattr(module, name, exhausted)
            with pytest.raises(MemoryError):
                decode_record(factories.update_bytes(DEVICE), NOW_MS, trust(rules=rules), policy())


# -- certificates


def refusal(der: bytes) -> Reason:
    with pytest.raises(BadCertificateError) as caught:
        trust().identify(der)
    assert NOTARY.signer_of(der) is None
    return caught.value.because.reason


def test_a_certificate_in_another_encoding_is_refused_whatever_a_library_says() -> None:
    good = certificate("eu", Role.DEVICE, DEVICE)
    assert trust().identify(good).name == DEVICE
    longer = b"\x30\x83\x00" + good[2:4] + good[4:]
    assert refusal(longer) is Reason.NOT_CANONICAL_DER
    assert refusal(good + b"\0") is Reason.NOT_CANONICAL_DER
    assert refusal(good[:-1]) is Reason.NOT_CANONICAL_DER
    assert refusal(b"") is Reason.NOT_CANONICAL_DER
    assert refusal(b"hello") is Reason.NOT_CANONICAL_DER
    assert refusal(bytes(4097)) is Reason.CERTIFICATE_TOO_LARGE
    assert refusal(bytes.fromhex("3003020101")) is Reason.NOT_A_CERTIFICATE


def test_a_default_that_is_said_is_another_encoding() -> None:
    """Signed by the CA as it stands: what it vouches for is not what counts, but its bytes are not canonical."""
    good = certificate("eu", Role.DEVICE, DEVICE)
    assert b"\x04\x02\x30\x00" in good
    signed_part = x509.load_der_x509_certificate(good).tbs_certificate_bytes
    said = grown(signed_part.replace(b"\x04\x02\x30\x00", b"\x04\x05\x30\x03\x01\x01\x00"), 3)
    assert refusal(issued(said)) is Reason.NOT_A_CERTIFICATE
    odd = grown(signed_part.replace(b"\x04\x02\x30\x00", b"\x04\x05\x30\x03\x01\x01\x01"), 3)
    assert refusal(issued(odd)) is Reason.NOT_CANONICAL_DER


def grown(signed_part: bytes, by: int) -> bytes:
    """A certificate's signed part whose extensions have become longer: each length around them says so."""
    out = bytearray(signed_part)
    at = bytes(out).index(bytes.fromhex("551d13"))
    for begin in range(at):
        tag, length = out[begin], out[begin + 1]
        encloses = tag in {0x30, 0xA3} and length < 0x80 and begin < at <= begin + 1 + length
        if encloses and begin > out.index(0xA3) - 1:
            out[begin + 1] = length + by
    assert out[1] == 0x81
    out[2] += by
    return bytes(out)


def issued(signed_part: bytes) -> bytes:
    """A certificate with the CA's true signature."""
    signature = factories.key("ca eu").sign(signed_part)
    inner = signed_part + bytes.fromhex("300506032b6570") + b"\x03\x41\x00" + signature
    return b"\x30\x82" + len(inner).to_bytes(2, "big") + inner


@pytest.mark.parametrize("year", [2026, 2049, 2050, 9999])
def test_times_are_read_as_the_library_reads_them(year: int) -> None:
    moment = dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    before = min(moment, factories.NOT_BEFORE)
    der = certificate("eu", Role.DEVICE, DEVICE, not_before=before, not_after=moment)
    found, theirs = trust().identify(der), NOTARY.signer_of(der)
    assert theirs is not None
    assert found.not_after_ms == theirs.not_after_ms == moment.timestamp() * 1000
    assert found.not_before_ms == theirs.not_before_ms == before.timestamp() * 1000


# -- verdicts


def test_every_reason_comes_back_from_a_verdict_and_leads_to_an_outcome() -> None:
    example: dict[type, Any] = {int: -7, float: 0.1, str: "x\x1b"}
    for reason in Reason:
        why = Because(reason, tuple(example[kind] for kind in reason.fields.values()), forged="Tick")
        assert isinstance(why.text, str)
        verdict = Verdict(3, reason.outcome, why)
        if reason.code < 0:
            with pytest.raises(ValueError, match="stands in no verdict"):
                encode_verdict(verdict, CANONICAL_RULES)
        else:
            assert decode_verdict(encode_verdict(verdict, CANONICAL_RULES)) == verdict
        assert decode_verdict(encode_verdict(verdict, FIRST_RULES)).detail == why.text


def test_a_reason_of_a_later_fluvial_is_shown_as_what_it_is() -> None:
    record = {name: getattr(Verdict(3, "new"), name) for name in ("offset", "outcome", "device_id")}
    record |= {"update_id": "", "base_version": -1, "staleness": -1, "weight": 0, "forged": ""}
    record |= dict.fromkeys(("clip", "norm", "norm_deviations", "cosine"), 0.0)
    for values in ([4, "y"], []):
        found = decode_verdict(avro.encode_as("Verdict", 2, record | {"reason": 9999, "values": values}))
        assert found.because.reason is Reason.LATER
        assert "9999" in found.detail
    wrong = decode_verdict(avro.encode_as("Verdict", 2, record | {"reason": 303, "values": [1]}))
    assert wrong.because.reason is Reason.LATER


def test_codes_and_names_are_never_used_twice() -> None:
    codes = [reason.code for reason in Reason]
    assert len(set(codes)) == len(codes)


def test_a_verdict_is_no_other_record() -> None:
    with pytest.raises(CodecError) as caught:
        decode_verdict(GOOD)
    assert caught.value.because == because(Reason.ANOTHER_RECORD, "Verdict", "ClientUpdate")


def test_the_page_of_reasons_is_what_the_table_says() -> None:
    assert reasons_page.PAGE.read_text() == reasons_page.page(), (
        "write it anew: python -m fluvial.documents.reasons_page"
    )
