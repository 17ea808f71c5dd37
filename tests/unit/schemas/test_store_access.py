"""Who may do what with the store: the least, nothing of another task, and nobody deletes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest

from schemas import objects
from schemas.access import ROLES
from schemas.store_access import StoreOperation, policies_of, policy_name, store_access_of

if TYPE_CHECKING:
    from collections.abc import Iterator

GRANTS = store_access_of("digits", guided=True)
KEYS = {
    "object": objects.object_key("digits", "ab" * 32),
    "manifest": objects.manifest_key("digits", 7),
    "model": objects.model_key("digits", 7),
    "optimizer": objects.optimizer_key("digits", 7),
    "facts": objects.facts_key("digits", 7),
}


def who(operation: StoreOperation, key: str) -> set[str]:
    return {g.role for g in GRANTS if g.operation == operation and fnmatchcase(key, g.pattern)}


def test_who_writes_what() -> None:
    assert {name: who("Put", key) for name, key in KEYS.items()} == {
        "object": {"worker", "merger", "guardian"},
        "manifest": {"merger"},
        "model": {"merger"},
        "optimizer": {"merger"},
        "facts": {"merger"},
    }


def test_who_reads_what() -> None:
    everybody = set(ROLES)
    assert {name: who("Get", key) for name, key in KEYS.items()} == {
        "object": everybody,
        "manifest": everybody,
        "model": everybody - {"worker"},
        "optimizer": everybody - {"worker"},
        "facts": everybody - {"worker"},
    }
    assert all(who("List", key) == everybody for key in KEYS.values())


@pytest.mark.parametrize("other", ["digit", "digits-2", "digits.2", "x", "doctor"])
def test_nothing_of_another_task(other: str) -> None:
    for name in KEYS.values():
        key = name.replace("digits/", f"{other}/", 1)
        assert not who("Get", key) | who("Put", key) | who("List", key)


def test_a_task_without_guides_has_no_guardians() -> None:
    without = store_access_of("digits")
    assert set(GRANTS) - set(without) == {grant for grant in GRANTS if grant.role == "guardian"}


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for role, document in policies_of("bucket", GRANTS).items():
        assert document["Version"] == "2012-10-17"
        yield from ((role, one) for one in document["Statement"])


def test_the_documents_allow_what_the_table_says_and_nobody_deletes() -> None:
    told = set()
    for role, one in statements():
        assert one["Effect"] == "Allow"
        assert {action for action in one["Action"] if "Delete" in action or "*" in action} == set()
        operation = next(name for name in ("Get", "Put", "List") if f"s3:{name}" in one["Action"][0])
        if operation == "List":
            assert one["Resource"] == ["arn:aws:s3:::bucket"]
            patterns = one["Condition"]["StringLike"]["s3:prefix"]
        else:
            patterns = [resource.removeprefix("arn:aws:s3:::bucket/") for resource in one["Resource"]]
        told |= {(role, operation, pattern) for pattern in patterns}
    assert told == {(grant.role, grant.operation, grant.pattern) for grant in GRANTS}


def test_no_two_tasks_share_a_policy() -> None:
    names = [policy_name(task, role) for task in ("a", "a-reader", "a-worker", "b") for role in ROLES]
    assert len(set(names)) == len(names)
