"""The local stack's MinIO with TLS: who is let in, and who is told why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from backends.object_store import StoreRefused
from backends.store.factory import open_object_store
from fluvial.local import tools
from fluvial.local.downloads import minio_binary_path
from tests.integration.secured import SecuredStore, foreign_certificate
from tests.requirements import lack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backends.settings import StoreSettings

Bad = Callable[["StoreSettings", Path], "StoreSettings"]
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredStore]:
    if (problem := tools.go_problem()) and not minio_binary_path().is_file():
        lack(f"there is no MinIO here: {problem}")
    store = SecuredStore(tmp_path_factory.mktemp("secured-store"))
    yield store
    store.server.daemon.kill()


def elsewhere(settings: StoreSettings, host: str) -> StoreSettings:
    return replace(settings, endpoint=settings.endpoint.replace("127.0.0.1", host))


BAD: dict[str, tuple[str, Bad]] = {
    "no CA": ("FLV-4009", lambda s, _: replace(s, ca_file=None)),
    "a CA that did not issue the certificate": (
        "FLV-4009",
        lambda s, folder: replace(s, ca_file=foreign_certificate(folder)),
    ),
    "a name that is not in the certificate": ("FLV-4009", lambda s, _: elsewhere(s, "127.1")),
    "no TLS": ("FLV-4114", lambda s, _: replace(s, secure=False, ca_file=None)),
    "keys that nobody has": ("FLV-4003", lambda s, _: replace(s, access_key="nobody")),
    "a wrong secret": ("FLV-4003", lambda s, _: replace(s, secret_key="wrong-secret")),
}


CLIENTS = pytest.mark.parametrize("kind", ["minio", "s3"])  # the former creates by the latter's client


@CLIENTS
def test_the_homes_settings_lead_in_by_tls(secured: SecuredStore, kind: str) -> None:
    store = open_object_store(replace(secured.admin.store, kind=kind))
    assert store.describe().split()[1].startswith("https://")
    key = f"{kind}/one"
    assert (store.create(key, b"1"), store.create(key, b"2")) == (True, False)
    assert (store.get(key), store.exists(key), list(store.list(kind))) == (b"1", True, [key])
    store.put(key, b"3")
    by_name = open_object_store(elsewhere(secured.admin.store, "localhost"))
    assert by_name.get(key) == b"3"


@CLIENTS
@pytest.mark.parametrize("what", BAD)
def test_whoever_is_not_let_in_is_told_why(
    secured: SecuredStore, tmp_path: Path, what: str, kind: str
) -> None:
    error_id, settings_of = BAD[what]
    store = open_object_store(settings_of(replace(secured.admin.store, kind=kind), tmp_path))
    for attempt in (
        lambda: store.get("a"),
        lambda: store.put("a", b""),
        lambda: store.create("a", b""),
        lambda: list(store.list("a")),
    ):
        with pytest.raises(StoreRefused) as caught:
            attempt()
        assert caught.value.error_id == error_id
        assert caught.value.hint


def test_a_home_changes_over_and_back_and_its_objects_stay(secured: SecuredStore) -> None:
    before, by_tls = secured.admin, open_object_store(secured.admin.store)
    by_tls.put("over/kept", b"1")
    plain = secured.up(secured=False)
    assert plain.store.url == before.store.url.replace("https", "http")
    with pytest.raises(StoreRefused) as caught:
        by_tls.get("over/kept")
    assert caught.value.error_id == "FLV-4114"
    assert open_object_store(plain.store).get("over/kept") == b"1"
    assert secured.up(secured=True) == before
    assert by_tls.get("over/kept") == b"1"


def test_a_certificate_that_was_issued_anew_is_taken(secured: SecuredStore) -> None:
    pid = secured.pid
    secured.up(secured=True)
    assert secured.pid == pid, "nothing has changed"
    (secured.home / "tls" / "ca.key").unlink()
    settings = secured.up(secured=True)
    assert secured.pid != pid
    open_object_store(settings.store).put("renewed", b"1")
