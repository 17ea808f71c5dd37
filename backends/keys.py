"""Keys and certificates on disk: regional CAs, the control CA, and what they issue.

::

    <folder>/control-ca.pem  eu-ca.pem ...           certificate and private key of each CA, mode 600
    <folder>/eu/device/d-0001.pem                    the same for every holder: <region>/<role>/<name>.pem

In the place of the private key there may be an encrypted one, or the URI of one in a PKCS#11 token
(``backends.key_providers``). Everything is Ed25519 and X.509, so the same certificate can serve mutual TLS. Devices and
workers are issued by their region's CA; mergers and operators by the control CA.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregation.errors import UsageProblem
from aggregation.regions import parent_of
from backends.certificates import (
    AUTHORITY_DAYS,
    LEAF_DAYS,
    CertifiedName,
    authority_certificate,
    holder_of,
    leaf_certificate,
)
from backends.folders import make_private
from backends.key_providers.provider import KeyFile, KeyProvider
from backends.key_providers.table import ENCRYPTED, PLAIN, TOKENS, provider_of
from backends.key_providers.token import TokenKey, certified_at, keep_certificate, key_at
from backends.key_providers.token_uri import TokenUri, is_uri
from backends.settings import NO_KEY_SETTINGS, KeySettings
from backends.text_files import plain_utf8
from schemas.certificates import COHORT_PATTERN, NAME_PATTERN, Role, cohort_in
from schemas.envelope import KeyPair


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a new private key is kept: in a plain file unless it is ``encrypted``, or lies in a token at ``uri``.

    ``settings`` have the passphrase or PIN of that key, and those of the CA that certifies it.
    """

    settings: KeySettings = NO_KEY_SETTINGS
    encrypted: bool = False
    uri: str = ""

    def of_authority(self) -> Keeping:
        """The same for a CA's key."""
        return Keeping(self.settings.of_authority(), self.encrypted, self.uri)

    def key(self) -> Ed25519PrivateKey:
        """A new one, or the one that the token holds."""
        return key_at(TokenUri.parse(self.uri), self.settings) if self.uri else Ed25519PrivateKey.generate()

    def provider(self, key: Ed25519PrivateKey) -> KeyProvider:
        """Who keeps it."""
        if isinstance(key, TokenKey):
            return TOKENS
        return ENCRYPTED if self.encrypted else PLAIN


IN_PLAIN_FILES: Final = Keeping()


def authority_path(folder: Path, region: str) -> Path:
    """Where the CA of a region (or ``control``) is kept."""
    return folder / f"{region}-ca.pem"


def signer_path(folder: Path, region: str, role: Role, name: str) -> Path:
    """Where an issued key and certificate are kept."""
    issuer, role_name, *_ = holder_of(region, role, name)
    return folder / issuer / role_name / f"{name}.pem"


def create_authority(folder: Path, region: str, keeping: Keeping = IN_PLAIN_FILES) -> Path:
    """Make the CA of a region, or of ``control``. One that is there stays, but is encrypted where asked.

    UsageProblem FLV-2301 (name); what the keeping of its key raises.
    """
    _check_name("region", region)
    path, keeping = authority_path(folder, region), keeping.of_authority()
    if not path.exists():
        key = keeping.key()
        _write(path, key, authority_certificate(region, key, AUTHORITY_DAYS), keeping)
    elif keeping.encrypted:
        _encrypt(path, keeping)
    return path


def _encrypt(path: Path, keeping: Keeping) -> None:
    """Put the same key there encrypted, unless it is kept safely already."""
    file = _file(path, "fluvial ca init --help")
    if provider_of(file) is PLAIN:
        _write(path, PLAIN.key_of(file, keeping.settings), file.certificate, keeping, anew=True)


def issue(
    folder: Path,
    region: str,
    role: Role,
    name: str,
    keeping: Keeping = IN_PLAIN_FILES,
    *,
    days: float = LEAF_DAYS,
    cohort: str = "",
) -> Path:
    """Issue a key and certificate, a device's with its ``cohort`` in it. An existing one is left as it is.

    UsageProblem FLV-2301 (name), FLV-2302 (no CA), FLV-2510 (cohort); what the keeping of its key, and of the CA's,
    raises. FLV-2319: the file is written, and the token did not take the certificate.
    """
    path = _place_of(folder, region, role, name)
    check_cohort(role, cohort)
    if not path.exists():
        key = keeping.key()
        holder = holder_of(region, role, name, cohort)
        certificate = _certified(holder, key, folder, keeping.settings, days)
        _write(path, key, certificate, keeping)
    return path


def renew(
    folder: Path,
    region: str,
    role: Role,
    name: str,
    keeping: Keeping = IN_PLAIN_FILES,
    *,
    days: float = LEAF_DAYS,
    keep_key: bool = False,
    cohort: str | None = None,
) -> Path:
    """Put a new certificate in the place of an issued one, of a new key or of the same, all or nothing.

    A key stays encrypted that was so. One in a token stays the same unless ``keeping`` names another. A device's cohort
    stays unless ``cohort`` is another, "" for none. UsageProblem FLV-2301 (name), FLV-2302 (no CA, or nothing to
    renew), FLV-2510 (cohort); what the keeping of its key, and of the CA's, raises.
    """
    path = _place_of(folder, region, role, name)
    file = _file(path, f"fluvial ca issue --region {region} --role {role.value} {name}")
    before, settings = provider_of(file), keeping.settings
    is_kept = keep_key or (before is TOKENS and not keeping.uri and not keeping.encrypted)
    key = before.key_of(file, settings) if is_kept else keeping.key()
    keeping = Keeping(settings, keeping.encrypted or before is ENCRYPTED, keeping.uri)
    if cohort is None:
        cohort = cohort_in(file.certificate.public_bytes(serialization.Encoding.DER))
    check_cohort(role, cohort)
    certificate = _certified(holder_of(region, role, name, cohort), key, folder, settings, days)
    _write(path, key, certificate, keeping, anew=True)
    return path


class Issuer:
    """A CA of this machine, for keys that nobody keeps: what it certifies is written nowhere.

    ``keeping`` is that of the CA's key. UsageProblem FLV-2302 (no CA); what the keeping of its key raises.
    """

    def __init__(self, folder: Path, issuer: str, keeping: Keeping) -> None:
        file = _authority_file(folder, issuer)
        self._certificate = file.certificate
        self._key = provider_of(file).key_of(file, keeping.settings.of_authority())

    def certify(
        self, region: str, role: Role, name: str, key: Ed25519PrivateKey, serial: int, *, cohort: str = ""
    ) -> KeyPair:
        """``key`` and a new certificate of it, of that serial number. UsageProblem FLV-2301 (name), FLV-2510."""
        _check_name("name", name)
        check_cohort(role, cohort)
        holder = holder_of(region, role, name, cohort)
        made = leaf_certificate(
            holder, key.public_key(), self._certificate, self._key, LEAF_DAYS, serial=serial
        )
        return KeyPair(made.public_bytes(serialization.Encoding.DER), key)


def _place_of(folder: Path, region: str, role: Role, name: str) -> Path:
    _check_name("name", name)
    _check_name("region", region)
    return signer_path(folder, region, role, name)


def _certified(
    holder: CertifiedName, key: Ed25519PrivateKey, folder: Path, settings: KeySettings, days: float
) -> x509.Certificate:
    """Signed by the holder's CA. UsageProblem FLV-2302 (no CA)."""
    file = _authority_file(folder, holder.issuer)
    authority_key = provider_of(file).key_of(file, settings.of_authority())
    return leaf_certificate(holder, key.public_key(), file.certificate, authority_key, days)


def _authority_file(folder: Path, region: str) -> KeyFile:
    """The CA of a region; of an edge that of the region above it, the nearest that has one here."""
    own = authority_path(folder, region)
    above = region
    while above and not authority_path(folder, above).exists():
        above = parent_of(above)
    path = authority_path(folder, above) if above else own
    return _file(path, f"fluvial ca init --region {region}")


def load_key_pair(place: Path | str, settings: KeySettings = NO_KEY_SETTINGS) -> KeyPair:
    """The key and certificate in an issued file, or of a ``pkcs11:`` URI; ``of_task`` makes a signer of them.

    UsageProblem FLV-2302, FLV-2303 (the file), FLV-2310 (the URI), FLV-2311, FLV-2312 (passphrase), FLV-2315 to
    FLV-2317, FLV-2319 (PIN, key, certificate in the token); EnvironmentProblem FLV-2313, FLV-2314 (library, token).
    """
    key: Ed25519PrivateKey
    if is_uri(place):
        key, certificate = certified_at(TokenUri.parse(str(place)), settings)
    else:
        file = _file(Path(place), "fluvial ca issue --help")
        key, certificate = provider_of(file).key_of(file, settings), file.certificate
    return KeyPair(certificate.public_bytes(serialization.Encoding.DER), key)


def certificate_pem(path: Path) -> str:
    """The certificate in a file, PEM, without its key: what a genesis document holds of a CA."""
    certificate = _file(path, "fluvial ca init --help").certificate
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def certificate_serial(path: Path) -> str:
    """The serial number of the certificate in a file, hex, as a Revoke names it."""
    return f"{_file(path, 'fluvial ca issue --help').certificate.serial_number:x}"


def certificate_expires_s(path: Path) -> float:
    """When the certificate in a file ends, in seconds since 1970."""
    return _file(path, "fluvial ca issue --help").certificate.not_valid_after_utc.timestamp()


def certificate_cohort(path: Path) -> str:
    """The cohort that the certificate in a file names, "" for none."""
    certificate = _file(path, "fluvial ca issue --help").certificate
    return cohort_in(certificate.public_bytes(serialization.Encoding.DER))


def provider_name(path: Path) -> str:
    """How the key of a file is kept, in words."""
    return provider_of(_file(path, "fluvial ca issue --help")).name


def _write(
    path: Path,
    key: Ed25519PrivateKey,
    certificate: x509.Certificate,
    keeping: Keeping,
    *,
    anew: bool = False,
) -> None:
    """Write key and certificate as one file that only its owner may read, all or nothing.

    It is written beside its place, in a file that nobody else has opened (``O_EXCL``), and then put there: ``anew`` in
    the place of what is there, else only where nothing is, as when two make the same key at once.
    """
    text = keeping.provider(key).written(key, keeping.settings)
    make_private(path.parent)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate.public_bytes(serialization.Encoding.PEM) + text)
            file.flush()
            os.fsync(file.fileno())
        if anew:
            part.replace(path)
        else:
            _put(part, path)
    finally:
        part.unlink(missing_ok=True)
    if isinstance(key, TokenKey):
        keep_certificate(key, certificate, written_to=path)


def _put(part: Path, path: Path) -> None:
    """Name a file so, unless another has that name."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            part.replace(path)


def _file(path: Path, command: str) -> KeyFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageProblem(
            "FLV-2302", f"cannot read the key file {path}: {error.strerror}", hint=f"make it with `{command}`"
        ) from error
    try:
        text = plain_utf8(data)
        file = KeyFile(path, text, x509.load_pem_x509_certificate(text))
        file.certificate.public_key()  # which is read only now, and may be of a kind that nobody knows
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise UsageProblem(
            "FLV-2303",
            f"{path} does not hold a certificate and its private key: {error}",
            hint="issue it again",
        ) from error
    return file


def _check_name(what: str, name: str) -> None:
    if not NAME_PATTERN.fullmatch(name):
        raise UsageProblem(
            "FLV-2301",
            f"{what} {name!r}: expected 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit",
        )


def check_cohort(role: Role, cohort: str) -> None:
    """UsageProblem FLV-2510 unless ``cohort`` is "", or a cohort's name in a device's certificate."""
    if not cohort:
        return
    if role is not Role.DEVICE:
        raise UsageProblem(
            "FLV-2510",
            f"the certificate of a {role.value} would name the cohort {cohort!r}: only devices have one",
            hint="leave `--cohort` out",
        )
    if not COHORT_PATTERN.fullmatch(cohort):
        raise UsageProblem(
            "FLV-2510",
            f"cohort {cohort!r}: expected 1 to 32 of a-z 0-9 _ -, beginning and ending with a letter or digit",
            hint="name it as the policy's selection.cohorts does",
        )
