"""Private keys in PKCS#11 tokens: HSMs, smart cards, SoftHSM. The key never leaves its token, which signs.

A key file of one holds the URI of the key in a line of its own, and the certificate. Which library speaks to the token,
and the PIN, are this machine's settings, so a key file names neither.

All that is asked of a token goes one after the other. Each signature is verified before anybody sees it: what a faulty
token has signed would be passed over by every reader, and may give its key away.
"""

from __future__ import annotations

from typing import Any, Final, Never

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from aggregation.errors import AccessProblem, UsageProblem
from backends.key_providers.provider import KeyFile
from backends.key_providers.sessions import Login, login, reason_of, unreadable
from backends.key_providers.token_uri import SCHEME, TokenUri
from backends.settings import KeySettings

CHALLENGE: Final = b"fluvial/key-check/v1\0"
"""Signed when a key is opened, to see that the token can, and whose certificate it is. No record begins so."""
PUBLIC_KEY_BYTES: Final = 32


class TokenKey(Ed25519PrivateKey):
    """A key in a token. AccessProblem FLV-2318 where the token does not sign any more: waiting mends nothing."""

    def __init__(self, uri: TokenUri, handle: Any, public: Ed25519PublicKey, held: Login) -> None:
        self.uri = uri
        self.handle = handle
        self._public = public
        self.held = held

    def public_key(self) -> Ed25519PublicKey:
        """The public key that belongs to it."""
        return self._public

    def sign(self, data: Any) -> bytes:
        """64 bytes: the token's Ed25519 signature over ``data``, verified."""
        from pkcs11 import Mechanism
        from pkcs11.exceptions import PKCS11Error

        message = bytes(data)
        try:
            with self.held.lock:
                signature: bytes = self.handle.sign(message, mechanism=Mechanism.EDDSA)
        except PKCS11Error as error:
            self.held.forget()
            raise self._ended(f"it answers {reason_of(error)}") from error
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            raise self._ended("its signature does not verify") from None
        return signature

    def _ended(self, reason: str) -> AccessProblem:
        return AccessProblem(
            "FLV-2318",
            f"the token does not sign any more: {reason}",
            where=str(self.uri),
            hint="is it plugged in, is its service running? This process has to be started again: nothing is lost",
        )

    def private_bytes_raw(self) -> bytes:
        """Raises: it does not leave its token."""
        _stays()

    def private_bytes(self, *_: object, **__: object) -> bytes:
        """Raises: it does not leave its token."""
        _stays()

    def __copy__(self) -> TokenKey:
        return self

    def __deepcopy__(self, _memo: object) -> TokenKey:
        return self


def _stays() -> Never:
    text = "a key in a token does not leave it"
    raise UnsupportedAlgorithm(text)


class Tokens:
    """The key lies in a token; the file says in which."""

    name: Final = "PKCS#11 token"

    def is_in(self, file: KeyFile) -> bool:
        """Whether a line of the file is a URI, and no key stands there itself."""
        return _line_of(file) is not None and b"PRIVATE KEY-----" not in file.text

    def key_of(self, file: KeyFile, settings: KeySettings) -> Ed25519PrivateKey:
        """The key. UsageProblem FLV-2310, FLV-2315 to FLV-2317, FLV-2319; EnvironmentProblem FLV-2313, FLV-2314."""
        uri = TokenUri.parse(_line_of(file) or "")
        if uri.module is not None:
            raise file.damaged("names a PKCS#11 library, which only FLUVIAL_KEY_MODULE may")
        public = file.certificate.public_key()
        if not isinstance(public, Ed25519PublicKey):
            raise file.damaged("holds a certificate of a key that is not Ed25519")
        return _opened(uri, settings, public)

    def written(self, key: Ed25519PrivateKey, settings: KeySettings) -> bytes:  # noqa: ARG002
        """The line with its URI."""
        assert isinstance(key, TokenKey)
        return f"{key.uri.plain}\n".encode()


def _line_of(file: KeyFile) -> str | None:
    lines = (line.strip() for line in file.text.splitlines())
    found = next((line for line in lines if line.startswith(SCHEME.encode())), None)
    return None if found is None else found.decode(errors="replace")


def key_at(uri: TokenUri, settings: KeySettings) -> TokenKey:
    """The key that a URI names, with the public key beside it in the token. Raises as ``Tokens.key_of``."""
    from pkcs11 import Attribute, ObjectClass
    from pkcs11.exceptions import PKCS11Error

    held = login(uri, settings)
    handle = _private(uri, held)
    try:
        with held.lock:
            public_keys = _beside(handle, held, ObjectClass.PUBLIC_KEY, uri)
            points = [bytes(one[Attribute.EC_POINT]) for one in public_keys]
    except PKCS11Error as error:
        raise _another_kind(uri, f"its public key cannot be read: {reason_of(error)}") from error
    if not points:
        raise UsageProblem(
            "FLV-2316",
            f"the token has no public key beside the private one with {uri.key_in_words}",
            where=str(uri),
            hint="make the two together: `pkcs11-tool --keypairgen --key-type EC:edwards25519` gives both one label",
        )
    # By the letter of PKCS#11 an OCTET STRING in DER, in some tokens its 32 bytes alone.
    public = Ed25519PublicKey.from_public_bytes(points[0][-PUBLIC_KEY_BYTES:])
    return _tried(TokenKey(uri, handle, public, held))


def certified_at(uri: TokenUri, settings: KeySettings) -> tuple[TokenKey, x509.Certificate]:
    """A key, and of its certificates in the token the one that ends last. Raises as ``Tokens.key_of``."""
    from pkcs11 import Attribute, ObjectClass
    from pkcs11.exceptions import PKCS11Error

    held = login(uri, settings)
    handle = _private(uri, held)
    try:
        with held.lock:
            objects = _beside(handle, held, ObjectClass.CERTIFICATE, uri)
            texts = [bytes(one[Attribute.VALUE]) for one in objects]
        certificates = [x509.load_der_x509_certificate(text) for text in texts]
    except (PKCS11Error, ValueError) as error:
        raise _no_certificate(
            uri, f"a certificate in the token cannot be read: {reason_of(error)}"
        ) from error
    if not certificates:
        raise _no_certificate(uri, f"the token has no certificate of the key with {uri.key_in_words}")
    newest = max(certificates, key=lambda one: one.not_valid_after_utc)
    public = newest.public_key()
    if not isinstance(public, Ed25519PublicKey):
        raise _no_certificate(uri, "the certificate in the token is of a key that is not Ed25519")
    return _tried(TokenKey(uri, handle, public, held)), newest


def keep_certificate(key: TokenKey, certificate: x509.Certificate, *, written_to: object) -> None:
    """Put a certificate beside its key in the token, in the place of older ones. UsageProblem FLV-2319."""
    from pkcs11 import Attribute, CertificateType, ObjectClass
    from pkcs11.exceptions import PKCS11Error

    uri, held, handle = key.uri, key.held, key.handle
    known = {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.SUBJECT: certificate.subject.public_bytes(),
        Attribute.VALUE: certificate.public_bytes(Encoding.DER),
    }
    try:
        with held.lock, held.writing() as session:
            older = _beside(handle, held, ObjectClass.CERTIFICATE, uri, session=session)
            session.create_object(known | {Attribute.LABEL: handle.label, Attribute.ID: handle.id})
            for one in older:
                one.destroy()
    except PKCS11Error as error:
        raise UsageProblem(
            "FLV-2319",
            f"the token does not take the certificate: {reason_of(error)}",
            where=str(uri),
            hint=f"it stands in {written_to}, which `--key` takes as well",
        ) from error


def _opened(uri: TokenUri, settings: KeySettings, public: Ed25519PublicKey) -> TokenKey:
    held = login(uri, settings)
    return _tried(TokenKey(uri, _private(uri, held), public, held))


def _private(uri: TokenUri, held: Login) -> Any:
    from pkcs11 import ObjectClass
    from pkcs11.exceptions import PKCS11Error
    from pkcs11.mechanisms import KeyType

    try:
        with held.lock:
            found = held.objects(ObjectClass.PRIVATE_KEY, uri.object, uri.id)
            kinds = [one.key_type for one in found]
    except PKCS11Error as error:
        held.forget()
        raise unreadable(uri, error) from error
    if len(found) != 1:
        raise UsageProblem(
            "FLV-2316",
            f"the token {'has no private key' if not found else f'has {len(found)} private keys'} with "
            f"{uri.key_in_words}",
            where=str(uri),
            hint="`pkcs11-tool --list-objects --login` shows which there are"
            + ("; name both `object` and `id`" if found else ""),
        )
    if kinds[0] is not KeyType.EC_EDWARDS:
        raise _another_kind(uri, f"it is {getattr(kinds[0], 'name', kinds[0])}")
    return found[0]


def _beside(handle: Any, held: Login, kind: Any, uri: TokenUri, *, session: Any = None) -> list[Any]:
    """What lies in the token beside a private key: by its id where it has one, else by its label."""
    label = "" if handle.id else handle.label or uri.object
    return held.objects(kind, label, handle.id, session=session)


def _tried(key: TokenKey) -> TokenKey:
    """``key``, once it has signed what its public key verifies."""
    try:
        key.sign(CHALLENGE)
    except AccessProblem as problem:
        cause = problem.__cause__
        if cause is not None:
            raise _another_kind(key.uri, f"to a signature the token answers {reason_of(cause)}") from cause
        raise _no_certificate(
            key.uri, "the certificate is of another key than the one in the token"
        ) from None
    return key


def _another_kind(uri: TokenUri, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2317",
        f"the key in the token cannot sign as Ed25519: {reason}",
        where=str(uri),
        hint="make one with `pkcs11-tool --keypairgen --key-type EC:edwards25519`, if the token knows CKM_EDDSA",
    )


def _no_certificate(uri: TokenUri, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2319",
        reason,
        where=str(uri),
        hint="`fluvial ca issue` or, for a name that has one, `fluvial ca renew`, with `--key`, puts one there",
    )
