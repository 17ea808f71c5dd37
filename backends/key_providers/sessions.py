"""Speaking to PKCS#11 tokens: the library, the token that is meant, and one login a process.

PKCS#11 knows one login a process and token, whatever the number of its sessions; the end of the session that made it
ends it for all. So that one is kept until the process ends, and a second key of the same token is found through it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aggregation.errors import EnvironmentProblem, UsageProblem
from backends.key_providers.token_uri import TokenUri
from backends.settings import KeySettings

if TYPE_CHECKING:
    from pkcs11 import ObjectClass, Session, Token

OBJECTS_MAX: Final = 64
"""That a token may have of one kind under one label and id; more are not looked at."""

_logins: Final[dict[tuple[str, int], Login]] = {}
_logging_in: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Login:
    """A token that is open. Whoever asks it something holds ``lock``."""

    place: tuple[str, int]
    token: Token
    session: Session
    lock: threading.Lock = field(default_factory=threading.Lock)

    def objects(self, kind: ObjectClass, label: str, key_id: bytes, *, session: Any = None) -> list[Any]:
        """What the token holds of a kind, under a label or an id, "" and b"" being any. PKCS11Error."""
        from pkcs11 import Attribute

        wanted: dict[Any, Any] = {Attribute.CLASS: kind}
        if label:
            wanted[Attribute.LABEL] = label
        if key_id:
            wanted[Attribute.ID] = key_id
        asked: Any = session or self.session
        with contextlib.closing(asked.get_objects(wanted)) as search:
            return list(itertools.islice(search, OBJECTS_MAX))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """A session that may write, for a while. PKCS11Error."""
        session = self.token.open(rw=True)
        try:
            yield session
        finally:
            session.close()

    def forget(self) -> None:
        """The token went away: whoever asks next logs in again."""
        with _logging_in:
            if _logins.get(self.place) is self:
                del _logins[self.place]


def login(uri: TokenUri, settings: KeySettings) -> Login:
    """The token of a key, logged into once a process.

    EnvironmentProblem FLV-2313 (library), FLV-2314 (token); UsageProblem FLV-2315 (PIN).
    """
    asked = uri.module or settings.module
    module = (
        "" if asked is None else str(asked.resolve())
    )  # a library is loaded once, whatever links lead to it
    library = _library(module, uri)
    token = _token(library, uri)
    place = (module, token.slot.slot_id)
    with _logging_in:
        if place not in _logins:
            _logins[place] = Login(place, token, _session(token, uri, settings))
        return _logins[place]


def reason_of(error: BaseException) -> str:
    """What a token answered, in PKCS#11's own words: ``CKR_PIN_INCORRECT`` for PinIncorrect."""
    name = type(error).__name__
    return str(error) or "CKR" + re.sub(r"([A-Z])", r"_\1", name).upper()


def _library(module: str, uri: TokenUri) -> Any:
    import pkcs11
    from pkcs11.exceptions import PKCS11Error

    if not module:
        raise EnvironmentProblem(
            "FLV-2313",
            "nothing says which PKCS#11 library speaks to the token",
            where=str(uri),
            hint="set FLUVIAL_KEY_MODULE, such as /usr/lib/softhsm/libsofthsm2.so",
        )
    try:
        return pkcs11.lib(module)
    except (PKCS11Error, OSError) as error:
        raise EnvironmentProblem(
            "FLV-2313",
            f"the PKCS#11 library cannot be used: {reason_of(error)}",
            where=module,
            hint="FLUVIAL_KEY_MODULE, or the URI's module-path, has to name the library of the token's maker",
        ) from error


def _token(library: Any, uri: TokenUri) -> Any:
    from pkcs11 import TokenFlag
    from pkcs11.exceptions import PKCS11Error

    found, problems = [], []
    try:
        for slot in library.get_slots(token_present=True):
            try:
                token = slot.get_token()
            except PKCS11Error as error:  # another slot may have the one that is meant
                problems.append(f"slot {slot.slot_id} answers {reason_of(error)}")
                continue
            if token.flags & TokenFlag.TOKEN_INITIALIZED and _is_meant(token, uri):
                found.append(token)
    except PKCS11Error as error:
        problems.append(f"the library answers {reason_of(error)}")
    if len(found) != 1:
        what = f"{len(found)} tokens answer to it" if found else "there is no such token"
        raise EnvironmentProblem(
            "FLV-2314",
            f"which token holds the key: {uri.token_in_words}; {'; '.join([what, *problems])}",
            where=str(uri),
            hint="`pkcs11-tool --list-token-slots` with the same library shows those that are there",
        )
    return found[0]


def _is_meant(token: Any, uri: TokenUri) -> bool:
    serial = token.serial.decode(errors="replace").strip("\0 ")
    is_said = (
        (uri.token, token.label),
        (uri.serial, serial),
        (uri.manufacturer, token.manufacturer_id),
        (uri.model, token.model),
    )
    return all(not said or said == found for said, found in is_said) and uri.slot in {
        None,
        token.slot.slot_id,
    }


def _session(token: Any, uri: TokenUri, settings: KeySettings) -> Any:
    from pkcs11 import TokenFlag
    from pkcs11 import exceptions as answers

    if not settings.pin and token.flags & TokenFlag.LOGIN_REQUIRED:
        raise _refused(uri, "it wants a PIN, and there is none")
    wrong = {
        answers.PinIncorrect: "the PIN is wrong",
        answers.PinInvalid: "the PIN is wrong",
        answers.PinLenRange: "the PIN has a length that no PIN of it has",
        answers.PinLocked: "the PIN is locked, after too many wrong ones",
        answers.PinExpired: "the PIN has expired",
        answers.UserPinNotInitialized: "no user's PIN was ever set on it",
    }
    try:
        return token.open(user_pin=settings.pin or None)
    except answers.UserAlreadyLoggedIn:  # by somebody else in this process
        return token.open()
    except tuple(wrong) as error:
        raise _refused(uri, wrong[type(error)]) from error
    except answers.PKCS11Error as error:
        raise unreadable(uri, error) from error


def unreadable(uri: TokenUri, error: BaseException) -> EnvironmentProblem:
    """FLV-2314: the token is found, and then answers nothing that is of use."""
    return EnvironmentProblem(
        "FLV-2314",
        f"the token cannot be read: it answers {reason_of(error)}",
        where=str(uri),
        hint="`pkcs11-tool --list-token-slots` with the same library shows whether it is there",
    )


def _refused(uri: TokenUri, reason: str) -> UsageProblem:
    return UsageProblem(
        "FLV-2315",
        f"the token does not let us in: {reason}",
        where=str(uri),
        hint="set FLUVIAL_KEY_PIN_FILE to a file that holds the PIN (of a CA: FLUVIAL_KEY_CA_PIN_FILE), and mind "
        "that a few wrong ones lock a token",
    )
