"""The local stack's MinIO with TLS and a user for each role: who is let in, who may do what, who is told why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as replace_in
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from aggregation.errors import ConnectionProblem, FluvialError
from backends.object_store import ObjectStore, StoreRefused
from backends.store.factory import open_object_store
from backends.store.permissions import forbid, permit
from backends.store.removing import remove_objects
from fluvial.local import tools
from fluvial.local.downloads import minio_binary_path
from fluvial.local.files import prepare_home
from fluvial.local.stack_access import make_store_users, store_policies
from schemas import objects
from schemas.access import ROLES
from schemas.store_access import StoreOperation, policies_of, store_access_of
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


TASK = "task"
GRANTS = store_access_of(TASK, guided=True)
KEYS = [
    objects.object_key(TASK, "ab" * 32),
    objects.manifest_key(TASK, 3),
    objects.model_key(TASK, 3),
    objects.optimizer_key(TASK, 3),
    objects.facts_key(TASK, 3),
]


@pytest.fixture
def permitted(secured: SecuredStore) -> SecuredStore:
    """With a task whose roles have what they need, and objects of it and of another one."""
    make_store_users(secured.admin)
    permit(secured.admin.store, store_policies(secured.admin, TASK, guided=True))
    store = open_object_store(secured.admin.store)
    for key in KEYS:
        store.put(key, b"1")
        store.put(f"another-{key}", b"1")
    return secured


def attempt(store: ObjectStore, operation: StoreOperation, key: str) -> str:
    """Try it: the id of what is said, "" where it is done."""
    try:
        match operation:
            case "Get":
                store.get(key)
                store.exists(key)
            case "Put":
                store.put(key, b"1")
                assert not store.create(key, b"2")
            case "List":
                assert key in store.list(key)
    except FluvialError as error:
        return error.error_id
    return ""


def test_each_permission_is_needed_and_enough(permitted: SecuredStore) -> None:
    """Each is taken away in turn, and is missed; then it is given back."""
    admin = permitted.admin
    stores: dict[str, ObjectStore] = {}
    for grant in GRANTS:
        settings = permitted.as_role(grant.role)
        store = stores.setdefault(grant.role, open_object_store(settings.store))
        key = next(key for key in KEYS if fnmatchcase(key, grant.pattern))
        assert attempt(store, grant.operation, key) == "", grant
        whole = next(
            one for one in store_policies(admin, TASK, guided=True) if one.user == settings.store.access_key
        )
        rest = policies_of(admin.store.bucket, tuple(one for one in GRANTS if one != grant))[grant.role]
        permit(admin.store, [replace_in(whole, document=rest)])
        assert attempt(store, grant.operation, key) == "FLV-4003", grant
        permit(admin.store, [whole])


def test_no_role_does_what_is_not_its_own(permitted: SecuredStore) -> None:
    operations: tuple[StoreOperation, ...] = ("Get", "Put", "List")
    for role in ROLES:
        settings = permitted.as_role(role)
        store = open_object_store(settings.store)
        for key in KEYS:
            for operation in operations:
                may = any(
                    fnmatchcase(key, grant.pattern)
                    for grant in GRANTS
                    if (grant.role, grant.operation) == (role, operation)
                )
                assert attempt(store, operation, key) == ("" if may else "FLV-4003"), (
                    role,
                    operation,
                    key,
                )
                assert attempt(store, operation, f"another-{key}") == "FLV-4003", (role, operation, key)
        with pytest.raises(ConnectionProblem):
            remove_objects(settings.store, f"{TASK}/versions/")
    assert set(KEYS) <= set(open_object_store(permitted.admin.store).list(f"{TASK}/")), "nobody deleted"


def test_a_role_has_its_own_keys_and_a_removed_task_leaves_none_a_permission(permitted: SecuredStore) -> None:
    admin, policies = permitted.admin, store_policies(permitted.admin, TASK, guided=True)
    assert len({permitted.as_role(role).store.secret_key for role in ROLES} | {admin.store.secret_key}) == 8
    assert {path.stat().st_mode & 0o777 for path in (permitted.home / "store-keys").iterdir()} == {0o600}
    assert (forbid(admin.store, policies), forbid(admin.store, policies)) == (len(ROLES), 0)
    for role in ROLES:
        assert attempt(permitted.store(role), "Get", KEYS[0]) == "FLV-4003", role


def test_no_other_user_of_the_machine_gets_at_a_key(permitted: SecuredStore) -> None:
    """Also where the home was there before, and others may look into it: MinIO writes its users' keys as they are."""
    keys = {permitted.admin.store.secret_key, *(permitted.as_role(role).store.secret_key for role in ROLES)}
    secrets = [b"PRIVATE KEY", *(key.encode() for key in keys)]
    files = [path for path in permitted.home.rglob("*") if path.is_file()]
    holders = [path for path in files if any(one in path.read_bytes() for one in secrets)]
    assert any(path.is_relative_to(permitted.server.data) for path in holders)
    assert not [path for path in holders if path.stat().st_mode & 0o077]
    assert not permitted.server.data.stat().st_mode & 0o077


def test_data_that_was_left_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "data" / "minio").mkdir(parents=True)
    (tmp_path / "data").chmod(0o755)
    prepare_home(tmp_path)
    assert not (tmp_path / "data").stat().st_mode & 0o077


def lost(path: Path) -> None:
    path.unlink()


def never_told(path: Path) -> None:
    """As an ``up`` leaves it that ends between writing a key and telling the store of it."""
    path.write_text(path.read_text().replace('secret_key": "', 'secret_key": "another'))


@pytest.mark.parametrize("gone", [lost, never_told])
@pytest.mark.parametrize("before_up", [False, True])
def test_the_keys_that_a_home_has_are_those_that_hold(
    permitted: SecuredStore, gone: Callable[[Path], None], *, before_up: bool
) -> None:
    before = permitted.store("merger")
    gone(permitted.home / "store-keys" / "merger.json")
    if before_up:  # a task is made meanwhile
        permit(permitted.admin.store, store_policies(permitted.admin, TASK, guided=True))
    make_store_users(permitted.admin)
    assert attempt(before, "Get", KEYS[0]) == "FLV-4003"
    after = permitted.store("merger")
    assert attempt(after, "Put", KEYS[0]) == "", "it has what it was permitted"
    make_store_users(permitted.admin)
    assert attempt(after, "Put", KEYS[0]) == ""
