"""``fluvial task discard`` refuses what mergers adopt, and takes what they refuse."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from fluvial.proof.audit import audit_task
from fluvial.proof.discarding import flaws_of
from fluvial.reading.task_view import TaskView
from schemas.certificates import Role
from schemas.manifest_seals import sealed
from schemas.manifests import Manifest
from schemas.objects import manifest_key, sha256_hex
from schemas.topics import models_topic
from tests import factories
from tests.small_federation import SmallFederation
from tests.unit.stream_apps.test_revocation import serial

if TYPE_CHECKING:
    from backends.kafka.reading import LogReader
    from fluvial.terminal.output import Output

EVIL = factories.sha("evil")
NOW = dt.datetime.fromtimestamp(factories.NOW_MS / 1000, dt.UTC).replace(microsecond=0)
ENDED = factories.signer(factories.CONTROL, Role.MERGER, "m-9", not_after=NOW - dt.timedelta(days=1))


@pytest.fixture
def federation() -> SmallFederation:
    """A task whose version 1 its merger made and announced; three windows wait."""
    federation = SmallFederation(partitions={"eu": 1})
    federation.rounds(1)
    return federation


def planted(federation: SmallFederation, **changed: Any) -> Manifest:
    """Version 1 once more as version 2, with these keys."""
    one = federation.objects.manifest(1)
    parent_sha256 = sha256_hex(federation.objects.manifest_bytes(1))
    return msgspec.structs.replace(one, **({"version": 2, "parent_sha256": parent_sha256} | changed))


CHANGED: dict[str, tuple[dict[str, Any], str]] = {
    "another reason": ({"reason": "rollback"}, "its reason is 'rollback'"),
    "another policy, for a reason": ({"reason": "policy", "policy_sha256": EVIL}, "its reason is 'policy'"),
    "another floor": ({"floor": 1}, "its policy or floor is not its parent's"),
    "no updates": ({"inputs": ()}, "it holds 0 updates"),
}


def why_discarded(federation: SmallFederation, manifest: Manifest, by: Any) -> tuple[str, ...]:
    signed = sealed(manifest, federation.signer(by))
    assert federation.objects.commit(2, signed.canonical())
    with federation.open_reader("discard") as reader:
        view = TaskView(
            federation.settings,
            federation.task_file,
            federation.objects,
            federation.genesis,
            cast("LogReader", reader),
        )
        return flaws_of(view, 2, cast("Output", None), federation.clock)


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED)
def test_what_a_merger_refuses_by_itself_can_be_discarded(
    federation: SmallFederation, changed: tuple[dict[str, Any], str]
) -> None:
    (why,) = why_discarded(federation, planted(federation, **changed[0]), factories.merger_signer())
    assert why.startswith("manifest of version 2: " + changed[1])


def test_more_updates_than_a_version_holds_can_be_discarded(federation: SmallFederation) -> None:
    (one, *_) = federation.objects.manifest(1).inputs
    many = msgspec.structs.replace(one, accepted=federation.policy.updates_per_version_max)
    (why,) = why_discarded(federation, planted(federation, inputs=(many, many)), factories.merger_signer())
    assert "a version holds 1 to" in why


def test_a_version_whose_mergers_certificate_has_ended_can_be_discarded(federation: SmallFederation) -> None:
    (why,) = why_discarded(federation, planted(federation), ENDED)
    assert why.endswith("is not valid now")


def test_a_version_whose_mergers_certificate_was_revoked_can_be_discarded(
    federation: SmallFederation,
) -> None:
    stolen = factories.merger_signer("stolen")
    value = factories.revoke_bytes("", serial(stolen), by=federation.signer(factories.operator_signer()))
    federation.writer.append_now(models_topic(federation.task), value, partition=0)
    (why,) = why_discarded(federation, planted(federation), stolen)
    assert why.endswith("who signed it, was revoked")


@pytest.mark.parametrize(("name", "value"), [("reason", "rollback"), ("policy_sha256", EVIL), ("floor", 1)])
def test_an_audit_finds_what_no_operators_record_says(
    federation: SmallFederation, name: str, value: Any
) -> None:
    changed: dict[str, Any] = {"reason": "rollback", name: value}
    one = msgspec.structs.replace(federation.objects.manifest(1), **changed)
    signed = sealed(one, federation.signer(factories.merger_signer()))
    federation.objects.store.put(manifest_key(federation.task, 1), signed.canonical())
    report = audit_task(federation.settings, federation.task_file, last=1, sources=federation.sources)
    assert {"reason", name} <= {one.field for one in report.findings if one.error_id == "FLV-5003"}
