"""Which certificates a task takes: one region, one role, one id, from the right CA, with an Ed25519 key."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.fold.rules import CANONICAL_RULES, FIRST_RULES, RecordRules
from aggregation.reasons import Reason
from fluvial.proof.checker.holders import NotHolder, read_holder
from schemas import certificates
from schemas.certificates import CONTROL, BadCertificateError, Role, Trust
from schemas.signing import FIRST_DOMAIN
from tests.certificate_flaws import FLAWS, begun, flawed, nested
from tests.factories import (
    NOT_AFTER,
    NOT_BEFORE,
    authority,
    certificate,
    certificate_sha256_signed,
    key,
    spiffe,
    trust,
)

EU = trust()
OLD = trust(rules=FIRST_RULES)


def test_a_good_certificate_says_who_its_holder_is() -> None:
    identity = EU.identify(certificate("eu", Role.DEVICE, "d-1", serial=0xAB12))
    assert (identity.region, identity.role, identity.name) == ("eu", Role.DEVICE, "d-1")
    assert identity.serial == "ab12"
    assert identity.public_key.public_bytes_raw() == key("eu/device/d-1").public_key().public_bytes_raw()


@pytest.mark.parametrize(
    ("region", "role", "good"),
    [
        ("eu", Role.DEVICE, True),
        ("eu", Role.WORKER, True),
        ("eu", Role.MERGER, False),
        ("eu", Role.OPERATOR, False),
        (CONTROL, Role.MERGER, True),
        (CONTROL, Role.OPERATOR, True),
        (CONTROL, Role.DEVICE, False),
        (CONTROL, Role.WORKER, False),
    ],
)
def test_regional_cas_vouch_for_devices_and_workers_the_control_ca_for_the_rest(
    region: str, role: Role, *, good: bool
) -> None:
    der = certificate(region, role, "x")
    if good:
        assert EU.identify(der).role is role
        return
    with pytest.raises(BadCertificateError, match="may not vouch"):
        EU.identify(der)


URI = spiffe("eu", Role.DEVICE, "d-1")
SPOILED: dict[str, dict[str, Any]] = {
    "of another CA with the same name": {"secret": "other"},
    "of another region's CA": {"issuer": "us"},
    "of the control CA": {"issuer": CONTROL},
    "that is a CA's": {"is_authority": True},
    "with two names": {"uris": (URI, "spiffe://eu/device/d-2")},
    "with the same name twice": {"uris": (URI, URI)},
    "with a name of another kind too": {"uris": (URI, "https://example.org/")},
    "with no name": {"uris": ()},
    "with a name of another scheme": {"uris": ("https://eu/device/d-1",)},
    "with an unknown role": {"uris": ("spiffe://eu/king/d-1",)},
    "with too short a name": {"uris": ("spiffe://eu/device",)},
    "with too long a name": {"uris": ("spiffe://eu/device/d-1/x",)},
    "with an empty id": {"uris": ("spiffe://eu/device/",)},
    "with capitals in its id": {"uris": ("spiffe://eu/device/D-1",)},
    "with an id of 65 characters": {"uris": ("spiffe://eu/device/" + "d" * 65,)},
    "with a newline after its id": {"uris": ("spiffe://eu/device/d-1\n",)},
    "of an unknown region": {"uris": ("spiffe://mars/device/d-1",)},
    "with an RSA key": {"with_rsa": True},
}


COHORT = "urn:fluvial:cohort:"
SPOILED |= {
    "with a cohort and no name": {"uris": (COHORT + "old",)},
    "with its cohort before its name": {"uris": (COHORT + "old", URI)},
    "with its cohort twice": {"uris": (URI, COHORT + "old", COHORT + "old")},
    "with two cohorts": {"uris": (URI, COHORT + "old", COHORT + "new")},
    "with a third URI": {"uris": (URI, COHORT + "old", "https://example.org/")},
    "with an empty cohort": {"uris": (URI, COHORT)},
    "with capitals in its cohort": {"uris": (URI, COHORT + "Old")},
    "with capitals before its cohort": {"uris": (URI, "URN:fluvial:cohort:old")},
    "with a dot in its cohort": {"uris": (URI, COHORT + "old.new")},
    "with a hyphen at its cohort's end": {"uris": (URI, COHORT + "old-")},
    "with a newline after its cohort": {"uris": (URI, COHORT + "old\n")},
    "with a cohort of 33 characters": {"uris": (URI, COHORT + "a" * 33)},
    "with another name in the place of its cohort": {"uris": (URI, "urn:fluvial:group:old")},
}


@pytest.mark.parametrize("trusting", [EU, OLD], ids=["by us", "by a library"])
@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=SPOILED.keys())
def test_refused_is_a_certificate(spoiled: dict[str, Any], trusting: Trust) -> None:
    with pytest.raises(BadCertificateError):
        trusting.identify(certificate("eu", Role.DEVICE, "d-1", **spoiled))


@pytest.mark.parametrize("cohort", ["a", "7", "old", "ward_3-b", "a" * 32])
@pytest.mark.parametrize("trusting", [EU, OLD], ids=["by us", "by a library"])
def test_behind_its_name_a_devices_certificate_may_name_its_cohort(cohort: str, trusting: Trust) -> None:
    der = certificate("eu", Role.DEVICE, "d-1", uris=(URI, COHORT + cohort))
    identity = trusting.identify(der)
    assert (identity.name, identity.cohort) == ("d-1", cohort)
    assert certificates.cohort_in(der) == cohort
    assert certificates.cohort_in(certificate("eu", Role.DEVICE, "d-1")) == certificates.cohort_in(b"") == ""


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.DEVICE])
@pytest.mark.parametrize("trusting", [EU, OLD], ids=["by us", "by a library"])
def test_nobody_else_has_a_cohort(role: Role, trusting: Trust) -> None:
    place = CONTROL if role in certificates.ISSUED_BY_CONTROL else "eu"
    assert trusting.identify(certificate(place, role, "x"), edges=True).cohort == ""
    named = certificate(place, role, "x", uris=(spiffe(place, role, "x"), COHORT + "old"))
    with pytest.raises(BadCertificateError):
        trusting.identify(named, edges=True)


@pytest.mark.parametrize("rules", [CANONICAL_RULES, FIRST_RULES], ids=["by us", "by a library"])
def test_where_no_cohorts_are_known_a_second_uri_is_what_it_was_before_remembered_or_not(
    rules: RecordRules,
) -> None:
    fresh, der = trust(rules=rules), certificate("eu", Role.DEVICE, "d-1", uris=(URI, COHORT + "old"))
    for _ in range(2):
        with pytest.raises(BadCertificateError) as caught:
            fresh.identify(der, cohorts=False)
        expected = Reason.NOT_ONE_NAME if rules.canonical else Reason.NOT_A_CERTIFICATE
        assert caught.value.because.reason is expected
        assert fresh.identify(der).cohort == "old"
    assert fresh.identify(certificate("eu", Role.DEVICE, "d-1"), cohorts=False).cohort == ""


def test_which_reason_a_flawed_cohort_has() -> None:
    """The number of URIs, the name, and then the cohort."""
    cases = {
        (URI, COHORT): Reason.NOT_ONE_NAME,
        (URI, COHORT + "old", COHORT + "old"): Reason.NOT_ONE_NAME,
        (COHORT + "old", URI): Reason.NOT_ONE_NAME,
        ("spiffe://eu/king/d-1", COHORT): Reason.WRONG_NAME,
        ("spiffe://eu/worker/d-1", COHORT + "old"): Reason.NOT_ONE_NAME,
        ("spiffe://mars/device/d-1", COHORT): Reason.NOT_ONE_NAME,
        ("spiffe://mars/device/d-1", COHORT + "old"): Reason.NO_CA,
    }
    for uris, reason in cases.items():
        with pytest.raises(BadCertificateError) as caught:
            EU.identify(certificate("eu", Role.DEVICE, "d-1", uris=uris))
        assert caught.value.because.reason is reason, uris


def test_a_ca_certificate_does_not_sign_records() -> None:
    with pytest.raises(BadCertificateError):
        EU.identify(authority("eu").public_bytes(Encoding.DER))


def test_a_certificate_without_basic_constraints_is_a_leaf() -> None:
    assert EU.identify(certificate("eu", Role.DEVICE, "d-1", is_authority=None)).name == "d-1"


def test_a_certificate_signed_with_another_algorithm_is_refused() -> None:
    with pytest.raises(BadCertificateError):
        EU.identify(certificate_sha256_signed())


@pytest.mark.parametrize("der", [b"", b"\x30", b"not DER", b"\x30\x82\xff\xff" + bytes(50), bytes(4097)])
def test_bytes_that_are_no_certificate_are_refused(der: bytes) -> None:
    with pytest.raises(BadCertificateError):
        EU.identify(der)


def test_no_changed_byte_of_a_certificate_is_taken_or_raises_anything_else() -> None:
    """Regression: an odd X.509 version or key algorithm raised errors of ``cryptography`` that share no
    base."""
    der = certificate("eu", Role.DEVICE, "d-1")
    fresh = Trust(EU.authorities, EU.rules, EU.domain)
    edge = {0, 1, 5, 0x7F, 0x80, 0xFF}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for position in range(len(der)):
            old = der[position]
            for value in (edge | {old ^ 1, old ^ 0x10}) - {old}:
                with pytest.raises(BadCertificateError):
                    fresh.identify(der[:position] + bytes([value]) + der[position + 1 :])


def test_validity_includes_both_ends() -> None:
    identity = EU.identify(certificate("eu", Role.DEVICE, "d-1"))
    first, last = int(NOT_BEFORE.timestamp() * 1000), int(NOT_AFTER.timestamp() * 1000)
    assert [identity.valid_at(t) for t in (first - 1, first, last, last + 1)] == [False, True, True, False]


def test_a_certificate_is_verified_once_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "CACHED_CERTIFICATES_MAX", 3)
    fresh = Trust(EU.authorities, EU.rules, EU.domain)
    identities = [fresh.identify(certificate("eu", Role.DEVICE, f"d-{n}")) for n in range(3)]
    assert fresh.identify(certificate("eu", Role.DEVICE, "d-0")) is identities[0]
    fourth = fresh.identify(certificate("eu", Role.DEVICE, "d-3"))
    assert len(fresh._known) == 3
    assert fresh.identify(certificate("eu", Role.DEVICE, "d-3")) is fourth
    assert fresh.identify(certificate("eu", Role.DEVICE, "d-0")) is identities[0]
    assert fresh.identify(certificate("eu", Role.DEVICE, "d-1")) is not identities[1], (
        "it was not seen for longest"
    )


def test_one_more_device_than_is_remembered_costs_one_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: everything was forgotten at once, and every device of a large fleet was verified again."""
    monkeypatch.setattr(certificates, "CACHED_CERTIFICATES_MAX", 8)
    fresh, verify = Trust(EU.authorities, EU.rules, EU.domain), Trust._verify
    verified: list[bytes] = []

    def noted(trust: Trust, der: bytes, known: Any) -> certificates.Identity:
        verified.append(der)
        return verify(trust, der, known)

    monkeypatch.setattr(Trust, "_verify", noted)
    devices = [certificate("eu", Role.DEVICE, f"d-{n}") for n in range(9)]
    for der in (*devices, *devices[:0:-1]):
        fresh.identify(der)
    assert len(verified) == 9


def test_authorities_are_read_from_pem() -> None:
    pems = {region: authority(region).public_bytes(Encoding.PEM).decode() for region in ("eu", CONTROL)}
    assert (
        Trust.from_pem(pems, CANONICAL_RULES, FIRST_DOMAIN)
        .identify(certificate("eu", Role.DEVICE, "d-1"))
        .name
        == "d-1"
    )
    assert isinstance(Trust.from_pem(pems, CANONICAL_RULES, FIRST_DOMAIN).authorities["eu"], x509.Certificate)


def test_of_several_flaws_the_reason_is_that_of_the_first() -> None:
    """Canonical DER, the profile, the contents of the names, those of the constraints: see ``schemas/README.md``."""
    good = certificate("eu", Role.DEVICE, "d-1")
    assert EU.identify(flawed(good)).name == "d-1"
    others = []
    for names in [*((name,) for name in FLAWS), *combinations(FLAWS, 2)]:
        der, first = flawed(good, *names), min(FLAWS[name].at for name in names)
        with pytest.raises(BadCertificateError) as caught:
            EU.identify(der)
        if caught.value.because.reason.code not in {FLAWS[n].reason for n in names if FLAWS[n].at == first}:
            others.append((names, caught.value.because.reason))
        with pytest.raises(NotHolder):
            read_holder(der)
    assert others == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda der: nested(der, 16), None),
        (lambda der: nested(der, 17), Reason.NOT_CANONICAL_DER),
        (lambda der: begun(der, 0x18, b"19491231235959Z"), None),
        (lambda der: begun(der, 0x18, b"19500101000000Z"), Reason.NOT_A_CERTIFICATE),
        (lambda der: begun(der, 0x17, b"500101000000Z"), None),
    ],
    ids=["inside 16", "inside 17", "generalized 1949", "generalized 1950", "UTC 1950"],
)
def test_how_deep_values_stand_and_which_form_a_year_has(
    change: Callable[[bytes], bytes], reason: Reason | None
) -> None:
    """What is of the profile is refused too, but only then: what the CA signed is another."""
    der = change(certificate("eu", Role.DEVICE, "d-1"))
    with pytest.raises(BadCertificateError) as caught:
        EU.identify(der)
    assert caught.value.because.reason is (reason or Reason.NOT_ISSUED)
    if reason is None:
        assert read_holder(der).uris == [URI.encode()]
        return
    with pytest.raises(NotHolder):
        read_holder(der)
