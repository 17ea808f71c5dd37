"""Key files on disk: made once, by one, for their owner alone; renewed all or nothing."""

from __future__ import annotations

import base64
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from aggregation.errors import UsageProblem
from backends import keys
from backends.folders import make_private
from schemas.certificates import CONTROL, Role


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "home" / "tasks" / "digits" / "keys"
    for region in ("eu", CONTROL):
        keys.create_authority(made, region)
    return made


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_and_files_are_their_owners_alone(folder: Path) -> None:
    path = keys.issue(folder, "eu", Role.WORKER, "worker-eu")
    assert mode_of(path) == 0o600
    above = [path.parent, *path.parent.parents]
    assert {mode_of(one) for one in above[: above.index(folder.parents[3])]} == {0o700}
    assert [one for one in folder.rglob("*") if one.suffix == ".part"] == []


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path / "a" / "b")
    make_private(tmp_path / "a")
    assert [mode_of(tmp_path / one) for one in ("", "a", "a/b")] == [0o755, 0o700, 0o700]


def test_of_many_who_make_one_key_at_once_all_have_the_same(folder: Path) -> None:
    found: list[bytes] = []
    ready = threading.Barrier(8)

    def make() -> None:
        ready.wait()
        found.append(keys.issue(folder, "eu", Role.DEVICE, "d-1").read_bytes())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("keep_key", [True, False])
def test_a_renewed_certificate_is_another_in_the_same_place(folder: Path, *, keep_key: bool) -> None:
    path = keys.issue(folder, "eu", Role.WORKER, "worker-eu", days=1)
    before, ended = keys.load_key_pair(path), keys.certificate_expires_s(path)
    assert keys.renew(folder, "eu", Role.WORKER, "worker-eu", keep_key=keep_key) == path
    after = keys.load_key_pair(path)
    assert keys.certificate_expires_s(path) > ended + 300 * 86_400
    assert (after.key.private_bytes_raw() == before.key.private_bytes_raw()) is keep_key
    one, two = (x509.load_der_x509_certificate(pair.certificate) for pair in (before, after))
    assert one.serial_number != two.serial_number
    assert one.subject == two.subject and one.issuer == two.issuer
    assert mode_of(path) == 0o600


def test_what_was_never_issued_cannot_be_renewed(folder: Path) -> None:
    with pytest.raises(UsageProblem, match="fluvial ca issue --region eu --role device d-1") as caught:
        keys.renew(folder, "eu", Role.DEVICE, "d-1")
    assert caught.value.error_id == "FLV-2302"


ED25519_OID, NOBODYS_OID = bytes.fromhex("06032b6570"), bytes.fromhex("06032b657f")
VERSION_3, NO_VERSION = bytes.fromhex("a003020102"), bytes.fromhex("a00302014f")


def with_bytes(pem: bytes, old: bytes, new: bytes) -> bytes:
    """A PEM block whose DER has other bytes, in the last place where ``old`` stands."""
    first, *lines, last = pem.strip().splitlines()
    der = base64.b64decode(b"".join(lines))
    at = der.rindex(old)
    return b"\n".join([first, base64.encodebytes(der[:at] + new + der[at + len(old) :]).strip(), last, b""])


def of_key(certificate: bytes) -> bytes:
    """The certificate's public key is of a kind that nobody knows: its signature's kind stands after it."""
    der = base64.b64decode(b"".join(certificate.strip().splitlines()[1:-1]))
    at = der.rindex(ED25519_OID, 0, der.rindex(ED25519_OID))
    return with_bytes(certificate, der[at : at + 12], NOBODYS_OID + der[at + 5 : at + 12])


SPOILT: dict[str, Callable[[bytes, bytes], bytes]] = {
    "a key of a kind that nobody knows": lambda certificate, key: (
        certificate + with_bytes(key, ED25519_OID, NOBODYS_OID)
    ),
    "a certificate of such a key": lambda certificate, key: of_key(certificate) + key,
    "a certificate of such a key, in a token": lambda certificate, _: (
        of_key(certificate) + b"pkcs11:object=a\n"
    ),
    "a certificate of no version": lambda certificate, key: (
        with_bytes(certificate, VERSION_3, NO_VERSION) + key
    ),
    "a key alone": lambda _, key: key,
    "a certificate alone": lambda certificate, _: certificate,
    "nothing": lambda _, __: b"",
}


@pytest.mark.parametrize("what", SPOILT)
def test_whatever_a_key_file_holds_a_word_is_said_of_it(folder: Path, what: str) -> None:
    path = keys.issue(folder, "eu", Role.WORKER, "worker-eu")
    certificate, mark, key = path.read_bytes().partition(b"-----BEGIN PRIVATE")
    path.write_bytes(SPOILT[what](certificate, mark + key))
    with pytest.raises(UsageProblem) as caught:
        keys.load_key_pair(path)
    assert caught.value.error_id == "FLV-2303" and str(path) in caught.value.message


def test_a_devices_cohort_stands_in_its_certificate_and_stays_when_that_is_renewed(folder: Path) -> None:
    path = keys.issue(folder, "eu", Role.DEVICE, "d-1", cohort="old")
    assert keys.certificate_cohort(path) == "old"
    for cohort, expected in ((None, "old"), ("new", "new"), (None, "new"), ("", ""), (None, "")):
        keys.renew(folder, "eu", Role.DEVICE, "d-1", keep_key=True, cohort=cohort)
        assert keys.certificate_cohort(path) == expected
    assert keys.certificate_cohort(keys.issue(folder, "eu", Role.DEVICE, "d-2")) == ""


@pytest.mark.parametrize(
    ("role", "cohort"),
    [(Role.WORKER, "old"), (Role.DEVICE, "Old"), (Role.DEVICE, "a" * 33), (Role.DEVICE, "a.b")],
)
def test_what_no_certificate_may_name_is_refused_before_anything_is_written(
    folder: Path, role: Role, cohort: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        keys.issue(folder, "eu", role, "x", cohort=cohort)
    assert caught.value.error_id == "FLV-2510"
    assert not keys.signer_path(folder, "eu", role, "x").exists()
    before = keys.issue(folder, "eu", role, "x").read_bytes()
    with pytest.raises(UsageProblem):
        keys.renew(folder, "eu", role, "x", cohort=cohort)
    assert keys.signer_path(folder, "eu", role, "x").read_bytes() == before
