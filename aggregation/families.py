"""Families: rules of one kind, a file a member, under one table that a policy's names are looked up in."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from aggregation.errors import UsageProblem

if TYPE_CHECKING:
    from collections.abc import Mapping

Member = TypeVar("Member")


def member_of(family: Mapping[str, Member], name: str, *, called: str) -> Member:
    """The member ``name`` of a family; ``called`` is what one of its members is called, such as "codec".

    Raises ``UsageProblem`` (FLV-2006), which lists the names that there are.
    """
    member = family.get(name)
    if member is None:
        raise UsageProblem(
            "FLV-2006",
            f"there is no {called} {name[:64]!r}, the known ones are {', '.join(family)}",
            hint=f"choose one of them; docs/policy.md says what each {called} does",
        )
    return member
