"""Every way to keep a private key does the same: one suite, and what each may refuse."""

from __future__ import annotations

import ast
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregation.errors import AccessProblem, FluvialError, UsageProblem
from aggregation.fold.rules import CANONICAL_RULES
from backends import keys
from backends.certificates import holder_of, leaf_certificate
from backends.key_providers import sessions
from backends.key_providers.table import PLAIN, PROVIDERS
from backends.key_providers.token import TokenKey, keep_certificate
from backends.keys import Keeping
from backends.settings import KeySettings
from schemas.certificates import CONTROL, Role, Trust
from schemas.envelope import open_envelope
from tests import factories
from tests.tokens import PIN, SoftToken, module

PASSPHRASE = "correct horse battery µ"
KEY = factories.key("the one key of this file")
HOLDER = ("eu", Role.WORKER, "worker-eu")


@dataclass
class Kept:
    """The same private key in one of the places."""

    name: str
    keeping: Keeping
    folder: Path
    token: SoftToken | None = None

    @property
    def path(self) -> Path:
        return keys.signer_path(self.folder, *HOLDER)

    @property
    def settings(self) -> KeySettings:
        return self.keeping.settings

    def put(self, key: Ed25519PrivateKey = KEY) -> Path:
        """``key``, with the certificate of its CA."""
        if self.token is not None:
            self.token.hold(key, "worker")
            return keys.issue(self.folder, *HOLDER, self.keeping)
        ca = keys._file(keys.authority_path(self.folder, "eu"), "")
        authority_key = PLAIN.key_of(ca, self.settings)
        certificate = leaf_certificate(
            holder_of(*HOLDER), key.public_key(), ca.certificate, authority_key, 30
        )
        keys._write(self.path, key, certificate, self.keeping)
        return self.path


def settings(**changed: Any) -> KeySettings:
    given: dict[str, Any] = {"passphrase": PASSPHRASE, "pin": PIN, "module": module()}
    return KeySettings(**given | changed)


@pytest.fixture(params=["file", "encrypted file", "PKCS#11 token"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    for region in ("eu", CONTROL):
        keys.create_authority(tmp_path, region)
    match request.param:
        case "file":
            return Kept("file", Keeping(), tmp_path)
        case "encrypted file":
            return Kept("encrypted file", Keeping(KeySettings(passphrase=PASSPHRASE), True), tmp_path)  # noqa: FBT003
        case _:
            token: SoftToken = request.getfixturevalue("token")
            keeping = Keeping(settings(), uri=token.uri("worker"))
            return Kept("PKCS#11 token", keeping, tmp_path, token)


def trust(folder: Path) -> Trust:
    pems = {name: keys.certificate_pem(keys.authority_path(folder, name)) for name in ("eu", CONTROL)}
    return Trust.from_pem(pems, CANONICAL_RULES, factories.DOMAIN)


# -- what all do


def test_the_suite_has_every_provider() -> None:
    assert {provider.name for provider in PROVIDERS} == {"file", "encrypted file", "PKCS#11 token"}


def test_a_key_signs_the_same_bytes_wherever_it_is_kept(kept: Kept) -> None:
    key_pair = keys.load_key_pair(kept.put(), kept.settings)
    assert keys.provider_name(kept.path) == kept.name
    for message in (b"", b"one", bytes(100_000)):
        assert key_pair.key.sign(message) == KEY.sign(message)
    assert key_pair.key.public_key() == KEY.public_key()


def test_what_it_signs_is_believed(kept: Kept) -> None:
    key_pair = keys.load_key_pair(kept.put(), kept.settings)
    record = {"task": "t", "region": "eu", "partition": 0, "window_first_offset": 0}
    envelope = open_envelope(key_pair.of_task(factories.DOMAIN).sign("Tick", record))
    identity = trust(kept.folder).identify(envelope.certificate)
    assert (identity.region, identity.role, identity.name) == HOLDER
    assert envelope.signed_by(identity.public_key, factories.DOMAIN)


def test_a_ca_of_it_issues_what_is_trusted(kept: Kept, tmp_path: Path) -> None:
    folder = tmp_path / "another"
    if kept.token is not None:
        kept.token.hold(KEY, "worker")
    keys.create_authority(folder, "eu", kept.keeping)
    keys.create_authority(folder, CONTROL)
    assert keys.provider_name(keys.authority_path(folder, "eu")) == kept.name
    issued = keys.issue(folder, *HOLDER, Keeping(kept.settings))
    key_pair = keys.load_key_pair(issued)
    assert trust(folder).identify(key_pair.certificate).name == HOLDER[2]


def test_a_renewed_one_is_kept_as_before(kept: Kept) -> None:
    path = kept.put()
    before = keys.certificate_serial(path)
    for keep_key in (True, False):
        keys.renew(kept.folder, *HOLDER, Keeping(kept.settings), keep_key=keep_key)
        assert keys.provider_name(path) == kept.name
        renewed = keys.load_key_pair(path, kept.settings)
        assert keys.certificate_serial(path) != before
        assert (renewed.key.public_key() == KEY.public_key()) is (keep_key or kept.token is not None)


def test_the_file_is_its_owners_alone_and_has_no_key_where_it_is_kept_safely(kept: Kept) -> None:
    path = kept.put()
    assert path.stat().st_mode & 0o777 == 0o600
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    line = pem.splitlines()[1]
    assert (line in path.read_bytes()) is (kept.name == "file")


def test_many_threads_sign_with_it_at_once(kept: Kept) -> None:
    key = keys.load_key_pair(kept.put(), kept.settings).key
    ready, wrong = threading.Barrier(8), []

    def sign(name: int) -> None:
        ready.wait()
        for number in range(10):
            message = b"%d %d" % (name, number)
            if key.sign(message) != KEY.sign(message):
                wrong.append(message)

    threads = [threading.Thread(target=sign, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_certificate_of_another_key_is_refused(kept: Kept) -> None:
    path = kept.put()
    other = keys.issue(kept.folder, "eu", Role.WORKER, "another")
    certificate = keys.certificate_pem(other)
    text = path.read_text()
    end = "-----END CERTIFICATE-----\n"
    path.write_text(certificate + text.partition(end)[2])
    with pytest.raises(FluvialError) as caught:
        keys.load_key_pair(path, kept.settings)
    assert caught.value.error_id == ("FLV-2319" if kept.token else "FLV-2303")


def test_whoever_opens_or_makes_keys_says_how_they_are_kept() -> None:
    """Else an encrypted key would be refused there, though its passphrase is set."""
    root, wrong = Path(keys.__file__).parents[1], []
    in_a_folder_that_goes = {
        "fluvial/session/engine.py",
        "fluvial/session/guided.py",
        "fluvial/session/simulation.py",
        "fluvial/simulating/simulator.py",
    }
    least = {"load_key_pair": 2, "create_authority": 3, "issue": 5, "renew": 5, "make_keys": 3}
    for package in ("fluvial", "producers", "stream_apps"):
        for path in sorted((root / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    given = len(node.args) + any(word.arg == "keeping" for word in node.keywords)
                    place = path.relative_to(root).as_posix()
                    if given < least.get(name, 0) and place not in in_a_folder_that_goes:
                        wrong.append(f"{place}:{node.lineno} {name}")
    assert wrong == []


# -- files


def test_a_ca_that_is_there_is_encrypted_when_asked_and_keeps_its_certificate(tmp_path: Path) -> None:
    path = keys.create_authority(tmp_path, "eu")
    before = keys.certificate_pem(path)
    apart = KeySettings(passphrase="of those who sign here", ca_passphrase=PASSPHRASE)
    for _ in range(2):
        assert keys.create_authority(tmp_path, "eu", Keeping(apart, encrypted=True)) == path
        assert keys.provider_name(path) == "encrypted file"
    assert keys.certificate_pem(path) == before
    issued = keys.issue(tmp_path, *HOLDER, Keeping(apart, encrypted=True))
    keys.load_key_pair(issued, KeySettings(passphrase=apart.passphrase))
    with pytest.raises(FluvialError) as caught:
        keys.issue(tmp_path, "eu", Role.DEVICE, "d-1", Keeping(KeySettings(passphrase=apart.passphrase)))
    assert caught.value.error_id == "FLV-2312"


def test_what_openssl_encrypts_is_read(tmp_path: Path) -> None:
    keys.create_authority(tmp_path, "eu")
    path = keys.issue(tmp_path, *HOLDER)
    certificate, passphrase = keys.certificate_pem(path), tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE)
    before = keys.load_key_pair(path)
    done = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-scrypt", "-in", str(path), "-passout", f"file:{passphrase}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    path.write_text(certificate + done.stdout)
    after = keys.load_key_pair(path, KeySettings(passphrase=PASSPHRASE))
    assert after.key.sign(b"x") == before.key.sign(b"x")


@pytest.mark.parametrize(
    ("given", "error_id"),
    [
        (KeySettings(), "FLV-2311"),
        (KeySettings(pin=PASSPHRASE, ca_passphrase=PASSPHRASE), "FLV-2311"),
        (KeySettings(passphrase=PASSPHRASE + " "), "FLV-2312"),
        (KeySettings(passphrase="x" * 2000), "FLV-2312"),
    ],
)
def test_an_encrypted_key_wants_its_passphrase(tmp_path: Path, given: KeySettings, error_id: str) -> None:
    keys.create_authority(tmp_path, "eu")
    path = keys.issue(tmp_path, *HOLDER, Keeping(KeySettings(passphrase=PASSPHRASE), encrypted=True))
    with pytest.raises(FluvialError) as caught:
        keys.load_key_pair(path, given)
    assert caught.value.error_id == error_id
    assert not any(secret and secret in str(caught.value) for secret in (given.passphrase, given.pin))


@pytest.mark.parametrize("passphrase", ["", "x" * 15, "x" * 1024])
def test_no_key_is_encrypted_with_a_bad_passphrase(tmp_path: Path, passphrase: str) -> None:
    keeping = Keeping(KeySettings(passphrase=passphrase), encrypted=True)
    with pytest.raises(FluvialError, match="passphrase"):
        keys.create_authority(tmp_path, "eu", keeping)
    assert list(tmp_path.rglob("*.pem")) == []


# -- tokens


def with_authorities(folder: Path) -> Path:
    for region in ("eu", CONTROL):
        keys.create_authority(folder, region)
    return folder


@pytest.fixture
def issued(tmp_path: Path, token: SoftToken) -> Kept:
    kept = Kept(
        "PKCS#11 token", Keeping(settings(), uri=token.uri("worker")), with_authorities(tmp_path), token
    )
    kept.put()
    return kept


def test_a_uri_is_enough_for_what_was_issued_and_renewed(issued: Kept) -> None:
    """Nothing of a key file is needed then: the certificate lies in the token too."""
    for _ in range(2):
        by_uri, by_file = (
            keys.load_key_pair(place, issued.settings) for place in (issued.keeping.uri, issued.path)
        )
        assert by_uri.certificate == by_file.certificate
        assert by_uri.key.sign(b"x") == KEY.sign(b"x")
        keys.renew(issued.folder, *HOLDER, Keeping(issued.settings))


def test_another_key_of_the_token_takes_its_place_when_asked(issued: Kept) -> None:
    other = factories.key("another")
    assert issued.token is not None
    issued.token.hold(other, "new")
    keys.renew(issued.folder, *HOLDER, Keeping(issued.settings, uri=issued.token.uri("new")))
    assert keys.load_key_pair(issued.path, issued.settings).key.public_key() == other.public_key()


def test_a_key_in_a_token_stays_there(issued: Kept) -> None:
    key = keys.load_key_pair(issued.path, issued.settings).key
    with pytest.raises(UnsupportedAlgorithm, match="does not leave"):
        key.private_bytes_raw()
    with pytest.raises(UnsupportedAlgorithm, match="does not leave"):
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def test_a_token_that_is_pulled_signs_no_more_and_says_so(issued: Kept) -> None:
    key = keys.load_key_pair(issued.path, issued.settings).key
    assert issued.token is not None
    issued.token.pull()
    for _ in range(2):
        with pytest.raises(AccessProblem, match="does not sign any more") as caught:
            key.sign(b"x")
        assert caught.value.error_id == "FLV-2318"
    with pytest.raises(FluvialError) as again:
        keys.load_key_pair(issued.path, issued.settings)
    assert again.value.error_id in {"FLV-2314", "FLV-2316"}


def test_a_token_that_takes_no_certificate_says_that_the_file_has_it(issued: Kept) -> None:
    key = keys.load_key_pair(issued.path, issued.settings).key
    assert isinstance(key, TokenKey) and issued.token is not None
    issued.token.pull()
    certificate = keys._file(issued.path, "").certificate
    with pytest.raises(UsageProblem, match="does not take the certificate") as caught:
        keep_certificate(key, certificate, written_to=issued.path)
    assert caught.value.error_id == "FLV-2319" and str(issued.path) in caught.value.hint


class LyingHandle:
    def sign(self, data: bytes, **_: object) -> bytes:
        return factories.key("somebody else").sign(data)


def test_a_signature_that_does_not_verify_is_seen_by_nobody(issued: Kept) -> None:
    key = keys.load_key_pair(issued.path, issued.settings).key
    assert isinstance(key, TokenKey)
    key.handle = LyingHandle()
    with pytest.raises(AccessProblem, match="does not verify"):
        key.sign(b"x")


def wrong_pin(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri, settings(pin="not the one")


def no_pin(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri, settings(pin="", passphrase=PIN)


def no_such_token(kept: Kept) -> tuple[str, KeySettings]:
    return "pkcs11:token=nowhere;object=worker", settings()


def no_such_slot(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri + ";slot-id=7", settings()


def too_many_tokens(kept: Kept) -> tuple[str, KeySettings]:
    return "pkcs11:object=worker", settings()


def no_such_object(kept: Kept) -> tuple[str, KeySettings]:
    assert kept.token is not None
    return kept.token.uri("another"), settings()


def no_such_id(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri + ";id=%77", settings()


def two_of_a_label(kept: Kept) -> tuple[str, KeySettings]:
    assert kept.token is not None
    kept.token.hold(factories.key("another"), "twice")
    kept.token.hold(KEY, "twice")
    return kept.token.uri("twice"), settings()


def another_kind(kept: Kept) -> tuple[str, KeySettings]:
    assert kept.token is not None
    kept.token.hold(ec.generate_private_key(ec.SECP256R1()), "p-256")
    return kept.token.uri("p-256"), settings()


def no_certificate(kept: Kept) -> tuple[str, KeySettings]:
    assert kept.token is not None
    kept.token.hold(factories.key("another"), "bare")
    return kept.token.uri("bare"), settings()


def no_library(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri, settings(module=None)


def library_away(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri, settings(module=Path("/nowhere/libhsm.so"))


def library_of_something_else(kept: Kept) -> tuple[str, KeySettings]:
    return kept.keeping.uri + f"?module-path={__file__}", settings()


FAULTS = {
    wrong_pin: ("FLV-2315", "the PIN is wrong"),
    no_pin: ("FLV-2315", "wants a PIN, and there is none"),
    no_such_token: ("FLV-2314", "there is no such token"),
    no_such_slot: ("FLV-2314", "there is no such token"),
    too_many_tokens: ("FLV-2314", "tokens answer to it"),
    no_such_object: ("FLV-2316", "no private key with the label 'another'"),
    no_such_id: ("FLV-2316", "no private key with the label 'worker' and the id 77"),
    two_of_a_label: ("FLV-2316", "2 private keys"),
    another_kind: ("FLV-2317", "it is EC"),
    no_certificate: ("FLV-2319", "no certificate of the key"),
    no_library: ("FLV-2313", "nothing says which"),
    library_away: ("FLV-2313", "cannot be used"),
    library_of_something_else: ("FLV-2313", "cannot be used"),
}


def test_each_fault_of_a_token_is_one_error(tmp_path: Path, token: SoftToken) -> None:
    kept = Kept("", Keeping(settings(), uri=token.uri("worker")), with_authorities(tmp_path), token)
    token.hold(KEY, "worker")
    for fault, (error_id, text) in FAULTS.items():
        uri, given = fault(kept)
        with pytest.raises(FluvialError) as caught:
            keys.load_key_pair(uri, given)
        assert (fault.__name__, caught.value.error_id) == (fault.__name__, error_id), str(caught.value)
        assert text in caught.value.message
        assert caught.value.hint
        assert PIN not in str(caught.value) and "not the one" not in str(caught.value)


def test_a_private_key_alone_signs_but_cannot_be_certified(tmp_path: Path, token: SoftToken) -> None:
    token.hold(KEY, "worker", public=False)
    keeping = Keeping(settings(), uri=token.uri("worker"))
    with pytest.raises(FluvialError, match="no public key beside") as caught:
        keys.issue(with_authorities(tmp_path), *HOLDER, keeping)
    assert caught.value.error_id == "FLV-2316"
    assert not keys.signer_path(tmp_path, *HOLDER).exists()


def test_a_process_logs_into_a_token_once(issued: Kept) -> None:
    before = dict(sessions._logins)
    first, second = (keys.load_key_pair(issued.path, issued.settings).key for _ in range(2))
    assert isinstance(first, TokenKey) and isinstance(second, TokenKey)
    assert first.held is second.held
    assert sessions._logins == before


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("object=worker", "object=worker?module-path=/tmp/evil.so"),
        lambda text: text.replace("object=worker", "object=worker?pin-value=1234"),
        lambda text: text.replace("object=worker", "obj=worker"),
    ],
)
def test_a_key_file_names_no_library_and_no_pin(issued: Kept, change: Callable[[str], str]) -> None:
    """Whoever could put another file in its place would run code in whoever opens it."""
    text = issued.path.read_text()
    assert change(text) != text
    issued.path.write_text(change(text))
    with pytest.raises(FluvialError) as caught:
        keys.load_key_pair(issued.path, issued.settings)
    assert caught.value.error_id in {"FLV-2303", "FLV-2310"}
    assert "1234" not in str(caught.value)
