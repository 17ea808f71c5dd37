"""MinIO's users and policies: giving each role of a task what ``schemas.store_access`` says, and taking it away again.

By MinIO's own way of administering, which minio-py speaks; any other store has its own. Everything may be repeated.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import urllib3
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException
from minio.minioadmin import MinioAdmin

from backends.settings import StoreSettings
from backends.store.http import open_pool
from backends.store.limits import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from backends.store.s3_errors import from_answer, shortly, unavailable

_NO_USER: Final = "XMinioAdminNoSuchUser"
_NO_GROUP: Final = "XMinioAdminNoSuchGroup"
_NO_POLICY: Final = "XMinioAdminNoSuchPolicy"


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """A policy by its name, the user who gets it (an access key), and S3's document.

    It is held by a group of its name, of which the user is a member: one more never rewrites what others gave.
    """

    name: str
    user: str
    document: Mapping[str, Any]


def set_users(settings: StoreSettings, keys: Mapping[str, str]) -> None:
    """Let there be these users (access key: secret key); who is there already has this key from now on."""
    with _administering(settings) as admin:
        for user, secret in keys.items():
            admin.user_add(user, secret)


def permit(settings: StoreSettings, policies: Iterable[HeldPolicy]) -> int:
    """Let every policy hold as it is given; how many that are. What stands so already is not written again."""
    policies = list(policies)
    if not policies:
        return 0
    with _administering(settings) as admin:
        written = json.loads(admin.policy_list())
        groups = {user: _groups(admin, user) for user in {one.user for one in policies}}
        for one in policies:
            if _plain(written.get(one.name)) != _plain(one.document):
                admin.policy_add(one.name, policy=dict(one.document))
            if (
                one.name not in groups[one.user]
            ):  # which comes last, so that a member has what the group is for
                _set_members(admin, one.name, [])
                admin.policy_set(one.name, group=one.name)
                _set_members(admin, one.name, [one.user])
    return len(policies)


def forbid(settings: StoreSettings, policies: Iterable[HeldPolicy]) -> int:
    """Take policies from who has them, and delete them; how many there were."""
    policies = list(policies)
    if not policies:
        return 0
    with _administering(settings) as admin:
        written = json.loads(admin.policy_list())
        there = [one for one in policies if one.name in written]
        for one in there:
            with _tolerating(_NO_GROUP):
                members = json.loads(admin.group_info(one.name)).get("members") or []
                if members:
                    _set_members(admin, one.name, members, remove=True)
                _set_members(admin, one.name, [], remove=True)
            with _tolerating(_NO_POLICY):
                admin.policy_remove(one.name)
    return len(there)


def _user(admin: MinioAdmin, user: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(admin.user_info(user)))
    except MinioAdminException as error:
        if _said(error)[0] != _NO_USER:
            raise
        return None


def _groups(admin: MinioAdmin, user: str) -> list[str]:
    return (_user(admin, user) or {}).get("memberOf") or []


def _set_members(admin: MinioAdmin, group: str, members: list[str], *, remove: bool = False) -> None:
    """Add or remove members; without any, the group itself."""
    change = admin.group_remove if remove else admin.group_add
    change(group, members)  # type: ignore[arg-type] # a text is what it is typed as; the server takes a list alone


def _plain(document: Any) -> str:
    """A policy as text, in which no order counts that means nothing: the server keeps sets."""

    def sort(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: sort(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return sorted((sort(inner) for inner in value), key=lambda one: json.dumps(one, sort_keys=True))
        return value

    return json.dumps(sort(document), sort_keys=True)


@contextlib.contextmanager
def _administering(settings: StoreSettings) -> Iterator[MinioAdmin]:
    """MinIO's administrator, with everything that it raises as our errors."""
    where = f"MinIO {settings.url}"
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
    admin = MinioAdmin(
        endpoint=settings.endpoint,
        credentials=StaticProvider(settings.access_key, settings.secret_key),
        region=settings.region,
        secure=settings.secure,
        http_client=open_pool(settings, timeout=timeout, retries=False),
    )
    try:
        yield admin
    except MinioAdminException as error:
        code, message = _said(error)
        raise from_answer(code, int(error._code), message, "users and policies", where) from error  # noqa: SLF001
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise unavailable(shortly(error), where) from error


@contextlib.contextmanager
def _tolerating(code: str) -> Iterator[None]:
    """Somebody else may have done the same just now."""
    try:
        yield
    except MinioAdminException as error:
        if _said(error)[0] != code:
            raise


def _said(error: MinioAdminException) -> tuple[str, str]:
    try:
        said = json.loads(error._body)  # noqa: SLF001 (the class has no other way to its answer)
        return str(said["Code"]), str(said["Message"])
    except (ValueError, KeyError, TypeError):
        return "", str(error._body)  # noqa: SLF001
