"""The offline checker goes by what the trusted genesis says, and by no format that it does not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import rfc8785

from schemas.objects import manifest_key, sha256_hex
from tests.unit.fluvial.proof.checked_copy import Copy, broken

if TYPE_CHECKING:
    from collections.abc import Callable


def test_another_genesis_is_not_this_task(data: Copy) -> None:
    data.genesis_sha256 = "0" * 64
    report = data.check()
    assert broken(report) == {2} and not report.identical


def with_genesis(data: Copy, change: Callable[[dict[str, Any]], None]) -> None:
    """The federation as if it had begun with another genesis document, whose hash is trusted."""
    document = json.loads(data.objects[manifest_key(data.task, 0)])
    change(document)
    data.objects[manifest_key(data.task, 0)] = rfc8785.dumps(document)
    data.genesis_sha256 = sha256_hex(data.objects[manifest_key(data.task, 0)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.update(format="fluvial/genesis/v9"), "genesis document"),
        (lambda document: document.pop("format"), "genesis document"),
        (lambda document: document["policy"].update(format="fluvial/policy/v9"), "first policy"),
        (lambda document: document["policy"].update(format=["fluvial/policy/v2"]), "first policy"),
    ],
    ids=["an unknown genesis", "a genesis without a format", "an unknown first policy", "a list as a format"],
)
def test_nothing_is_checked_by_rules_that_a_later_format_may_have_changed(
    change: Callable[[dict[str, Any]], None], said: str, data: Copy
) -> None:
    with_genesis(data, change)
    report = data.check()
    assert broken(report) == {2} and not report.identical
    assert f"{said} is of the format" in report.violations[0].message


def test_a_manifest_of_an_unknown_format_ends_the_chain(data: Copy) -> None:
    manifest = json.loads(data.objects[manifest_key(data.task, 2)])
    data.objects[manifest_key(data.task, 2)] = rfc8785.dumps(manifest | {"format": "fluvial/manifest/v9"})
    report = data.check()
    assert report.versions == 1
    assert any("format 'fluvial/manifest/v9'" in violation.message for violation in report.violations)
